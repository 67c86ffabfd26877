"""From turns to figures: medians, percentiles, ratios against the best rival, and tables."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.peers.peer import Turn
from bench.samples import percentile

Figures = dict[str, Any]
_LOWER_IS_BETTER = ("first_text_p50", "first_text_p99", "first_sentence_p50", "first_sentence_p99")


def figures(turns: Sequence[Turn]) -> Figures:
    """Return the figures of one side: rates of turns, and times of all their streams together.

    Times are in seconds; None where no stream had any.
    """
    streams = [stream for turn in turns for stream in turn.streams]
    found: Figures = {
        "rate": round(statistics.median(turn.rate for turn in turns), 1),
        "rates": [round(turn.rate, 1) for turn in turns],
    }
    times: dict[str, list[float]] = {
        "first_text": [s.first_text for s in streams if s.first_text is not None],
        "first_sentence": [s.first_sentence for s in streams if s.first_sentence is not None],
        "gap": [gap for s in streams for gap in s.gaps],
    }
    for name, values in times.items():
        for percent in (50, 99):
            at = round(percentile(values, percent), 4) if values else None
            found[f"{name}_p{percent}"] = at
    found["without_sentence"] = sum(stream.first_sentence is None for stream in streams)
    return found


def ratios(
    sides: Mapping[str, Figures], rivals: Sequence[str], ours: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return how many times better each of our sides is than the best rival, figure by figure.

    More than 1 is better for us, for rates and for times alike.
    """
    found: dict[str, dict[str, float]] = {}
    for name in ours:
        found[name] = {}
        for figure in ("rate", *_LOWER_IS_BETTER):
            mine = sides[name][figure]
            others = [value for rival in rivals if (value := sides[rival][figure]) is not None]
            if mine is None or not others:
                continue
            ratio = mine / max(others) if figure == "rate" else min(others) / mine
            found[name][figure] = round(ratio, 2)
    return found


def table(result: Mapping[str, Any]) -> str:
    """Return a result as a Markdown table: one row for each side, the absent ones too."""
    counts = list(result["streams"])
    most = counts[-1]
    heads = [f"tokens/s, {count} stream{'s' * (count != '1')}" for count in counts]
    for what in ("first text", "first sentence"):
        heads += [f"{what} of {most}, median, s", "p99, s"]
    heads.append(f"gap of {most}, p99, ms")
    rows = [["side", *heads], ["---", *["---:"] * len(heads)]]
    for name in result["sides"]:
        if name in result["absent"]:
            rows.append([name, f"absent: {result['absent'][name]}", *[""] * (len(heads) - 1)])
            continue
        found = [result["streams"][count]["sides"].get(name) for count in counts]
        row = [f"{side['rate']:.0f}" if side else "" for side in found]
        last = found[-1] or {}
        row += [_number(last.get(key), 2) for key in _LOWER_IS_BETTER]
        gap = last.get("gap_p99")
        row.append(_number(None if gap is None else gap * 1000, 0))
        rows.append([name, *row])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    for count in counts:
        for name, found in result["streams"][count]["ratios"].items():
            told = ", ".join(f"{figure} {value:.2f}" for figure, value in found.items())
            lines.append(f"\n{name} against the best rival, {count} streams: {told}")
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
