"""Reflection for generic clients, under the name of today and the one before. Loop thread.

gRPC ships `v1alpha` alone; `v1` is the same messages under another name, so one servicer answers
both. A reflection stream may stay open for as long as its client likes, and would hold up the
server's departure: it ends when the server leaves.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection, reflection_pb2

from hocket.server.rpc.status import Context

_OLD = reflection.SERVICE_NAME
_NEW = "grpc.reflection.v1.ServerReflection"


class Reflection:
    """Tells which services there are, and their messages."""

    def __init__(self, services: Sequence[str], leaving: asyncio.Event) -> None:
        """Make it.

        Args:
            services: Full names of the services that are told of. `v1` is not among them: its
                descriptor is in no pool, and clients that ask for each name in turn would fail.
            leaving: Set when the server leaves.
        """
        self._servicer: Any = reflection.aio.ReflectionServicer((*services, _OLD))
        self._leaving = leaving

    def handlers(self) -> Sequence[grpc.GenericRpcHandler]:
        """Return the handlers of both names."""
        method = grpc.stream_stream_rpc_method_handler(
            self._answer,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        return [
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method})
            for name in (_NEW, _OLD)
        ]

    async def _answer(
        self, questions: AsyncIterator[Any], context: Context
    ) -> AsyncIterator[Message]:
        """Answer questions until the caller has no more, or the server leaves."""
        async with aclosing(self._until_leaving(questions)) as asked:
            async for answer in self._servicer.ServerReflectionInfo(asked, context):
                yield answer

    async def _until_leaving(self, questions: AsyncIterator[Any]) -> AsyncGenerator[Any]:
        leaving = asyncio.ensure_future(self._leaving.wait())
        try:
            while True:
                coming = asyncio.ensure_future(anext(questions, None))
                try:
                    await asyncio.wait({coming, leaving}, return_when=asyncio.FIRST_COMPLETED)
                    question = coming.result() if coming.done() else None
                    if question is None or leaving.done():
                        return
                finally:
                    coming.cancel()
                yield question
        finally:
            leaving.cancel()
