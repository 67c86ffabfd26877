"""Where settings come from, laid over each other: TOML, environment, `--set`, flags. Any thread.

Each source is read into assignments of a value to `section.key`; a later one wins. Whatever cannot
be understood becomes a problem with a hint, so that all problems are told at once.
"""

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

PREFIX = "HOCKET_"
_MOST_SHOWN = 80  # characters of a value that cannot be used

# Short names for what is set most often outside of a file; sections win over them.
ENVIRONMENT_ALIASES = {
    "HOCKET_MODEL_DIR": ("model", "model_dir"),
    "HOCKET_CACHE_DIR": ("model", "cache_dir"),
}

Schema = Mapping[str, type[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One value for one key.

    Attributes:
        section: Name of the section.
        key: Name of the key in it.
        value: Text from a command line or the environment; whatever TOML made of it otherwise.
        is_text: Whether `value` is text that has yet to be read as the key's type.
        source: Where it stands, as people look for it: a path, a variable's name, a flag.
    """

    section: str
    key: str
    value: object
    is_text: bool
    source: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source held: assignments that name known keys, and the problems of all others."""

    assignments: tuple[Assignment, ...]
    problems: tuple[str, ...]


def read_toml(path: Path, schema: Schema) -> Reading:
    """Read a configuration file: one table for each section."""
    source = str(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return Reading((), (f"{source}: cannot be read: {error.strerror or error}",))
    except (ValueError, RecursionError) as error:  # numbers too long and arrays too deep as well
        return Reading((), (f"{source}: is no TOML: {error}",))
    assignments: list[Assignment] = []
    problems: list[str] = []
    for section, table in document.items():
        if section not in schema:
            problems.append(f"{source}: {_unknown_section(section, schema)}")
        elif not isinstance(table, dict):
            problems.append(f"{source}: {section} must be a table: [{section}]")
        else:
            for key, value in table.items():
                if key in _keys(schema[section]):
                    assignments.append(
                        Assignment(
                            section=section, key=key, value=value, is_text=False, source=source
                        )
                    )
                else:
                    problems.append(f"{source}: {_unknown_key(section, key, schema)}")
    return Reading(tuple(assignments), tuple(problems))


def read_environment(
    environment: Mapping[str, str], schema: Schema, *, ignored: frozenset[str] = frozenset()
) -> Reading:
    """Read all variables that begin with the prefix; none may be one that nobody knows."""
    assignments: list[Assignment] = []
    problems: list[str] = []
    ours = sorted(name for name in environment if name.startswith(PREFIX) and name not in ignored)
    # Aliases first, so that the full name wins where both are set.
    for name in sorted(ours, key=lambda name: name not in ENVIRONMENT_ALIASES):
        alias = ENVIRONMENT_ALIASES.get(name)
        section, separator, key = name.removeprefix(PREFIX).lower().partition("__")
        if alias is not None:
            section, key = alias
        elif name != name.upper() or not separator:
            problems.append(f"{name}: {_unknown_variable(name, schema)}")
            continue
        elif section not in schema:
            problems.append(f"{name}: {_unknown_section(section, schema)}")
            continue
        elif key not in _keys(schema[section]):
            problems.append(f"{name}: {_unknown_key(section, key, schema)}")
            continue
        assignments.append(
            Assignment(section=section, key=key, value=environment[name], is_text=True, source=name)
        )
    return Reading(tuple(assignments), tuple(problems))


def read_sets(texts: Iterable[str], schema: Schema) -> Reading:
    """Read the values of `--set`: each `section.key=value`."""
    assignments: list[Assignment] = []
    problems: list[str] = []
    for text in texts:
        name, equals, value = text.partition("=")
        section, dot, key = name.strip().partition(".")
        source = f"--set {name.strip()}"
        if not equals or not dot:
            problems.append(f"--set {text}: must be section.key=value")
        elif section not in schema:
            problems.append(f"{source}: {_unknown_section(section, schema)}")
        elif key not in _keys(schema[section]):
            problems.append(f"{source}: {_unknown_key(section, key, schema)}")
        else:
            assignments.append(
                Assignment(
                    section=section, key=key, value=value.strip(), is_text=True, source=source
                )
            )
    return Reading(tuple(assignments), tuple(problems))


@dataclass(frozen=True, slots=True)
class Composition:
    """Sections made of assignments.

    Attributes:
        sections: One object for each section of the schema that had no problem.
        sources: For each `section.key` that was set, where.
        problems: What is wrong, one line each.
    """

    sections: Mapping[str, Any]
    sources: Mapping[str, str]
    problems: tuple[str, ...]


def compose(assignments: Sequence[Assignment], schema: Schema) -> Composition:
    """Make every section of its defaults and of what was assigned; the last assignment wins."""
    winners = {(each.section, each.key): each for each in assignments}
    values: dict[str, dict[str, object]] = {section: {} for section in schema}
    problems: list[str] = []
    broken: set[str] = set()
    for (section, key), assignment in winners.items():
        adapter = _adapter(schema[section], key)
        try:
            values[section][key] = _convert(adapter, assignment, _hints(schema[section])[key])
        except (ValidationError, ValueError) as error:
            broken.add(section)
            problems.append(f"{assignment.source}: {section}.{key} {_explain(error)}")
    sections: dict[str, Any] = {}
    for section, cls in schema.items():
        if section in broken:
            continue
        try:
            sections[section] = cls(**values[section])
        except (ValueError, TypeError) as error:
            sources = sorted({winners[section, key].source for key in values[section]})
            problems.append(f"{', '.join(sources) or 'default'}: {section}: {error}")
    origins = {f"{section}.{key}": each.source for (section, key), each in winners.items()}
    return Composition(sections, origins, tuple(problems))


def _convert(adapter: TypeAdapter[Any], assignment: Assignment, hint: object) -> object:
    value = assignment.value
    if not assignment.is_text:
        # JSON's strictness is TOML's too: lists are tuples, but neither "9" nor true is a number.
        return adapter.validate_json(json.dumps(value, default=repr), strict=True)
    text = cast("str", value)
    kinds = _kinds(hint)
    if types.NoneType in kinds and text.lower() in {"", "none"}:
        return None
    if tuple in kinds:
        if text.startswith("["):
            try:
                (items,) = tomllib.loads(f"items = {text}").values()
            except (ValueError, RecursionError) as error:
                raise ValueError(f"is no list: {error}") from None
            return adapter.validate_json(json.dumps(items, default=repr), strict=True)
        return adapter.validate_python(
            tuple(item.strip() for item in text.split(",") if item.strip())
        )
    return adapter.validate_python(text)


def _kinds(hint: object) -> set[object]:
    """Return the plain types that a hint allows: unions opened, parameters and ranges left out."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _kinds(typing.get_args(hint)[0])
    if origin in {typing.Union, types.UnionType}:
        return set().union(*map(_kinds, typing.get_args(hint)))
    return {origin or hint}


def _hints(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _keys(cls: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


def _adapter(cls: type[Any], key: str) -> TypeAdapter[Any]:
    return TypeAdapter(_hints(cls)[key], config=ConfigDict(allow_inf_nan=False))


def _explain(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    message, value = first["msg"], repr(first["input"])
    if len(value) > _MOST_SHOWN:
        value = f"{value[:_MOST_SHOWN]}..."
    return f"is {value}: {message[:1].lower()}{message[1:]}"


def _hint(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""


def _unknown_section(section: str, schema: Schema) -> str:
    return f'unknown section "{section}"{_hint(section, schema)}'


def _unknown_key(section: str, key: str, schema: Schema) -> str:
    return f'unknown key "{key}" in section "{section}"{_hint(key, _keys(schema[section]))}'


def _unknown_variable(name: str, schema: Schema) -> str:
    full = [f"{PREFIX}{s.upper()}__{k.upper()}" for s, cls in schema.items() for k in _keys(cls)]
    return f"unknown variable{_hint(name.upper(), [*full, *ENVIRONMENT_ALIASES])}"
