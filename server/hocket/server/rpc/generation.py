"""`GenerationService`: one generation a call, or many. Loop thread."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from hocket.server.lifecycle import Lifecycle
from hocket.server.rpc.access import AccessLog
from hocket.server.rpc.generator import Generator, field_of
from hocket.server.rpc.many import ManyGenerations
from hocket.server.rpc.record import current_record
from hocket.server.rpc.status import Context
from hocket.v1 import generation_pb2, generation_pb2_grpc


class GenerationService(generation_pb2_grpc.GenerationServiceServicer):
    """Writes text with a served model."""

    def __init__(
        self, generator: Generator, log: AccessLog, lifecycle: Lifecycle, *, max_per_stream: int
    ) -> None:
        """Make the service.

        Args:
            generator: Turns requests into events.
            log: Told of each generation of a `GenerateMany` call.
            lifecycle: Says when such calls must come to their end.
            max_per_stream: Most generations of one such call that are worked on at once.
        """
        self._generator = generator
        self._log = log
        self._lifecycle = lifecycle
        self._max_per_stream = max_per_stream

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        """Continue one input."""
        record = current_record()
        async with aclosing(self._generator.events(request, record)) as events:
            async for event in events:
                yield generation_pb2.GenerateResponse(**field_of(event))
        context.set_trailing_metadata((("x-request-id", record.request_id),))

    async def GenerateMany(
        self,
        request_iterator: AsyncIterator[generation_pb2.GenerateManyRequest],
        _context: Context,
    ) -> AsyncIterator[generation_pb2.GenerateManyResponse]:
        """Continue many inputs over one stream."""
        many = ManyGenerations(
            self._generator,
            self._log,
            self._lifecycle,
            call=current_record(),
            max_in_progress=self._max_per_stream,
        )
        async with aclosing(many.responses(request_iterator)) as responses:
            async for response in responses:
                yield response
