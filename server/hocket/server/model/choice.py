"""Which network computes a model: the kernels where they can, torch elsewhere. Engine thread.

kernels   auto: where the processor and the model allow it and `native/build.py` finds them
int8      auto: where the kernels compute, and the gate was passed by this very model
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
from torch import Tensor

from hocket.server.engine.batch import Batch, SequenceSlice
from hocket.server.errors import StartupError
from hocket.server.model.checkpoint import Checkpoint
from hocket.server.model.config import RunnerConfig
from hocket.server.model.device import choose_device, choose_dtype, compute_threads
from hocket.server.model.eager import EagerNetwork
from hocket.server.model.kv_cache import KVCache
from hocket.server.model.native import gate
from hocket.server.model.native.build import build
from hocket.server.model.native.decoder import NativeDecoder, is_supported
from hocket.server.model.native.library import Library
from hocket.server.model.native.weights import NativeWeights
from hocket.server.model.network import Network
from hocket.server.model.registry import Report
from hocket.server.text.tokenizer import Tokenizer

Weights = NativeWeights | EagerNetwork
"""What networks share: read by any number of threads, written by none."""

_log = structlog.get_logger(__name__)
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a model is computed.

    Attributes:
        library: The kernels; None for torch alone.
        dtype: Of the cache, and of the weights unless they are int8.
        is_int8: Whether the weights are int8.
        device: Where it is computed.
    """

    library: Library | None
    dtype: torch.dtype
    is_int8: bool = False
    device: torch.device = _CPU

    @property
    def name(self) -> str:
        """Number type of the weights."""
        return "int8" if self.is_int8 else str(self.dtype).removeprefix("torch.")

    @property
    def kernels(self) -> str:
        """Who computes."""
        return "native" if self.library is not None else "torch"

    @property
    def is_slicing_exact(self) -> bool:
        """Whether results do not hang on how a sequence is cut into slices; see `ModelLimits`."""
        return self.library is not None

    def read(self, checkpoint: Checkpoint, max_positions: int, block_size: int) -> Weights:
        """Read the weights, for caches of blocks of so many tokens.

        Raises:
            StartupError: A tensor is missing or broken.
        """
        if self.library is None:
            network = EagerNetwork(
                checkpoint, self.dtype, max_positions=max_positions, device=self.device
            )
            if not network.is_row_invariant(block_size):
                _log.warning(
                    "here a sequence's tokens may depend on what is computed beside it",
                    device=str(self.device),
                    dtype=self.name,
                )
            return network
        return NativeWeights(checkpoint, max_positions=max_positions, is_int8=self.is_int8)

    def network(self, weights: Weights, config: RunnerConfig, cache: KVCache) -> Network:
        """Return what computes with weights that were read for this choice, on one cache."""
        if isinstance(weights, EagerNetwork):
            return weights
        if self.library is None:
            raise TypeError("weights for the kernels, and no kernels. This is a bug.")
        return NativeDecoder(weights, self.library, cache, num_threads=compute_threads(config))


def choose(
    checkpoint: Checkpoint,
    config: RunnerConfig,
    folder: Path | None,
    *,
    key: str,
    tokenizer: Tokenizer,
    report: Report = lambda _stage, _done: None,
) -> Choice:
    """Decide how a model is computed.

    Args:
        checkpoint: The model.
        config: What was asked for.
        folder: Keeps compiled kernels and what the gate measured; None where nothing can be kept.
        key: Names the very weights.
        tokenizer: Reads the gate's text.
        report: Told of what takes time.

    Raises:
        StartupError: What was asked for is not to be had.
    """
    device = choose_device(config)
    library = None
    if device.type == "cpu":
        library = _library(checkpoint, config, folder, report)
    else:
        _log.warning(
            "hocket has never been tried on a GPU; runner.device=cpu computes on the processor",
            device=str(device),
        )
    dtype = torch.bfloat16 if library else choose_dtype(config.dtype, device)
    plain = Choice(library=library, dtype=dtype, device=device)
    if library is None and config.quantization == "int8":
        raise StartupError("runner.quantization is int8, which needs the kernels")
    if library is None or config.quantization == "none":
        return plain
    rounded = Choice(library=library, dtype=dtype, is_int8=True)
    if config.quantization == "int8":
        return rounded
    if folder is None:
        return plain
    file = folder / f"{key}-{library.version}-{gate.version()}.gate.json"
    result = gate.recall(file)
    if result is None:
        report("measuring int8 against bfloat16", None)
        text = gate.TEXT.read_text(encoding="utf-8")
        tokens = tokenizer.encode(text, add_special=True, parse_special=False).token_ids
        scores = [Scores(checkpoint, config, choice) for choice in (plain, rounded)]
        result = gate.measure(tokens, *scores)
        gate.keep(file, result)
    return rounded if result.is_passed else plain


def _library(
    checkpoint: Checkpoint, config: RunnerConfig, folder: Path | None, report: Report
) -> Library | None:
    """Return the kernels if they are wanted and can be had.

    Raises:
        StartupError: They are wanted by name and cannot.
    """
    if config.kernels == "native" and config.dtype == "float32":
        raise StartupError("runner.kernels is native, which does not compute in float32")
    if config.kernels == "torch" or config.dtype == "float32":
        return None
    can = is_supported(checkpoint.config, config.block_size_tokens)
    path = build(folder, report) if can else None
    if path is None and config.kernels == "native":
        raise StartupError(
            "runner.kernels is native, but this "
            + ("machine has no kernels; the log says why" if can else "model is not supported")
        )
    return Library(path) if path else None


class Scores:
    """Logits of short texts, for the gate: of at most `gate.WINDOW` tokens."""

    def __init__(self, checkpoint: Checkpoint, config: RunnerConfig, choice: Choice) -> None:
        """Read the weights.

        Raises:
            StartupError: A tensor is missing or broken.
        """
        model, size = checkpoint.config, config.block_size_tokens
        self._blocks = list(range(-(-gate.WINDOW // size)))
        self._cache = KVCache(
            num_layers=model.num_layers,
            num_blocks=len(self._blocks),
            num_kv_heads=model.num_kv_heads,
            block_size=size,
            head_dim=model.head_dim,
            dtype=choice.dtype,
            device=choice.device,
            is_tiled=choice.library is not None,
        )
        weights = choice.read(checkpoint, gate.WINDOW, size)
        self._network = choice.network(weights, config, self._cache)

    def __call__(self, token_ids: Sequence[int]) -> Tensor:
        """Return `[tokens or more, vocabulary or more]` float32."""
        piece = SequenceSlice(
            sequence_id=0,
            token_ids=token_ids,
            start=0,
            prompt_length=len(token_ids),
            block_table=self._blocks,
        )
        done = self._network.forward(Batch((piece,)), self._cache)
        return self._network.logits(done.hidden, done.rows[0])
