"""Puts the events of one generation together. Whichever thread reads the stream."""

from collections import defaultdict

from hocket.client._errors import StreamError
from hocket.client._events import (
    Answer,
    Delta,
    Event,
    Finished,
    GenerationResult,
    Sentence,
    Started,
)
from hocket.client._parse import parse_event
from hocket.client._requests import make_request_id
from hocket.client._resumption import Resumption
from hocket.v1 import generation_pb2


class Collector:
    """What has arrived of one generation so far.

    Attributes:
        request_id: The id it runs under.
    """

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self._started: Started | None = None
        self._finished: Finished | None = None
        self._pieces: defaultdict[int, list[Delta | Sentence]] = defaultdict(list)

    @property
    def is_finished(self) -> bool:
        """Whether the last event has arrived."""
        return self._finished is not None

    @property
    def texts(self) -> tuple[str, ...]:
        """What has arrived of each answer, by index."""
        return tuple(answer.text for answer in self._answers())

    def add(self, event: Event) -> None:
        """Take the next event.

        Raises:
            StreamError: It comes after the last one.
        """
        if self._finished is not None:
            raise StreamError("the stream went on after its last event")
        match event:
            case Started():
                self._started = event
            case Finished():
                self._finished = event
            case Delta() | Sentence():
                self._pieces[event.choice_index].append(event)

    def check_finished(self) -> None:
        """Return if the generation is over.

        Raises:
            StreamError: The last event has not arrived.
        """
        if self._finished is None:
            raise StreamError("the stream ended before the generation did")

    def result(self) -> GenerationResult:
        """Return the whole generation.

        Raises:
            StreamError: Its first or last event has not arrived.
        """
        self.check_finished()
        if self._started is None or self._finished is None:
            raise StreamError("the stream did not begin as it should")
        return GenerationResult(
            request_id=self.request_id,
            model=self._started.model,
            seed=self._started.seed,
            answers=self._answers(),
            completions=self._finished.completions,
            usage=self._finished.usage,
            timings=self._finished.timings,
            prompt_logprobs=self._finished.prompt_logprobs,
        )

    def _answers(self) -> tuple[Answer, ...]:
        indexes = set(self._pieces)
        if self._finished is not None:
            # An answer without any text has no pieces.
            indexes.update(completion.index for completion in self._finished.completions)
        return tuple(self._answer(index) for index in sorted(indexes or {0}))

    def _answer(self, index: int) -> Answer:
        pieces = self._pieces.get(index, [])
        return Answer(
            text="".join(piece.text for piece in pieces),
            sentences=tuple(piece for piece in pieces if isinstance(piece, Sentence)),
            token_ids=tuple(id_ for piece in pieces for id_ in piece.token_ids),
            logprobs=tuple(logprobs for piece in pieces for logprobs in piece.logprobs),
        )


class GenerationState:
    """One generation that has a call of its own: what to ask, and what has come of it."""

    def __init__(self, request: generation_pb2.GenerateRequest, *, resume: bool = True) -> None:
        """Begin with nothing.

        Args:
            request: What to ask.
            resume: Whether to go on where a stream breaks, as far as the server lets.
        """
        self._request = request
        self._makes_ids = not request.request_id
        self._collector = Collector(request.request_id)
        self._resumption = Resumption(request) if resume else None

    @property
    def request_id(self) -> str:
        """The id of the present attempt."""
        return self._request.request_id

    @property
    def texts(self) -> tuple[str, ...]:
        """What has arrived of each answer, by index."""
        return self._collector.texts

    @property
    def can_resume(self) -> bool:
        """Whether the next attempt can go on where this one breaks."""
        return self._resumption is not None and self._resumption.is_possible

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing even though the stream broke."""
        return self.can_resume and self._collector.is_finished

    def take_progress(self) -> bool:
        """Return whether text has arrived since this was asked last."""
        return self._resumption is not None and self._resumption.take_progress()

    def begin(self, spent_seconds: float = 0.0) -> generation_pb2.GenerateRequest:
        """Return the request of the next attempt.

        It goes on with what has arrived, if that can be gone on with, or begins with nothing.

        Args:
            spent_seconds: Since the server had the request first.
        """
        if self._makes_ids:
            # The id of a lost attempt may still be in use on the server.
            self._request.request_id = make_request_id()
        if self._resumption is not None and self._resumption.is_possible:
            self._resumption.prepare(spent_seconds)
            self._collector.request_id = self._request.request_id
        else:
            self._collector = Collector(self._request.request_id)
        return self._request

    def take(self, message: generation_pb2.GenerateResponse) -> Event | None:
        """Return what happened; None for an event that its reader had, or that is not known here.

        Raises:
            StreamError: It comes after the last one, or does not go on where the stream broke.
        """
        if self._resumption is not None and self._resumption.note(message):
            return None
        event = parse_event(message)
        if event is not None:
            self._collector.add(event)
        return event

    def check_finished(self) -> None:
        """Return if the generation is over; see `Collector.check_finished`."""
        self._collector.check_finished()

    def result(self) -> GenerationResult:
        """Return the whole generation; see `Collector.result`."""
        return self._collector.result()
