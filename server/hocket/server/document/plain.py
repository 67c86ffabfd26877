"""A writer that hands an instruction and a segment to the engine, and no more. Loop thread."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from hocket.server.catalogue import ServedModel
from hocket.server.document.job import Job, JobUsage, Place, Written, WrittenPiece
from hocket.server.engine.commands import RequestOutput, Submit

if TYPE_CHECKING:
    from hocket.server.engine.protocol import Generation


class Encode(Protocol):
    """Runs a function on a text thread."""

    def __call__(self, work: Callable[[], Submit]) -> Awaitable[Submit]:
        """Return what it returns."""
        ...


class PlainWriter:
    """Writes the segments of one document."""

    def __init__(
        self, model: ServedModel, instruction: str, submit: Submit, *, run_text: Encode
    ) -> None:
        """Make it.

        Args:
            model: Who writes.
            instruction: What stands before each segment.
            submit: Of the document; its prompt, name and seed are replaced.
            run_text: Where prompts are tokenised.
        """
        self._model = model
        self._instruction = instruction
        self._submit = submit
        self._run_text = run_text
        self._live: dict[Place, Generation] = {}

    async def write(self, job: Job) -> AsyncGenerator[WrittenPiece | Written]:
        """Yield what the engine writes; see `Writer.write`."""
        name = f"{self._submit.request_id}.{job.place.segment}.{job.place.variant}"
        generation = self._model.engine.reserve_nowait(name)
        self._live[job.place] = generation
        try:
            submit = await generation.prepare(
                lambda: self._run_text(lambda: self._encode(name, job))
            )
            generation.submit_nowait(submit)
            async for output in generation:
                for item in _items(output):
                    yield item
        finally:
            del self._live[job.place]
            generation.close_nowait()

    def cancel_nowait(self, job: Job) -> None:
        """Ask that a job end; see `Writer.cancel_nowait`."""
        if (generation := self._live.get(job.place)) is not None:
            generation.abort_nowait()

    def _encode(self, name: str, job: Job) -> Submit:
        prompt = "".join((self._instruction, *job.context, job.segment.text))
        encoding = self._model.tokenizer.encode(prompt, add_special=True, parse_special=False)
        return replace(self._submit, request_id=name, prompt_token_ids=encoding.token_ids)


def _items(output: RequestOutput) -> list[WrittenPiece | Written]:
    items: list[WrittenPiece | Written] = [
        WrittenPiece(text.piece.text, text.piece.kind) for text in output.texts if text.piece.text
    ]
    if (finished := output.finished) is not None:
        usage = JobUsage(
            prompt_tokens=finished.prompt_tokens,
            cached_tokens=finished.cached_tokens,
            completion_tokens=finished.completion_tokens,
        )
        reason = finished.completions[0].finish_reason
        items.append(Written(finish_reason=reason, usage=usage, timings=finished.timings))
    return items
