"""From settings to translators: which are to be served, under which names, and how they are loaded.

Main thread for what is to be served, a translator thread for loading.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hocket.server.errors import StartupError
from hocket.server.translation import fast_translate
from hocket.server.translation.protocol import Translator

_USAGE = 2  # the exit code of a setting that was not understood


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatorSpec:
    """A translator that is to be served.

    Attributes:
        name: The name to ask for it by.
        kind: Which code loads it.
        source: What it is loaded from, such as a folder; empty where the kind says it all.
    """

    name: str
    kind: str
    source: str = ""


def _fast_translate(source: str) -> Translator:
    if source:
        raise StartupError(f"{fast_translate.KIND} is loaded from nowhere", exit_code=_USAGE)
    return fast_translate.FastTranslate()


_KINDS: Final[Mapping[str, Callable[[str], Translator]]] = {fast_translate.KIND: _fast_translate}


def parse_specs(texts: Sequence[str]) -> tuple[TranslatorSpec, ...]:
    """Return what `translator.translators` asks for.

    Raises:
        StartupError: One is malformed, or a name is given twice.
    """
    specs = tuple(map(_parse, texts))
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise StartupError(f"translator.translators: {name} is there twice", exit_code=_USAGE)
    return specs


def load_translator(spec: TranslatorSpec) -> Translator:
    """Load one.

    Raises:
        StartupError: Nobody knows its kind, what it needs is not installed, or it is broken.
    """
    load = _KINDS.get(spec.kind)
    if load is None:
        raise StartupError(
            f"translator.translators: no translator is of the kind {spec.kind!r};"
            f" known: {', '.join(_KINDS)}",
            exit_code=_USAGE,
        )
    return load(spec.source)


def _parse(text: str) -> TranslatorSpec:
    """Read `[NAME=]KIND[:SOURCE]`; a source may have any characters in it."""
    head, colon, source = text.partition(":")
    name, equals, kind = head.partition("=")
    if not equals:
        name, kind = head, head
    if not (name.strip() and kind.strip()) or (colon and not source.strip()):
        raise StartupError(
            f"translator.translators: {text!r} must be [NAME=]KIND[:SOURCE]", exit_code=_USAGE
        )
    return TranslatorSpec(name=name.strip(), kind=kind.strip(), source=source.strip())
