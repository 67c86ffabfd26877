"""A decoder's weights out of a Hugging Face folder, in the form of `checkpoint.py`.

Reads `config.json` and safetensors, sharded or not. Engine thread, at load.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hocket.server.errors import StartupError
from hocket.server.model.checkpoint import Architecture, DecoderConfig, Shape, check_tensors
from hocket.server.model.folder_config import decoder_config
from hocket.server.model.safetensors_file import SafetensorsFile

_MOST_JSON = 16 << 20
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.safetensors")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_SHOWN = 64  # characters of a name that an error repeats
_CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


class FolderCheckpoint:
    """A decoder in a folder of safetensors."""

    def __init__(self, path: Path) -> None:
        """Open a folder.

        Raises:
            StartupError: A file is missing or broken, or the architecture is not supported.
        """
        self._path = path
        self._config = decoder_config(_read_json(path / "config.json"), f"{path.name}/config.json")
        self._where: dict[str, tuple[SafetensorsFile, str]] = {}
        for file_name, listed in _shards(path).items():
            file = SafetensorsFile(path / file_name)
            for name in sorted(listed - file.names):
                raise StartupError(f"{path.name}/{file_name} lacks the tensor {name[:_SHOWN]!r}")
            for name in sorted(file.names):
                if _plain(name) in self._where:
                    raise StartupError(
                        f"the model folder {path.name} has the tensor {name[:_SHOWN]!r} twice"
                    )
                self._where[_plain(name)] = file, name
        check_tensors(self._config, self._find, f"the model folder {path.name}")

    @property
    def config(self) -> DecoderConfig:
        """The hyperparameters."""
        return self._config

    def tensor(self, name: str) -> Tensor:
        """Read one tensor as float32 or bfloat16.

        Raises:
            StartupError: There is no such tensor, or it is broken.
        """
        found = self._where.get(_plain(name))
        if found is None:
            raise StartupError(f"the model folder {self._path.name} lacks the tensor {name}")
        file, stored = found
        tensor = file.read(stored)
        if self._is_turned(name):
            return tensor.T.contiguous()
        if self._config.architecture is Architecture.GEMMA3 and "norm" in name:
            return tensor.float() + 1.0
        return tensor

    def _find(self, name: str) -> tuple[str, Shape | None]:
        found = self._where.get(_plain(name))
        if found is None:
            return name, None
        file, stored = found
        shape = file.shape(stored)
        return stored, shape[::-1] if shape and self._is_turned(name) else shape

    def _is_turned(self, name: str) -> bool:
        """Whether a matrix is stored with its inputs first."""
        return self._config.architecture is Architecture.GPT2 and name.endswith(_CONV1D)


def _plain(name: str) -> str:
    """Return a name without the prefixes that some files have and others have not."""
    for prefix in ("language_model.", "model.language_model."):
        name = name.removeprefix(prefix)
    return name.removeprefix("model.").removeprefix("transformer.")


def _shards(path: Path) -> Mapping[str, frozenset[str]]:
    """Return the files that hold weights, and which tensors the index expects in each."""
    if (path / _INDEX).is_file():
        return _indexed(_read_json(path / _INDEX), f"{path.name}/{_INDEX}")
    if (path / _WEIGHTS).is_file():
        return {_WEIGHTS: frozenset()}
    if any(any(path.glob(pattern)) for pattern in _PICKLES):
        raise StartupError(
            f"the model folder {path.name} has pickled weights only, which are never read;"
            " convert them to safetensors"
        )
    raise StartupError(f"the model folder {path.name} has no {_WEIGHTS}")


def _indexed(index: Mapping[str, Any], name: str) -> Mapping[str, frozenset[str]]:
    weights = index.get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise StartupError(f"{name} lists no weights")
    shards: dict[str, set[str]] = {}
    for tensor, file_name in weights.items():
        if not isinstance(file_name, str) or not _SHARD.fullmatch(file_name):
            raise StartupError(f"{name} names a file that is not a .safetensors file beside it")
        shards.setdefault(file_name, set()).add(tensor)
    return {file_name: frozenset(shards[file_name]) for file_name in sorted(shards)}


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MOST_JSON:
            raise StartupError(f"{path} is too large")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartupError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise StartupError(f"{path} is not JSON") from None
    if not isinstance(content, dict):
        raise StartupError(f"{path} is not a JSON object")
    return content
