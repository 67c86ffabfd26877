"""The laws of a document's stream, by a state without I/O."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.fake_documents import FAILED, Script
from hocket.client import GenerationFailed, StreamError
from hocket.client._document_state import DocumentState
from hocket.v1 import document_pb2


@st.composite
def documents(draw):
    """Draw segments, their texts in each variant, and an order that keeps each segment's own."""
    num_variants = draw(st.integers(1, 3))
    text = st.text(min_size=1, max_size=5)
    gaps = draw(st.lists(st.text(max_size=3), max_size=4))
    texts = [[draw(st.lists(text, max_size=3)) for _ in range(num_variants)] for _ in gaps]
    events = [
        (segment, variant)
        for segment, variants in enumerate(texts)
        for variant, pieces in enumerate(variants)
        for _ in range(len(pieces) + 1)
    ]
    # The source of a segment is laid out as it first begins, so that they begin in order.
    order = draw(st.permutations(events))
    return num_variants, gaps, texts, order, draw(st.text(max_size=3))


def play(document) -> Script:
    """Write the events of a drawn document: all segments begin, then pieces and ends mix."""
    num_variants, gaps, texts, order, tail = document
    script = Script([str(variant) for variant in range(num_variants)])
    script.started()
    for segment, gap in enumerate(gaps):
        for variant in range(num_variants):
            script.begin(segment, variant=variant, gap=gap, size=4)
    left = {
        (segment, variant): list(pieces)
        for segment, variants in enumerate(texts)
        for variant, pieces in enumerate(variants)
    }
    for segment, variant in order:
        if pieces := left[segment, variant]:
            script.piece(segment, pieces.pop(0), variant=variant)
        else:
            script.end(segment, variant=variant)
    script.finished(gap=tail)
    return script


def take_all(messages) -> DocumentState:
    state = DocumentState()
    for message in messages:
        state.take(message)
    state.check_finished()
    return state


def renumbered(messages):
    """Return the messages as if the server itself had counted them so."""
    copies = []
    for sequence, message in enumerate(messages):
        copy = type(message)()
        copy.CopyFrom(message)
        copy.sequence = sequence
        copies.append(copy)
    return copies


@given(documents())
def test_any_order_gives_the_same_document(document) -> None:
    """Gaps byte for byte, texts in their places, whatever came first."""
    num_variants, gaps, texts, _, tail = document
    result = take_all(play(document).messages).document()
    assert result.texts == tuple(
        "".join(gap + "".join(pieces[variant]) for gap, pieces in zip(gaps, texts, strict=True))
        + tail
        for variant in range(num_variants)
    )
    for segment in result.segments:
        encoded = result.texts[segment.variant].encode()
        target = encoded[segment.target.start_byte : segment.target.end_byte]
        assert target.decode() == segment.text


@given(documents(), st.data())
def test_whatever_is_lost_is_noticed(document, data) -> None:
    """Whether or not the numbers of the events betray it."""
    messages = play(document).messages
    del messages[data.draw(st.integers(0, len(messages) - 1))]
    for stream in (messages, renumbered(messages)):
        with pytest.raises(StreamError):
            take_all(stream)


@given(documents(), st.data())
def test_whatever_is_doubled_is_noticed(document, data) -> None:
    """Whether or not the numbers of the events betray it."""
    messages = play(document).messages
    place = data.draw(st.integers(0, len(messages) - 1))
    messages.insert(place, messages[place])
    for stream in (messages, renumbered(messages)):
        with pytest.raises(StreamError):
            take_all(stream)


