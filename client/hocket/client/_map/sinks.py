"""Where records go: JSON lines, CSV, Parquet. Main thread.

Records are gathered and put to the disk in batches. Parquet knows no half file: its records are
JSON lines in a file beside it until all are there.
"""

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hocket.client import MapOperation
from hocket.client._map.journal import sync_folder
from hocket.client._map.records import COLUMNS, as_text, flat
from hocket.client._map.sources import import_parquet

FORMATS = ("jsonl", "csv", "parquet")
_BATCH_ROWS = 1_024


class Sink:
    """The output of a job.

    Attributes:
        path: What the caller asked for.
        file: What records are written to; the same, but for Parquet.
    """

    def __init__(self, path: Path, format_: str, op: MapOperation) -> None:
        """Name it; nothing is read or written yet.

        Raises:
            UsageError: Parquet is asked for and pyarrow is not installed.
        """
        self.path = path
        self._format = format_
        self._op: MapOperation = op
        self._gathered: list[bytes] = []
        self._size = 0
        self.file = path
        if format_ == "parquet":
            import_parquet("pyarrow.parquet")
            self.file = path.with_name(f"{path.name}.part")

    @property
    def is_empty(self) -> bool:
        """Whether there is no output, nor a part of one, that has anything in it."""
        return not any(path.exists() and path.stat().st_size for path in (self.path, self.file))

    @property
    def is_whole(self) -> bool:
        """Whether there is an output that nothing can be added to."""
        return self.file != self.path and self.path.exists()

    @property
    def found_bytes(self) -> int:
        """Length of what was written before."""
        return self.file.stat().st_size if self.file.exists() else 0

    def open_at(self, size: int) -> None:
        """Keep so many bytes of what was written before and go on behind them."""
        with self.file.open("ab") as file:
            file.truncate(size)
            os.fsync(file.fileno())
        sync_folder(self.file)
        self._size = size
        self._gathered = []

    def add(self, record: dict[str, Any]) -> None:
        """Gather one more record."""
        if self._format == "csv":
            self._begin_table()
            cells = flat(record)
            names = ("id", *COLUMNS[self._op], "error")
            line = _csv_line([as_text(cells.get(name, "")) for name in names])
        else:
            line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        self._gathered.append(line)

    def flush(self) -> int:
        """Put to the disk what was gathered; return the output's length."""
        if self._gathered:
            with self.file.open("r+b") as file:
                file.seek(self._size)
                file.truncate()  # what an earlier try left that found the disk full
                file.write(b"".join(self._gathered))
                file.flush()
                os.fsync(file.fileno())
                self._size = file.tell()
            self._gathered = []
        return self._size

    def finish(self) -> None:
        """Make the output whole; what it was made of stays until `clear`."""
        if self._format == "csv":
            self._begin_table()
            self.flush()
        if self._format == "parquet":
            draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            self._write_parquet(draft)
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.replace(self.path)
            sync_folder(self.path)

    def clear(self) -> None:
        """Remove what a finished output no longer needs. Repeatable."""
        if self.file != self.path:
            self.file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all. Repeatable."""
        self.path.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)

    def _begin_table(self) -> None:
        if not self._size and not self._gathered:
            self._gathered.append(_csv_line(["id", *COLUMNS[self._op], "error"]))

    def _write_parquet(self, draft: Path) -> None:
        arrow, parquet = import_parquet("pyarrow"), import_parquet("pyarrow.parquet")
        are_numbers = all(isinstance(record["id"], int) for record in self._records())
        types = {
            "text": arrow.string(),
            "finish_reason": arrow.string(),
            "prompt_tokens": arrow.int64(),
            "completion_tokens": arrow.int64(),
            "segments": arrow.int64(),
            "failed_segments": arrow.int64(),
            "token_ids": arrow.list_(arrow.int64()),
            "sentences": arrow.list_(
                arrow.struct(
                    {
                        "text": arrow.string(),
                        "start_byte": arrow.int64(),
                        "end_byte": arrow.int64(),
                        "kind": arrow.string(),
                    }
                )
            ),
        }
        columns = {name: types[name] for name in COLUMNS[self._op]}
        id_type = arrow.int64() if are_numbers else arrow.string()
        schema = arrow.schema({"id": id_type, **columns, "error": arrow.string()})
        rows: list[dict[str, Any]] = []
        with parquet.ParquetWriter(draft, schema) as writer:
            for record in self._records():
                id_ = record["id"] if are_numbers else str(record["id"])
                rows.append({**flat(record), "id": id_})
                if len(rows) == _BATCH_ROWS:
                    writer.write_table(arrow.Table.from_pylist(rows, schema))
                    rows = []
            writer.write_table(arrow.Table.from_pylist(rows, schema))

    def _records(self) -> Iterator[dict[str, Any]]:
        with self.file.open("rb") as file:
            for line in file:
                yield json.loads(line)


def _csv_line(cells: list[object]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
