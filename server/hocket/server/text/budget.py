"""What one rendering of a template may make, do and take. One object per rendering; its thread.

Every text and list that a template makes is counted, kept or not, so that what is kept can never
be more. Containers are weighed with all that is in them, as often as it is in them: that is what
writing or comparing them would cost.
"""

import re
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from string import Formatter
from typing import Final

from jinja2.exceptions import SecurityError

_ITEM_CHARS: Final = 8  # what a place in a list counts
_ESCAPED_CHARS: Final = 10  # one character as an escape, `\U0001f600`
_FIELD_CHARS: Final = 400  # a field holds a number of 309 digits at most
_OBJECT_CHARS: Final = 100
_MOST_BITS: Final = 1_000
_MOST_PADDING: Final = 1_000
_CHECK_EVERY: Final = 64
_PERCENT: Final = re.compile(r"%(\([^()]*\)|\()?[-#0 +]*(\*|\d*)(?:\.(\*|\d*))?")
_NUMBER: Final = re.compile(r"\d+")


class TooMuch(SecurityError):
    """A template goes beyond its budget."""


class Budget:
    """What is left for one rendering.

    Args:
        chars: How many characters of text and lists may be made.
        operations: How many calls, filters and turns of loops there may be.
        seconds: How long it may take by `clock`.
        clock: Tells the time, such as the thread's own.
    """

    def __init__(
        self, *, chars: int, operations: int, seconds: float, clock: Callable[[], float]
    ) -> None:
        self._chars = self._most_chars = chars
        self._operations = operations
        self._clock = clock
        self._deadline = clock() + seconds
        self._weights: dict[int, tuple[object, int]] = {}  # holds what it knows: ids are not reused

    def count(self) -> None:
        """Count one operation."""
        self._operations -= 1
        if self._operations < 0:
            raise TooMuch("too many operations")
        if not self._operations % _CHECK_EVERY:
            self.check_time()

    def check_time(self) -> None:
        """Raise if the time is over."""
        if self._clock() > self._deadline:
            raise TooMuch("too much time")

    def afford(self, chars: int) -> None:
        """Raise if so much could not be made any more."""
        if chars > self._chars:
            raise TooMuch("too much text")

    def take(self, chars: int) -> None:
        """Count what is made."""
        self.afford(chars)
        self._chars -= chars

    def took(self, value: object) -> object:
        """Return what a call gave, counted; what comes one by one is counted as it comes."""
        if isinstance(value, str | bytes):
            self.take(len(value))
        elif isinstance(value, list | tuple | dict):
            self.take(_ITEM_CHARS * len(value))
            self.weight(value)
        elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise TooMuch("too large a number")
        elif isinstance(value, Iterator):
            return self._one_by_one(value)
        return value

    def text(self, value: object) -> str:
        """Return a value as text, counted."""
        self.afford(self.written(value))
        text = str(value)
        self.take(len(text))
        return text

    def weight(self, value: object) -> int:
        """Return how many characters writing a value takes at most, escapes aside."""
        if isinstance(value, str | bytes):
            return len(value) + 2
        if value is None or isinstance(value, int | float):
            return len(str(value))
        if not isinstance(value, list | tuple | dict | KeysView | ValuesView | ItemsView):
            return _OBJECT_CHARS
        known = self._weights.get(id(value))
        if known:
            return known[1]
        items: list[object] = [*value, *value.values()] if isinstance(value, dict) else [*value]
        weight = 2 + sum(2 + self.weight(item) for item in items)
        if weight > self._most_chars:
            raise TooMuch("too large a container")
        self._weights[id(value)] = value, weight
        return weight

    def written(self, value: object) -> int:
        """Return how many characters a value is as text at most."""
        return len(value) if isinstance(value, str) else _ESCAPED_CHARS * self.weight(value)

    def check_percent(self, form: str, arguments: object) -> None:
        """Raise if `form % arguments` could write too much."""
        sizes: list[int] = []
        for found in _PERCENT.finditer(form):
            if found[1] == "(" or "*" in found.groups():
                raise TooMuch("a field's width is not known")
            sizes += (int(digits or 0) for digits in found.groups()[1:])
        self._check_fields(form, sizes, len(sizes) // 2, arguments)

    def check_braces(self, form: str, arguments: object) -> None:
        """Raise if `form.format(arguments)` could write too much."""
        sizes: list[int] = []
        fields = 0
        for _, name, spec, _ in Formatter().parse(form):
            fields += name is not None
            if "{" in (spec or ""):
                raise TooMuch("a field's width is not known")
            sizes += map(int, _NUMBER.findall(spec or ""))
        self._check_fields(form, sizes, fields, arguments)

    def _check_fields(self, form: str, sizes: list[int], fields: int, arguments: object) -> None:
        self.check_padding(*sizes)
        self.afford(len(form) + sum(sizes) + fields * (_FIELD_CHARS + self.written(arguments)))

    def check_padding(self, *sizes: int) -> None:
        """Raise if something is filled up by more than templates have a use for."""
        if any(abs(size) > _MOST_PADDING for size in sizes):
            raise TooMuch("too much padding")

    def _one_by_one(self, values: Iterator[object]) -> Iterator[object]:
        for value in values:
            self.count()
            yield self.took(value) if isinstance(value, list | tuple) else value
