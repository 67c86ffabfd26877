"""What a text in sections may ask for: at the limits it passes, beyond them it is named."""

import math

import pytest

from hocket.server.document.compose import Parallel
from hocket.server.document.merge import Order
from hocket.server.document.outline import Section
from hocket.server.errors import InvalidRequest
from hocket.server.rpc.parse_compositions import CheckedComposition, check_composition
from hocket.server.text.pieces import Granularity
from hocket.v1 import document_pb2, options_pb2
from rpc.served import served_model

MODEL = served_model()

# Path of the field below `start`, values that pass, values that do not.
SCALARS = [
    ("request_id", ["a", "a" * 128], ["a b", "a" * 129]),
    ("task", ["a", "ü" * 4_000], ["", " \n"]),
    ("max_sections", [2, 32], [0, 1, 33]),
    ("parallel", [0, 3], [4]),
    ("join", ["", "ü" * 8_192], [" ", "a" * 8_193]),
    ("sampling.temperature", [0, 10], [-0.1, math.nan]),
    ("stopping.max_tokens", [1, 4_095], [0, 4_096]),
    ("granularity", [0, 1, 2], [3, 4, 99]),
    ("order", [0, 3], [4]),
    ("window", [1, 32], [0, 33]),
    ("priority", [-100, 100], [-101, 101]),
]


def make(**fields) -> document_pb2.ComposeStart:
    fields.setdefault("task", "About bees.")
    return document_pb2.ComposeStart(**fields)


def check(start: document_pb2.ComposeStart, **kwargs) -> CheckedComposition:
    kwargs = {"arrived": 100.0, "remaining": None, "max_window": 32, **kwargs}
    return check_composition(start, MODEL, **kwargs)


def refused(start: document_pb2.ComposeStart) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        check(start)
    return [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize(("path", "good", "bad"), SCALARS, ids=[row[0] for row in SCALARS])
def test_limits(path, good, bad):
    def of(value) -> document_pb2.ComposeStart:
        start = make()
        *parents, name = path.split(".")
        message = start
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, name, value)
        return start

    for value in good:
        check(of(value))
    for value in bad:
        assert refused(of(value)) == [f"start.{path}"], value


BAD = {
    "many sections": (make(sections=[{"title": "a"}] * 1_025), "sections"),
    "no title": (make(sections=[{"title": "a"}, {}]), "sections[1].title"),
    "blank title": (make(sections=[{"title": " "}]), "sections[0].title"),
    "long title": (make(sections=[{"title": "a" * 513}]), "sections[0].title"),
    "long instruction": (
        make(sections=[{"title": "a", "instruction": "a" * 8_193}]),
        "sections[0].instruction",
    ),
    "no time": (make(time_budget={"seconds": 0}), "time_budget"),
    "a task beyond any context": (make(task="a" * 300_000), "task"),
    "titles beyond any context": (make(sections=[{"title": "a" * 512}] * 600), "task"),
}


@pytest.mark.parametrize(("start", "field"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_named(start, field):
    assert refused(start) == [f"start.{field}"]


def test_all_that_is_wrong_is_told_at_once():
    start = make(task="", window=99, order=9, max_sections=1, sections=[{}], join=" ")
    start.sampling.top_p = 7
    names = ("task", "window", "order", "max_sections", "sections[0].title", "join")
    assert set(refused(start)) == {f"start.{name}" for name in (*names, "sampling.top_p")}


def test_what_is_not_set_takes_the_default_that_is_stated():
    checked = check(make())
    assert (checked.sections, checked.max_sections, checked.join) == ((), 8, "")
    assert checked.parallel is Parallel.AUTO
    assert checked.writing.order is Order.IN_ORDER
    assert checked.writing.granularity is Granularity.SENTENCE
    assert checked.writing.window == 32
    assert not checked.plan.has_join
    assert not checked.is_surely_parallel


def test_what_is_set_is_kept():
    start = make(
        request_id="c", max_sections=3, parallel=2, join="Sum up.", window=4, order=2,
        sections=[{"title": "A", "instruction": "Short."}, {"title": "B"}],
        granularity=options_pb2.GRANULARITY_TOKEN, time_budget={"seconds": 5},
    )  # fmt: skip
    checked = check(start, owner="me", remaining=3.0)
    plan = checked.plan
    assert plan.sections == (Section("A", "Short."), Section("B"))
    assert (plan.parallel, plan.has_join, plan.max_sections) == (Parallel.ALWAYS, True, 3)
    assert (plan.window, plan.order) == (4, Order.AS_COMPLETED)
    assert checked.is_surely_parallel
    assert (checked.writing.request_id, checked.writing.owner) == ("c", "me")
    assert (checked.writing.budget, checked.writing.deadline) == (105.0, 103.0)
