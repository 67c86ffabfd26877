"""Gaps and segments are the document, however it came; and what a segment is, by example."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hocket.server.text.pieces import SentenceOptions
from hocket.server.text.protection import Protection
from hocket.server.text.segments import Segment, Segmentation, Segmenter
from text.documents import DOCUMENTS, OPTIONS, SCRIPTS, document, segmented, spent

FOUND = [Segmentation.SENTENCES, Segmentation.PARAGRAPHS]
PROTECTIONS = st.builds(
    Protection,
    finds_kinds=st.booleans(),
    terms=st.lists(st.sampled_from(["word", "字", "Да", "5"]), max_size=2),
    ranges=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=4),
)


def check(source: str, segments: list[Segment], gap: str, protection: Protection) -> None:
    """Assert what holds for the segments of every document."""
    assert "".join(segment.gap + segment.text for segment in segments) + gap == source
    raw = source.encode()
    for index, segment in enumerate(segments):
        assert segment.index == index
        assert raw[segment.start_byte : segment.end_byte] == segment.text.encode()
        assert segment.text == segment.text.strip() != ""
        assert segment.protected == protection.find(segment.text, segment.start_byte)
        bare, done = "", 0
        for start, end in segment.protected:
            assert done <= start < end <= len(segment.text)
            bare, done = bare + segment.text[done:start], end
        assert re.search(r"[^\W_]", bare + segment.text[done:])


def texts(source: str, segmentation: Segmentation = Segmentation.SENTENCES, **kwargs) -> list[str]:
    """Return what the segments of a document are."""
    segmenter = Segmenter(segmentation, protection=Protection(**kwargs))
    return [segment.text for segment in segmented(segmenter, source, [])[0]]


@settings(max_examples=400, deadline=None)
@given(
    source=DOCUMENTS,
    cuts=st.lists(st.integers(0, 1000), max_size=30),
    segmentation=st.sampled_from(FOUND),
    options=OPTIONS,
    protection=PROTECTIONS,
)
def test_gaps_and_segments_are_the_document_however_it_comes(
    source, cuts, segmentation, options, protection
):
    whole = segmented(Segmenter(segmentation, options, protection), source, [])
    check(source, *whole, protection)
    for some in (cuts, list(range(len(source)))):
        segmenter = Segmenter(segmentation, options, protection)
        assert segmented(segmenter, source, some) == whole
        assert segmenter.source_bytes == len(source.encode())
        assert segmenter.count == len(whole[0])


@settings(max_examples=100, deadline=None)
@given(source=DOCUMENTS, more=DOCUMENTS, segmentation=st.sampled_from(FOUND))
def test_a_segment_that_came_is_final(source, more, segmentation):
    early = Segmenter(segmentation).push(source)
    assert segmented(Segmenter(segmentation), source + more, [])[0][: len(early)] == early


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
@pytest.mark.parametrize("count", [1, 10, 200, 2000])
@pytest.mark.parametrize("script", SCRIPTS)
def test_documents_of_any_length_and_script_come_back(script, count, line_break):
    """Paragraphs are found one by one, sentences at least one in each."""
    source, protection = document(script, count, line_break=line_break), Protection()
    options = SentenceOptions(language=script, max_chars=2000)
    for segmentation in FOUND:
        whole = segmented(Segmenter(segmentation, options, protection), source, [])
        check(source, *whole, protection)
        assert "Y = 1" not in "".join(segment.text for segment in whole[0])
        size = 997
        cuts = list(range(0, len(source), size))
        assert segmented(Segmenter(segmentation, options, protection), source, cuts) == whole
        if segmentation is Segmentation.PARAGRAPHS:
            assert len(whole[0]) == count
        else:
            assert len(whole[0]) >= count


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(st.tuples(DOCUMENTS, DOCUMENTS), max_size=6), protection=PROTECTIONS)
def test_given_segments_are_all_there(parts, protection):
    """Even one with nothing to work on: its caller counts it."""
    segmenter = Segmenter(Segmentation.GIVEN, protection=protection)
    segments = [segmenter.push_given(text, gap) for gap, text in parts]
    last, gap = segmenter.finish()
    assert last == []
    source = "".join(gap + text for gap, text in parts)
    assert "".join(segment.gap + segment.text for segment in segments) + gap == source
    assert [segment.text for segment in segments] == [text.strip() for _, text in parts]
    assert [segment.index for segment in segments] == list(range(len(parts)))
    for segment in segments:
        assert source.encode()[segment.start_byte : segment.end_byte] == segment.text.encode()
    assert segmenter.source_bytes == len(source.encode())


def test_segments_are_either_found_or_given():
    with pytest.raises(ValueError, match="not found"):
        Segmenter(Segmentation.GIVEN).push("Text.")
    with pytest.raises(ValueError, match="not given"):
        Segmenter(Segmentation.SENTENCES).push_given("Text.", "")


@pytest.mark.parametrize("segmentation", FOUND)
@pytest.mark.parametrize(
    "kept",
    [
        "", " ", "\n\n", "---", "...", "👩🏽\u200d🚀!", "| --- | :-: |", "\ufeff", "`x()`.",
        "{x} {y}",
        "https://example.org/a.", "<br/>", "```\nx. Y\n```", "~~~py\nx. Y", "```\nx\n\n```\n" * 99,
        "```\n" + "x = 1\n" * 2000 + "```",
    ],
)  # fmt: skip
def test_what_needs_no_work_is_a_gap(kept, segmentation):
    source = f"One.\n\n{kept}"
    segments, gap = segmented(Segmenter(segmentation), source, [])
    assert [segment.text for segment in segments] == ["One."]
    assert segments[0].text + gap == source


def test_sentences():
    source = "  One {x}. Two!\r\n\r\n\t- Three\n- Four 👍🏽\n\n```\nx. Y\n```\n五。六。 "
    segments, gap = segmented(Segmenter(Segmentation.SENTENCES), source, [])
    assert [(segment.gap, segment.text) for segment in segments] == [
        ("  ", "One {x}."),
        (" ", "Two!"),
        ("\r\n\r\n\t", "- Three"),
        ("\n", "- Four 👍🏽"),
        ("\n\n```\nx. Y\n```\n", "五。"),
        ("", "六。"),
    ]
    assert gap == " "
    assert [segment.protected for segment in segments] == [((4, 7),), (), (), (), (), ()]


@pytest.mark.parametrize(
    "paragraphs",
    [
        ["One. Two.\nThree.", "\n\n", "Four."],
        ["# A heading", "\n", "Text under\nit. More."],
        ["Look:", "\n", "- one\n  goes on", "\n", "- two", "\n", "After it."],
        ["1. First.\n   More.", "\n", "2. Second.", "\r\n", "10. Tenth."],
        ["It was in the year\n12. Nobody knew\n2) why."],
        ["Two lists.", "\n", "1. One", "\n\n", "Or:", "\n", "a) One"],
        ["| a | b |", "\n|---|---|\n", "| 1 | 2 |", "\n", "Done."],
        ["> Said so\n> and so.", "\n", "He did."],
        ["• One", "\n", "• Two"],
        ["Code:", "\n```\na\n\nb\n```\n", "Then more."],
    ],
)
def test_paragraphs_items_headings_and_rows(paragraphs):
    source = "".join(paragraphs)
    segments, gap = segmented(Segmenter(Segmentation.PARAGRAPHS), source, [])
    assert [segment.text for segment in segments] == paragraphs[::2]
    assert [segment.gap for segment in segments][1:] == paragraphs[1::2]
    assert gap == ""


def test_a_paragraph_without_end_is_cut_and_no_line_begins_within_it():
    """A marker where a paragraph was cut softly is none."""
    source = "- " + "word word, - " * 800
    found = texts(source, Segmentation.PARAGRAPHS)
    assert len(found) == 3
    assert found[1].startswith("- word")
    item = "- " + "word word\n  " * 400
    assert len(texts(item, Segmentation.PARAGRAPHS)) == 2
    assert len(texts(f"- item\n{item}", Segmentation.PARAGRAPHS)) == 3


def test_code_is_worked_on_where_nothing_protects_it():
    source = "See `x`:\n\n```\nx = 1\n\ny = 2\n```\n\nDone."
    expected = ["See `x`:", "```\nx = 1\n\ny = 2\n```", "Done."]
    for segmentation in FOUND:
        assert texts(source, segmentation, finds_kinds=False) == expected
        assert texts(source, segmentation) == ["See `x`:", "Done."]


def test_ranges_are_of_the_document():
    """Each segment keeps its part of a range; characters are kept whole."""
    source = "Ein Ärger. Zwei. Drei 👍 vier."
    start = len(b"Ein ") + 1  # inside the umlaut
    end = len("Ein Ärger. Zw".encode())
    thumb = len("Ein Ärger. Zwei. Drei ".encode())
    protection = Protection(ranges=[(start, end), (thumb + 1, thumb + 2), (10**6, 10**7)])
    segments, _ = segmented(Segmenter(Segmentation.SENTENCES, protection=protection), source, [])
    kept = [[s.text[start:end] for start, end in s.protected] for s in segments]
    assert kept == [["Ärger."], ["Zw"], ["👍"]]


def test_a_text_kept_by_a_range_is_a_gap():
    source = "One. Two. Three."
    assert texts(source, ranges=[(5, 9)]) == ["One.", "Three."]


@pytest.mark.parametrize("name", ["words", "sentences", "lines", "code", "gaps", "items"])
def test_no_more_is_held_than_the_open_piece_and_the_open_gap(name):
    """After any part, what did not come out is the open piece, or a gap that nothing follows."""
    text = {
        "words": "word ", "sentences": "One more. ", "lines": "One more\n\n",
        "code": "```\nx\n```\n\nSo. ", "gaps": "...\n\nSo. ", "items": "- one\n",
    }[name] * 2000  # fmt: skip
    options = SentenceOptions(max_chars=100)
    for segmentation in FOUND:
        segmenter, held = Segmenter(segmentation, options), 0
        for start in range(0, len(text), 50):
            part = text[start : start + 50]
            segments = segmenter.push(part)
            held += len(part) - sum(len(s.gap) + len(s.text) for s in segments)
            assert held < 1000


@pytest.mark.parametrize("segmentation", FOUND)
@pytest.mark.parametrize(
    "unit",
    ["x", "One. ", "\n", "...\n\n", "- a\n", "```\nx\n```\n"],
)
def test_a_character_costs_the_same_in_a_document_of_any_length(unit, segmentation):
    """Ten times the document takes about ten times the time, ranges counted in."""
    small, large = ((unit * size)[:size] for size in (5_000, 50_000))

    def work(text: str) -> None:
        ranges = [(start, start + 1) for start in range(0, len(text), 100)]
        segmenter = Segmenter(segmentation, protection=Protection(ranges=ranges))
        segmented(segmenter, text, list(range(0, len(text), 1000)))

    assert spent(work, large) < 25 * spent(work, small) + 0.01
