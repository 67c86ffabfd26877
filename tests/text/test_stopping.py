"""Text stops before the first stop string, wherever it was cut into parts."""

import time
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hocket.server.text.stopping import StopMatcher, StopStrings

LETTERS = st.text("ab", max_size=30)
STOPS = st.lists(st.text("ab", min_size=1, max_size=6), max_size=5).map(tuple)


def first_stop(text: str, stops: tuple[str, ...]) -> tuple[int, str] | None:
    """The stop string that starts first; of those the shortest, which is complete first."""
    found = [(text.find(stop), len(stop), stop) for stop in stops if stop in text]
    if not found:
        return None
    start, _, stop = min(found)
    return start, stop


def longest_beginning(text: str, stops: tuple[str, ...]) -> int:
    """The length of the longest end of a text that begins a stop string and is not all of it."""
    return max(
        (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0
    )


@st.composite
def parts_of(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> list[str]:
    text = draw(texts)
    edges = [0, *sorted(draw(st.lists(st.integers(0, len(text)), max_size=10))), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


@given(parts_of(LETTERS), STOPS)
@example(["abc", "d"], ("abcd", "bc"))
@example(["ab", "cx"], ("abcd", "bc"))
@example(["ab"], ("b", "aab"))
def test_text_is_cut_before_the_first_stop(parts: list[str], stops: tuple[str, ...]) -> None:
    """The text shown and the stop found are those of a search through the whole text."""
    matcher = StopMatcher(StopStrings(stops))
    shown = "".join(map(matcher.push, parts)) + matcher.finish()
    text = "".join(parts)
    expected = first_stop(text, stops)
    if expected is None:
        assert (text, None) == (shown, matcher.matched)
    else:
        start, stop = expected
        assert (text[:start], stop) == (shown, matcher.matched)


@given(parts_of(LETTERS), STOPS)
def test_no_more_is_held_than_may_become_a_stop(parts: list[str], stops: tuple[str, ...]) -> None:
    """While nothing matched, what is held is the longest end that begins a stop string."""
    matcher = StopMatcher(StopStrings(stops))
    seen, shown = "", ""
    for part in parts:
        seen += part
        shown += matcher.push(part)
        if first_stop(seen, stops) is not None:
            break
        assert longest_beginning(seen, stops) == len(seen) - len(shown)


@given(LETTERS, STOPS)
def test_a_match_is_known_as_soon_as_it_is_certain(text: str, stops: tuple[str, ...]) -> None:
    """A match is decided once no longer stop string that started earlier can still come."""
    matcher = StopMatcher(StopStrings(stops))
    for end in range(1, len(text) + 1):
        matcher.push(text[end - 1])
        found = first_stop(text[:end], stops)
        if found is not None and end - longest_beginning(text[:end], stops) >= found[0]:
            assert found[1] == matcher.matched
            return
        assert matcher.matched is None


@given(STOPS)
def test_all_text_after_a_match_is_dropped(stops: tuple[str, ...]) -> None:
    """After a match nothing is shown any more, not even what was held."""
    if not stops:
        return
    matcher = StopMatcher(StopStrings((*stops, "z")))
    matcher.push("z")
    assert (matcher.push("more"), matcher.finish(), matcher.matched) == ("", "", "z")


def test_stop_strings_of_any_script_match() -> None:
    """Characters are code points; the pattern characters of regular expressions are ordinary."""
    stops = ("[^]-\\", "终止🙂")
    matcher = StopMatcher(StopStrings(stops))
    assert [matcher.push("a[^]-"), matcher.finish(), matcher.matched] == ["a", "[^]-", None]
    matcher = StopMatcher(StopStrings(stops))
    assert [matcher.push("终 终"), matcher.push("止🙂!"), matcher.matched] == ["终 ", "", "终止🙂"]


def test_an_empty_stop_string_is_refused() -> None:
    """It would stop every text before it began."""
    with pytest.raises(ValueError, match="at least one character"):
        StopStrings(("a", ""))


@pytest.mark.parametrize("text", ["a" * 200_000, "ab" * 100_000], ids=["run", "pairs"])
def test_work_is_linear(text: str) -> None:
    """A text that almost stops everywhere costs the same per character, pushed in any parts."""
    matcher = StopMatcher(StopStrings(("a" * 255 + "b", "ab" * 100 + "c")))
    begin = time.thread_time()
    for character in text:
        matcher.push(character)
    assert time.thread_time() - begin < 3.0
