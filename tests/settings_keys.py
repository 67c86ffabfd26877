"""All settings that there are, as their dataclasses declare them."""

import dataclasses
import typing
from typing import Any

import annotated_types
from hypothesis import strategies as st

from hocket.server.settings import EffectiveSettings, schema


@dataclasses.dataclass(frozen=True)
class Key:
    """One setting, as its dataclass declares it."""

    section: str
    name: str
    hint: Any
    default: Any

    def __str__(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def kind(self) -> Any:
        hint = self.hint
        while typing.get_origin(hint) is typing.Annotated:
            hint = typing.get_args(hint)[0]
        return typing.get_origin(hint) or hint

    @property
    def is_number(self) -> bool:
        return self.kind in {int, float}

    def bound(self, cls: type, attribute: str, otherwise: Any = None) -> Any:
        """Return a bound out of the annotation."""
        found = [
            getattr(each, attribute)
            for each in getattr(self.hint, "__metadata__", ())
            if isinstance(each, cls)
        ]
        return found[0] if found else otherwise

    @property
    def low(self) -> Any:
        return self.bound(annotated_types.Ge, "ge")

    @property
    def high(self) -> Any:
        return self.bound(annotated_types.Le, "le")

    @property
    def step(self) -> int:
        return self.bound(annotated_types.MultipleOf, "multiple_of", 1)

    @property
    def variable(self) -> str:
        return f"HOCKET_{self.section}__{self.name}".upper()

    def values(self) -> st.SearchStrategy:
        """Draw values that this key may have."""
        if self.kind is int:
            return st.integers(self.low // self.step, self.high // self.step).map(
                lambda value: value * self.step
            )
        if self.kind is float:
            return st.floats(self.low, self.high)
        if self.kind is bool:
            return st.booleans()
        if self.kind is typing.Literal:
            return st.sampled_from(typing.get_args(self.hint))
        if str(self) == "metrics.address":
            return st.sampled_from(["[::1]:9", "é:0", self.default])
        texts = st.text(st.characters(exclude_categories=["Cs"]))
        return st.lists(texts).map(tuple) if self.kind is tuple else texts


KEYS = [
    Key(section, field.name, typing.get_type_hints(cls, include_extras=True)[field.name],
        field.default)
    for section, cls in schema().items() for field in dataclasses.fields(cls)
]  # fmt: skip


def value_of(effective: EffectiveSettings, key: Key) -> Any:
    return getattr(getattr(effective.settings, key.section), key.name)
