"""Repeated fields of messages: found by their descriptors, filled, and counted as they are read."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

TOO_MANY = 100_000


class Counted:
    """Stands for a message; `looks[0]` counts the values that were read, or sliced out.

    What is written or asked of the message otherwise goes through.
    """

    def __init__(self, message: Message, looks: list[int] | None = None) -> None:
        self._message = message
        self.looks = [0] if looks is None else looks

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._message, name)
        field = self._message.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            return value
        if field.is_repeated:
            return _CountedValues(value, self.looks)
        return Counted(value, self.looks) if isinstance(value, Message) else value


class _CountedValues:
    def __init__(self, values: Any, looks: list[int]) -> None:
        self._values = values
        self._looks = looks

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        for value in self._values:
            self._looks[0] += 1
            yield value

    def __getitem__(self, key: Any) -> Any:
        found = self._values[key]
        self._looks[0] += len(found) if isinstance(key, slice) else 1
        return found

    def items(self) -> Iterator[Any]:
        for pair in self._values.items():
            self._looks[0] += 1
            yield pair


def repeated_fields(
    descriptor: Descriptor, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield the path of each repeated field of a message and of those in it."""
    for field in descriptor.fields:
        if field.is_repeated:
            yield (*path, field.name)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from repeated_fields(field.message_type, (*path, field.name))


def fill(request: Message, path: tuple[str, ...], count: int) -> None:
    """Put so many empty values into a repeated field."""
    message = request
    for name in path[:-1]:
        message = getattr(message, name)
    field = message.DESCRIPTOR.fields_by_name[path[-1]]
    values: Any = getattr(message, path[-1])
    if field.message_type and field.message_type.GetOptions().map_entry:
        values.update(dict.fromkeys(range(count), 0.0))
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        for _ in range(count):
            values.add()
    else:
        values.extend(["" if field.type == FieldDescriptor.TYPE_STRING else 0] * count)
