"""`GenerationService`: one generation a call, or many. Loop thread."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from hocket.server.rpc.access import AccessLog
from hocket.server.rpc.generator import Generator
from hocket.server.rpc.many import ManyGenerations
from hocket.server.rpc.record import current_record
from hocket.server.rpc.render import Event
from hocket.server.rpc.status import Context
from hocket.v1 import generation_pb2, generation_pb2_grpc


class GenerationService(generation_pb2_grpc.GenerationServiceServicer):
    """Writes text with a served model."""

    def __init__(self, generator: Generator, log: AccessLog, *, max_per_stream: int) -> None:
        """Make the service.

        Args:
            generator: Turns requests into events.
            log: Told of each generation of a `GenerateMany` call.
            max_per_stream: Most generations of one `GenerateMany` call that are looked after at
                once.
        """
        self._generator = generator
        self._log = log
        self._max_per_stream = max_per_stream

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        """Continue one input."""
        record = current_record()
        events = self._generator.events(
            request, record, connection=context.peer(), remaining=context.time_remaining()
        )
        async with aclosing(events) as closing:
            async for event in closing:
                yield _response(event)
        context.set_trailing_metadata((("x-request-id", record.request_id),))

    async def GenerateMany(
        self,
        request_iterator: AsyncIterator[generation_pb2.GenerateManyRequest],
        context: Context,
    ) -> AsyncIterator[generation_pb2.GenerateManyResponse]:
        """Continue many inputs over one stream."""
        current_record().is_shared = True
        many = ManyGenerations(
            self._generator,
            self._log,
            connection=context.peer(),
            remaining=context.time_remaining,
            max_in_progress=self._max_per_stream,
        )
        async with aclosing(many.responses(request_iterator)) as closing:
            async for response in closing:
                yield response


def _response(event: Event) -> generation_pb2.GenerateResponse:
    match event:
        case generation_pb2.Started():
            return generation_pb2.GenerateResponse(started=event)
        case generation_pb2.Delta():
            return generation_pb2.GenerateResponse(delta=event)
        case generation_pb2.Sentence():
            return generation_pb2.GenerateResponse(sentence=event)
        case _:
            return generation_pb2.GenerateResponse(finished=event)
