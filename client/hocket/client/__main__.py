"""The command line `hocket`. Main thread.

`generate`, `chat`, `map`, `transform`, `compose`, `tokenize`, `split` and `health` are the client's
own. Further subcommands come from the entry points of the group `hocket.commands`: functions that
take the arguments after the subcommand's name and return an exit code. So `hocket serve` exists
where the server is installed, and neither imports the other.

Exit codes: 0 done, 1 not serving (`health`), 2 usage, 3 refused or failed by the server,
4 unreachable, 130 interrupted, 141 nobody reads the output.
"""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from hocket.client import ClientError, StreamError, TransportError, __version__
from hocket.client._commands import chat, corpus, documents, generate, health, text
from hocket.client._commands.connection import UsageError

_GROUP = "hocket.commands"
_FROM_ELSEWHERE = {
    "serve": "start a server (needs the extra: server)",
    "models": "list, fetch and describe models (needs the extra: server)",
}

_USAGE, _REFUSED, _UNREACHABLE, _INTERRUPTED, _BROKEN_PIPE = 2, 3, 4, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: The arguments; those of the process if None.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a character shall not end the program.
            stream.reconfigure(errors="backslashreplace")
    try:
        return _dispatch(arguments)
    except ClientError as error:
        is_lost = isinstance(error, TransportError | StreamError)
        return _fail(str(error), _UNREACHABLE if is_lost else _REFUSED)
    except (UsageError, ValueError) as error:
        # ValueError: protobuf cannot hold a value, such as a negative seed or a lone surrogate.
        return _fail(str(error), _USAGE)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        _abandon_output()
        return _BROKEN_PIPE


def _dispatch(arguments: Sequence[str]) -> int:
    plugins = {entry.name: entry for entry in entry_points(group=_GROUP)}
    names = sorted(plugins.keys() | _FROM_ELSEWHERE.keys())
    if arguments and arguments[0] in names:
        return _run_plugin(arguments[0], plugins.get(arguments[0]), arguments[1:])
    parser = _parser(names)
    if not arguments or arguments[0] == "help":
        parser.print_help()
        return 0 if arguments else _USAGE
    try:
        parsed = parser.parse_args(arguments)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0
    code: int = parsed.run(parsed)
    # What is still buffered may find nobody reading; that shall be noticed here.
    sys.stdout.flush()
    return code


def _run_plugin(name: str, entry: EntryPoint | None, arguments: Sequence[str]) -> int:
    missing = f"no command {name!r} is installed"
    if entry is not None:
        try:
            return int(entry.load()(arguments) or 0)
        except ModuleNotFoundError as error:
            missing = str(error)
    return _fail(f'{missing}; this command needs: pip install "hocket[server]"', _USAGE)


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hocket",
        description="Talks to a server for language models that writes sentence by sentence.",
    )
    parser.add_argument("--version", action="version", version=f"hocket {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    generate.add_parser(commands)
    chat.add_parser(commands)
    documents.add_parsers(commands)
    corpus.add_parser(commands)
    text.add_parsers(commands)
    health.add_parser(commands)
    for name in names:
        commands.add_parser(name, help=_FROM_ELSEWHERE.get(name), add_help=False)
    commands.add_parser("help", help="show this", add_help=False)
    return parser


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    with contextlib.suppress(BrokenPipeError):
        print(f"hocket: {line}", file=sys.stderr, flush=True)
    return code


def _abandon_output() -> None:
    """Keep the interpreter from complaining, when it exits, that nobody reads its output."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
