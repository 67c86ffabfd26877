"""The overview as a chart and as Markdown."""

from typing import Any

from bench.chart import Chart, Line, Panel

_BLUE, _ORANGE, _GRAY = "#2563eb", "#d97706", "#94a3b8"


def chart(result: dict[str, Any]) -> Chart:
    """Return the result as a chart."""
    streams: dict[str, dict[str, Any]] = result["streams"]
    machine = result["machine"]

    def line(name: str, color: str, *keys: str, is_bound: bool = False) -> Line:
        values = []
        for found in streams.values():
            value: Any = found
            for key in keys:
                value = None if value is None else value.get(key)
            values.append(value)
        return Line(name=name, values=values, color=color, is_bound=is_bound)

    def spread(name: str, key: str) -> Panel:
        lines = [line("median", _BLUE, key, "p50"), line("99th percentile", _ORANGE, key, "p99")]
        return Panel(name=name, unit="milliseconds", lines=lines)

    throughput = [
        line("whole sentences", _BLUE, "tokens_per_second", "sentence"),
        line("single tokens", _ORANGE, "tokens_per_second", "token"),
        line("roofline", _GRAY, "roofline_tokens_per_second", is_bound=True),
    ]
    return Chart(
        title=f"hocket alone: {result['model']} in {result['dtype']}",
        note=f"{machine['processor']}, {machine['cores']} cores, server and client on the same;"
        f" prompts of {result['prompt_tokens']:g} tokens sent at once, {result['new_tokens']} new"
        " tokens each, greedy",
        axis="concurrent streams",
        places=[float(count) for count in streams],
        panels=[
            Panel(name="Throughput", unit="tokens per second", lines=throughput),
            spread("Time to first token", "ttft_ms"),
            spread("Time to first sentence", "ttfs_ms"),
            spread("Gap between tokens", "gap_ms"),
        ],
    )


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    columns = [
        "Streams",
        "Tokens/s by the sentence / token",
        "Roofline",
        "Shares of it",
        "First token ms, p50 / p99",
        "First sentence ms, p50 / p99",
        "Gap ms, p50 / p99",
        "Loop lag ms, p50 / p99",
        "Mean step ms",
    ]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for streams, found in result["streams"].items():
        spreads = [
            f"{ms['p50']:.{digits}f} / {ms['p99']:.{digits}f}" if (ms := found[key]) else "-"
            for key, digits in {"ttft_ms": 0, "ttfs_ms": 0, "gap_ms": 0, "loop_lag_ms": 1}.items()
        ]
        cells = [
            streams,
            " / ".join(f"{rate:.0f}" for rate in found["tokens_per_second"].values()),
            f"{found['roofline_tokens_per_second']:.0f}",
            " / ".join(f"{share:.0%}" for share in found["share_of_roofline"].values()),
            *spreads,
            f"{found['mean_step_ms']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_sentences(result)])


def _sentences(result: dict[str, Any]) -> list[str]:
    """Return what stands beneath the table."""
    engine, rates = result["engine"], result["rates"]
    memory, start = result["resident_mib"], result["start_seconds"]
    alone = f"Without gRPC, {engine['streams']} streams: {engine['tokens_per_second']:.0f} tokens/s"
    for name, cost in engine["front_cost"].items():
        alone += f"; the front costs {cost['best']:.1%} by the {name}, fastest turns compared"
        alone += f" ({cost['median']:.1%} in the median)"
    if engine["decode_share_of_roofline"] is not None:
        alone += f"; decode steps reach {engine['decode_share_of_roofline']:.0%} of the roofline"
    served = f"Serving after {start['median']:.1f} s; {memory['before']} MiB resident then,"
    served += f" {memory['after']} MiB after the load"
    machine = f"The machine: {rates['read'] / 1e9:.1f} GB/s read, {rates['bf16'] / 1e9:.0f} GFLOP/s"
    machine += f" bfloat16, {rates['int8'] / 1e9:.0f} GOP/s int8 ({rates['source']})"
    return [alone, served, machine]
