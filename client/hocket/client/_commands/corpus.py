"""`hocket map`: a file of texts through a server, each text once, whatever is killed on the way."""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import cast

from hocket.client import Client, MapOptions, Message, Segmentation
from hocket.client._commands.connection import (
    UsageError,
    add_connection_flags,
    make_client,
    positive_seconds,
)
from hocket.client._commands.sampling import add_sampling_flags, sampling_options
from hocket.client._commands.tasks import add_task_flags, has_task, task_options
from hocket.client._commands.text import add_sentence_flags, sentence_options
from hocket.client._corpus_state import build_start
from hocket.client._map import sinks, sources
from hocket.client._map.job import ItemFailed, Job, JobPlan
from hocket.client._map.journal import Journal
from hocket.client._map.sinks import Sink
from hocket.client._map.sources import Source, format_of

_FAILED = 3
_EPILOG = """\
FILE is JSON lines (objects with a text field, or texts), CSV, Parquet, or plain text with a text
on each line; its name tells which. Ids come from the id field, or are numbers of lines.

What came of each text is a line of OUTPUT, or a row if its name ends in .csv or .parquet:
  generate  id, text, finish_reason, prompt_tokens, completion_tokens
  transform id, text, finish_reason, segments, failed_segments
  tokenize  id, token_ids
  split     id, sentences
  and instead of these, for a text that failed: error

OUTPUT.journal beside it tells which texts are done. The same command again goes on where the one
before was cut off, or with texts that were added at the end of FILE since.

Exit codes: 0 all done; 2 usage; 3 some texts failed, or all was refused; 4 unreachable;
130 interrupted.
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "map",
        help="do the same with every text of a file",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the texts")
    parser.add_argument(
        "--op",
        choices=["generate", "transform", "tokenize", "split"],
        default="generate",
        help="what to do with each (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, required=True, help="where the results go")
    parser.add_argument("--input-format", choices=sources.FORMATS, help="if the name lies")
    parser.add_argument("--output-format", choices=sinks.FORMATS, help="the same for OUTPUT")
    parser.add_argument(
        "--text-field", default="text", help="field or column of the text (default: %(default)s)"
    )
    parser.add_argument("--id-field", help="field or column of the id (default: id, if there)")
    parser.add_argument(
        "--in-order", action="store_true", help="keep the order of FILE; else as they are done"
    )
    parser.add_argument(
        "--window", type=int, help="most texts in flight (default: the server's bound)"
    )
    parser.add_argument(
        "--on-error",
        choices=["record", "stop"],
        default="record",
        help="what to do about a text that fails (default: %(default)s)",
    )
    parser.add_argument("--restart", action="store_true", help="begin anew, whatever is there")
    parser.add_argument(
        "--patience",
        type=positive_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long a server may be gone (default: %(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="nothing on standard error")
    generate = parser.add_argument_group("generate")
    form = generate.add_mutually_exclusive_group()
    form.add_argument(
        "--chat",
        action="store_const",
        const=True,
        dest="chat",
        help="each text is a message to answer (default if the model has a chat template)",
    )
    form.add_argument(
        "--raw",
        action="store_const",
        const=False,
        dest="chat",
        help="each text is continued as it is (default otherwise)",
    )
    generate.add_argument("--system", metavar="TEXT", help="a system message; implies --chat")
    add_task_flags(parser, is_required=False)
    parts = parser.add_argument_group("transform, split").add_mutually_exclusive_group()
    parts.add_argument("--paragraphs", action="store_true", help="paragraphs, not sentences")
    parts.add_argument("--whole", action="store_true", help="each text is one segment (transform)")
    tokenize = parser.add_argument_group("tokenize")
    tokenize.add_argument("--add-special-tokens", action="store_true", help="begin-of-text too")
    tokenize.add_argument("--parse-special-tokens", action="store_true", help="read their texts")
    add_sentence_flags(parser)
    add_sampling_flags(parser)
    add_connection_flags(parser)
    parser.set_defaults(run=_map)


def _map(arguments: argparse.Namespace) -> int:
    source = Source(
        arguments.file,
        arguments.input_format or format_of(arguments.file, "text"),
        text_field=arguments.text_field,
        id_field=arguments.id_field or "id",
        must_have_ids=arguments.id_field is not None,
    )
    format_ = arguments.output_format or format_of(arguments.output, "jsonl")
    sink = Sink(arguments.output, format_, arguments.op)
    if not arguments.file.is_file():
        raise UsageError(f"{arguments.file} is not a file")
    if not arguments.output.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {arguments.output.parent}")
    with make_client(arguments) as client:
        plan = JobPlan(
            op=arguments.op,
            options=_options(arguments, client),
            window=arguments.window,
            in_order=arguments.in_order,
            stops_on_error=arguments.on_error == "stop",
            patience_seconds=arguments.patience,
            is_quiet=arguments.quiet,
        )
        journal_path = arguments.output.with_name(f"{arguments.output.name}.journal")
        journal = Journal(journal_path, _key(plan, source, format_))
        job = Job(client, plan, source, sink, journal)
        try:
            failed = job.run(restarts=arguments.restart)
        except ItemFailed as error:
            print(f"hocket: {error}", file=sys.stderr)
            return _FAILED
        except OSError as error:
            raise UsageError(f"cannot write {arguments.output}: {error.strerror}") from None
    return _FAILED if failed else 0


def _options(arguments: argparse.Namespace, client: Client) -> MapOptions:
    """Return what is said of the operation."""
    if has_task(arguments) != (arguments.op == "transform"):
        raise UsageError("--op transform goes with a task, such as --translate-to")
    if arguments.op == "split":
        return MapOptions(
            paragraphs=arguments.paragraphs or None, sentences=sentence_options(arguments)
        )
    if arguments.op == "tokenize":
        return MapOptions(
            model=arguments.model,
            add_special_tokens=arguments.add_special_tokens or None,
            parse_special_tokens=arguments.parse_special_tokens or None,
        )
    if arguments.op == "transform":
        return _transform_options(arguments)
    if arguments.system is not None and arguments.chat is False:
        raise UsageError("--system goes with --chat")
    options = cast("MapOptions", sampling_options(arguments))
    chat = arguments.chat
    if chat is None:
        chat = arguments.system is not None or client.get_model(arguments.model or "").can_chat
    if chat:
        system = arguments.system
        options["messages"] = [] if system is None else [Message(role="system", content=system)]
    return options


def _transform_options(arguments: argparse.Namespace) -> MapOptions:
    if len(arguments.translate_to or ()) > 1:
        raise UsageError("--translate-to takes one language here")
    given = {**sampling_options(arguments), **task_options(arguments)}
    options = cast("MapOptions", given)
    options["sentences"] = sentence_options(arguments)
    if arguments.whole:
        options["segmentation"] = Segmentation.WHOLE
    return options


def _key(plan: JobPlan, source: Source, format_: str) -> str:
    """Return what names the job: all that its output depends on, but for the rows."""
    start = build_start(plan.op, plan.options, in_order=plan.in_order)
    facts = [
        start.SerializeToString(deterministic=True).hex(),
        source.format,
        source.text_field,
        source.id_field,
        format_,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
