"""What is known of the call in progress, gathered for its one log line. Loop thread.

The access interceptor makes a record and puts it into a context variable; handlers add what they
learn. It holds counts and names, never text.
"""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from hocket.server.engine.commands import Finished, RequestOutput
from hocket.server.telemetry import RequestObserver, RequestRecord


@dataclass(eq=False, slots=True, kw_only=True)
class AccessRecord:
    """One call, or one generation of many on a call.

    Attributes:
        method: The method's name alone, such as `Generate`.
        clock: Seconds of a monotonic clock.
        arrived: When the call began, of that clock.
    """

    method: str
    clock: Callable[[], float] = time.monotonic
    arrived: float = 0.0
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
    _last_token_at: float | None = None

    def __post_init__(self) -> None:
        self.arrived = self.arrived or self.clock()

    def note_output(self, output: RequestOutput) -> None:
        """Take note of what one output brought, at the moment when it is handed over."""
        tokens = sum(len(text.token_ids) for text in output.texts)
        if tokens:
            now = self.clock()
            if self._last_token_at is not None:
                self.itl_seconds += [(now - self._last_token_at) / tokens] * tokens
            self._last_token_at = now
        if output.started is not None:
            self.prompt_tokens = output.started.prompt_tokens
            self.cached_tokens = output.started.cached_tokens
        if output.finished is not None:
            self._note_finished(output.finished)

    def note_failure(self, code: str, reason: str) -> None:
        """Take note of how it failed."""
        self.code, self.reason = code, reason

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

    def _note_finished(self, finished: Finished) -> None:
        self.finish_reason = finished.completions[0].finish_reason.value
        self.completion_tokens = finished.completion_tokens
        self.queue_seconds = finished.timings.queue
        self.ttft_seconds = finished.timings.first_token
        self.ttfs_seconds = finished.timings.first_text


CURRENT: ContextVar[AccessRecord] = ContextVar("hocket_access_record")

Observers = tuple[RequestObserver, ...]


def current_record(method: str = "") -> AccessRecord:
    """Return the record of the call in progress; one that nobody reads outside a call."""
    try:
        return CURRENT.get()
    except LookupError:
        return AccessRecord(method=method)
