"""What happens in a stream, and what a whole answer is. Any thread."""

from dataclasses import dataclass
from typing import TypeAlias

from hocket.client._types import (
    Completion,
    FinishReason,
    PieceKind,
    Timings,
    TokenLogprobs,
    Usage,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The request left the queue and runs; first and once.

    Attributes:
        prompt_tokens: Tokens of the input.
        cached_tokens: Of these, how many are taken from the prefix cache.
        seed: The seed that repeats this text.
        model: The model that writes.
        request_id: The id that the server knows the request by.
    """

    prompt_tokens: int
    cached_tokens: int
    seed: int
    model: str
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """More text.

    Attributes:
        text: Whole characters; empty when tokens made no text.
        choice_index: Which of the `n` answers, from 0.
        start_byte: Where `text` begins in the answer, in UTF-8 bytes.
        token_ids: The tokens that wrote it.
        logprobs: One for each of `token_ids`, if they were asked for.
    """

    text: str
    choice_index: int = 0
    start_byte: int = 0
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A sentence or paragraph ended.

    Attributes:
        text: It, with the white space that follows it.
        index: Position among the sentences of its answer, from 0.
        choice_index: Which of the `n` answers, from 0.
        start_byte: Where `text` begins in the answer, in UTF-8 bytes.
        end_byte: Where it ends.
        kind: What kind of piece it is.
        token_ids: The tokens that wrote it.
        logprobs: One for each of `token_ids`, if they were asked for.
    """

    text: str
    index: int
    choice_index: int = 0
    start_byte: int = 0
    end_byte: int = 0
    kind: PieceKind = PieceKind.UNKNOWN
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The generation is over; last and once. All text has come before.

    Attributes:
        completions: How each answer ended, by index.
        usage: Tokens of all answers together.
        timings: Where the time went.
        prompt_logprobs: One for each token of the prompt but the first, if asked for.
    """

    completions: tuple[Completion, ...]
    usage: Usage
    timings: Timings
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()


Event: TypeAlias = Started | Delta | Sentence | Finished


def text_of(event: Event, choice_index: int) -> str:
    """Return what an event adds to one answer; empty if nothing."""
    if isinstance(event, Delta | Sentence) and event.choice_index == choice_index:
        return event.text
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer, put together.

    Attributes:
        text: The whole text.
        sentences: Its sentences or paragraphs, if the granularity made them.
        token_ids: The tokens that wrote it.
        logprobs: One for each of `token_ids`, if they were asked for.
    """

    text: str
    sentences: tuple[Sentence, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResult:
    """A whole generation.

    Attributes:
        request_id: The id it ran under.
        model: The model that wrote it.
        seed: The seed that repeats it.
        answers: The answers, by index; one unless `n` asked for more.
        completions: How each answer ended, by index.
        usage: Tokens of all answers together.
        timings: Where the time went.
        prompt_logprobs: One for each token of the prompt but the first, if asked for.
    """

    request_id: str
    model: str
    seed: int
    answers: tuple[Answer, ...]
    completions: tuple[Completion, ...]
    usage: Usage
    timings: Timings
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of all answers."""
        return tuple(answer.text for answer in self.answers)

    @property
    def text(self) -> str:
        """The text of the first answer."""
        return self.answers[0].text

    @property
    def finish_reason(self) -> FinishReason:
        """Why the first answer ended."""
        return self.completions[0].finish_reason
