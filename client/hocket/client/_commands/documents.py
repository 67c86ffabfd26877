"""`hocket transform` and `hocket compose`: whole documents, all parts at once."""

import argparse
import codecs
import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Protocol, cast

from hocket.client import (
    ClientError,
    ComposeOptions,
    DocumentResult,
    Granularity,
    Parallel,
    Section,
    SegmentOrder,
    SyncDocumentStream,
    TransformOptions,
)
from hocket.client._commands.connection import (
    UsageError,
    add_connection_flags,
    add_json_flag,
    make_client,
)
from hocket.client._commands.live import LiveDocumentReport
from hocket.client._commands.output import read_text, wants_json
from hocket.client._commands.sampling import add_sampling_flags, sampling_options
from hocket.client._commands.tally import DocumentTally
from hocket.client._commands.targets import (
    DocumentReport,
    JsonDocumentReport,
    TargetReport,
    target_text,
)
from hocket.client._commands.tasks import add_task_flags, task_options
from hocket.client._commands.text import add_sentence_flags, sentence_options

REFUSED = 3
_PART_BYTES = 65_536
_EPILOG = """\
On a terminal what is being written is shown as it fills up; elsewhere come JSON lines, or the
target itself with --text. Gaps between segments come back byte for byte.

JSON lines have the keys request_id, seconds (since the command began) and event, and by event:
  started           model, seed, language, variants, window, is_parallel
  outline           sections, is_drafted, is_parallel, usage (compose)
  segment_started   segment, variant, gap, source, title
  piece             segment, variant, piece, text, start_byte, kind
  segment_finished  segment, variant, finish_reason, source, target, target_bytes, is_cached,
                    protection, usage, timings, error (code, reason, message, ...)
  finished          segments, failed, incomplete, cached, source_bytes, gap, target_bytes, usage,
                    is_partial, total

Ctrl-C ends the work; what had come is shown and saved. Exit codes: 0 all done; 2 usage; 3 refused,
or some segments failed; 4 unreachable or lost; 130 interrupted.
"""


