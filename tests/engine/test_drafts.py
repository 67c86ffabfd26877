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
    for count in range(MOST_DRAFTED):
        drafts.note(count + 1, count + 1)
    return drafts


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
            found = drafts.propose(tokens[:known], most)
            assert list(found) == search(tokens[:known], min(most, MOST_DRAFTED))


def test_a_long_prompt_is_indexed_in_parts():
    """Meanwhile there is no draft; afterwards there is, out of any part of it."""
    tokens = [*range(4 * _MOST_INDEXED), 5, 6]
    drafts, calls = Drafts(), 1
    while not drafts.propose(tokens, 8):
        calls += 1
    assert calls == 5
    assert drafts.propose(tokens, 2) == (7, 8)


@given(st.lists(st.integers(0, 8), max_size=60))
def test_a_draft_is_one_longer_than_what_was_right_and_grows_while_all_is(accepted):
    tokens, drafts = [1] * 9, Drafts()
    for share in accepted:
        count = len(drafts.propose(tokens, 8))
        if not count:
            continue
        right = min(share, count)
        drafts.note(count, right)
        following = len(drafts.propose(tokens, 8))
        if following:
            assert following == (min(8, count + 2) if right == count else right + 1)


@pytest.mark.parametrize("right", [0, 1])
def test_drafts_that_are_always_wrong_pause_longer_and_longer(right):
    """And are tried again: at most one step in sixteen has a wrong draft in the long run."""
    tokens, drafts = [1] * 9, Drafts()
    drafted = []
    for step in range(2_000):
        if count := len(drafts.propose(tokens, 8)):
            drafted.append(step)
            drafts.note(count, min(right, count))
    if right:
        assert len(drafted) > 1_000  # one of two is worth it
    else:
        assert 20 < len(drafted) < 2_000 / 16
        assert drafted[-1] > 1_900


def test_a_text_that_turns_repetitive_is_found_out():
    tokens, drafts = [1] * 9, Drafts()
    for _ in range(500):
        if count := len(drafts.propose(tokens, 8)):
            drafts.note(count, 0)
    accepted = 0
    for _ in range(100):
        if count := len(drafts.propose(tokens, 8)):
            drafts.note(count, count)
            accepted += count
    assert accepted > 200
