"""An answer is matched to a label as people would."""

import math

import pytest

from hocket.server.document.labels import end_logprob, match_label

LABELS = ("C", "C++", "very good", "good", "Ünder", "👍", "no")


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("C", "C"),
        ("c++.", "C++"),
        ("c.", "C"),
        ("(c)", "C"),
        ("Very   good!", "very good"),
        ("**Good**", "good"),
        ("good: it is", "good"),
        ("goodness", None),
        ("ünder", "Ünder"),
        ("👍 yes", "👍"),
        ("none", None),
        ("The label is good", None),
        ("", None),
        ("?", None),
    ],
)
def test_case_and_marks_do_not_matter_and_words_are_whole(answer, label):
    found = match_label(answer, LABELS)
    assert label == (None if found is None else LABELS[found])


def test_a_label_that_is_answered_exactly_is_meant():
    assert match_label("a", ("A", "a")) == 1
    assert match_label("A", ("A", "a")) == 0


def test_all_ends_count_together_and_an_unlikely_one_as_the_last_told():
    ends = frozenset({1, 2})
    assert end_logprob([(1, math.log(0.5)), (3, -2.0), (2, math.log(0.25))], ends) == (
        pytest.approx(math.log(0.75))
    )
    assert end_logprob([(1, -2000.0)], ends) == -2000.0
    assert end_logprob([(3, -1.0), (4, -6.0)], ends) == -6.0
    assert end_logprob([], ends) == 0.0
