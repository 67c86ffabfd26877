"""An answer is matched to a label as people would; any other gives the likeliest."""

import math

import pytest

from document.driven import driven, scripted
from document.jobs import job, write, writer_of
from hocket.server.document.labels import end_logprob, match_label
from hocket.server.document.tasks import Classify
from hocket.server.engine.commands import FinishReason
from hocket.server.engine.sampling import StoppingParams
from hocket.server.text.pieces import Granularity

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")

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


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Good", "good"),
        (' "Bad." ', "bad"),
        ("very good: I like it", "very good"),
        ("good.", "good"),
    ],
)
@pytest.mark.parametrize("granularity", [Granularity.TOKEN, Granularity.SENTENCE])
async def test_an_answer_that_is_a_label_gives_that_label(answer, label, granularity):
    async with driven(scripted(("TEXT", answer))) as model:
        writer = writer_of(model, Classify(("good", "very good", "bad")), granularity=granularity)
        pieces, written = await write(writer, job("TEXT"))
    assert [piece.text for piece in pieces] == [label]
    assert written.finish_reason is FinishReason.END_OF_TEXT


@pytest.mark.parametrize(
    "stopping",
    [
        StoppingParams(max_tokens=1, stop=("York",)),
        StoppingParams(max_tokens=9, stop_token_ids=frozenset(b" ")),
        StoppingParams(max_tokens=99, min_tokens=40, ignore_eos=True),
    ],
    ids=["stop", "stop_token_ids", "on and on"],
)
async def test_what_ends_a_text_ends_no_answer(stopping):
    """A label is none of the model's text."""
    async with driven(scripted(("TEXT", "New York"))) as model:
        writer = writer_of(model, Classify(("New York", "New")), stopping=stopping)
        pieces, written = await write(writer, job("TEXT"))
    assert [piece.text for piece in pieces] == ["New York"]
    assert written.usage.completion_tokens == len("New York") + 1


@pytest.mark.parametrize("chat", [True, False])
async def test_any_other_answer_gives_the_likeliest_label(chat):
    """All labels are as likely as they are short, for this model."""
    labels = ("splendid", "fair", *(f"number {index}" for index in range(30)))
    async with driven(scripted(("TEXT", "I cannot say."), chat=chat)) as model:
        pieces, written = await write(writer_of(model, Classify(labels)), job("TEXT"))
    assert [piece.text for piece in pieces] == ["fair"]
    assert written.usage.completion_tokens > len(labels)


@pytest.mark.parametrize("count", ["decode_tokens", "finished_requests"])
async def test_a_choice_that_is_cancelled_is_none(count):
    """Whether the answer is written or the labels are weighed."""
    writer, one = None, job("TEXT")

    def on_step(outputs):
        if getattr(outputs.statistics, count):
            writer.cancel_nowait(one)

    labels = tuple(f"number {index}" for index in range(40))
    async with driven(scripted(("TEXT", "I cannot say.")), on_step=on_step) as model:
        writer = writer_of(model, Classify(labels))
        pieces, written = await write(writer, one)
    assert pieces == []
    assert written.finish_reason is FinishReason.CANCELLED
