"""From a model's name to a model that runs. Engine thread, once."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from hocket.server.catalogue import ModelDescription
from hocket.server.engine.batch import ModelLimits
from hocket.server.errors import StartupError
from hocket.server.model.choice import choose
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.model.folder_checkpoint import FolderCheckpoint
from hocket.server.model.gguf_checkpoint import GgufCheckpoint
from hocket.server.model.registry import ModelFiles, Report, cache_folder, resolve
from hocket.server.model.runner import TorchRunner
from hocket.server.model.vocabulary import (
    chat_template,
    tokenizer_from_folder,
    tokenizer_from_gguf,
)
from hocket.server.text.huggingface import HuggingFaceTokenizer
from hocket.server.text.tokenizer import ChatTemplate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hocket.server.model.checkpoint import Checkpoint

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model that runs, with all that belongs to it.

    Attributes:
        runner: Computes.
        tokenizer: Its tokenizer.
        chat_template: How it writes conversations down; None if it knows none.
        description: What it is.
        limits: The bounds it sets.
    """

    runner: TorchRunner
    tokenizer: HuggingFaceTokenizer
    chat_template: ChatTemplate | None
    description: ModelDescription
    limits: ModelLimits


def load_model(source: ModelSourceConfig, config: RunnerConfig, report: Report) -> LoadedModel:
    """Find, read and place a model.

    Args:
        source: Which model.
        config: How to run it.
        report: Told of each stage, and how much of it is done where that is known.

    Raises:
        StartupError: The model is absent, broken or not supported.
    """
    files = resolve(source, report)
    report(f"loading {files.name}", None)
    folder = _cache_folder(source)
    checkpoint: Checkpoint
    origin: Mapping[str, object] | Path
    if files.path.is_dir():
        checkpoint, origin = FolderCheckpoint(files.path), files.path
        tokenizer = tokenizer_from_folder(files.path)
    elif files.path.suffix == ".gguf":
        gguf = GgufCheckpoint(files.path)
        checkpoint, origin = gguf, gguf.metadata
        kept = folder / f"{files.name}.tokenizer.json" if folder else None
        tokenizer = tokenizer_from_gguf(gguf.metadata, cache_file=kept)
    else:
        raise StartupError(f"{files.path} is neither a folder nor a .gguf file")
    key = _key(files)
    choice = choose(checkpoint, config, folder, key=key, tokenizer=tokenizer, report=report)
    runner = TorchRunner(checkpoint, config, num_tokens=tokenizer.vocabulary_size, choice=choice)
    report("trying out the model", None)
    threads = runner.tune()
    _log.info("model loaded", threads=threads, dtype=runner.dtype_name, kernels=choice.kernels)
    return LoadedModel(
        runner=runner,
        tokenizer=tokenizer,
        chat_template=chat_template(origin, tokenizer),
        description=ModelDescription(
            name=files.name,
            architecture=checkpoint.config.architecture.value,
            dtype=runner.dtype_name,
            parameters=runner.parameters,
            license=files.license,
            digest=files.digest,
        ),
        limits=runner.limits,
    )


def _cache_folder(source: ModelSourceConfig) -> Path | None:
    """Return the folder that keeps what was made once; None where nothing can be kept."""
    try:
        return cache_folder(source)
    except StartupError:
        return None


def _key(files: ModelFiles) -> str:
    """Return a name for these very weights."""
    if files.digest:
        return files.digest[:16]
    digest = hashlib.sha256()
    members = sorted(files.path.iterdir()) if files.path.is_dir() else [files.path]
    for member in members:
        status = member.stat()
        digest.update(f"{member.resolve()} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
