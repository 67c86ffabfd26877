"""The values that calls take and give, except the events of a stream. Any thread.

Everything here is frozen, and none of it is a protobuf type.
"""

from dataclasses import dataclass
from enum import StrEnum


class Granularity(StrEnum):
    """In which pieces a text arrives."""

    TOKEN = "token"  # noqa: S105 - a unit of text
    SENTENCE = "sentence"
    PARAGRAPH = "paragraph"
    FULL = "full"


class SentenceMode(StrEnum):
    """How early a sentence end is believed."""

    EAGER = "eager"
    CAREFUL = "careful"


class QuotePolicy(StrEnum):
    """What happens to sentences inside a quotation."""

    SPLIT = "split"
    HOLD = "hold"


class PieceKind(StrEnum):
    """What kind of piece a text was cut into; `UNKNOWN` if this client is too old to say."""

    UNKNOWN = "unknown"
    SENTENCE = "sentence"
    PARAGRAPH_END = "paragraph_end"
    LIST_ITEM = "list_item"
    CODE = "code"
    SOFT = "soft"
    TAIL = "tail"


class FinishReason(StrEnum):
    """Why a text ended; `UNKNOWN` if this client is too old to say."""

    UNKNOWN = "unknown"
    END_OF_TEXT = "end_of_text"
    MAX_TOKENS = "max_tokens"
    CONTEXT_FULL = "context_full"
    STOP_STRING = "stop_string"
    STOP_TOKEN = "stop_token"  # noqa: S105 - a reason to stop
    CANCELLED = "cancelled"
    ABORTED = "aborted"
    TIME_BUDGET = "time_budget"


class HealthStatus(StrEnum):
    """What a server says about one of its services."""

    UNKNOWN = "unknown"
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    SERVICE_UNKNOWN = "service_unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks: `system`, `user` or `assistant`.
        content: What is said.
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceOptions:
    """How a text is cut into sentences; None leaves a value to the server.

    Attributes:
        language: ISO 639-1 code, such as `en` or `ja`.
        mode: How early a sentence end is believed.
        quotes: What happens to sentences inside a quotation.
        min_chars: Shorter sentences join the next one; 0 to 200.
        max_chars: A sentence without an end is cut softly here; 40 to 2,000.
    """

    language: str | None = None
    mode: SentenceMode | None = None
    quotes: QuotePolicy | None = None
    min_chars: int | None = None
    max_chars: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """How many tokens a request took.

    Attributes:
        prompt_tokens: Tokens of the input.
        cached_tokens: Of these, how many were taken from the prefix cache.
        completion_tokens: Tokens written for all answers together.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time went on the server, in seconds since the request had been read.

    Attributes:
        queue: Until the first token was computed on.
        prefill: From then until the prompt was computed.
        first_token: Until the first token was written; None if none was.
        first_sentence: Until the first piece of text was handed over; None if none was.
        total: Until the text ended.
    """

    queue: float
    prefill: float
    first_token: float | None
    first_sentence: float | None
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """How one answer ended.

    Attributes:
        index: Which of the `n` answers, from 0.
        finish_reason: Why it ended.
        stop_string: The stop string that ended it, if one did.
        stop_token_id: The stop or end-of-text token that ended it, if one did.
        completion_tokens: Tokens written for this answer.
        text_bytes: Length of its text in UTF-8 bytes.
    """

    index: int
    finish_reason: FinishReason
    stop_string: str | None
    stop_token_id: int | None
    completion_tokens: int
    text_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TopLogprob:
    """One likely token.

    Attributes:
        token_id: Its id.
        logprob: Its natural log probability.
        token: Its bytes, which need not be whole characters.
    """

    token_id: int
    logprob: float
    token: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprobs:
    """The log probabilities at one position.

    Attributes:
        logprob: Natural log probability of the token that stands there.
        top: The likeliest tokens there, likeliest first.
    """

    logprob: float
    top: tuple[TopLogprob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token of a text.

    Attributes:
        id: Its id.
        start_byte: Where it begins in the text, in UTF-8 bytes.
        end_byte: Where it ends.
    """

    id: int
    start_byte: int
    end_byte: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPiece:
    """A piece of a text that was cut; the texts of all pieces join to the whole.

    Attributes:
        text: The piece, with the white space that follows it.
        start_byte: Where it begins in the whole, in UTF-8 bytes.
        end_byte: Where it ends.
        kind: What kind of piece it is.
    """

    text: str
    start_byte: int
    end_byte: int
    kind: PieceKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """What one request may ask of a model.

    Attributes:
        max_context_tokens: Most tokens of prompt and answer together.
        max_prompt_tokens: Most tokens of a prompt.
        max_completion_tokens: Most tokens of one answer.
        max_choices: Most answers to one request.
        max_logprobs: Most likeliest tokens reported at a position.
        max_stop_strings: Most stop strings.
    """

    max_context_tokens: int
    max_prompt_tokens: int
    max_completion_tokens: int
    max_choices: int
    max_logprobs: int
    max_stop_strings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A served model.

    Attributes:
        name: The name to ask for it by.
        architecture: Such as `llama` or `gpt2`.
        dtype: Number type of its weights in memory.
        parameters: How many there are; 0 if unknown.
        vocabulary_size: Token ids are below it.
        limits: What one request may ask of it.
        can_generate: Whether it writes text.
        can_chat: Whether it has a chat template, so that `messages` are understood.
        can_tokenize: Whether `tokenize` and its kin may be called for it.
        can_translate: Whether it is a translator that is no language model, for `transform` with
            `translate_to` alone.
        directions: Source and target languages of a translator, as ISO 639-1 codes.
        license: SPDX identifier or name of the licence of the weights; empty if unknown.
        digest: SHA-256 of the weights file in hexadecimal; empty for several files.
    """

    name: str
    architecture: str
    dtype: str
    parameters: int
    vocabulary_size: int
    limits: ModelLimits
    can_generate: bool
    can_chat: bool
    can_tokenize: bool
    can_translate: bool
    directions: tuple[tuple[str, str], ...]
    license: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainStatus:
    """How a drain begins.

    Attributes:
        requests_in_progress: Generations still to finish.
        refusing_in: Seconds until new calls are refused.
    """

    requests_in_progress: int
    refusing_in: float
