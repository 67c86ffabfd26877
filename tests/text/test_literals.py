"""Many fixed texts match as one expression."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.text.literals import any_of

TEXTS = st.lists(st.text("ab.|", max_size=5), max_size=8)


@given(TEXTS, st.text("ab.|", max_size=12))
def test_the_longest_text_matches(texts: list[str], target: str) -> None:
    """At the start of a target the longest of the texts matches, or none."""
    match = re.compile(any_of(texts)).match(target)
    expected = max(
        (text for text in texts if text and target.startswith(text)), key=len, default=None
    )
    assert expected == (match and match.group())


def test_it_is_an_atom() -> None:
    """It stands beside other patterns without brackets of its own."""
    assert re.fullmatch(any_of(["ab", "c"]) + "+x", "abcabx")
    assert re.fullmatch(any_of([]) + "|x", "x")


@pytest.mark.parametrize("letters", ["a", "ab"])
def test_texts_may_begin_with_each_other(letters: str) -> None:
    """Hundreds of texts, each the beginning of the next, are one expression still."""
    texts = [(letters * 500)[:size] for size in range(1, 500)]
    pattern = re.compile(any_of(texts))
    for size in (1, 19, 20, 21, 22, 250, 499):
        match = pattern.match(texts[size - 1] + "x")
        assert match is not None
        assert len(match.group()) == size
