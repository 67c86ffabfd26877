"""What all commands share: their arguments, and how a result leaves."""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from bench.machine import description
from bench.process import Absent

_T = TypeVar("_T")
_SIGNALLED = 128  # added to the number of the signal that ended a process


def parser(about: str | None) -> argparse.ArgumentParser:
    """Return a parser with the arguments that every command takes.

    Args:
        about: The command's docstring.
    """
    made = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--output", type=Path, help="where to write the result as JSON")
    return made


def serving_parser(about: str | None) -> argparse.ArgumentParser:
    """Return the same for a command that starts servers."""
    made = parser(about)
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="a setting of the server; may be repeated",
    )
    return made


def command_line(name: str) -> str:
    """Return how this process was asked for.

    Args:
        name: Of the command, such as `bench.load`.
    """
    return " ".join(["python", "-m", name, *sys.argv[1:]])


def origin(name: str, *packages: str) -> dict[str, object]:
    """Return what makes a result repeatable: its command, the machine, versions, commit."""
    return {"command": command_line(name), "machine": description(*packages)}


def run(measurement: Coroutine[Any, Any, _T]) -> _T:
    """Run a measurement and return its result.

    SIGTERM ends it, and with it the processes that it started.

    Raises:
        SystemExit: A process that it needs does not run, which it tells; or it was ended.
    """
    try:
        return asyncio.run(_until_ended(measurement))
    except Absent as reason:
        raise SystemExit(f"a process of the measurement {reason}") from reason
    except asyncio.CancelledError:
        raise SystemExit(_SIGNALLED + signal.SIGTERM) from None


async def _until_ended(measurement: Coroutine[Any, Any, _T]) -> _T:
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await measurement


def deliver(
    result: dict[str, object], arguments: argparse.Namespace, *, is_printed: bool = True
) -> None:
    """Write a result to where the arguments say, and print it."""
    text = json.dumps(result, indent=2) + "\n"
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    if is_printed:
        print(text, end="")
