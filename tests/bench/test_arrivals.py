"""Arrivals of an open loop."""

from itertools import islice, pairwise

import pytest
from bench.arrivals import poisson
from hypothesis import given
from hypothesis import strategies as st

RATES = st.floats(min_value=0.01, max_value=1000)


@given(RATES, st.integers())
def test_moments_ascend_and_depend_on_the_seed_alone(rate: float, seed: int) -> None:
    moments = list(islice(poisson(rate, seed), 50))
    assert all(before < after for before, after in pairwise([0.0, *moments]))
    assert list(islice(poisson(rate, seed), 50)) == moments


def test_gaps_are_exponential() -> None:
    """Mean and standard deviation both equal the mean gap; a share of 1/e exceeds it."""
    rate, count = 4.0, 40_000
    moments = list(islice(poisson(rate, 7), count))
    gaps = [after - before for before, after in pairwise([0.0, *moments])]
    mean = sum(gaps) / count
    spread = (sum((gap - mean) ** 2 for gap in gaps) / count) ** 0.5
    assert mean == pytest.approx(1 / rate, rel=0.02)
    assert spread == pytest.approx(1 / rate, rel=0.03)
    assert sum(gap > 1 / rate for gap in gaps) / count == pytest.approx(0.3679, abs=0.01)
