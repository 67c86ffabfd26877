"""One job's requests to the engine: begun, read, cancelled, left. Loop thread."""

import hashlib
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

from hocket.server.catalogue import ServedModel
from hocket.server.document.job import JobUsage, Place, Written
from hocket.server.document.prompts import check_tokens
from hocket.server.engine.commands import (
    Completion,
    Finished,
    FinishReason,
    RequestOutput,
    Submit,
    Timings,
)
from hocket.server.engine.protocol import Generation
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.text.pieces import Granularity, SentenceOptions
from hocket.server.text.stopping import StopStrings

_T = TypeVar("_T")

DEFAULT_MAX_TOKENS: Final = 512  # the same as for a single generation


class RunText(Protocol):
    """Runs a function on a text thread."""

    async def __call__(self, work: Callable[[], _T]) -> _T:
        """Return what it returns; raise what it raises."""
        ...


class Question(Protocol):
    """Something that a model is asked."""

    def encode(self, model: ServedModel, *, reserved: int) -> tuple[int, ...]:
        """Return its tokens; `reserved` of the context are for the answer. Text thread.

        Raises:
            InvalidRequest: It cannot be put to this model.
        """
        ...

    def stops_for(self, model: ServedModel) -> tuple[str, ...]:
        """Return the stop strings that it needs with this model."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WritingOptions:
    """How the texts of one document are written.

    Attributes:
        request_id: Of the document; its parts have names that begin with it.
        group: What the document shares its part of the batch with; empty for nothing but itself.
        owner: Who asks; prefixes and results are shared by the requests of one owner alone.
        sampling: How tokens are drawn; each job has a seed made from its `seed`.
        is_seed_given: Whether the caller gave that seed, so that the same is wanted again.
        stopping: When a text ends; `max_tokens` holds only if `has_max_tokens`.
        has_max_tokens: Whether the caller set it.
        granularity: `TOKEN` or `SENTENCE`.
        sentences: How what is written is cut into sentences.
        priority: Lower runs first.
        deadline: When it is no longer wanted, in seconds of the engine's clock; None for never.
        serial: Tells this document from one before it with the same id, of whose requests the
            engine may not have let go yet.
        field: The path that a prompt is complained about under.
    """

    request_id: str
    group: str = ""
    owner: str = ""
    sampling: SamplingParams
    is_seed_given: bool = False
    stopping: StoppingParams
    has_max_tokens: bool = False
    granularity: Granularity = Granularity.SENTENCE
    sentences: SentenceOptions = field(default_factory=SentenceOptions)
    priority: int = 0
    deadline: float | None = None
    serial: str = field(default_factory=lambda: secrets.token_hex(4))
    field: str = "segment"

    def max_tokens(self, room: int) -> int:
        """Return the most tokens of an answer for which there is so much room."""
        if self.has_max_tokens:
            return self.stopping.max_tokens
        return max(self.stopping.min_tokens, min(DEFAULT_MAX_TOKENS, room))


def place_seed(seed: int, place: Place) -> int:
    """Return the 64-bit seed of a job."""
    text = f"{seed}/{place.segment}/{place.variant}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """In what one request of a job differs from what the caller asked for.

    Attributes:
        granularity: In which pieces its text comes.
        sampling: How its tokens are drawn.
        max_tokens: Most tokens of its text; None leaves that to the options.
        has_own_end: Whether it is no text of the caller's, so that nothing but `max_tokens` ends it
            before its time.
    """

    granularity: Granularity
    sampling: SamplingParams
    max_tokens: int | None = None
    has_own_end: bool = False


class Voice:
    """Speaks with the engine for one job.

    Attributes:
        usage: What all requests that ended took.
        timings: Where their time went; None before the first one ended.
        sampling: How the job's tokens are drawn, its seed included.
    """

    def __init__(
        self,
        model: ServedModel,
        options: WritingOptions,
        place: Place,
        *,
        run_text: RunText,
        clock: Callable[[], float],
    ) -> None:
        """Make it.

        Args:
            model: Who writes.
            options: How.
            place: Of the job.
            run_text: Runs what encodes a prompt.
            clock: The clock that the engine reads deadlines by.
        """
        self._model = model
        self._options = options
        self._run_text = run_text
        # No caller's own id has a slash in it.
        self._name = f"{options.request_id}/{options.serial}/{place.segment}/{place.variant}"
        self._arrived = clock()
        self._count = 0
        self._generations: list[Generation] = []
        self._is_cancelled = False
        self.sampling = replace(options.sampling, seed=place_seed(options.sampling.seed, place))
        self.usage = JobUsage()
        self.timings: Timings | None = None

    def cancel_nowait(self) -> None:
        """Ask that what is in progress, or will be, end with `CANCELLED`. Repeatable."""
        self._is_cancelled = True
        for generation in self._generations:
            generation.abort_nowait(FinishReason.CANCELLED)

    def close_nowait(self) -> None:
        """Leave: what is in progress is aborted. Repeatable."""
        while self._generations:
            self._generations.pop().close_nowait()

    def written(self, reason: FinishReason, protection: str = "") -> Written:
        """Return how the job ended, with all that its requests took."""
        return Written(
            finish_reason=reason, usage=self.usage, timings=self.timings, protection=protection
        )

    def hide(self) -> None:
        """Note that the reader has seen nothing of what was written so far."""
        if self.timings is not None:
            self.timings = replace(self.timings, first_text=None)

    def show(self) -> None:
        """Note that the reader sees the first text when all is written."""
        if self.timings is not None:
            self.timings = replace(self.timings, first_text=self.timings.total)

    async def begin(self, question: Question, manner: Manner | None = None) -> Generation:
        """Submit a request and return it, to be read by `read`.

        Raises:
            HocketError: It is refused.
        """
        name = f"{self._name}/{self._count}" if self._count else self._name
        self._count += 1
        generation = self._model.engine.reserve_nowait(name)
        self._generations.append(generation)
        if self._is_cancelled:
            generation.abort_nowait(FinishReason.CANCELLED)

        async def encode() -> Submit:
            return await self._run_text(lambda: self._submit(name, question, manner))

        generation.submit_nowait(await generation.prepare(encode))
        return generation

    async def read(self, generation: Generation) -> AsyncGenerator[RequestOutput]:
        """Yield the outputs of a request, to the last.

        Raises:
            HocketError: It failed.
        """
        async for output in generation:
            if output.finished is not None:
                self._note(output.finished)
            yield output
        self._generations.remove(generation)
        generation.close_nowait()

    async def ask(
        self, question: Question, manner: Manner | None = None
    ) -> AsyncGenerator[RequestOutput]:
        """Submit a request and yield its outputs; raises what `begin` and `read` do."""
        async with aclosing(self.read(await self.begin(question, manner))) as outputs:
            async for output in outputs:
                yield output

    async def listen(
        self, question: Question, manner: Manner | None = None
    ) -> tuple[str, Completion]:
        """Submit a request and return its whole text and how it ended; raises the same."""
        texts: list[str] = []
        completion: Completion | None = None
        async for output in self.ask(question, manner):
            texts += (text.piece.text for text in output.texts)
            if output.finished is not None:
                completion = output.finished.completions[0]
        if completion is None:
            raise AssertionError("a request ended without an end. This is a bug.")
        return "".join(texts), completion

    def _submit(self, name: str, question: Question, manner: Manner | None) -> Submit:
        """Return what the engine takes. Text thread."""
        options, limits = self._options, self._model.limits
        most = limits.max_context_tokens - 1
        reserved = options.max_tokens(limits.max_context_tokens // 4)
        token_ids = check_tokens(
            question.encode(self._model, reserved=min(reserved, most)),
            self._model,
            field=options.field,
        )
        max_tokens = options.max_tokens(limits.max_context_tokens - len(token_ids))
        if manner is not None and manner.max_tokens is not None:
            max_tokens = manner.max_tokens
        wanted = options.stopping
        if manner is not None and manner.has_own_end:
            wanted = StoppingParams(max_tokens=max_tokens)
        stop = (*wanted.stop, *question.stops_for(self._model))
        stopping = replace(
            wanted,
            max_tokens=max_tokens,
            min_tokens=min(wanted.min_tokens, max_tokens),
            stop=stop,
        )
        return Submit(
            request_id=name,
            group=options.group or options.request_id,
            owner=options.owner,
            prompt_token_ids=token_ids,
            sampling=self.sampling if manner is None else manner.sampling,
            stopping=stopping,
            stops=StopStrings(stop),
            granularity=options.granularity if manner is None else manner.granularity,
            sentences=options.sentences,
            priority=options.priority,
            arrived=self._arrived,
            deadline=options.deadline,
        )

    def _note(self, finished: Finished) -> None:
        self.usage += JobUsage(
            prompt_tokens=finished.prompt_tokens,
            cached_tokens=finished.cached_tokens,
            completion_tokens=finished.completion_tokens,
        )
        timings = finished.timings
        if self.timings is not None:
            first_text = self.timings.first_text
            timings = replace(
                self.timings,
                total=timings.total,
                first_text=timings.first_text if first_text is None else first_text,
            )
        self.timings = timings
