"""A decoder's weights out of a Hugging Face folder, in the form of `checkpoint.py`.

Reads `config.json` and safetensors, sharded or not. Engine thread, at load.
"""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from hocket.server.errors import StartupError
from hocket.server.model.checkpoint import Architecture, DecoderConfig
from hocket.server.model.folder_config import decoder_config
from hocket.server.model.safetensors_file import SafetensorsFile

_MOST_JSON = 64 << 20
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
        self._files = {name: SafetensorsFile(path / name) for name in _shards(path)}
        self._where = {
            _plain(name): (file, name) for file in self._files.values() for name in file.names
        }

    @property
    def config(self) -> DecoderConfig:
        """The hyperparameters."""
        return self._config

    def has(self, name: str) -> bool:
        """Whether the folder holds a tensor."""
        return _plain(name) in self._where

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
        architecture = self._config.architecture
        if architecture is Architecture.GPT2 and name.endswith(_CONV1D):
            return tensor.T.contiguous()
        if architecture is Architecture.GEMMA3 and "norm" in name:
            return tensor.float() + 1.0
        return tensor


def _plain(name: str) -> str:
    """Return a name without the prefixes that some files have and others have not."""
    for prefix in ("language_model.", "model.language_model."):
        name = name.removeprefix(prefix)
    return name.removeprefix("model.").removeprefix("transformer.")


def _shards(path: Path) -> list[str]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        weights = _read_json(index).get("weight_map")
        if not isinstance(weights, dict) or not weights:
            raise StartupError(f"{path.name}/{index.name} lists no weights")
        names = sorted({name for name in weights.values() if isinstance(name, str)})
        strays = [name for name in names if PurePosixPath(name).name != name or "\\" in name]
        if strays or len(names) != len(set(weights.values())):
            raise StartupError(f"{path.name}/{index.name} points outside its folder")
        return names
    if (path / "model.safetensors").is_file():
        return ["model.safetensors"]
    if any(path.glob("pytorch_model*.bin")):
        raise StartupError(
            f"the model folder {path.name} has pickled weights only, which are never read;"
            " convert them to safetensors"
        )
    raise StartupError(f"the model folder {path.name} has no model.safetensors")


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
