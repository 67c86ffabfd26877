"""Where the time of a decode step goes, without gRPC: by streams, and by who computes.

    python -m bench.steps [--streams 1 8 32] [--rounds 3] [--with-products] [--with-scales]

The kernels in int8, the kernels in bfloat16 and torch alone take turns. Only steps count that write
one token for each stream; each figure is a median over them.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.command import deliver, origin, parser
from bench.in_process import Step, Watch, write
from bench.prompts import questions
from hocket.server.engine.batch import ModelRunner
from hocket.server.engine.config import EngineConfig
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.startup import prepare_torch

if TYPE_CHECKING:
    from bench.models import Opened

_CACHE_MIB = 256
SIDES = {
    "int8": RunnerConfig(kernels="native", quantization="int8", kv_cache_mib=_CACHE_MIB),
    "bfloat16": RunnerConfig(kernels="native", quantization="none", kv_cache_mib=_CACHE_MIB),
    "torch": RunnerConfig(kernels="torch", quantization="none", kv_cache_mib=_CACHE_MIB),
}
PARTS = {
    "before": "commands, schedule, slices",
    "forward": "network",
    "head": "output head",
    "drawing": "drawing tokens",
    "after": "text and outputs",
    "total": "all",
}


@dataclass(slots=True, kw_only=True)
class Side:
    """One way to compute the model.

    Attributes:
        runner: Computes.
        watch: Of its steps.
        steps: That wrote one token for each stream, by the number of streams.
    """

    runner: ModelRunner
    watch: Watch
    steps: dict[int, list[Step]] = field(default_factory=dict)


def parts(steps: Sequence[Step]) -> dict[str, float]:
    """Return the median milliseconds of each part.

    Raises:
        SystemExit: There are no steps, since the first streams ended before the last began.
    """
    if not steps:
        raise SystemExit("no step wrote a token for each stream; give more --new-tokens")
    return {
        name: round(statistics.median(getattr(step, name) for step in steps) * 1e3, 3)
        for name in PARTS
    }


def _sides(opened: "Opened") -> dict[str, Side]:
    """Return all ways that can be had here."""
    from bench.models import WatchedChoice  # noqa: PLC0415 - loads torch
    from hocket.server.model.runner import TorchRunner  # noqa: PLC0415 - the same

    found = {}
    for name, config in SIDES.items():
        choice = opened.choose(config)
        if choice is None:
            continue
        watch = Watch()
        watched = WatchedChoice(
            library=choice.library, dtype=choice.dtype, is_int8=choice.is_int8, watch=watch
        )
        runner = TorchRunner(
            opened.checkpoint,
            config,
            num_tokens=opened.tokenizer.vocabulary_size,
            choice=watched,
        )
        found[name] = Side(runner=runner, watch=watch)
    return found


def measure(opened: "Opened", arguments: argparse.Namespace) -> dict[str, Side]:
    """Give every side its turns."""
    engine = EngineConfig(max_num_seqs=max(32, *arguments.streams))
    prompts = [
        opened.tokenizer.encode(text, add_special=False, parse_special=False).token_ids
        for text in questions(max(arguments.streams))
    ]
    sides = _sides(opened)
    for number in range(arguments.rounds + 1):
        for streams in arguments.streams:
            for side in sides.values():
                job = write(
                    side.runner,
                    opened.tokenizer,
                    engine,
                    prompts[:streams],
                    arguments.new_tokens if number else 4,
                    side.watch,
                )
                counted = [
                    step for step in job.steps if step.streams == streams and not step.prompt_tokens
                ]
                if number:  # the first round warms up
                    side.steps.setdefault(streams, []).extend(counted)
    return sides


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return milliseconds as Markdown."""
    lines = [f"| Streams | Computed by | {' | '.join(PARTS.values())} |"]
    lines.append("|---|---|" + "---|" * len(PARTS))
    for streams, sides in found.items():
        for name, milliseconds in sides.items():
            cells = [f"{milliseconds[part]:.2f}" for part in PARTS]
            lines.append(f"| {streams} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run as a command."""
    made = parser(__doc__)
    made.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    made.add_argument("--new-tokens", type=int, default=64)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--with-products", action="store_true", help="see bench.products")
    made.add_argument("--with-scales", action="store_true", help="see bench.scales")
    arguments = made.parse_args()
    prepare_torch()
    from bench import products, scales  # noqa: PLC0415 - load torch
    from bench.models import open_checkpoint  # noqa: PLC0415 - the same
    from hocket.server.model.device import compute_threads  # noqa: PLC0415 - the same

    opened = open_checkpoint(ModelSourceConfig())
    sides = measure(opened, arguments)
    steps = {
        str(streams): {name: parts(side.steps[streams]) for name, side in sides.items()}
        for streams in arguments.streams
    }
    result: dict[str, object] = {**origin("bench.steps", "torch"), "milliseconds": steps}
    tables = [table(steps)]
    choice = opened.choose(SIDES["int8"])
    if arguments.with_products and choice is not None and choice.library is not None:
        threads = compute_threads(SIDES["int8"])
        rates = list(products.rates(choice.library, opened.checkpoint.config, threads))
        result["products"] = rates
        tables.append(products.table(rates))
    if arguments.with_scales:
        kinds = scales.compare(opened)
        result["scales"] = kinds
        tables.append(scales.table(kinds))
    deliver(result, arguments, is_printed=False)
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
