"""A caller's own prompt with places to fill in. Pure."""

import re
from typing import Final, Self

from hocket.server.errors import InvalidRequest

_NAMES: Final = ("segment", "context", "language")
_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_MOST_NAME_CHARS: Final = 32


class Form:
    """Text with `{segment}`, and perhaps `{context}` and `{language}`, in it.

    `{{` and `}}` stand for braces.
    """

    def __init__(self, parts: tuple[str, ...], names: tuple[str, ...]) -> None:
        self._parts = parts  # one more than names: what stands around them
        self._names = names

    @classmethod
    def parse(cls, source: str, *, field: str) -> Self:
        """Return a form.

        Args:
            source: As the caller wrote it.
            field: The path that it is complained about under.

        Raises:
            InvalidRequest: A brace stands alone, a name is unknown, or `{segment}` is missing.
        """
        parts, names, start = [""], [], 0
        for found in _TOKEN.finditer(source):
            parts[-1] += source[start : found.start()]
            start = found.end()
            name = found[1]
            if found[0] in {"{{", "}}"}:
                parts[-1] += found[0][0]
            elif name is None:
                raise InvalidRequest.of(
                    field,
                    f"has a single brace at character {found.start()}; write it twice to mean one",
                )
            elif name not in _NAMES:
                known = ", ".join(f"{{{each}}}" for each in _NAMES)
                raise InvalidRequest.of(
                    field,
                    f"has the unknown name {name[:_MOST_NAME_CHARS]!r} at character"
                    f" {found.start()}; known are {known}",
                )
            else:
                names.append(name)
                parts.append("")
        parts[-1] += source[start:]
        if "segment" not in names:
            raise InvalidRequest.of(field, "must hold {segment}")
        return cls(tuple(parts), tuple(names))

    def fill(self, *, segment: str, context: str, language: str) -> str:
        """Return the text with everything filled in; braces in what is filled in stay."""
        values = {"segment": segment, "context": context, "language": language}
        filled = [self._parts[0]]
        for name, part in zip(self._names, self._parts[1:], strict=True):
            filled += (values[name], part)
        return "".join(filled)
