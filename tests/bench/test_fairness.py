"""What is told of single calls beside documents."""

import pytest
from bench.fairness import KINDS, Kind, ratios
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=40), st.floats(1.01, 50))
def test_ratios_are_those_of_the_slowest_calls(seconds, factor):
    """However many calls each kind had."""
    slower = [second * factor for second in seconds]
    kinds = {name: Kind(first_sentences=seconds) for name in KINDS}
    kinds["first_come"] = Kind(first_sentences=slower)
    found = ratios(kinds)
    assert found["fair_to_room"] == found["room_to_alone"] == 1
    assert found["first_come_to_room"] == pytest.approx(factor, abs=0.01)


def test_a_summary_is_in_milliseconds_and_segments_a_second():
    kind = Kind(first_sentences=[0.1, 0.2, 0.3], segments=30, seconds=12.0, errors=1)
    assert kind.summary() == {
        "calls": 3,
        "ttfs_p50_ms": 200.0,
        "ttfs_p95_ms": 290.0,
        "segments_per_second": 2.5,
        "errors": 1,
    }
