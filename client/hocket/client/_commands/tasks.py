"""The flags that say what is done with each segment of a text: of `transform`, and of `map`."""

import argparse

from hocket.client import Segmentation, TaskOptions
from hocket.client._commands.connection import UsageError


def add_task_flags(parser: argparse.ArgumentParser, *, is_required: bool) -> None:
    """Add them.

    Args:
        parser: Where to.
        is_required: Whether one of the tasks must be given.
    """
    group = parser.add_argument_group(
        "task, exactly one" if is_required else "transform: a task, exactly one"
    )
    task = group.add_mutually_exclusive_group(required=is_required)
    task.add_argument("--instruction", metavar="TEXT", help="what to do with each segment")
    task.add_argument("--template", metavar="TEXT", help="a prompt with {segment} in it")
    task.add_argument(
        "--translate-to", nargs="+", metavar="LANGUAGE", help="translate; each is a variant"
    )
    task.add_argument(
        "--rewrite", nargs="?", const=True, metavar="STYLE", help="say it in other words"
    )
    task.add_argument(
        "--summarize", nargs="?", const=True, type=int, metavar="SENTENCES", help="shorten"
    )
    task.add_argument("--classify", metavar="LABEL,LABEL", help="say which label fits")
    group.add_argument("--source-language", help="what to translate from (default: found out)")
    group.add_argument(
        "--context", type=int, metavar="N", help="show the model so many segments before each"
    )
    group.add_argument(
        "--no-protect", action="store_true", help="let code, URLs and the like be changed"
    )
    group.add_argument(
        "--keep", action="append", metavar="TERM", help="keep this term as it is; repeatable"
    )
    group.add_argument("--no-cache", action="store_true", help="write every segment anew")


def has_task(arguments: argparse.Namespace) -> bool:
    """Whether one of the tasks was given."""
    names = ("instruction", "template", "translate_to", "rewrite", "summarize", "classify")
    return any(getattr(arguments, name) is not None for name in names)


def task_options(arguments: argparse.Namespace) -> TaskOptions:
    """Return what those flags and `--paragraphs` say.

    Raises:
        UsageError: They do not go together.
    """
    if arguments.source_language is not None and arguments.translate_to is None:
        raise UsageError("--source-language goes with --translate-to")
    labels = arguments.classify
    return TaskOptions(
        instruction=arguments.instruction,
        template=arguments.template,
        translate_to=arguments.translate_to,
        source_language=arguments.source_language,
        rewrite=arguments.rewrite,
        summarize=arguments.summarize,
        classify=None if labels is None else [label.strip() for label in labels.split(",")],
        segmentation=Segmentation.PARAGRAPHS if arguments.paragraphs else None,
        context_segments=arguments.context,
        protect=False if arguments.no_protect else None,
        protected_terms=arguments.keep,
        cache=False if arguments.no_cache else None,
    )
