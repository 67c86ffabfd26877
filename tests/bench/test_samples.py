"""Percentiles."""

import statistics

import pytest
from bench.samples import milliseconds, percentile
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.lists(st.floats(min_value=-1e6, max_value=1e6), min_size=1, max_size=60)


@given(VALUES)
def test_the_ends_and_the_middle(values: list[float]) -> None:
    assert percentile(values, 0) == min(values)
    assert percentile(values, 100) == max(values)
    assert percentile(values, 50) == pytest.approx(statistics.median(values), abs=1e-6)


@given(st.lists(st.floats(min_value=-1e6, max_value=1e6), min_size=2, max_size=60))
def test_it_agrees_with_the_inclusive_method_of_the_standard_library(values: list[float]) -> None:
    expected = statistics.quantiles(values, n=100, method="inclusive")
    assert [percentile(values, share) for share in range(1, 100)] == pytest.approx(
        expected, abs=1e-6
    )


def test_of_nothing_there_is_no_percentile() -> None:
    assert milliseconds([]) is None
    assert milliseconds([0.001, 0.003]) == {"p50": 2.0, "p90": 2.8, "p99": 2.98, "count": 2}
