"""Whether int8 may stand in for bfloat16: measured on a text, for each model. Engine thread.

Perplexity on a fixed text in the public domain may rise by 1 % at most. What was measured is kept
beside the weights, so that it is measured once for each model and each version of the kernels.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from hocket.server.model.native import packing

MOST_RATIO = 1.01
TEXT = Path(__file__).with_name("gate.txt")
TOKENS = 1024
WINDOW = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """How int8 compares with bfloat16.

    Attributes:
        perplexity_ratio: Above 1 where int8 is worse.
        agreement: Share of positions at which both hold the same token likeliest.
    """

    perplexity_ratio: float
    agreement: float

    @property
    def is_passed(self) -> bool:
        """Whether int8 may be used."""
        return self.perplexity_ratio <= MOST_RATIO


Scores = Callable[[Sequence[int]], Tensor]
"""Maps tokens, at most `WINDOW`, to `[tokens, vocabulary]` float32 logits."""


def measure(token_ids: Sequence[int], exact: Scores, rounded: Scores) -> GateResult:
    """Compare two ways of computing a model over a text.

    Args:
        token_ids: The text; its first `TOKENS` tokens are used.
        exact: The model in bfloat16.
        rounded: The model in int8.
    """
    losses = [0.0, 0.0]
    count = same = 0
    for begin in range(0, min(len(token_ids), TOKENS), WINDOW):
        window = list(token_ids[begin : begin + WINDOW])
        if len(window) < 2:  # noqa: PLR2004 - a token and what follows it
            break
        targets = torch.tensor(window[1:])[:, None]
        likeliest = []
        for index, scores in enumerate((exact, rounded)):
            logprobs = scores(window)[: len(window) - 1].log_softmax(-1)
            losses[index] -= float(logprobs.gather(1, targets).double().sum())
            likeliest.append(logprobs.argmax(-1))
        same += int((likeliest[0] == likeliest[1]).sum())
        count += len(window) - 1
    if not count:
        return GateResult(perplexity_ratio=math.inf, agreement=0.0)
    rise = (losses[1] - losses[0]) / count
    ratio = math.exp(rise) if rise < 1 else math.inf  # NaN is no rise, and does not pass either
    return GateResult(perplexity_ratio=ratio, agreement=same / count)


def version() -> str:
    """Return what changes with the text, the way of measuring and the way of rounding."""
    files = (TEXT, Path(__file__), Path(packing.__file__))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


def recall(file: Path) -> GateResult | None:
    """Return what was measured before, or None."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        return GateResult(
            perplexity_ratio=float(kept["perplexity_ratio"]), agreement=float(kept["agreement"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(file: Path, result: GateResult) -> None:
    """Keep a result for later starts; that it cannot be kept costs only time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(result)) + "\n", encoding="utf-8")
    except OSError:
        return
