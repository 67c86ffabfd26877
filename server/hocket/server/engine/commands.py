"""All that crosses between the loop's thread and the engine's.

Commands go in, outputs come back; every value here is frozen and plain, so that the engine could
live in a process of its own behind the same types.
"""

from dataclasses import dataclass, field
from enum import Enum

from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.engine.statistics import EngineStatistics
from hocket.server.errors import HocketError
from hocket.server.text.pieces import Granularity, Piece, SentenceOptions
from hocket.server.text.stopping import StopStrings


class FinishReason(Enum):
    """Why a text ended."""

    END_OF_TEXT = "end_of_text"
    MAX_TOKENS = "max_tokens"
    CONTEXT_FULL = "context_full"
    STOP_STRING = "stop_string"
    STOP_TOKEN = "stop_token"  # noqa: S105 - the name of a reason
    CANCELLED = "cancelled"
    ABORTED = "aborted"
    TIME_BUDGET = "time_budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Asks for one request: one prompt, one or more choices.

    Attributes:
        request_id: Unique among the requests in progress.
        owner: Who asks: prefixes are shared by the requests of one owner alone.
        prompt_token_ids: At least one; fits the model's context with room for one more.
        sampling: How tokens are drawn; choice `i` draws from a stream of its own.
        stopping: When each choice ends.
        stops: `stopping.stop`, ready to be looked for; None leaves that to the engine.
        choices: How many answers, each a sequence of its own.
        granularity: In which pieces text is handed out.
        sentences: How sentences are cut, where that is asked for.
        priority: Lower runs first, unless the other came long before; see `Scheduler.rank`.
        arrived: When the request had been read, in seconds of the monotonic clock.
        deadline: When it is no longer wanted, in seconds of the same clock; None for never.
        group: What it was asked for together with: groups share the batch, however many sequences
            each has. Empty: it is a group of its own.
        is_resumable: Whether its reader can go on with it elsewhere, should it be lost.
        resumed_token_ids: Tokens that were written before, of a stream that was lost; only where
            there is one choice. The text goes on behind them.
        received_bytes: How much of the text its reader has, in UTF-8 bytes: with these tokens, a
            state in which that stream was.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    stopping: StoppingParams
    stops: StopStrings | None = None
    choices: int = 1
    granularity: Granularity = Granularity.SENTENCE
    sentences: SentenceOptions = field(default_factory=SentenceOptions)
    priority: int = 0
    arrived: float = 0.0
    deadline: float | None = None
    owner: str = ""
    group: str = ""
    is_resumable: bool = False
    resumed_token_ids: tuple[int, ...] = ()
    received_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """Asks that a request end now. Unknown ids are ignored: it may just have ended.

    Attributes:
        request_id: Which request.
        reason: CANCELLED, ABORTED or TIME_BUDGET.
        is_cut: Whether it may go on elsewhere: of a text that can be resumed, nothing is handed
            out that only its end would have decided.
    """

    request_id: str
    reason: FinishReason
    is_cut: bool = False


Command = Submit | Abort


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Natural log probabilities at one position.

    Attributes:
        logprob: Of the token that stands there.
        top: Likeliest tokens there as pairs of id and log probability, likeliest first.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class TextOutput:
    """A final piece of one choice's text, with the tokens credited to it.

    Attributes:
        choice_index: Which choice.
        piece: The text; may be empty where tokens made none.
        token_ids: Tokens whose first byte lies in the piece, and those that made no text.
        logprobs: One for each token id, or empty if they were not asked for.
    """

    choice_index: int
    piece: Piece
    token_ids: tuple[int, ...]
    logprobs: tuple[Logprobs, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The request left the queue.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        cached_tokens: Of these, how many were found in the prefix cache.
    """

    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """How one choice ended.

    Attributes:
        index: Which choice.
        finish_reason: Why it ended.
        stop_string: The stop string that ended it, if one did.
        stop_token_id: The stop or end token that ended it, if one did.
        completion_tokens: Tokens written, that token included.
        text_bytes: Length of the text in UTF-8 bytes.
    """

    index: int
    finish_reason: FinishReason
    stop_string: str | None = None
    stop_token_id: int | None = None
    completion_tokens: int
    text_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of a request went, in seconds.

    Attributes:
        queue: From arrival until its first token was computed on.
        prefill: From then until the prompt was computed.
        first_token: From arrival until the first token of any choice; None without one.
        first_text: From arrival until the first piece of any choice; None without one.
        total: From arrival until the last choice ended.
    """

    queue: float
    prefill: float
    first_token: float | None
    first_text: float | None
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The request ended; all its text was handed out before.

    Attributes:
        completions: How each choice ended, by index.
        prompt_tokens: Tokens of the prompt.
        cached_tokens: Of these, how many came from the prefix cache.
        completion_tokens: Tokens written by all choices.
        timings: Where the time went.
        prompt_logprobs: One for each prompt token but the first, or empty.
    """

    completions: tuple[Completion, ...]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    timings: Timings
    prompt_logprobs: tuple[Logprobs, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutput:
    """What one step brought for one request, in the order `started`, `texts`, then the end.

    Attributes:
        request_id: Which request.
        started: Set in the step in which the request left the queue.
        texts: New pieces, in order within each choice.
        finished: Set in the request's last output, if it ended well.
        failure: Set in the request's last output, if it failed.
    """

    request_id: str
    started: Started | None = None
    texts: tuple[TextOutput, ...] = ()
    finished: Finished | None = None
    failure: HocketError | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing follows for this request."""
        return self.finished is not None or self.failure is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutputs:
    """What one step brought.

    Attributes:
        outputs: At most one for each request.
        has_work: Whether another step would find something to do.
        statistics: A snapshot taken at the end of the step.
    """

    outputs: tuple[RequestOutput, ...]
    has_work: bool
    statistics: EngineStatistics
