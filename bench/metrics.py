"""What a server's metrics said at one moment."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.request import urlopen

_VALUE = re.compile(r"^(\w+) (\S+)$", re.MULTILINE)
_BUCKET = re.compile(r'^(\w+)_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)
_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values were at most so large, by upper bounds; the last bound is infinite.

    Attributes:
        counts: For each upper bound the count of all values up to it.
    """

    counts: Mapping[float, float] = field(default_factory=dict)

    def __add__(self, other: "Histogram") -> "Histogram":
        """Return both together; their bounds are the same, or one is empty."""
        total = Counter(self.counts)
        total.update(other.counts)
        return Histogram(total)

    def __sub__(self, earlier: "Histogram") -> "Histogram":
        """Return what was counted since an earlier moment."""
        return Histogram(
            {bound: count - earlier.counts.get(bound, 0) for bound, count in self.counts.items()}
        )

    def percentile(self, share: float) -> float | None:
        """Return the value below which a share lies, by a straight line between two bounds.

        The last finite bound where it lies beyond that; None if nothing was counted.

        Args:
            share: In percent, above 0 and at most 100.
        """
        ordered = sorted(self.counts.items())
        if not ordered or not ordered[-1][1]:
            return None
        wanted = ordered[-1][1] * share  # counts times 100, which is exact for whole shares
        for (low, under), (high, count) in pairwise([(0.0, 0.0), *ordered[:-1]]):
            if 100 * count >= wanted:
                return low + (high - low) * (wanted / 100 - under) / (count - under)
        return ordered[-2][0] if len(ordered) > 1 else None

    def milliseconds(self) -> dict[str, float] | None:
        """Return p50 and p99 of seconds in milliseconds, and the count; None of nothing."""
        median, high = self.percentile(50), self.percentile(99)
        if median is None or high is None:
            return None
        return {
            "p50": round(median * 1e3, 2),
            "p99": round(high * 1e3, 2),
            "count": max(self.counts.values()),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What has no labels.

    Attributes:
        values: By name.
        histograms: By name, without a suffix.
    """

    values: Mapping[str, float]
    histograms: Mapping[str, Histogram]

    @classmethod
    def parse(cls, text: str) -> "Metrics":
        """Read Prometheus' text format."""
        counts: dict[str, dict[float, float]] = {}
        for name, bound, count in _BUCKET.findall(text):
            counts.setdefault(name, {})[float(bound)] = float(count)
        return cls(
            values={name: float(value) for name, value in _VALUE.findall(text)},
            histograms={name: Histogram(found) for name, found in counts.items()},
        )

    @property
    def loop_lag(self) -> Histogram:
        """How late the server's event loop came to what was due, in seconds."""
        return self.histograms["hocket_event_loop_lag_seconds"]


def scrape(address: str) -> Metrics:
    """Read the metrics of a server now.

    Args:
        address: Where they are served, as host and port.
    """
    with urlopen(f"http://{address}/metrics", timeout=_SECONDS) as answer:
        return Metrics.parse(answer.read().decode())
