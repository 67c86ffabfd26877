"""How much int8 weights cost in perplexity, by how many inputs share a scale.

    python -m bench.scales

Weights are rounded and widened again, and computed by torch in float32: that shows the scales
alone. The last line is the kernels in int8 against the kernels in bfloat16, which round activations
too. The text is the one that the server's own gate reads.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor
from torch.nn import functional

from bench.command import deliver, origin, parser
from bench.models import Opened, open_checkpoint
from hocket.server.model.checkpoint import Checkpoint, DecoderConfig
from hocket.server.model.choice import Choice, Scores
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.model.native import gate

GROUPS = (32, 64, 128, None)  # None: one scale for a whole row
_MOST = 127


class RoundedCheckpoint:
    """A checkpoint whose matrices hold what int8 leaves of them; the embedding stays as it is."""

    def __init__(self, checkpoint: Checkpoint, group: int | None) -> None:
        self._checkpoint = checkpoint
        self._group = group
        self.is_tied = checkpoint.config.tie_embeddings

    @property
    def config(self) -> DecoderConfig:
        """The hyperparameters, with a head of its own."""
        return replace(self._checkpoint.config, tie_embeddings=False)

    def tensor(self, name: str) -> Tensor:
        """Read one tensor."""
        is_head = name == "lm_head.weight"
        source = "model.embed_tokens.weight" if is_head and self.is_tied else name
        tensor = self._checkpoint.tensor(source)
        if is_head or name.endswith("_proj.weight"):
            return rounded(tensor.float(), self._group)
        return tensor


def rounded(weight: Tensor, group: int | None) -> Tensor:
    """Return what is left of `[outputs, inputs]` once int8 has held them.

    Args:
        weight: Float32.
        group: Inputs of an output that share a bfloat16 scale; None for all of them. The last group
            may be smaller.
    """
    outputs, inputs = weight.shape
    together = group or inputs
    groups = functional.pad(weight, (0, -inputs % together)).view(outputs, -1, together)
    scales = (groups.abs().amax(-1, keepdim=True) / _MOST).clamp_min(1e-12)
    scales = scales.to(torch.bfloat16).float()
    whole = (groups / scales).round_().clamp_(-_MOST, _MOST)
    return whole.mul_(scales).view(outputs, -1)[:, :inputs].contiguous()


def compare(opened: Opened) -> list[dict[str, object]]:
    """Return perplexity and agreement for each kind of scale, and of the kernels."""
    text = gate.TEXT.read_text(encoding="utf-8")
    tokens = opened.tokenizer.encode(text, add_special=True, parse_special=False).token_ids
    alone, config = Choice(library=None, dtype=torch.float32), RunnerConfig()
    exact = Scores(opened.checkpoint, config, alone)
    found: list[dict[str, object]] = []
    for group in GROUPS:
        scores = Scores(RoundedCheckpoint(opened.checkpoint, group), config, alone)
        kind = f"a scale for each {group} inputs" if group else "a scale for each row"
        found.append({"kind": kind} | asdict(gate.measure(tokens, exact, scores)))
    chosen = [
        opened.choose(RunnerConfig(kernels="native", quantization=name))
        for name in ("none", "int8")
    ]
    pair = [Scores(opened.checkpoint, config, choice) for choice in chosen if choice is not None]
    if len(pair) == len(chosen):
        found.append({"kind": "the kernels' int8"} | asdict(gate.measure(tokens, *pair)))
    return found


def table(found: Sequence[dict[str, object]]) -> str:
    """Return the comparison as Markdown."""
    lines = ["| int8 | Perplexity | Same likeliest token |", "|---|---|---|"]
    for row in found:
        change = float(str(row["perplexity_ratio"])) - 1
        lines.append(f"| {row['kind']} | {change:+.2%} | {float(str(row['agreement'])):.1%} |")
    return "\n".join(lines)


def main() -> None:
    """Run as a command."""
    arguments = parser(__doc__).parse_args()
    found = compare(open_checkpoint(ModelSourceConfig()))
    deliver({**origin("bench.scales", "torch"), "kinds": found}, arguments, is_printed=False)
    print(table(found))


if __name__ == "__main__":
    main()
