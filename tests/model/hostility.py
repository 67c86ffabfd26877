"""How a file is spoiled, and what is asked of whoever reads it."""

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import strategies as st

from hocket.server.errors import StartupError

MOST_BYTES = 64 << 20  # that a hostile file of a few MiB may make its reader allocate
MOST_CHARACTERS = 500  # of one line

EXTREMES = st.one_of(
    st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1]).map(lambda n: n.to_bytes(4, "little")),
    st.sampled_from([0, 2**20, 2**32, 2**62, 2**63, 2**64 - 1, 2**64 - 32]).map(
        lambda n: n.to_bytes(8, "little")
    ),
)


def mutations(size: int) -> st.SearchStrategy[Callable[[bytes], bytes]]:
    """Draw a few changes to a file whose first `size` bytes decide how the rest is read."""
    place = st.integers(0, size)
    replaced = st.tuples(place, st.one_of(EXTREMES, st.binary(min_size=1, max_size=4))).map(
        lambda drawn: lambda raw: raw[: drawn[0]] + drawn[1] + raw[drawn[0] + len(drawn[1]) :]
    )
    inserted = st.tuples(place, st.binary(min_size=1, max_size=9)).map(
        lambda drawn: lambda raw: raw[: drawn[0]] + drawn[1] + raw[drawn[0] :]
    )
    removed = st.tuples(place, st.integers(1, 64)).map(
        lambda drawn: lambda raw: raw[: drawn[0]] + raw[drawn[0] + drawn[1] :]
    )
    doubled = st.tuples(place, st.integers(1, 128)).map(
        lambda drawn: lambda raw: raw[: drawn[0] + drawn[1]] + raw[drawn[0] :]
    )
    cut = st.floats(0, 1).map(lambda part: lambda raw: raw[: int(len(raw) * part)])
    one = st.one_of(replaced, inserted, removed, doubled, cut)
    return st.lists(one, min_size=1, max_size=3).map(_one_after_the_other)


def _one_after_the_other(changes: list[Callable[[bytes], bytes]]) -> Callable[[bytes], bytes]:
    def change(raw: bytes) -> bytes:
        for each in changes:
            raw = each(raw)
        return raw

    return change


def line_of(error: BaseException) -> str:
    """Return an error's text, which must be one line that a person can read."""
    text = str(error)
    assert text.isprintable()
    assert 0 < len(text) <= MOST_CHARACTERS
    return text


@contextmanager
def refused(words: str = "") -> Iterator[None]:
    """What happens inside ends with one clear line that holds these words, and costs little."""
    with little_memory(), pytest.raises(StartupError) as caught:
        yield
    assert words in line_of(caught.value)


@contextmanager
def refused_or_fine() -> Iterator[None]:
    """What happens inside may end with one clear line, and with nothing else, and costs little."""
    with little_memory():
        try:
            yield
        except StartupError as error:
            line_of(error)


@contextmanager
def little_memory() -> Iterator[None]:
    """What happens inside never holds more than a bounded number of bytes at once."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= MOST_BYTES
