"""What a server's metrics say is read back."""

import bisect
from math import inf

import pytest
from bench.metrics import Histogram, Metrics
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client import Histogram as Observed
from prometheus_client.exposition import generate_latest

BOUNDS = (0.001, 0.01, 0.1, 1.0)


def _histogram(values: list[float]) -> Histogram:
    return Histogram(
        {bound: float(sum(value <= bound for value in values)) for bound in (*BOUNDS, inf)}
    )


def test_what_the_server_writes_is_read() -> None:
    """Values without labels by name, histograms by bound; what has labels is left out."""
    registry = CollectorRegistry()
    Gauge("rooms", "Rooms.", registry=registry).set(2.5)
    Counter("calls", "Calls.", ["method"], registry=registry).labels(method="any").inc()
    lag = Observed("hocket_event_loop_lag_seconds", "Lag.", buckets=BOUNDS, registry=registry)
    values = [0.0005, 0.05, 0.05, 7.0]
    for value in values:
        lag.observe(value)
    found = Metrics.parse(generate_latest(registry).decode())
    assert found.values["rooms"] == 2.5
    assert found.values["hocket_event_loop_lag_seconds_sum"] == sum(values)
    assert not any("calls" in name for name in found.values)
    assert found.loop_lag == _histogram(values)


@given(st.lists(st.floats(0, 1), min_size=1), st.integers(1, 100))
def test_a_percentile_lies_in_the_bucket_of_the_true_one(values: list[float], share: int) -> None:
    """And so within the bounds that stand on both sides of it."""
    ordered = sorted(values)
    true = ordered[-(-len(ordered) * share // 100) - 1]
    place = bisect.bisect_left(BOUNDS, true)
    found = _histogram(values).percentile(share)
    assert found is not None
    low, high = (0.0, *BOUNDS)[place], BOUNDS[place]
    assert low - 1e-12 <= found <= high + 1e-12


@given(st.lists(st.floats(0, 2)), st.lists(st.floats(0, 2)))
def test_what_came_since_is_the_difference(before: list[float], since: list[float]) -> None:
    both = _histogram(before + since)
    assert both - _histogram(before) == _histogram(since)
    assert _histogram(before) + _histogram(since) == both
    assert Histogram() + both == both


def test_beyond_the_last_bound_is_that_bound_and_nothing_has_no_percentile() -> None:
    assert _histogram([5.0, 6.0]).percentile(99) == BOUNDS[-1]
    assert _histogram([]).percentile(99) is None
    assert Histogram().milliseconds() is None


def test_milliseconds_have_their_count() -> None:
    found = _histogram([0.0005] * 100).milliseconds()
    assert found == {"p50": pytest.approx(0.5), "p99": pytest.approx(0.99), "count": 100}
