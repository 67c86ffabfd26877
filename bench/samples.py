"""Percentiles of what was measured."""

import math
from collections.abc import Sequence

SHARES = (50, 90, 99)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of all lies, between neighbours by a straight line.

    Args:
        values: At least one, in any order.
        share: In percent, 0 to 100.
    """
    ordered = sorted(values)
    place = (len(ordered) - 1) * share / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def milliseconds(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return p50, p90 and p99 in milliseconds, and how many values there are; None of nothing."""
    if not seconds:
        return None
    found = {f"p{share}": round(percentile(seconds, share) * 1e3, 2) for share in SHARES}
    return found | {"count": len(seconds)}
