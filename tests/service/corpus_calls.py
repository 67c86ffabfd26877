"""Corpus jobs by the generated stubs: what is sent, and what came of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from google.rpc import error_details_pb2, status_pb2

from hocket.v1 import generation_pb2, text_pb2, text_pb2_grpc
from service.raw_calls import End, end_of

Request = text_pb2.ProcessRequest


def start(**fields) -> Request:
    return Request(start=text_pb2.ProcessStart(**fields))


def item(text: str, name: str = "") -> Request:
    return Request(item=text_pb2.ProcessItem(id=name or text[:9], text=text))


def writing(max_tokens: int = 0, **fields) -> generation_pb2.GenerateRequest:
    request = generation_pb2.GenerateRequest(**fields)
    if max_tokens:
        request.stopping.ignore_eos, request.stopping.max_tokens = True, max_tokens
    return request


SPLIT = text_pb2.SplitSentencesRequest()
TOKENIZE = text_pb2.TokenizeRequest()


@asynccontextmanager
async def job(app, *requests: Request, ends: bool = True, options=(), **kwargs) -> AsyncIterator:
    """Begin a call and send these."""
    async with grpc.aio.insecure_channel(app.address, options=options) as channel:
        call = text_pb2_grpc.TextServiceStub(channel).Process(**kwargs)
        for request in requests:
            await call.write(request)
        if ends:
            await call.done_writing()
        yield call
        call.cancel()


async def done(app, *requests: Request) -> End:
    async with job(app, *requests) as call:
        return await end_of(call)


async def refusal(app, *requests: Request) -> status_pb2.Status:
    """Return what a call is refused with."""
    async with job(app, *requests) as call:
        try:
            await call.read()
        except grpc.aio.AioRpcError as error:
            (status,) = [
                status_pb2.Status.FromString(value)
                for key, value in error.trailing_metadata()
                if key == "grpc-status-details-bin"
            ]
            return status
    raise AssertionError("the call was let in")


def results(end: End) -> list[text_pb2.ProcessResult]:
    return [event.result for event in end.events if event.WhichOneof("event") == "result"]


def violations(end: status_pb2.Status) -> set[str]:
    bad = error_details_pb2.BadRequest()
    return {
        violation.field
        for detail in end.details
        if detail.Unpack(bad)
        for violation in bad.field_violations
    }