class RawReader(Protocol):
    """A file of bytes."""

    def read(self, size: int, /) -> bytes | None:
        """Return what is there, at most so much; nothing at the end."""
        ...


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both commands."""
    _add_transform(commands)
    _add_compose(commands)


def _add_transform(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "transform",
        help="do the same with each sentence of a document",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", metavar="FILE", help="the document; - reads standard input")
    add_task_flags(parser, is_required=True)
    parser.add_argument("--paragraphs", action="store_true", help="a segment is a paragraph")
    _add_shared_flags(parser)
    add_sentence_flags(parser)
    add_connection_flags(parser)
    parser.set_defaults(run=_transform)


def _add_compose(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "compose",
        help="write the sections of a text in parallel",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--task", required=True, metavar="TEXT", help="what to write about; - reads standard input"
    )
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument(
        "--section",
        nargs="+",
        action="append",
        metavar=("TITLE", "INSTRUCTION"),
        help="a section, and what else the model should know of it; repeatable",
    )
    form.add_argument("--outline", action="store_true", help="let the model draft an outline")
    parser.add_argument("--max-sections", type=int, help="most sections of a drafted outline")
    parser.add_argument(
        "--parallel", choices=list(Parallel), help="whether sections are written in parallel"
    )
    parser.add_argument("--join", metavar="TEXT", help="a last prompt over all sections")
    _add_shared_flags(parser)
    add_connection_flags(parser)
    parser.set_defaults(run=_compose)


def _add_shared_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--order",
        type=lambda text: text.replace("-", "_"),
        choices=list(SegmentOrder),
        help="in which order segments come back",
    )
    parser.add_argument("--window", type=int, help="most segments to work on at once")
    parser.add_argument(
        "--granularity",
        choices=[Granularity.TOKEN, Granularity.SENTENCE],
        help="in which pieces the text of a segment arrives",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="save the target; of several variants each gets its name in the file's",
    )
    parser.add_argument("--quiet", action="store_true", help="no summary on standard error")
    add_json_flag(parser)
    add_sampling_flags(parser)


def _transform(arguments: argparse.Namespace) -> int:
    options = cast("TransformOptions", {**_shared_options(arguments), **task_options(arguments)})
    options["sentences"] = sentence_options(arguments)
    with (
        _open(arguments.input) as file,
        make_client(arguments) as client,
        client.transform(_parts(file, arguments.input), **options) as stream,
    ):
        return _follow(stream, arguments, options["order"])


def _compose(arguments: argparse.Namespace) -> int:
    options = cast("ComposeOptions", _shared_options(arguments))
    if arguments.section is not None:
        if any(len(section) > 2 for section in arguments.section):  # noqa: PLR2004 - title, instruction
            raise UsageError("--section takes a title and at most one instruction")
        options["sections"] = [
            Section(title=title, instruction="".join(instruction))
            for title, *instruction in arguments.section
        ]
    options["max_sections"] = arguments.max_sections
    options["parallel"] = None if arguments.parallel is None else Parallel(arguments.parallel)
    options["join"] = arguments.join
    task = read_text(arguments.task)
    with make_client(arguments) as client, client.compose(task, **options) as stream:
        return _follow(stream, arguments, options["order"])


def _shared_options(arguments: argparse.Namespace) -> dict[str, object]:
    order = None if arguments.order is None else SegmentOrder(arguments.order)
    granularity = None if arguments.granularity is None else Granularity(arguments.granularity)
    if _is_live(arguments):
        # The target is the same whatever the order; so one sees it being written.
        order = order or SegmentOrder.INTERLEAVED
        granularity = granularity or Granularity.TOKEN
    return {
        **sampling_options(arguments),
        "order": order,
        "granularity": granularity,
        "window": arguments.window,
    }


def _is_live(arguments: argparse.Namespace) -> bool:
    return arguments.json is None and not wants_json(None)


def _follow(
    stream: SyncDocumentStream, arguments: argparse.Namespace, order: SegmentOrder | str | None
) -> int:
    """Show a document as it comes, save what came of it, and return the exit code."""
    _check_output(arguments.output)
    began = monotonic()
    tally = DocumentTally(began)
    report: DocumentReport
    if wants_json(arguments.json):
        report = JsonDocumentReport(began)
    elif _is_live(arguments):
        report = LiveDocumentReport(tally)
    else:
        report = TargetReport(is_in_order=order in {None, SegmentOrder.IN_ORDER})
    stopped: BaseException | None = None
    try:
        for event in stream:
            now = monotonic()
            tally.add(event, now)
            report.event(event, now)
    except (ClientError, UsageError, KeyboardInterrupt) as error:
        stopped = error
    document = stream.document()
    report.end(document)
    if arguments.output is not None and document.started is not None:
        _save(document, arguments.output)
    if stopped is not None:
        if document.started is not None:
            why = "interrupted" if isinstance(stopped, KeyboardInterrupt) else "broken off"
            print(f"hocket: {why}; so far: {tally.line(monotonic())}", file=sys.stderr)
        raise stopped
    if not arguments.quiet:
        print(tally.line(monotonic()), file=sys.stderr)
    return REFUSED if tally.failed else 0


def _open(name: str) -> contextlib.AbstractContextManager[RawReader]:
    """Open the document, without a buffer: its lock would keep the program from leaving.

    Raises:
        UsageError: It cannot be read.
    """
    if name == "-":
        standard_input = sys.stdin.buffer
        return contextlib.nullcontext(getattr(standard_input, "raw", standard_input))
    try:
        return Path(name).open("rb", buffering=0)
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from None


def _parts(file: RawReader, name: str) -> Iterator[str]:
    """Yield a document as it comes.

    Raises:
        UsageError: It cannot be read, or is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while data := file.read(_PART_BYTES):
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise UsageError(f"{'standard input' if name == '-' else name} is not UTF-8") from None
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from None


def _check_output(path: Path | None) -> None:
    """Return if a target can be saved there, before any work is done for it.

    Raises:
        UsageError: It cannot.
    """
    if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
        raise UsageError(f"cannot write {path}")


def _save(document: DocumentResult, path: Path) -> None:
    try:
        for variant, name in enumerate(document.variants):
            target = path
            if len(document.variants) > 1:
                label = re.sub(r"[^\w-]+", "_", name) or str(variant)
                target = path.with_name(f"{path.stem}.{label}{path.suffix}")
            # As bytes, so that line ends stay what they were.
            target.write_bytes(target_text(document, variant).encode())
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
