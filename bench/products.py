"""Matrix products of one layer by shape: billions of operations a second, ours and others'.

    python -m bench.products

Rows are rounded or cast as in a step, which is part of the time. So many copies of a layer are
multiplied by turns that their weights come from memory, as in a step.
"""

import statistics
import time
from collections.abc import Iterator, Sequence

from hocket.server.startup import prepare_torch

prepare_torch()

import torch

from bench import library_products
from bench.command import deliver, origin, parser
from bench.models import open_checkpoint
from hocket.server.model.checkpoint import DecoderConfig
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.model.device import compute_threads
from hocket.server.model.native.arena import Arena
from hocket.server.model.native.library import Library, ModelStruct, StepStruct
from hocket.server.model.native.packing import GROUP, PackedLinear

ROWS = (1, 8, 32, 128)
_BYTES = 96 << 20  # of weights, more than caches hold
_SECONDS = 0.15  # for each figure
_TURNS = 5


def shapes(config: DecoderConfig) -> dict[str, tuple[int, int]]:
    """Return outputs and inputs of the products of one layer, and of the head."""
    heads = config.num_heads * config.head_dim
    kv = config.num_kv_heads * config.head_dim
    return {
        "qkv": (heads + 2 * kv, config.hidden_size),
        "output": (config.hidden_size, heads),
        "gate_up": (2 * config.intermediate_size, config.hidden_size),
        "down": (config.hidden_size, config.intermediate_size),
        "head": (config.vocabulary_size, config.hidden_size),
    }


class _Product:
    """Layers of one shape, multiplied by turns."""

    def __init__(
        self, library: Library, outputs: int, inputs: int, *, is_int8: bool, threads: int
    ) -> None:
        self._library = library
        self._norm = torch.ones(inputs)
        weight = torch.randn(outputs, inputs) / inputs**0.5
        copies = max(1, _BYTES // (outputs * inputs * (1 if is_int8 else 2)))
        arena = Arena()
        self._layers = [PackedLinear(weight, arena=arena, is_int8=is_int8) for _ in range(copies)]
        self._models = [
            ModelStruct(
                norm=self._norm.data_ptr(),
                head=layer.struct,
                hidden=inputs,
                epsilon=1e-5,
                num_threads=threads,
            )
            for layer in self._layers
        ]
        self._size = 2.0 * outputs * inputs
        self._inputs = inputs

    def rate(self, rows: int) -> float:
        """Return billions of operations a second, the median of some turns."""
        hidden = torch.randn(rows, self._inputs)
        values = torch.empty((rows, self._inputs), dtype=torch.bfloat16)
        scales = torch.empty((rows, self._inputs // GROUP))
        offsets = torch.empty((rows, self._inputs // GROUP), dtype=torch.int32)
        step = StepStruct(
            values=values.data_ptr(), scales=scales.data_ptr(), offsets=offsets.data_ptr()
        )
        out = torch.empty((rows, self._models[0].head.out_features))
        places = list(range(rows))
        rates = []
        for _ in range(_TURNS):
            begun, done = time.perf_counter(), 0
            while (taken := time.perf_counter() - begun) < _SECONDS / _TURNS or not done:
                for model in self._models:
                    self._library.logits(model, step, hidden, places, out)
                done += len(self._models)
            rates.append(self._size * rows * done / taken / 1e9)
        return statistics.median(rates)


def rates(library: Library, config: DecoderConfig, threads: int) -> Iterator[dict[str, object]]:
    """Yield the rates of each shape in each number type."""
    for name, (outputs, inputs) in shapes(config).items():
        for is_int8 in (True, False):
            product = _Product(library, outputs, inputs, is_int8=is_int8, threads=threads)
            yield {
                "product": name,
                "shape": f"{outputs}x{inputs}",
                "dtype": f"{'int8' if is_int8 else 'bfloat16'}, hocket",
                "gops": {str(rows): round(product.rate(rows), 1) for rows in ROWS},
            }
        for made, make in library_products.LIBRARIES.items():
            row = {"product": name, "shape": f"{outputs}x{inputs}", "dtype": made}
            try:
                with torch.inference_mode():
                    others = list(library_products.rates(make, outputs, inputs, ROWS, _BYTES))
            except ImportError as error:
                yield {**row, "gops": {}, "absent": str(error)}
            else:
                yield {**row, "gops": {str(rows): round(rate, 1) for rows, rate in others}}


def table(found: Sequence[dict[str, object]]) -> str:
    """Return rates as Markdown."""
    lines = [
        f"| Product | Outputs x inputs | Type |{''.join(f' {rows} rows |' for rows in ROWS)}",
        "|---|---|---|" + "---|" * len(ROWS),
    ]
    for row in found:
        gops = row["gops"]
        cells = [f"{rate:.0f}" for rate in gops.values()] if isinstance(gops, dict) else []
        cells = cells or ["absent"] * len(ROWS)
        lines.append(
            f"| {' | '.join([*(str(row[k]) for k in ('product', 'shape', 'dtype')), *cells])} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run as a command."""
    arguments = parser(__doc__).parse_args()
    opened, runner = open_checkpoint(ModelSourceConfig()), RunnerConfig(kernels="native")
    choice = opened.choose(runner)
    if choice is None or choice.library is None:
        raise SystemExit("the kernels are not to be had here")
    found = list(rates(choice.library, opened.checkpoint.config, compute_threads(runner)))
    deliver({**origin("bench.products", "torch"), "products": found}, arguments, is_printed=False)
    print(table(found))


if __name__ == "__main__":
    main()
