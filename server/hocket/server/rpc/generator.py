"""One generation from request to events, for both kinds of call. Loop thread.

    check fields ▸ take places ▸ tokenise ▸ submit ▸ render what comes ▸ leave

Whatever ends it, the places come back and the engine is told, without waiting for anything.
"""

import time
from collections.abc import AsyncGenerator, Callable

from hocket.server.admission import Admission
from hocket.server.catalogue import Catalogue
from hocket.server.engine.protocol import Generation
from hocket.server.executors import Executors
from hocket.server.lifecycle import Lifecycle
from hocket.server.rpc.parse import check, places_of
from hocket.server.rpc.record import AccessRecord
from hocket.server.rpc.render import Event, EventRenderer
from hocket.v1 import generation_pb2

OnSubmit = Callable[[Generation], None]


class Generator:
    """Turns requests into events."""

    def __init__(
        self,
        *,
        lifecycle: Lifecycle,
        catalogue: Catalogue,
        admission: Admission,
        executors: Executors,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it.

        Args:
            lifecycle: Says whether work may come in.
            catalogue: The models.
            admission: The door.
            executors: Where prompts are tokenised.
            clock: The clock that the engine reads deadlines by.
        """
        self._lifecycle = lifecycle
        self._catalogue = catalogue
        self._admission = admission
        self._executors = executors
        self._clock = clock

    async def events(
        self,
        request: generation_pb2.GenerateRequest,
        record: AccessRecord,
        *,
        connection: str,
        remaining: float | None,
        on_submit: OnSubmit = lambda _: None,
    ) -> AsyncGenerator[Event]:
        """Yield the events of one request.

        Args:
            request: As it came.
            record: Is told what becomes of it.
            connection: Names the caller's connection.
            remaining: Seconds until the call's deadline; None without one.
            on_submit: Given the generation once the engine has it.

        Raises:
            HocketError: It is refused, or fails.
        """
        arrived = self._clock()
        self._lifecycle.check_accepting()
        model = self._catalogue.find(request.model)
        record.model = model.description.name
        places = places_of(request)
        checked = check(request, model, arrived=arrived, remaining=remaining)
        record.request_id = checked.request_id
        with self._admission.enter_nowait(connection, places):
            submit = await self._executors.run_text(checked.encode)
            record.prompt_tokens = len(submit.prompt_token_ids)
            generation = model.engine.submit_nowait(submit)
            on_submit(generation)
            renderer = EventRenderer(
                tokenizer=model.tokenizer,
                model=model.description.name,
                seed=submit.sampling.seed,
            )
            try:
                async for output in generation:
                    record.note_output(output)
                    for event in renderer.events(output):
                        record.sentences = renderer.sentences
                        yield event
            finally:
                generation.close_nowait()
