"""What the commands write: text for people, JSON lines for programs."""

import json
import sys
import unicodedata
from dataclasses import asdict, is_dataclass
from typing import Any

from hocket.client import ClientError, StatusError
from hocket.client._commands.connection import UsageError


def wants_json(choice: bool | None) -> bool:  # noqa: FBT001 - a parsed flag
    """Whether to write JSON lines: as asked for, else unless a person is looking."""
    return not sys.stdout.isatty() if choice is None else choice


def print_json(value: object) -> None:
    """Write one object on a line of its own."""
    fields: Any = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    print(json.dumps(fields, ensure_ascii=False), flush=True)


def printable(text: str) -> str:
    """Return a model's text without control characters, which could command a terminal."""
    return "".join(
        character
        for character in text
        if character in "\n\t" or unicodedata.category(character) != "Cc"
    )


def error_fields(error: ClientError) -> dict[str, object]:
    """Return an error as fields for programs."""
    fields: dict[str, object] = {"message": error.message, "retry_after": error.retry_after}
    if isinstance(error, StatusError):
        fields |= {
            "code": error.code,
            "reason": error.reason,
            "violations": [asdict(violation) for violation in error.violations],
        }
    return fields


def read_text(argument: str) -> str:
    """Return an argument, or all of standard input for `-`.

    Raises:
        UsageError: Standard input is not UTF-8.
    """
    if argument != "-":
        return argument
    return decode_input(sys.stdin.buffer.read())


def decode_input(data: bytes) -> str:
    """Return standard input as text.

    Raises:
        UsageError: It is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 at byte {error.start}") from None
