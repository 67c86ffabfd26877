"""One generation from request to events, for both kinds of call. Loop thread.

    check fields ▸ reserve the id ▸ take places ▸ tokenise ▸ submit ▸ render what comes ▸ leave

Whatever ends it, the places come back and the engine is told, without waiting for anything.
"""

import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any

from hocket.server.admission import Admission, Permit
from hocket.server.catalogue import Catalogue
from hocket.server.engine.protocol import Generation
from hocket.server.executors import Executors
from hocket.server.lifecycle import Lifecycle
from hocket.server.rpc.limits import REQUEST_ID
from hocket.server.rpc.parse import Checked, check
from hocket.server.rpc.record import AccessRecord
from hocket.server.rpc.render import Event, EventRenderer
from hocket.server.rpc.resume_tokens import ResumeTokens
from hocket.server.text.pieces import Granularity
from hocket.v1 import generation_pb2

OnReserve = Callable[[Generation], None]

_FIELDS = {
    generation_pb2.Started: "started",
    generation_pb2.Delta: "delta",
    generation_pb2.Sentence: "sentence",
    generation_pb2.Finished: "finished",
}


def field_of(event: Event) -> dict[str, Any]:
    """Return an event as the field of the `event` that both kinds of response hold it in."""
    return {_FIELDS[type(event)]: event}


class Generator:
    """Turns requests into events."""

    def __init__(
        self,
        *,
        lifecycle: Lifecycle,
        catalogue: Catalogue,
        admission: Admission,
        executors: Executors,
        max_message_bytes: int,
        resume_tokens: ResumeTokens,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it.

        Args:
            lifecycle: Says whether work may come in.
            catalogue: The models.
            admission: The door.
            executors: Where prompts are tokenised.
            max_message_bytes: The longest message that can be sent.
            resume_tokens: Signs what lost streams are gone on with.
            clock: The clock that the engine reads deadlines by.
        """
        self._lifecycle = lifecycle
        self._catalogue = catalogue
        self._admission = admission
        self._executors = executors
        self._max_message_bytes = max_message_bytes
        self._resume_tokens = resume_tokens
        self._clock = clock

    async def events(
        self,
        request: generation_pb2.GenerateRequest,
        record: AccessRecord,
        *,
        group: str = "",
        on_reserve: OnReserve = lambda _: None,
        permit: Permit | None = None,
    ) -> AsyncGenerator[Event]:
        """Yield the events of one request.

        Args:
            request: As it came.
            record: Knows its connection and deadline, and is told what becomes of it.
            group: What the request shares its part of the batch with; empty for nothing.
            on_reserve: Given the generation once its id is taken, before its prompt is tokenised.
            permit: Its places, if they were taken before; given back at the end in any case.

        Raises:
            HocketError: It is refused, or fails.
        """
        arrived = self._clock()
        if REQUEST_ID.fullmatch(request.request_id):
            record.request_id = request.request_id  # the name that a refusal is told under, too
        self._lifecycle.check_accepting()
        model = self._catalogue.find(request.model)
        record.model = model.description.name
        checked = check(
            request,
            model,
            owner=record.caller,
            arrived=arrived,
            remaining=record.remaining_seconds(),
            max_message_bytes=self._max_message_bytes,
        )
        record.request_id = checked.request_id
        if checked.lost is not None and checked.bond is not None:
            seed = self._resume_tokens.open(checked.lost.token, checked.bond)
            checked = checked.with_seed(seed)
        record.is_by_token = checked.granularity is Granularity.TOKEN
        generation = model.engine.reserve_nowait(checked.request_id)
        try:
            on_reserve(generation)
            with permit or self._admission.enter_nowait(record.peer, checked.choices):
                submit = await generation.prepare(lambda: self._executors.run_text(checked.encode))
                record.prompt_tokens = len(submit.prompt_token_ids)
                generation.submit_nowait(replace(submit, group=group))
                renderer = EventRenderer(
                    tokenizer=model.tokenizer,
                    model=model.description.name,
                    seed=submit.sampling.seed,
                    request_id=submit.request_id,
                    resume_token=self._resume_token(checked),
                    sentences=checked.lost.sentences if checked.lost else 0,
                )
                async for output in generation:
                    record.note_output(output)
                    for event in await renderer.events(output):
                        yield event
        finally:
            generation.close_nowait()

    def _resume_token(self, checked: Checked) -> bytes:
        if checked.bond is None:
            return b""
        return self._resume_tokens.issue(checked.bond, seed=checked.sampling.seed)
