"""Calls by the generated stubs, for what our own client would not send or would hide."""

from dataclasses import dataclass, field

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from hocket.v1 import generation_pb2, generation_pb2_grpc

# Little fits on the way to a caller that does not read, which stops its handler at a write.
NARROW = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]

Many = grpc.aio.StreamStreamCall


def stub_of(channel: grpc.aio.Channel) -> generation_pb2_grpc.GenerationServiceStub:
    return generation_pb2_grpc.GenerationServiceStub(channel)


def asked(name: str = "", prompt: str = "hi", *, max_tokens: int = 0, **fields):
    """Return a request; one without a natural end if `max_tokens` is given."""
    request = generation_pb2.GenerateRequest(request_id=name, prompt=prompt, **fields)
    if max_tokens:
        request.stopping.ignore_eos, request.stopping.max_tokens = True, max_tokens
    return request


def generate(name: str = "", prompt: str = "hi", **kwargs) -> generation_pb2.GenerateManyRequest:
    return generation_pb2.GenerateManyRequest(generate=asked(name, prompt, **kwargs))


def cancel(name: str) -> generation_pb2.GenerateManyRequest:
    action = generation_pb2.CancelGeneration(request_id=name)
    return generation_pb2.GenerateManyRequest(cancel=action)


def reason_of(details: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for detail in details.details if detail.Unpack(info)), "")


@dataclass
class End:
    """What a caller saw of a call: its events, and how it ended."""

    events: list = field(default_factory=list)
    code: str = "OK"
    reason: str = ""

    def kinds(self, name: str = "") -> list[str]:
        """Kinds of the events, of one request if it is named."""
        return [
            event.WhichOneof("event")
            for event in self.events
            if not name or event.request_id == name
        ]

    def codes(self) -> dict[str, list[str]]:
        """Codes that the requests of a stream ended with; those that did not, with the stream's."""
        codes: dict[str, list[str]] = {event.request_id: [] for event in self.events}
        for event in self.events:
            match event.WhichOneof("event"):
                case "finished":
                    codes[event.request_id].append("OK")
                case "failed" | "refused" as kind:
                    status = getattr(event, kind)
                    codes[event.request_id].append(code_pb2.Code.Name(status.code))
        return {name: found or [self.code] for name, found in codes.items()}


async def end_of(call: grpc.aio.Call) -> End:
    """Read a call to its end."""
    end = End()
    try:
        while (event := await call.read()) is not grpc.aio.EOF:
            end.events.append(event)
    except grpc.aio.AioRpcError as error:
        end.code = error.code().name
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                end.reason = reason_of(status_pb2.Status.FromString(value))
    return end


async def send(call: Many, *actions: generation_pb2.GenerateManyRequest, ends: bool = True) -> None:
    for action in actions:
        await call.write(action)
    if ends:
        await call.done_writing()
