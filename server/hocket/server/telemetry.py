"""What is known of a request once it ended, and who wants to hear of it. Loop thread.

The porch makes one `RequestRecord` for each call and hands it to its observers; the exporter of
metrics is one. A record never holds text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request that ended, however it ended. Times are in seconds.

    A call that carries many generations makes one record for each of them.

    Attributes:
        method: The method's name alone, such as `Generate`.
        code: Name of the status code, such as `OK` or `RESOURCE_EXHAUSTED`.
        reason: Name of the error's reason; empty without one.
        finish_reason: Lower-case name of the finish reason of the first choice, such as `stop`;
            empty if nothing was generated.
        prompt_tokens: Tokens of the prompt.
        cached_tokens: Of these, how many were found in the prefix cache.
        completion_tokens: Tokens written by all choices.
        sentences: Sentences handed out.
        total_seconds: From arrival until the end.
        queue_seconds: From arrival until the first token was computed on; None if it never was.
        ttft_seconds: From arrival until the first token; None without one.
        ttfs_seconds: From arrival until the first sentence was handed out; None without one.
        itl_seconds: Time between tokens, one value for each gap that was seen. Tokens that came
            together share their gap evenly.
    """

    method: str
    code: str
    reason: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    sentences: int = 0
    total_seconds: float
    queue_seconds: float | None = None
    ttft_seconds: float | None = None
    ttfs_seconds: float | None = None
    itl_seconds: Sequence[float] = ()


class RequestObserver(Protocol):
    """Something that is told of each request that ended."""

    def observe_request(self, record: RequestRecord) -> None:
        """Take note of a request. Called on the loop thread; must neither block nor raise."""
        ...
