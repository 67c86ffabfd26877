"""When a call is made again: laws of a pure function, and of the throttle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.client import (
    NO_RETRIES,
    ClientError,
    Draining,
    EngineFailed,
    GenerationFailed,
    InternalError,
    InvalidRequest,
    NotReady,
    Overloaded,
    ReaderTooSlow,
    ResourceExhausted,
    RetryPolicy,
    StreamError,
    TransportError,
)
from hocket.client._retry import Attempts, RetryThrottle, decide_retry

PASSING = [TransportError, Draining, NotReady, EngineFailed, Overloaded]
LASTING = [InvalidRequest, GenerationFailed, InternalError, ReaderTooSlow, StreamError]


def make_error(cls, *, retry_after=None, has_pushback=False, is_retry_forbidden=False):
    if cls in {TransportError, StreamError}:
        error = cls("no")
    else:
        error = cls("no", code="SOME", reason="REASON")
    error.retry_after = retry_after
    error.has_pushback = has_pushback
    error.is_retry_forbidden = is_retry_forbidden
    return error


def _consistent(error: ClientError) -> ClientError:
    error.has_pushback = error.has_pushback and error.retry_after is not None
    return error


policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 8),
    initial_backoff_seconds=st.floats(0, 2),
    max_backoff_seconds=st.floats(0, 10),
    backoff_multiplier=st.floats(1, 4),
    jitter=st.floats(0, 1),
    max_wait_seconds=st.floats(0, 30),
)
errors = st.builds(
    make_error,
    st.sampled_from(PASSING + LASTING),
    retry_after=st.none() | st.floats(0, 40),
    has_pushback=st.booleans(),
    is_retry_forbidden=st.booleans(),
).map(_consistent)
situations = st.fixed_dictionaries(
    {
        "attempt": st.integers(1, 9),
        "backoff_step": st.integers(0, 2000),
        "remaining_seconds": st.none() | st.floats(0, 50),
        "random": st.floats(0, 1, exclude_max=True),
    }
)


@given(policies, errors, situations)
def test_a_wait_keeps_every_bound(policy, error, situation) -> None:
    """Whatever happened, a wait is allowed, within the deadline and as long as was asked for."""
    wait = decide_retry(policy, error, **situation)
    if wait is None:
        return
    assert type(error) in PASSING
    assert not error.is_retry_forbidden
    assert situation["attempt"] < policy.max_attempts
    assert 0 <= wait <= policy.max_wait_seconds
    if situation["remaining_seconds"] is not None:
        assert wait < situation["remaining_seconds"]
    if error.has_pushback:
        assert wait == error.retry_after
    elif error.retry_after is not None:
        assert wait >= error.retry_after
    else:
        assert wait <= policy.max_backoff_seconds * (1 + policy.jitter)


@given(policies, errors, situations)
def test_a_refusal_to_wait_has_a_reason(policy, error, situation) -> None:
    """A failure that may pass, with attempts and time left, is waited for."""
    generous = RetryPolicy(
        max_attempts=policy.max_attempts,
        initial_backoff_seconds=policy.initial_backoff_seconds,
        max_backoff_seconds=policy.max_backoff_seconds,
        max_wait_seconds=1e9,
    )
    situation = situation | {"remaining_seconds": None}
    may = (
        type(error) in PASSING
        and not error.is_retry_forbidden
        and situation["attempt"] < policy.max_attempts
    )
    assert (decide_retry(generous, error, **situation) is not None) == may


@given(policies, st.integers(0, 2000))
def test_backoff_grows_within_its_jitter(policy, step) -> None:
    """Without jitter the wait never falls from one step to the next, up to its bound."""
    middle = policy.backoff(step, 0.5)
    assert middle <= policy.backoff(step + 1, 0.5) <= policy.max_backoff_seconds
    assert policy.backoff(step, 0.0) <= middle <= policy.backoff(step, 1.0)


@given(st.lists(st.booleans(), max_size=200))
def test_the_throttle_stays_within_its_bounds(outcomes) -> None:
    """Tokens are from none to all, and half of them must be left."""
    throttle = RetryThrottle(max_tokens=10, token_ratio=0.1)
    tokens = 10.0
    for is_success in outcomes:
        if is_success:
            throttle.earn()
            tokens = min(10.0, tokens + 0.1)
        else:
            throttle.spend()
            tokens = max(0.0, tokens - 1)
        assert throttle.has_room == (tokens > 5)


def make_attempts(policy=RetryPolicy(), *, throttle=None, timeout=None, clock=lambda: 0.0):  # noqa: B008 - frozen
    return Attempts(
        policy=policy,
        throttle=throttle or RetryThrottle(max_tokens=10, token_ratio=0.1),
        timeout=timeout,
        clock=clock,
        random=lambda: 0.5,
    )


def test_nothing_is_made_again_after_a_beginning() -> None:
    """What has arrived cannot be taken back."""
    attempts = make_attempts()
    attempts.begin()
    assert attempts.wait_after(make_error(Draining)) is None


def test_five_failures_stop_the_retries_of_a_whole_client() -> None:
    """Ten tokens: the fifth failure in a row leaves half, and half is not enough."""
    throttle = RetryThrottle(max_tokens=10, token_ratio=0.1)
    waits = [make_attempts(throttle=throttle).wait_after(make_error(Draining)) for _ in range(6)]
    assert [wait is not None for wait in waits] == [True] * 4 + [False] * 2
    for _ in range(30):
        throttle.earn()
    assert make_attempts(throttle=throttle).wait_after(make_error(Draining)) is not None


def test_a_pushback_starts_the_backoff_anew() -> None:
    """As gRFC A6 has it."""
    attempts = make_attempts(RetryPolicy(max_attempts=9))
    plain = make_error(Draining)
    pushed = make_error(Draining, retry_after=0.03, has_pushback=True)
    waits = [attempts.wait_after(error) for error in (plain, plain, pushed, plain)]
    assert waits == [0.2, 0.4, 0.03, 0.2]


def test_the_deadline_is_made_once() -> None:
    """What remains shrinks with the clock, and never below 0."""
    times = iter([10.0, 11.0, 12.5, 20.0])
    attempts = make_attempts(timeout=3, clock=lambda: next(times))
    assert [attempts.remaining_seconds() for _ in range(3)] == [2.0, 0.5, 0.0]
    assert make_attempts().remaining_seconds() is None


def test_a_bare_exhaustion_is_left_alone() -> None:
    """It may be a message over the size limit; a hint when to come back says that it is not."""
    bare = ResourceExhausted("too large", code="RESOURCE_EXHAUSTED")
    assert make_attempts().wait_after(bare) is None
    bare.retry_after = 0.1
    assert make_attempts().wait_after(bare) == 0.2


def test_no_retries_makes_none() -> None:
    """The policy that makes each call once."""
    assert make_attempts(NO_RETRIES).wait_after(make_error(Draining)) is None


@pytest.mark.parametrize(
    "values",
    [
        {"max_attempts": 0},
        {"jitter": 1.5},
        {"initial_backoff_seconds": -1},
        {"backoff_multiplier": 0.5},
        {"max_tokens": 0},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(values) -> None:
    """At once, where it is written."""
    with pytest.raises(ValueError, match="must"):
        RetryPolicy(**values)
