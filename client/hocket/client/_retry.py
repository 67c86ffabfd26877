"""When a call is made again. Any thread; only the throttle is shared between calls.

The rules are those of gRPC's retry design (gRFC A6), in our own loop because gRPC's does not know
`google.rpc.RetryInfo`: gRPC's own retries are switched off on our channels. A call is made again

- only if it failed as unavailable or overloaded, and nothing of its answer had arrived, or its
  answer broke off because the server or the connection was lost and can be gone on with;
- not if the server forbids it with a negative `grpc-retry-pushback-ms`;
- after exactly the pushback, or else after a backoff that is no shorter than `RetryInfo`;
- not if the wait would pass the call's deadline or the policy's bound;
- not while more than half of the throttle's tokens are spent.

RESOURCE_EXHAUSTED that neither names one of our reasons, nor says when to come back, nor comes from
a proxy that sheds load may be a message over the size limit, which would fail again, and is
therefore left alone.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from hocket.client._errors import (
    ClientError,
    Overloaded,
    ReaderTooSlow,
    ResourceExhausted,
    TransportError,
    Unavailable,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how fast calls are made again.

    Attributes:
        max_attempts: Most times that one call is made; 1 never makes it again.
        initial_backoff_seconds: Wait before the second attempt.
        max_backoff_seconds: Most that the growing wait comes to, before jitter.
        backoff_multiplier: How much longer each wait is than the one before.
        jitter: Waits are drawn from this fraction below to this fraction above; 0 to 1.
        max_wait_seconds: A server that asks for a longer wait than this is not waited for.
        max_tokens: Tokens that the throttle holds at most; each failure takes one.
        token_ratio: What each success gives back.
    """

    max_attempts: int = 4
    initial_backoff_seconds: float = 0.2
    max_backoff_seconds: float = 5.0
    backoff_multiplier: float = 2.0
    jitter: float = 0.2
    max_wait_seconds: float = 60.0
    max_tokens: float = 10.0
    token_ratio: float = 0.1

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError("max_attempts must be at least 1")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter must be from 0 to 1")
        if self.initial_backoff_seconds < 0 or self.max_backoff_seconds < 0:
            raise ValueError("backoffs must not be negative")
        if self.backoff_multiplier < 1:
            raise ValueError("backoff_multiplier must be at least 1")
        if self.max_tokens <= 0 or self.token_ratio < 0:
            raise ValueError("max_tokens must be above 0 and token_ratio not below it")

    def backoff(self, step: int, random: float) -> float:
        """Return the wait in seconds after `step` earlier backoffs.

        Args:
            step: How many backoffs came before, from 0.
            random: Drawn from 0 to 1; 0.5 gives the middle.
        """
        # The power overflows for a long-lived step; the bound is reached far earlier.
        growth = self.backoff_multiplier ** min(step, 64)
        middle = min(self.initial_backoff_seconds * growth, self.max_backoff_seconds)
        return middle * (1 + self.jitter * (2 * random - 1))


NO_RETRIES = RetryPolicy(max_attempts=1)
"""Makes every call once."""


class RetryThrottle:
    """The tokens that failures spend and successes earn, for all calls to one target."""

    def __init__(self, *, max_tokens: float, token_ratio: float) -> None:
        self._lock = threading.Lock()
        self._max_tokens = max_tokens
        self._token_ratio = token_ratio
        self._tokens = max_tokens

    @property
    def has_room(self) -> bool:
        """Whether calls may be made again: more than half of the tokens are left."""
        return self._tokens > self._max_tokens / 2

    def spend(self) -> None:
        """Count a failure."""
        with self._lock:
            self._tokens = max(0.0, self._tokens - 1)

    def earn(self) -> None:
        """Count a success."""
        with self._lock:
            self._tokens = min(self._max_tokens, self._tokens + self._token_ratio)


