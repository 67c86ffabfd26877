"""Keyword arguments become the first message of a document, or an error before anything is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.client import ComposeOptions, GivenSegment, Section, SentenceOptions, TransformOptions
from hocket.client._document_requests import (
    MAX_PART_CHARS,
    build_compose_request,
    build_source,
    build_transform_request,
)
from hocket.v1 import document_pb2


def start_of(**options):
    return build_transform_request(options, is_segmented=False).start


@pytest.mark.parametrize(
    ("options", "task", "expected"),
    [
        ({"instruction": "Do"}, "instruction", "Do"),
        ({"template": "{segment}"}, "template", "{segment}"),
        ({"translate_to": "pt"}, "translate", document_pb2.Translate(target_languages=["pt"])),
        (
            {"translate_to": ["pt", "es"], "source_language": "en"},
            "translate",
            document_pb2.Translate(target_languages=["pt", "es"], source_language="en"),
        ),
        ({"rewrite": True}, "rewrite", document_pb2.Rewrite()),
        ({"rewrite": ""}, "rewrite", document_pb2.Rewrite()),
        ({"rewrite": "plain"}, "rewrite", document_pb2.Rewrite(style="plain")),
        ({"summarize": True}, "summarize", document_pb2.Summarize()),
        ({"summarize": 2}, "summarize", document_pb2.Summarize(max_sentences=2)),
        ({"summarize": 0}, "summarize", document_pb2.Summarize(max_sentences=0)),
        ({"classify": ["a", "b"]}, "classify", document_pb2.Classify(labels=["a", "b"])),
        ({"rewrite": True, "summarize": False}, "rewrite", document_pb2.Rewrite()),
    ],
)
def test_each_task_has_its_form(options, task, expected) -> None:
    """True leaves the details to the server, False is as if it were absent."""
    start = start_of(**options)
    assert start.WhichOneof("task") == task
    assert getattr(start, task) == expected


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "context_segments": st.integers(0, 16),
            "protect": st.booleans(),
            "window": st.integers(1, 64),
            "cache": st.booleans(),
            "priority": st.integers(-100, 100),
        },
    )
)
def test_what_has_a_default_is_set_exactly_where_given(options) -> None:
    """Zero and False differ from unset."""
    start = start_of(instruction="x", **options)
    fields = {field.name: value for field, value in start.ListFields()}
    assert {name: fields[name] for name in options} == options
    assert fields.keys() - options.keys() == {"instruction", "sampling", "stopping"}


def test_everything_arrives() -> None:
    """Under its name in the contract."""
    start = start_of(
        instruction="x",
        model="m",
        segmentation="paragraphs",
        sentences=SentenceOptions(language="pt"),
        protected_terms=["Darcy"],
        protected_ranges=[(1, 3), (5, 8)],
        order="as_completed",
        granularity="token",
        temperature=0.5,
        max_tokens=8,
        stop="\n",
        time_budget=2.5,
        request_id="r",
    )
    assert (start.model, start.request_id) == ("m", "r")
    assert start.segmentation == document_pb2.SEGMENTATION_PARAGRAPHS
    assert start.sentences.language == "pt"
    assert list(start.protected_terms) == ["Darcy"]
    assert [(r.start_byte, r.end_byte) for r in start.protected_ranges] == [(1, 3), (5, 8)]
    assert start.order == document_pb2.SEGMENT_ORDER_AS_COMPLETED
    assert (start.granularity, start.sampling.temperature) == (1, 0.5)
    assert (start.stopping.max_tokens, list(start.stopping.stop)) == (8, ["\n"])
    assert start.time_budget.ToMilliseconds() == 2500


def test_none_is_unset() -> None:
    """An option of None is as if it were absent."""
    options = dict.fromkeys(TransformOptions.__annotations__) | {"instruction": "x"}
    assert start_of(**options) == start_of(instruction="x")
    options = dict.fromkeys(ComposeOptions.__annotations__)
    assert build_compose_request("x", options) == build_compose_request("x", {})


def test_a_composed_text_has_sections_or_none() -> None:
    """A title alone is a section."""
    options = {"sections": ["A", Section(title="B", instruction="b")], "parallel": "never"}
    start = build_compose_request("T", options | {"max_sections": 3, "join": "J"}).start
    assert [(section.title, section.instruction) for section in start.sections] == [
        ("A", ""),
        ("B", "b"),
    ]
    assert (start.task, start.join, start.max_sections) == ("T", "J", 3)
    assert start.parallel == document_pb2.PARALLEL_NEVER


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({}, TypeError, "exactly one of instruction"),
        ({"rewrite": True, "instruction": "x"}, TypeError, "exactly one"),
        ({"instruction": "x", "temprature": 1}, TypeError, "temprature"),
        ({"instruction": "x", "source_language": "en"}, TypeError, "goes with translate_to"),
        ({"classify": "ab"}, TypeError, "classify must be several"),
        ({"instruction": "x", "protected_terms": "Darcy"}, TypeError, "protected_terms"),
        ({"instruction": "x", "segmentation": "whole"}, TypeError, "only in map"),
        ({"instruction": "x", "order": "sorted"}, ValueError, "sorted"),
        ({"instruction": "x", "granularity": "word"}, ValueError, "word"),
        ({"instruction": "x", "window": -1}, ValueError, "range"),
    ],
)
def test_what_cannot_be_sent_is_refused(options, error, told) -> None:
    """Before any call."""
    with pytest.raises(error, match=told):
        start_of(**options)


def test_segments_are_not_cut_again() -> None:
    """They are what the caller says they are."""
    request = build_transform_request({"instruction": "x"}, is_segmented=True)
    assert request.start.segmentation == document_pb2.SEGMENTATION_GIVEN
    with pytest.raises(TypeError, match="segmentation"):
        build_transform_request(
            {"instruction": "x", "segmentation": "sentences"}, is_segmented=True
        )


def test_sections_are_several() -> None:
    """One string would be a section for each of its characters."""
    with pytest.raises(TypeError, match="several"):
        build_compose_request("x", {"sections": "AB"})


@pytest.mark.parametrize(
    ("text", "segments"), [(None, None), ("x", ["x"]), (None, "x"), (None, [b"x"]), (None, [1])]
)
def test_there_is_exactly_one_document(text, segments) -> None:
    """And its segments are segments."""
    with pytest.raises(TypeError):
        build_source(text, segments)


@given(st.text(max_size=20), st.integers(1, 5))
def test_a_text_at_hand_is_cut_and_joins_again(text, size) -> None:
    """In parts that fit into a message."""
    source = build_source(text * (MAX_PART_CHARS // 4 * size), None)
    parts = [action.text for action in source.actions]
    assert "".join(parts) == text * (MAX_PART_CHARS // 4 * size)
    assert all(0 < len(part) <= MAX_PART_CHARS for part in parts)


def test_what_is_still_to_come_is_converted_as_it_comes() -> None:
    """Nothing of it is taken before."""
    source = build_source(iter("ab"), None)
    assert source.actions == ()
    assert [action.text for part in source.parts for action in source.convert(part)] == ["a", "b"]
    segments = build_source(None, iter([GivenSegment(text="a", gap=" ")]))
    (action,) = segments.convert(next(segments.parts))
    assert (action.segment.text, action.segment.gap) == ("a", " ")
