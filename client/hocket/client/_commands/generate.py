"""`hocket generate`: one text, or many at once over one stream."""

import argparse
import sys
from collections import deque
from collections.abc import Iterable
from time import monotonic, sleep
from typing import TypeAlias

from hocket.client import (
    Client,
    ClientError,
    Finished,
    GenerationOptions,
    Granularity,
    Message,
    Overloaded,
    SyncManyStream,
)
from hocket.client._commands.connection import (
    UsageError,
    add_connection_flags,
    add_json_flag,
    make_client,
)
from hocket.client._commands.output import decode_input, wants_json
from hocket.client._commands.reports import JsonReport, Report, Summary, TextReport
from hocket.client._commands.sampling import add_sampling_flags, sampling_options
from hocket.client._commands.text import add_sentence_flags, sentence_options

REFUSED = 3
_Job: TypeAlias = tuple[str | None, GenerationOptions]
_MAX_SUBMISSIONS = 8
_EPILOG = """\
Prompts are arguments, or lines of standard input if there are none; the prompt - is all of
standard input. All are written at once over one stream.

JSON lines have the keys prompt (its number, from 1), request_id, seconds (since the command
began) and event, and by event:
  started   prompt_tokens, cached_tokens, seed, model
  delta     choice_index, text, start_byte
  sentence  choice_index, index, text, start_byte, end_byte, kind
  finished  completions, usage, timings
  failed    code, reason, message, retry_after, violations

Exit codes: 0 all finished; 2 usage; 3 refused or failed; 4 unreachable; 130 interrupted.
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "generate",
        help="write texts, sentence by sentence",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="what to answer or continue")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--chat",
        action="store_const",
        const=True,
        dest="chat",
        help="each prompt is a message to answer (default if the model has a chat template)",
    )
    form.add_argument(
        "--raw",
        action="store_const",
        const=False,
        dest="chat",
        help="each prompt is text to continue as it is (default otherwise)",
    )
    parser.add_argument("--system", metavar="TEXT", help="a system message; implies --chat")
    parser.add_argument(
        "--granularity",
        choices=list(Granularity),
        default=Granularity.SENTENCE,
        help="in which pieces the text arrives (default: %(default)s)",
    )
    parser.add_argument("-n", type=int, help="how many answers to each prompt")
    parser.add_argument(
        "--parallel",
        type=_positive,
        default=16,
        help="most prompts in progress at once (default: %(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="no summary on standard error")
    add_json_flag(parser)
    add_sampling_flags(parser)
    add_sentence_flags(parser)
    add_connection_flags(parser)
    parser.set_defaults(run=_generate)


def _generate(arguments: argparse.Namespace) -> int:
    if arguments.system is not None and arguments.chat is False:
        raise UsageError("--system goes with --chat")
    prompts = _read_prompts(arguments.prompts)
    began = monotonic()
    report: Report
    if wants_json(arguments.json):
        report = JsonReport(began)
    else:
        report = TextReport(began, is_labelled=len(prompts) > 1 or (arguments.n or 1) > 1)
    summary = Summary(began)
    with make_client(arguments) as client:
        jobs = _jobs(arguments, client, prompts)
        with client.generate_many() as many:
            _Submissions(many, jobs, arguments.parallel).run(report, summary)
    if not arguments.quiet:
        print(summary.line(), file=sys.stderr)
    return REFUSED if summary.failed else 0


class _Submissions:
    """Keeps up to `parallel` of the jobs in progress until all have ended.

    A job refused for want of room waits until another has ended, or as long as the server says.
    """

    def __init__(self, many: SyncManyStream, jobs: list[_Job], parallel: int) -> None:
        self._many = many
        self._jobs = jobs
        self._room = parallel
        self._waiting = deque(range(len(jobs)))
        self._running: dict[str, int] = {}
        self._submissions = [0] * len(jobs)

    def run(self, report: Report, summary: Summary) -> None:
        """Write all texts."""
        self._submit()
        for request_id, event in self._many:
            number = self._running[request_id]
            if isinstance(event, ClientError):
                del self._running[request_id]
                if self._may_try_again(number, event):
                    self._waiting.append(number)
                    self._wait_if_idle(event)
                else:
                    report.failed(number + 1, request_id, event)
                    summary.add_failure()
            else:
                report.event(number + 1, request_id, event)
                summary.add(event)
                if isinstance(event, Finished):
                    del self._running[request_id]
            self._submit()

    def _submit(self) -> None:
        while self._waiting and len(self._running) < self._room:
            number = self._waiting.popleft()
            self._submissions[number] += 1
            prompt, options = self._jobs[number]
            self._running[self._many.submit(prompt, **options)] = number
        if not self._waiting and not self._running:
            self._many.close_sending()

    def _may_try_again(self, number: int, error: ClientError) -> bool:
        return (
            isinstance(error, Overloaded)
            and not error.is_retry_forbidden
            and self._submissions[number] < _MAX_SUBMISSIONS
        )

    def _wait_if_idle(self, error: ClientError) -> None:
        # While others run there is less room than was hoped for; their ends make some.
        self._room = max(1, len(self._running))
        if not self._running:
            sleep(error.retry_after or 1.0)


def _jobs(arguments: argparse.Namespace, client: Client, prompts: Iterable[str]) -> list[_Job]:
    """Return each prompt as a message to answer or as text to continue."""
    options = sampling_options(arguments)
    options["n"] = arguments.n
    options["granularity"] = Granularity(arguments.granularity)
    options["sentences"] = sentence_options(arguments)
    chat = arguments.chat
    if chat is None:
        chat = arguments.system is not None or client.get_model(arguments.model or "").can_chat
    if not chat:
        return [(prompt, options) for prompt in prompts]
    system = () if arguments.system is None else (Message(role="system", content=arguments.system),)
    return [
        (None, {**options, "messages": (*system, Message(role="user", content=prompt))})
        for prompt in prompts
    ]


def _read_prompts(prompts: list[str]) -> list[str]:
    if prompts.count("-") > 1:
        raise UsageError("standard input can be only one prompt")
    if prompts:
        return [_read_all() if prompt == "-" else prompt for prompt in prompts]
    if sys.stdin.isatty():
        raise UsageError("give a prompt, or lines on standard input")
    lines = [line for line in _read_all().splitlines() if line.strip()]
    if not lines:
        raise UsageError("standard input holds no prompt")
    return lines


def _read_all() -> str:
    return decode_input(sys.stdin.buffer.read())


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1: {text}")
    return number
