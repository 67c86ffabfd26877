"""Files of texts as rows: JSON lines, CSV, Parquet, plain text. Whichever thread takes the rows."""

import csv
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hocket.client._commands.connection import UsageError
from hocket.client._map.ids import SeenIds

FORMATS = ("jsonl", "csv", "parquet", "text")
_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_BLOCK = 1 << 20
_MOST_FIELD = 1 << 26  # characters of a CSV field; the server says what is too long


@dataclass(frozen=True, slots=True)
class Row:
    """One text of a file.

    Attributes:
        seq: Its number among the texts, from 0.
        id: Its own id, or the number of its line, from 1.
        text: The text.
    """

    seq: int
    id: str | int
    text: str


@dataclass(frozen=True, slots=True)
class Source:
    """A file of texts.

    Attributes:
        path: The file.
        format: One of `FORMATS`.
        text_field: The field or column that holds the text; not for plain text.
        id_field: The one that holds the id, if there is one.
        must_have_ids: Whether a row without that field is an error.
    """

    path: Path
    format: str
    text_field: str = "text"
    id_field: str = "id"
    must_have_ids: bool = False

    def rows(self) -> Iterator[Row]:
        """Yield the rows. The id of each is its alone.

        Raises:
            UsageError: The file cannot be read, or is not what it should be.
        """
        try:
            with closing(SeenIds()) as seen:
                for seq, (place, id_, text) in enumerate(_READERS[self.format](self)):
                    row = Row(seq, self._id(place, id_), self._text(place, text))
                    # Lines of plain text are numbered: none stands twice.
                    if self.format != "text" and not seen.add(row.id):
                        raise UsageError(f"{self.path}, {place}: the id {row.id!r} stood before")
                    yield row
        except sqlite3.Error as error:
            raise UsageError(f"cannot keep the ids of {self.path}: {error}") from None
        except OSError as error:
            raise UsageError(f"cannot read {self.path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UsageError(f"{self.path} is not UTF-8") from None
        except csv.Error as error:
            raise UsageError(f"{self.path} is no CSV: {error}") from None

    def count(self) -> int:
        """Return how many rows there are, without taking them apart where that can be told.

        Raises:
            UsageError: The file cannot be read.
        """
        try:
            if self.format == "parquet":
                return int(_parquet().ParquetFile(self.path).metadata.num_rows)
            if self.format == "csv":
                return sum(1 for _ in _csv_rows(self))
            with self.path.open("rb") as file:
                return sum(1 for line in file if line.strip())
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UsageError(f"cannot read {self.path}: {error}") from None

    def _id(self, place: "_Place", id_: object) -> str | int:
        if id_ is None:
            if self.must_have_ids:
                raise UsageError(f"{self.path}, {place}: there is no {self.id_field!r}")
            return place.number
        if isinstance(id_, bool) or not isinstance(id_, str | int):
            raise UsageError(f"{self.path}, {place}: the id is neither text nor a whole number")
        return id_

    def _text(self, place: "_Place", text: object) -> str:
        if not isinstance(text, str):
            raise UsageError(f"{self.path}, {place}: there is no text in {self.text_field!r}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{self.path}, {place}: the text has half a character") from None
        return text


def format_of(path: Path, fallback: str) -> str:
    """Return the format that a file's name tells."""
    return _BY_SUFFIX.get(path.suffix.lower(), fallback)


def import_parquet(module: str) -> Any:  # noqa: ANN401 - there is no type information for it
    """Return a module of pyarrow.

    Raises:
        UsageError: It is not installed.
    """
    import importlib  # noqa: PLC0415 - beside its only use

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise UsageError('Parquet files need: pip install "hocket[parquet]"') from None


@dataclass(frozen=True, slots=True)
class _Place:
    noun: str
    number: int

    def __str__(self) -> str:
        return f"{self.noun} {self.number}"


_Read = Iterator[tuple[_Place, object, object]]


def _json_rows(source: Source) -> _Read:
    with source.path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = _Place("line", number)
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                raise UsageError(f"{source.path}, {place}: this is no JSON") from None
            if isinstance(value, str):
                yield place, None, value
            elif isinstance(value, dict):
                yield place, value.get(source.id_field), value.get(source.text_field)
            else:
                raise UsageError(f"{source.path}, {place}: neither an object nor a text")


def _csv_rows(source: Source) -> _Read:
    csv.field_size_limit(_MOST_FIELD)
    with source.path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if source.text_field not in (reader.fieldnames or ()):
            raise UsageError(f"{source.path} has no column {source.text_field!r}")
        for number, fields in enumerate(reader, start=1):
            yield (
                _Place("row", number),
                fields.get(source.id_field) or None,
                fields[source.text_field],
            )


def _parquet_rows(source: Source) -> _Read:
    file = _parquet().ParquetFile(source.path)
    names = file.schema_arrow.names
    if source.text_field not in names:
        raise UsageError(f"{source.path} has no column {source.text_field!r}")
    columns = [source.text_field, *({source.id_field} & set(names))]
    number = 0
    for batch in file.iter_batches(batch_size=1_024, columns=columns):
        for fields in batch.to_pylist():
            number += 1
            yield _Place("row", number), fields.get(source.id_field), fields[source.text_field]


def _text_rows(source: Source) -> _Read:
    with source.path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _Place("line", number), None, line.decode().rstrip("\r\n")


def _parquet() -> Any:  # noqa: ANN401 - there is no type information for it
    return import_parquet("pyarrow.parquet")


_READERS: dict[str, Callable[[Source], _Read]] = {
    "jsonl": _json_rows,
    "csv": _csv_rows,
    "parquet": _parquet_rows,
    "text": _text_rows,
}
