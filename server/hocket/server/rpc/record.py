"""What is known of the call in progress, gathered for its one log line. Loop thread.

The access interceptor makes a record and puts it into a context variable; handlers add what they
learn. It holds counts and names, never text.
"""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from hocket.server.engine.commands import Finished, RequestOutput, TextOutput
from hocket.server.errors import HocketError
from hocket.server.telemetry import RequestObserver, RequestRecord
from hocket.server.text.pieces import PieceKind

# A caller's deadline passes at the caller first, and gRPC rounds it by up to a hundredth on the way
# here: a call that is left so shortly before its deadline was left because of it.
_SLACK_SECONDS, _SLACK_SHARE = 0.02, 0.01


@dataclass(eq=False, slots=True, kw_only=True)
class AccessRecord:
    """One call, or one generation of many on a call.

    Attributes:
        method: The method's name alone, such as `Generate`.
        clock: Seconds of a monotonic clock.
        arrived: When the call began, of that clock.
        deadline: When the call's own deadline passes, of that clock; None without one.
        peer: Names the caller's connection.
        caller: The name of the caller's credential; empty where none is asked for.
        correlation_id: The id by which the caller knows the call; empty if it gave none.
        is_shared: Whether the call carries many generations, which have records of their own.
        is_by_token: Whether text is handed over as it is written, so that the loop sees when.
        items: Items of a corpus that are over.
        failed_items: Of these, how many failed.
    """

    method: str
    clock: Callable[[], float] = time.monotonic
    arrived: float = 0.0
    deadline: float | None = None
    peer: str = ""
    caller: str = ""
    correlation_id: str = ""
    request_id: str = ""
    model: str = ""
    code: str = "OK"
    reason: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    sentences: int = 0
    queue_seconds: float | None = None
    ttft_seconds: float | None = None
    ttfs_seconds: float | None = None
    itl_seconds: list[float] = field(default_factory=list)
    is_shared: bool = False
    is_by_token: bool = False
    items: int = 0
    failed_items: int = 0
    _last_token_at: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.arrived = self.arrived or self.clock()

    def child(self, request_id: str) -> "AccessRecord":
        """Return the record of a generation that this call carries."""
        return AccessRecord(
            method=self.method,
            clock=self.clock,
            deadline=self.deadline,
            peer=self.peer,
            caller=self.caller,
            correlation_id=self.correlation_id,
            request_id=request_id,
        )

    def remaining_seconds(self) -> float | None:
        """Return the seconds until the call's own deadline; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - self.clock())

    def note_output(self, output: RequestOutput) -> None:
        """Take note of what one output brought, at the moment when it is handed over.

        Of a request that does not come to its end, this is all that is ever known.
        """
        now = self.clock()
        if output.started is not None:
            self.prompt_tokens = output.started.prompt_tokens
            self.cached_tokens = output.started.cached_tokens
            self.queue_seconds = now - self.arrived
        for text in output.texts:
            self._note_text(text, now)
        self._note_gaps(output, now)
        if output.finished is not None:
            self._note_finished(output.finished)

    def add_item(self, item: "AccessRecord", *, is_failed: bool) -> None:
        """Take note of an item of a corpus that is over, and of what it took."""
        self.items += 1
        self.failed_items += is_failed
        self.prompt_tokens += item.prompt_tokens
        self.cached_tokens += item.cached_tokens
        self.completion_tokens += item.completion_tokens

    def note_failure(self, error: HocketError) -> None:
        """Take note of how it failed; the first failure is the one that is told."""
        if self.code == "OK":
            self.code, self.reason = error.code.value, error.reason.value

    def note_left(self) -> None:
        """Take note that the caller is gone: it left, or its deadline passed."""
        if self.code == "OK":
            self.code = "DEADLINE_EXCEEDED" if self._is_late(self._slack()) else "CANCELLED"

    def note_cut(self, call: "AccessRecord") -> None:
        """Take note that the call that carries it ended before it did."""
        if self.code == "OK" and call.code != "OK":
            self.code, self.reason = call.code, call.reason
        else:
            self.note_left()

    def note_whole(self) -> None:
        """Take note that all was handed over. Past its deadline no caller takes it for whole."""
        if self.code == "OK" and self._is_late(0.0):
            self.code = "DEADLINE_EXCEEDED"

    def finish(self) -> RequestRecord:
        """Return what is known, now that it ended."""
        return RequestRecord(
            method=self.method,
            code=self.code,
            reason=self.reason,
            finish_reason=self.finish_reason,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
            sentences=self.sentences,
            total_seconds=self.clock() - self.arrived,
            queue_seconds=self.queue_seconds,
            ttft_seconds=self.ttft_seconds,
            ttfs_seconds=self.ttfs_seconds,
            itl_seconds=tuple(self.itl_seconds),
        )

    def _note_text(self, text: TextOutput, now: float) -> None:
        self.completion_tokens += len(text.token_ids)
        if self.is_by_token and text.token_ids and self.ttft_seconds is None:
            self.ttft_seconds = now - self.arrived
        if text.piece.kind is not PieceKind.DELTA:
            self.sentences += 1
            if self.ttfs_seconds is None:
                self.ttfs_seconds = now - self.arrived

    def _note_gaps(self, output: RequestOutput, now: float) -> None:
        """Share the time since each choice's last tokens among its new ones."""
        tokens: dict[int, int] = {}
        for text in output.texts:
            tokens[text.choice_index] = tokens.get(text.choice_index, 0) + len(text.token_ids)
        for choice, count in tokens.items():
            if not count:
                continue
            last = self._last_token_at.get(choice)
            if last is not None:
                self.itl_seconds += [(now - last) / count] * count
            self._last_token_at[choice] = now

    def _note_finished(self, finished: Finished) -> None:
        """Replace what was seen from here by what the engine knows."""
        self.finish_reason = finished.completions[0].finish_reason.value
        self.completion_tokens = finished.completion_tokens
        self.queue_seconds = finished.timings.queue
        self.ttft_seconds = finished.timings.first_token
        if self.sentences:
            self.ttfs_seconds = finished.timings.first_text

    def _is_late(self, slack: float) -> bool:
        return self.deadline is not None and self.clock() >= self.deadline - slack

    def _slack(self) -> float:
        budget = 0.0 if self.deadline is None else self.deadline - self.arrived
        return _SLACK_SECONDS + _SLACK_SHARE * budget


CURRENT: ContextVar[AccessRecord] = ContextVar("hocket_access_record")

Observers = tuple[RequestObserver, ...]


def current_record(method: str = "") -> AccessRecord:
    """Return the record of the call in progress; one that nobody reads outside a call."""
    try:
        return CURRENT.get()
    except LookupError:
        return AccessRecord(method=method)