def broken(change):
    """Return two segments' events of which one was changed."""
    script = Script()
    script.started()
    script.whole(0, "One.")
    script.whole(1, "Two.", gap=" ")
    script.finished(gap="\n")
    change(script.messages)
    return script.messages


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: setattr(m[2], "sequence", 5), "event 5 came in place of 2"),
        (lambda m: setattr(m[0], "sequence", 1), "event 1 came in place of 0"),
        (lambda m: setattr(m[2].piece, "piece", 1), "piece 1 came in place of 0"),
        (lambda m: setattr(m[5].piece, "start_byte", 3), "segment 1 lost .* byte 3 in place of 0"),
        (lambda m: setattr(m[3].segment_finished, "target_bytes", 5), "4 bytes in place of 5"),
        (lambda m: setattr(m[4].segment_started, "segment", 0), "segment 0 began twice"),
        (lambda m: setattr(m[4].segment_started, "variant", 1), "does not exist"),
        (lambda m: setattr(m[5].piece, "segment", 0), "segment 0 goes on"),
        (lambda m: setattr(m[4].segment_started.source, "start_byte", 4), "does not follow"),
        (lambda m: setattr(m[6].segment_finished.target, "start_byte", 4), "lies at 5"),
        (lambda m: setattr(m[7].finished, "source_bytes", 9), "the source has 10 bytes, not 9"),
        (lambda m: m[7].finished.target_bytes.append(3), r"the targets have .* not \(10, 3\)"),
        (lambda m: m[7].finished.target_bytes.pop(), "the targets"),
        (lambda m: m.pop(), "ended before the document did"),
    ],
)
def test_a_broken_law_is_told(change, told) -> None:
    """By a sentence that says which."""
    with pytest.raises(StreamError, match=told):
        take_all(broken(change))


def test_nothing_comes_after_the_end() -> None:
    """Or it was none."""
    script = Script()
    script.started()
    script.finished()
    script.begin(0)
    with pytest.raises(StreamError, match="went on after"):
        take_all(script.messages)


def test_what_a_newer_server_says_is_passed_over() -> None:
    """An event of no known kind has a number, and is none."""
    state = DocumentState()
    assert state.take(document_pb2.TransformResponse(sequence=0)) is None
    script = Script()
    script.started()
    script.messages[0].sequence = 1
    assert state.take(script.messages[0]) is not None


def test_an_outline_comes_once_before_the_sections() -> None:
    """Later it would name what is there already."""
    script = Script(response=document_pb2.ComposeResponse)
    script.started()
    script.add(outline=document_pb2.Outline(sections=[document_pb2.Section(title="A")]))
    script.whole(0, "x", title="A")
    script.add(outline=document_pb2.Outline())
    with pytest.raises(StreamError, match="outline"):
        take_all(script.messages)


def test_a_failed_segment_keeps_what_came_of_it() -> None:
    """The document goes on, and says what failed and why."""
    script = Script()
    script.started()
    script.begin(0, size=4)
    script.piece(0, "hal")
    script.end(0, status=FAILED)
    script.whole(1, "Two.", gap=" ")
    script.finished()
    result = take_all(script.messages).document()
    (failed,) = result.failed
    assert (failed.segment, failed.text) == (0, "hal")
    assert isinstance(failed.error, GenerationFailed)
    assert failed.finished.finish_reason is None
    assert (result.text, result.finished.failed) == ("hal Two.", 1)


def test_a_document_can_be_looked_at_before_it_is_whole() -> None:
    """With what has come so far, from the very beginning."""
    state = DocumentState()
    assert (state.document().text, state.document().is_finished) == ("", False)
    script = Script()
    script.started()
    script.whole(0, "One.")
    script.begin(1, gap=" ")
    script.piece(1, "Tw")
    for message in script.messages:
        state.take(message)
    result = state.document()
    assert (result.text, result.is_finished) == ("One. Tw", False)
    assert [segment.finished is not None for segment in result.segments] == [True, False]
    assert [state.is_over(segment, None) for segment in range(3)] == [True, False, False]


def test_a_partial_document_need_not_know_its_whole_source() -> None:
    """Its time budget ended before all of it was cut."""
    script = Script()
    script.started()
    script.whole(0, "One.")
    script.finished(is_partial=True)
    script.messages[-1].finished.source_bytes = 99
    assert take_all(script.messages).document().finished.is_partial