def is_retryable(error: ClientError) -> bool:
    """Whether this failure may pass by itself, whatever the server says about when."""
    if isinstance(error, TransportError | Unavailable | Overloaded):
        return True
    if isinstance(error, ReaderTooSlow) or not isinstance(error, ResourceExhausted):
        return False
    return bool(error.reason) or error.retry_after is not None


def is_loss(error: ClientError) -> bool:
    """Whether an answer broke off with the server or the connection, not by its own fault."""
    return isinstance(error, TransportError | Unavailable)


def decide_retry(
    policy: RetryPolicy,
    error: ClientError,
    *,
    attempt: int,
    backoff_step: int,
    remaining_seconds: float | None,
    random: float,
) -> float | None:
    """Return how many seconds to wait before the call is made again, None for never.

    A pure function: the throttle and whether the answer has begun are judged before.

    Args:
        policy: The rules.
        error: How the call failed.
        attempt: How many times it was made, from 1.
        backoff_step: How many backoffs came before, from 0.
        remaining_seconds: Until the deadline; None if there is none.
        random: Drawn from 0 to 1.
    """
    if attempt >= policy.max_attempts or error.is_retry_forbidden or not is_retryable(error):
        return None
    wait = policy.backoff(backoff_step, random)
    if error.retry_after is not None:
        wait = error.retry_after if error.has_pushback else max(wait, error.retry_after)
    if wait > policy.max_wait_seconds:
        return None
    if remaining_seconds is not None and wait >= remaining_seconds:
        return None
    return wait


class Attempts:
    """The attempts at one call: its deadline, and what its failures lead to."""

    def __init__(
        self,
        *,
        policy: RetryPolicy,
        throttle: RetryThrottle,
        timeout: float | None,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._throttle = throttle
        self._clock = clock
        self._random = random
        self._deadline = None if timeout is None else clock() + timeout
        self._attempt = 1
        self._backoff_step = 0
        self._has_begun = False
        self._started_at = 0.0
        self._first_begun_at: float | None = None

    @property
    def has_begun(self) -> bool:
        """Whether something of the answer has arrived, so that there is no way back."""
        return self._has_begun

    def remaining_seconds(self) -> float | None:
        """Return how long the call may still take; None if there is no deadline."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - self._clock())

    def start(self) -> None:
        """Note that the next attempt is made now."""
        self._started_at = self._clock()

    def spent_seconds(self) -> float:
        """Return how long ago the first attempt was made of which something has arrived."""
        return 0.0 if self._first_begun_at is None else self._clock() - self._first_begun_at

    def begin(self) -> None:
        """Note that something of the answer has arrived. Repeatable."""
        if not self._has_begun:
            self._has_begun = True
            self._throttle.earn()
            if self._first_begun_at is None:
                self._first_begun_at = self._started_at

    def wait_after(self, error: ClientError) -> float | None:
        """Note a failure and return the seconds to wait before the next attempt, None for never."""
        if self._has_begun or not is_retryable(error):
            return None
        self._throttle.spend()
        return self._next_wait(error)

    def wait_after_loss(self, error: ClientError, *, has_progressed: bool) -> float | None:
        """Note that an answer broke off that can be gone on with; return as `wait_after` does.

        One that brought something new since the last time was no failure: it spends nothing, and
        attempts are counted from there.
        """
        self._has_begun = False
        if has_progressed:
            self._attempt, self._backoff_step = 1, 0
        else:
            self._throttle.spend()
        return self._next_wait(error)

    def _next_wait(self, error: ClientError) -> float | None:
        if not self._throttle.has_room:
            return None
        wait = decide_retry(
            self._policy,
            error,
            attempt=self._attempt,
            backoff_step=self._backoff_step,
            remaining_seconds=self.remaining_seconds(),
            random=self._random(),
        )
        if wait is not None:
            self._attempt += 1
            self._backoff_step = 0 if error.has_pushback else self._backoff_step + 1
        return wait
