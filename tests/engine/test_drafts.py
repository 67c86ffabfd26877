"""Drafts are what followed the newest tokens the time before, and pause where they are wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.engine.drafts import _MOST_INDEXED, MOST_DRAFTED, Drafts


def search(tokens: list[int], count: int) -> list[int]:
    """Look for the longest run, and the newest of its earlier places, one by one."""
    for size in (4, 3, 2):
        run = tokens[-size:]
        for end in range(len(tokens) - 1, size - 1, -1):
            if len(run) == size and tokens[end - size : end] == run:
                written = list(tokens)
                for at in range(end, end + count):
                    written.append(written[at])
                return written[len(tokens) :]
    return []


def ready(drafts: Drafts) -> Drafts:
    """Let drafts be as long as they may be."""
    for _ in range(99):
        drafts.note(MOST_DRAFTED, MOST_DRAFTED)
    return drafts


def offer(drafts: Drafts, right: int, steps: int, cost: float = 0.2) -> list[int]:
    """Go on with drafts of which so many are right; return how long they were."""
    lengths = []
    for _ in range(steps):
        lengths.append(len(drafts.propose([1] * 9, MOST_DRAFTED, cost)))
        if lengths[-1]:
            drafts.note(lengths[-1], min(right, lengths[-1]))
    return lengths


@given(
    tokens=st.lists(st.integers(0, 3), min_size=1, max_size=80),
    parts=st.lists(st.integers(1, 9)),
    most=st.integers(0, 12),
)
def test_drafts_are_those_of_a_naive_search(tokens, parts, most):
    """However many tokens come at a time."""
    drafts, known = ready(Drafts()), 0
    for part in [*parts, len(tokens)]:
        if known < len(tokens):
            known = min(len(tokens), known + part)
            found = drafts.propose(tokens[:known], most, 0.5)
            assert list(found) == search(tokens[:known], min(most, MOST_DRAFTED))


def test_a_long_prompt_is_indexed_in_parts():
    """Meanwhile there is no draft; afterwards there is, out of any part of it."""
    tokens = [*range(4 * _MOST_INDEXED), 5, 6]
    drafts, calls = Drafts(), 1
    while not drafts.propose(tokens, 8, 0.1):
        calls += 1
    assert calls == 5
    assert drafts.propose(tokens, 2, 0.1) == (7, 8)


@given(
    rights=st.lists(st.integers(0, 8), max_size=30),
    costs=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)),
)
def test_the_dearer_drafts_are_the_fewer_there_are(rights, costs):
    cheap, dear = Drafts(), Drafts()
    for right in rights:
        cheap.note(8, right)
        dear.note(8, right)
    tokens = [1] * 9
    assert len(cheap.propose(tokens, 8, min(costs))) >= len(dear.propose(tokens, 8, max(costs)))


def test_drafts_grow_while_they_are_right_and_shrink_where_they_are_not():
    drafts = Drafts()
    assert offer(drafts, 8, 30)[-1] == MOST_DRAFTED
    assert offer(drafts, 2, 30)[-1] in {3, 4}
    assert offer(drafts, 8, 30)[-1] == MOST_DRAFTED


@pytest.mark.parametrize("cost", [0.1, 0.3, 0.6])
def test_drafts_that_are_always_wrong_become_rare(cost):
    """They are tried again, but less than a tenth as often."""
    lengths = offer(Drafts(), 0, 2_000, cost)
    assert 20 < sum(map(bool, lengths)) < 200
    assert any(lengths[-200:])


def test_a_text_that_turns_repetitive_is_found_out():
    drafts = Drafts()
    offer(drafts, 0, 500)
    assert sum(offer(drafts, 8, 100)) > 200


def test_what_was_forgotten_is_found_again():
    """In parts, as at first; how often drafts were right is not forgotten."""
    tokens = [*range(2 * _MOST_INDEXED), 5, 6]
    drafts = ready(Drafts())
    while not (before := drafts.propose(tokens, 8, 0.1)):
        pass
    assert len(before) == MOST_DRAFTED
    drafts.forget()
    assert not drafts.is_indexed
    calls = 1
    while (again := drafts.propose(tokens, 8, 0.1)) != before:
        assert again == ()
        calls += 1
    assert calls == 3
