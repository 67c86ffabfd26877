"""What a document may ask for: at the limits it passes, beyond them it is refused by name."""

import math

import pytest

from hocket.server.document.merge import Order
from hocket.server.document.tasks import (
    Classify,
    FillIn,
    Instruct,
    Rewrite,
    Summarize,
    Translate,
)
from hocket.server.errors import InvalidRequest
from hocket.server.rpc.parse_documents import CheckedTransform, check_transform
from hocket.server.text.pieces import Granularity
from hocket.server.text.segments import Segmentation
from hocket.v1 import document_pb2, options_pb2
from rpc.served import served_model

MODEL = served_model()

# Path of the field below `start`, values that pass, values that do not.
SCALARS = [
    ("request_id", ["a", "a" * 128], ["a b", "a" * 129, "ü"]),
    ("segmentation", [0, 3], [4]),
    ("sentences.language", ["en", "pt-BR"], ["", "xx"]),
    ("sentences.max_chars", [40, 2_000], [39, 2_001]),
    ("instruction", ["a", "ü" * 8_192], ["", " \n", "a" * 8_193]),
    ("template", ["{segment}", "{segment}" + "a" * 8_183], ["", "{", "{x}{segment}", "a"]),
    ("template", [], ["a" * 8_193]),
    ("rewrite.style", ["", "a" * 256], ["a" * 257]),
    ("summarize.max_sentences", [1, 100], [0, 101]),
    ("context_segments", [0, 16], [17]),
    ("sampling.temperature", [0, 10], [-0.1, 10.1, math.nan]),
    ("sampling.top_k", [0, 260], [261]),
    ("stopping.max_tokens", [1, 4_095], [0, 4_096]),
    ("granularity", [0, 1, 2], [3, 4, 99]),
    ("order", [0, 3], [4]),
    ("window", [1, 32], [0, 33]),
    ("priority", [-100, 100], [-101, 101]),
]  # fmt: skip


def make(**fields) -> document_pb2.TransformStart:
    tasks = {"template", "translate", "rewrite", "summarize", "classify"}
    if not fields.keys() & tasks:
        fields.setdefault("instruction", "Do it.")
    return document_pb2.TransformStart(**fields)


def check(start: document_pb2.TransformStart, **kwargs) -> CheckedTransform:
    kwargs = {"arrived": 100.0, "remaining": None, "max_window": 32, **kwargs}
    return check_transform(start, MODEL, **kwargs)


def refused(start: document_pb2.TransformStart) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        check(start)
    return [violation.field for violation in caught.value.violations]


def ranges(*pairs: tuple[int, int]) -> list[document_pb2.ByteRange]:
    return [document_pb2.ByteRange(start_byte=begin, end_byte=end) for begin, end in pairs]


@pytest.mark.parametrize(("path", "good", "bad"), SCALARS, ids=[row[0] for row in SCALARS])
def test_limits(path, good, bad):
    def of(value) -> document_pb2.TransformStart:
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
    "no task": (document_pb2.TransformStart(), "task"),
    "no language": (make(translate={}), "translate.target_languages"),
    "many languages": (
        make(translate={"target_languages": ["de"] * 17}), "translate.target_languages"
    ),
    "blank language": (
        make(translate={"target_languages": ["de", " "]}), "translate.target_languages[1]"
    ),
    "long language": (
        make(translate={"target_languages": ["d" * 65]}), "translate.target_languages[0]"
    ),
    "long source": (
        make(translate={"target_languages": ["de"], "source_language": "d" * 65}),
        "translate.source_language",
    ),
    "one label": (make(classify={"labels": ["a"]}), "classify.labels"),
    "many labels": (
        make(classify={"labels": [f"{n}" for n in range(257)]}), "classify.labels"
    ),
    "empty label": (make(classify={"labels": ["a", ""]}), "classify.labels[1]"),
    "same label": (make(classify={"labels": ["a", "b", "a"]}), "classify.labels[2]"),
    "many terms": (make(protected_terms=["a"] * 1_025), "protected_terms"),
    "empty term": (make(protected_terms=["a", ""]), "protected_terms[1]"),
    "long term": (make(protected_terms=["a" * 257]), "protected_terms[0]"),
    "many ranges": (
        make(protected_ranges=ranges(*((2 * n, 2 * n + 1) for n in range(65_537)))),
        "protected_ranges",
    ),
    "empty range": (make(protected_ranges=ranges((3, 3))), "protected_ranges[0]"),
    "touching ranges": (make(protected_ranges=ranges((0, 3), (3, 4))), "protected_ranges[1]"),
    "ranges of given segments": (
        make(segmentation=3, protected_ranges=ranges((0, 3))), "protected_ranges"
    ),
    "no time": (make(time_budget={"seconds": 0}), "time_budget"),
    "bad nanos": (make(time_budget={"seconds": 1, "nanos": -1}), "time_budget.nanos"),
}  # fmt: skip


@pytest.mark.parametrize(("start", "field"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_named(start, field):
    assert refused(start) == [f"start.{field}"]


def test_all_that_is_wrong_is_told_at_once():
    start = make(window=99, context_segments=17, order=9, template="{")
    start.sampling.top_p = 7
    start.sentences.language = "xx"
    names = ("window", "context_segments", "order", "template", "sampling.top_p")
    assert set(refused(start)) == {f"start.{n}" for n in (*names, "sentences.language")}


def test_what_is_not_set_takes_the_default_that_is_stated():
    checked = check(make())
    assert len(checked.writing.request_id) == 32
    assert checked.segmentation is Segmentation.SENTENCES
    assert checked.variants == ("",)
    assert (checked.context_segments, checked.writing.window, checked.writing.priority) == (
        0,
        32,
        0,
    )
    assert checked.protects
    assert checked.may_cache
    assert checked.writing.granularity is Granularity.SENTENCE
    assert checked.writing.order is Order.IN_ORDER
    assert not checked.writing.is_seed_given
    assert not checked.writing.has_max_tokens
    assert (checked.writing.budget, checked.writing.deadline) == (None, None)
    assert check(make()).writing.sampling.seed != checked.writing.sampling.seed


def test_what_is_set_is_kept():
    start = make(
        request_id="d", segmentation=2, context_segments=3, protect=False, cache=False, window=4,
        protected_terms=["Hocket"], protected_ranges=ranges((0, 2), (5, 9)), order=3,
        granularity=options_pb2.GRANULARITY_TOKEN, time_budget={"seconds": 5},
    )  # fmt: skip
    start.sampling.seed, start.stopping.max_tokens = 7, 9
    checked = check(start, owner="me", remaining=3.0)
    assert (checked.writing.request_id, checked.writing.owner) == ("d", "me")
    assert checked.segmentation is Segmentation.PARAGRAPHS
    assert (checked.context_segments, checked.writing.window) == (3, 4)
    assert not (checked.protects)
    assert not (checked.may_cache)
    assert checked.protected_terms == ("Hocket",)
    assert checked.protected_ranges == ((0, 2), (5, 9))
    assert (checked.writing.order, checked.writing.granularity) == (
        Order.INTERLEAVED,
        Granularity.TOKEN,
    )
    assert (checked.writing.sampling.seed, checked.writing.is_seed_given) == (7, True)
    assert (checked.writing.stopping.max_tokens, checked.writing.has_max_tokens) == (9, True)
    assert (checked.writing.budget, checked.writing.deadline) == (105.0, 103.0)


TASKS = {
    "instruction": (make(instruction="Do."), Instruct("Do.")),
    "template": (make(template="{segment}!"), FillIn("{segment}!")),
    "translate": (
        make(translate={"target_languages": ["de", "fr"], "source_language": "en"}),
        Translate(("de", "fr"), "en"),
    ),
    "rewrite": (make(rewrite={"style": "plain"}), Rewrite("plain")),
    "summarize": (make(summarize={}), Summarize(1)),
    "classify": (make(classify={"labels": ["a", "b"]}), Classify(("a", "b"))),
}


@pytest.mark.parametrize(("start", "task"), TASKS.values(), ids=TASKS)
def test_tasks(start, task):
    assert check(start).task == task


def test_the_segmenter_keeps_what_is_protected():
    checked = check(make(protected_terms=["Zug"], protected_ranges=ranges((0, 3))))
    segmenter = checked.segmenter()
    segments = [*segmenter.push("Der Zug fährt ab. "), *segmenter.finish()[0]]
    assert [segment.protected for segment in segments] == [((0, 3), (4, 7))]
