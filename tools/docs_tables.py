"""Write the tables in docs/ that the code already knows: settings and errors.

python tools/docs_tables.py            write docs/configuration.md and docs/errors.md
python tools/docs_tables.py --check    exit 1 and say which of them are stale
"""

import argparse
import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import annotated_types

from hocket.server import errors
from hocket.server.settings import schema

ROOT = Path(__file__).resolve().parents[1]
GENERATED = "<!-- Written by tools/docs_tables.py from the code; change it there. -->"

CONFIGURATION = f"""{GENERATED}

# Configuration

Every setting has a section and a key. From weakest to strongest, it comes from

1. its default,
2. the TOML file that `--config` names, with a table for each section,
3. the environment: `HOCKET_SECTION__KEY`,
4. `--set section.key=value`, as often as needed,
5. flags: `--model` for `model.model`, `--translator` (as often as needed) for
   `translator.translators`, `--address` for `listener.address`, `--quantization` for
   `runner.quantization` (`none`, `int8` or `auto`), and `--quiet` for a
   `log.level` of `warning`, without the lines that tell people how far starting has come.

`HOCKET_MODEL_DIR` and `HOCKET_CACHE_DIR` are short for `HOCKET_MODEL__MODEL_DIR` and
`HOCKET_MODEL__CACHE_DIR`; `XDG_CACHE_HOME` moves the default cache folder. Lists are written as
TOML lists, or with commas between their items. A setting that may be unset is so with `none`.

`hocket serve --print-config` prints all settings in effect as TOML, each with where it came from.
Misspelt sections, keys and variables that begin with `HOCKET_` are refused with exit code 2, and so
are values out of range; all of them are named at once.

`hocket serve --ready-file FILE` writes the addresses that were bound and the process's id into a
file, as JSON, once the server serves. The file appears as a whole, and one that was there before
is removed first.
"""

ERRORS = f"""{GENERATED}

# Errors

Every status other than `OK` carries a `google.rpc.ErrorInfo` whose domain is `hocket` and whose
reason is one of these, and the request's id in its metadata. Decide by code and reason; the
message is for people and may change. No text of an exception, prompt or path is ever sent, but for
one: where a model's chat template refuses a conversation, its own words are quoted, up to 200
characters. They come with the model, and may repeat what the caller wrote.

| Code | Reason | Class in `hocket.server.errors` | When |
|---|---|---|---|
"""

EXIT_CODES = """
## Exit codes of `hocket serve`

| Code | When |
|---|---|
| 0 | It was asked to leave, and drained. |
| 1 | It could not start (a broken or absent model, a taken address), or the engine failed. |
| 2 | A setting or an argument was not understood, or the `server` extra is not installed. |
| 130, 143 | A second SIGINT or SIGTERM made it leave at once. |
"""


def attributes(cls: type) -> dict[str, str]:
    """Return what the `Attributes:` section of a class's docstring says of each."""
    section = re.search(
        r"^Attributes:\n(.*?)(?=^\S|\Z)",
        inspect.cleandoc(cls.__doc__ or ""),
        re.DOTALL | re.MULTILINE,
    )
    found: dict[str, list[str]] = {}
    name = ""
    for line in (section.group(1) if section else "").splitlines():
        start = re.match(r" {4}(\w+): (.*)", line)
        if start:
            name = start.group(1)
            found[name] = [start.group(2)]
        elif line.strip() and name:
            found[name].append(line.strip())
    return {name: " ".join(lines) for name, lines in found.items()}


def kind(hint: Any) -> str:  # noqa: ANN401 - any hint
    """Return the name of a type for people."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return kind(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(kind(each) for each in arguments)
    if origin is tuple:
        return f"list of {kind(arguments[0])}"
    return {str: "text", bool: "bool", int: "int", float: "float", type(None): "none"}[hint]


_BOUNDS = (
    (annotated_types.Ge, "ge", "≥ {}"),
    (annotated_types.Gt, "gt", "> {}"),
    (annotated_types.Le, "le", "≤ {}"),
    (annotated_types.Lt, "lt", "< {}"),
    (annotated_types.MultipleOf, "multiple_of", "multiple of {}"),
    (annotated_types.MinLen, "min_length", "length ≥ {}"),
    (annotated_types.MaxLen, "max_length", "length ≤ {}"),
)


def limits(hint: Any) -> Iterator[str]:  # noqa: ANN401 - any hint
    """Yield the bounds that a hint sets, in words; those of a list's items too."""
    for argument in typing.get_args(hint):
        for cls, name, words in _BOUNDS:
            if isinstance(argument, cls):
                yield words.format(getattr(argument, name))
        yield from limits(argument)


def written(value: object) -> str:
    """Return a default as it would be written."""
    match value:
        case None:
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case "" | ():
            return "empty"
        case tuple():
            return ", ".join(f"`{each}`" for each in value)
        case _:
            return f"`{value}`"


def configuration() -> str:
    """Return docs/configuration.md."""
    parts = [CONFIGURATION]
    for section, cls in schema().items():
        hints = typing.get_type_hints(cls, include_extras=True)
        meanings = attributes(cls)
        default = cls()
        summary = inspect.cleandoc(cls.__doc__ or "").splitlines()[0]
        parts += [f"\n## `[{section}]`\n\n{summary}\n"]
        parts += [
            "\n| Key | Type | Range | Default | Environment | Meaning |\n",
            "|---|---|---|---|---|---|\n",
        ]
        for field in dataclasses.fields(cls):
            cells = [
                f"`{field.name}`",
                kind(hints[field.name]),
                ", ".join(limits(hints[field.name])),
                written(getattr(default, field.name)),
                f"`HOCKET_{section}__{field.name}`".upper(),
                meanings[field.name],
            ]
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(parts)


def comments(path: Path) -> dict[str, str]:
    """Return what error.proto says of each reason."""
    found: dict[str, str] = {}
    lines: list[str] = []
    for line in path.read_text().splitlines():
        value = re.match(r"\s*ERROR_REASON_(\w+) = \d+;", line)
        if value:
            found[value.group(1)] = " ".join(lines)
        comment = re.match(r"\s*// ?(.*)", line)
        lines = [*lines, comment.group(1)] if comment else []
    return found


def error_table() -> str:
    """Return docs/errors.md."""
    classes: dict[errors.Reason, type[errors.HocketError]] = {}
    queue: list[type[errors.HocketError]] = [errors.HocketError]
    while queue:
        for cls in queue.pop().__subclasses__():
            classes[cls.reason] = cls
            queue.append(cls)
    meanings = comments(ROOT / "proto/hocket/v1/error.proto")
    rows = []
    for reason in errors.Reason:
        cls = classes.get(reason, errors.InvalidRequest)
        meaning = meanings[reason].replace("|", "\\|")
        rows.append(f"| `{cls.code}` | `{reason}` | `{cls.__name__}` | {meaning} |\n")
    return ERRORS + "".join(rows) + EXIT_CODES


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description="Write the tables in docs/ that the code knows.")
    parser.add_argument("--check", action="store_true", help="only tell which are stale")
    is_check = parser.parse_args().check
    stale = []
    for name, text in (("configuration.md", configuration()), ("errors.md", error_table())):
        path = ROOT / "docs" / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not is_check:
                path.write_text(text)
    if is_check and stale:
        print(f"stale: {', '.join(f'docs/{name}' for name in stale)}; run tools/docs_tables.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
