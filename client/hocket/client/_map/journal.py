"""Which rows are in the output for good: a file beside it, told after each batch. Main thread.

A line for each batch holds all that is needed to go on, so only the last whole line counts. The
first line names the job by a digest of what it does. A file cut off at any byte is a journal, of
what was told before.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_VERSION = 1
_MOST_BYTES = 1 << 20  # then it is written anew, with its last line alone
_DIGEST_BYTES = 16


class WrongJournal(Exception):
    """A journal belongs to another job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """What is in the output.

    Attributes:
        next: All rows below it are.
        ahead: Rows above it that are, too.
        digest: Of all those rows, as `row_digest` has them, taken together by exclusive or.
        output_bytes: Length of the output.
        failed: Of these rows, how many failed.
        is_finished: Whether the output was closed, with nothing to follow.
    """

    next: int = 0
    ahead: frozenset[int] = frozenset()
    digest: int = 0
    output_bytes: int = 0
    failed: int = 0
    is_finished: bool = False

    @property
    def rows(self) -> int:
        """How many rows are in the output."""
        return self.next + len(self.ahead)

    @property
    def end(self) -> int:
        """No row from here on is in the output."""
        return max(self.ahead, default=self.next - 1) + 1

    def holds(self, seq: int) -> bool:
        """Whether a row is in the output."""
        return seq < self.next or seq in self.ahead


def last_entry(content: bytes, *, key: str, output_bytes: int) -> JournalEntry:
    """Return the last entry of a journal that the output bears out; an empty one if none does.

    Args:
        content: Of its file.
        key: Of the job that asks.
        output_bytes: Length of the output as it is found.

    Raises:
        WrongJournal: It is of another job.
    """
    last = JournalEntry()
    lines = content.split(b"\n")[:-1]  # what follows the last break is torn
    for number, line in enumerate(lines):
        fields = _fields(line)
        if fields is None:
            break
        if number == 0:
            if fields.get("key") != key or fields.get("version") != _VERSION:
                raise WrongJournal
        elif fields["bytes"] <= output_bytes:
            last = _entry(fields)
    return last


def row_digest(seq: int, id_: str | int, text: str) -> int:
    """Return a number that stands for a row and its place."""
    content = json.dumps([seq, id_, text]).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest())


class Journal:
    """The journal of one output."""

    def __init__(self, path: Path, key: str) -> None:
        """Name it; nothing is read or written yet.

        Args:
            path: Its file.
            key: Names what the job does; one that differs is another job.
        """
        self._path = path
        self._key = key

    @property
    def exists(self) -> bool:
        """Whether there is such a file."""
        return self._path.exists()

    def read(self, output_bytes: int) -> JournalEntry:
        """Return the last entry that the output still bears out; an empty one if there is none.

        Args:
            output_bytes: Length of the output as it is found.

        Raises:
            WrongJournal: It is of another job.
        """
        return last_entry(self._path.read_bytes(), key=self._key, output_bytes=output_bytes)

    def begin(self, entry: JournalEntry) -> None:
        """Write the file anew, with this entry alone; the old one stays until that is done."""
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        head = {"version": _VERSION, "key": self._key}
        with draft.open("wb") as file:
            file.write(_line(head) + _line(_as_fields(entry)))
            _sync(file.fileno())
        draft.replace(self._path)
        sync_folder(self._path)

    def append(self, entry: JournalEntry) -> None:
        """Tell that all this is in the output; it is on the disk when this returns."""
        if self._path.stat().st_size > _MOST_BYTES:
            self.begin(entry)
            return
        with self._path.open("ab") as file:
            file.write(_line(_as_fields(entry)))
            file.flush()
            _sync(file.fileno())

    def remove(self) -> None:
        """Forget all. Repeatable."""
        self._path.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make the name of a file last."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        _sync(folder)
    finally:
        os.close(folder)


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _fields(line: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _entry(fields: dict[str, Any]) -> JournalEntry:
    return JournalEntry(
        next=fields["next"],
        ahead=frozenset(seq for first, last in fields["ahead"] for seq in range(first, last + 1)),
        digest=int(fields["digest"], 16),
        output_bytes=fields["bytes"],
        failed=fields["failed"],
        is_finished=fields["finished"],
    )


def _as_fields(entry: JournalEntry) -> dict[str, Any]:
    return {
        "next": entry.next,
        "ahead": _ranges(entry.ahead),
        "digest": f"{entry.digest:x}",
        "bytes": entry.output_bytes,
        "failed": entry.failed,
        "finished": entry.is_finished,
    }


def _ranges(numbers: Iterable[int]) -> list[list[int]]:
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges
