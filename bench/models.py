"""Models opened by hand, so that a measurement chooses how they are computed. Needs torch."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from bench.in_process import Watch
from hocket.server.engine.batch import Batch
from hocket.server.errors import StartupError
from hocket.server.model.checkpoint import Checkpoint
from hocket.server.model.choice import Choice, Weights, choose
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.model.folder_checkpoint import FolderCheckpoint
from hocket.server.model.gguf_checkpoint import GgufCheckpoint
from hocket.server.model.kv_cache import KVCache
from hocket.server.model.network import Forward, Network
from hocket.server.model.registry import cache_folder, resolve
from hocket.server.model.vocabulary import tokenizer_from_folder, tokenizer_from_gguf
from hocket.server.text.huggingface import HuggingFaceTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A model's weights and its tokenizer.

    Attributes:
        checkpoint: The weights.
        tokenizer: Its tokenizer.
        folder: Keeps compiled kernels.
        key: Names the very weights.
    """

    checkpoint: Checkpoint
    tokenizer: HuggingFaceTokenizer
    folder: Path
    key: str

    def choose(self, config: RunnerConfig) -> Choice | None:
        """Return how a model is computed if it is computed so; None where it cannot be."""
        try:
            return choose(
                self.checkpoint, config, self.folder, key=self.key, tokenizer=self.tokenizer
            )
        except StartupError:
            return None


def open_checkpoint(source: ModelSourceConfig) -> Opened:
    """Find and open a model.

    Raises:
        StartupError: It is absent, broken or not supported.
    """
    files = resolve(source)
    folder = cache_folder(source)
    checkpoint: Checkpoint
    if files.path.is_dir():
        checkpoint, tokenizer = FolderCheckpoint(files.path), tokenizer_from_folder(files.path)
    else:
        gguf = GgufCheckpoint(files.path)
        kept = folder / f"{files.name}.tokenizer.json"
        checkpoint, tokenizer = gguf, tokenizer_from_gguf(gguf.metadata, cache_file=kept)
    key = files.digest[:16] or files.name
    return Opened(checkpoint=checkpoint, tokenizer=tokenizer, folder=folder, key=key)


class _WatchedNetwork:
    """A network whose passes are timed."""

    def __init__(self, network: Network, watch: Watch) -> None:
        self._network = network
        self._watch = watch

    @property
    def parameters(self) -> int:
        return self._network.parameters

    def set_threads(self, count: int) -> None:
        self._network.set_threads(count)

    def forward(self, batch: Batch, cache: KVCache) -> Forward:
        begun = time.perf_counter()
        done = self._network.forward(batch, cache)
        self._watch.step.forward += time.perf_counter() - begun
        return done

    def logits(self, hidden: Tensor, rows: Sequence[int]) -> Tensor:
        begun = time.perf_counter()
        found = self._network.logits(hidden, rows)
        self._watch.step.head += time.perf_counter() - begun
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedChoice(Choice):
    """A choice whose network tells a watch what it takes.

    Attributes:
        watch: Of the step in progress.
    """

    watch: Watch

    def network(self, weights: Weights, config: RunnerConfig, cache: KVCache) -> Network:
        """Return what computes and tells; see `Choice`."""
        return _WatchedNetwork(Choice.network(self, weights, config, cache), self.watch)
