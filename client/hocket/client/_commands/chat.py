"""`hocket chat`: a conversation on the terminal."""

import argparse
import contextlib
import sys

from hocket.client import Client, ClientError, GenerationOptions, Granularity, Message
from hocket.client._commands.connection import add_connection_flags, make_client
from hocket.client._commands.output import printable
from hocket.client._commands.sampling import add_sampling_flags, sampling_options

_HELP = """\
/system TEXT  speak with a system message from now on; alone, without one
/reset        forget the conversation
/exit         leave (as does end of input)
Ctrl-C ends an answer, not the program."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "chat",
        help="hold a conversation",
        epilog=f"In the conversation:\n{_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--system", metavar="TEXT", help="a system message")
    parser.add_argument(
        "--granularity",
        choices=[Granularity.TOKEN, Granularity.SENTENCE, Granularity.PARAGRAPH],
        default=Granularity.TOKEN,
        help="in which pieces the answer arrives (default: %(default)s)",
    )
    add_sampling_flags(parser)
    add_connection_flags(parser)
    parser.set_defaults(run=_chat)


def _chat(arguments: argparse.Namespace) -> int:
    options = sampling_options(arguments)
    options["granularity"] = Granularity(arguments.granularity)
    is_interactive = sys.stdin.isatty()
    if is_interactive:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401, PLC0415 - gives `input` its line editing
        print("/help tells what else can be typed; /exit leaves.")
    with make_client(arguments) as client:
        conversation = _Conversation(client, options, arguments.system)
        while (line := _read_line(is_interactive=is_interactive)) is not None:
            try:
                if conversation.take(line):
                    break
            except ClientError as error:
                if not is_interactive:
                    raise
                print(f"hocket: {error}", file=sys.stderr)
    return 0


class _Conversation:
    """The turns so far."""

    def __init__(self, client: Client, options: GenerationOptions, system: str | None) -> None:
        self._client = client
        self._options = options
        self._system = system
        self._turns: list[Message] = []

    def take(self, line: str) -> bool:
        """Do what a line says; whether to leave."""
        command, _, rest = line.strip().partition(" ")
        match command:
            case "":
                pass
            case "/exit" | "/quit":
                return True
            case "/reset":
                self._turns.clear()
            case "/system":
                self._system = rest.strip() or None
            case "/help":
                print(_HELP)
            case _ if command.startswith("/"):
                print(f"hocket: unknown command {command}; try /help", file=sys.stderr)
            case _:
                self._answer(line)
        return False

    def _answer(self, line: str) -> None:
        """Show the answer to a message; an answer cut short by Ctrl-C counts as far as it came."""
        system = () if self._system is None else (Message(role="system", content=self._system),)
        message = Message(role="user", content=line)
        options: GenerationOptions = {
            **self._options,
            "messages": (*system, *self._turns, message),
        }
        with self._client.stream(**options) as stream:
            try:
                for text in stream.text():
                    print(printable(text), end="", flush=True)
            except KeyboardInterrupt:
                print(" [interrupted]", end="")
            finally:
                print(flush=True)
        answer = stream.texts[0]
        if answer:
            self._turns += [message, Message(role="assistant", content=answer)]


def _read_line(*, is_interactive: bool) -> str | None:
    """Return the next line; None at the end of input."""
    while True:
        try:
            return input("> " if is_interactive else "")
        except EOFError:
            if is_interactive:
                print()
            return None
        except KeyboardInterrupt:
            if not is_interactive:
                raise
            print("\n/exit leaves.")
