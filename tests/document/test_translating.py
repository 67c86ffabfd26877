"""Documents through a translator that is no language model."""

import asyncio
import itertools
from contextlib import aclosing, asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from document.driven import run_here
from hocket.server.catalogue import ModelDescription, ServedTranslator
from hocket.server.document.job import Job, Place, Written, WrittenPiece
from hocket.server.document.translating import TranslatingWriter, units_of
from hocket.server.document.voice import WritingOptions
from hocket.server.engine.commands import FinishReason
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.errors import Draining, GenerationFailed
from hocket.server.text.pieces import Granularity, PieceKind, SentenceOptions
from hocket.server.text.segments import Segment
from hocket.server.translation.protocol import Translation, TranslatorFacts

FACTS = TranslatorFacts(
    pairs=frozenset({("en", "pt"), ("pt", "en")}), max_chars=400, architecture="x", dtype="y"
)


class Booth:
    """An interpreter that answers at once, unless it is told to wait."""

    facts = FACTS

    def __init__(self) -> None:
        self.asked = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.reached = asyncio.Event()

    async def translate(self, request):
        self.asked.append((request.text, *request.pair))
        self.reached.set()
        await self.may_answer.wait()
        if "bad" in request.text:
            raise GenerationFailed("translator")
        if "leave" in request.text:
            raise Draining
        return Translation(
            text=f" {request.text.upper()} ", queue=2.0, prompt_tokens=3, completion_tokens=1
        )

    def cut_all_nowait(self, _error_of):
        return 0


def _writer(booth, pairs=(("en", "pt"),), *, name="booth", **options) -> TranslatingWriter:
    description = ModelDescription(name=name, architecture="x", dtype="y", parameters=0)
    options = {"granularity": Granularity.SENTENCE, **options}
    return TranslatingWriter(
        ServedTranslator(description=description, interpreter=booth),
        pairs,
        WritingOptions(
            request_id="d",
            sampling=SamplingParams(),
            stopping=StoppingParams(max_tokens=1),
            **options,
        ),
        run_text=run_here,
        clock=itertools.count().__next__,
    )


def _segment(text: str, protected=()) -> Segment:
    return Segment(index=3, gap="", text=text, start_byte=0, protected=protected)


def _job(text: str, protected=(), variant: int = 0) -> Job:
    return Job(place=Place(3, variant), segment=_segment(text, protected))


async def _written(writer: TranslatingWriter, job: Job) -> tuple[list[WrittenPiece], Written]:
    *pieces, end = [event async for event in writer.write(job)]
    assert isinstance(end, Written)
    assert all(isinstance(piece, WrittenPiece) for piece in pieces)
    return pieces, end


async def _text(writer: TranslatingWriter, job: Job) -> str:
    return "".join(piece.text for piece in (await _written(writer, job))[0])


async def test_each_variant_goes_in_its_own_direction():
    booth = Booth()
    writer = _writer(booth, [("en", "pt"), ("pt", "en")])
    for variant in (0, 1):
        pieces, end = await _written(writer, _job("one two", variant=variant))
        assert pieces == [WrittenPiece("ONE TWO", PieceKind.TAIL)]
        assert end.finish_reason is FinishReason.END_OF_TEXT
        assert end.protection == ""
    assert booth.asked == [("one two", "en", "pt"), ("one two", "pt", "en")]


async def test_a_paragraph_comes_sentence_by_sentence_with_its_white_space():
    booth = Booth()
    text = "It is one\nline.  Two?\n\nAnd 3! ..."
    pieces, end = await _written(_writer(booth), _job(text))
    assert [asked[0] for asked in booth.asked] == ["It is one line.", "Two?", "And 3!"]
    assert "".join(piece.text for piece in pieces) == "IT IS ONE LINE.  TWO?\n\nAND 3! ..."
    assert pieces[0] == WrittenPiece("IT IS ONE LINE.", PieceKind.SENTENCE)
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (9, 3)
    assert end.timings is not None
    assert end.timings.queue == 2.0
    assert end.timings.first_text < end.timings.total


async def test_by_the_token_pieces_make_no_claim_about_sentences():
    writer = _writer(Booth(), granularity=Granularity.TOKEN)
    pieces, _ = await _written(writer, _job("One. Two."))
    assert {piece.kind for piece in pieces} == {PieceKind.DELTA}
    assert "".join(piece.text for piece in pieces) == "ONE. TWO."


async def test_protected_spans_never_reach_the_translator():
    booth = Booth()
    job = _job("see {name} at a.b, or {x}!", ((4, 10), (14, 17), (22, 25)))
    pieces, end = await _written(_writer(booth), job)
    assert "".join(piece.text for piece in pieces) == "SEE {name} AT a.b, OR {x}!"
    assert end.protection == "split"
    assert [asked[0] for asked in booth.asked] == ["see", "at", "or"]


async def test_what_is_protected_altogether_is_not_translated():
    booth = Booth()
    pieces, end = await _written(_writer(booth), _job("{x}: {y}", ((0, 3), (5, 8))))
    assert "".join(piece.text for piece in pieces) == "{x}: {y}"
    assert (end.protection, booth.asked) == ("kept", [])


async def test_a_failure_is_the_jobs_own():
    writer = _writer(Booth())
    with pytest.raises(GenerationFailed):
        await _written(writer, _job("a bad one"))
    with pytest.raises(Draining):
        await _written(writer, _job("leave"))
    assert await _text(writer, _job("a good one")) == "A GOOD ONE"


async def test_a_cancelled_job_ends_at_once_with_the_sentences_that_came():
    booth = Booth()
    writer, job = _writer(booth), _job("One. Two. Three. Four.")
    async with aclosing(writer.write(job)) as items:
        assert (await anext(items)).text == "ONE."
        booth.may_answer.clear()
        booth.reached.clear()
        ending = asyncio.create_task(anext(items))
        await booth.reached.wait()
        writer.cancel_nowait(job)
        writer.cancel_nowait(job)
        assert (await ending).text == " TWO."  # what had come, though no more is answered
        end = await anext(items)
    assert end.finish_reason is FinishReason.CANCELLED
    assert [asked[0] for asked in booth.asked] == ["One.", "Two.", "Three."]


async def test_a_job_that_was_cancelled_before_asks_for_nothing():
    booth = Booth()
    writer, job = _writer(booth), _job("one")
    writer.cancel_nowait(job)
    pieces, end = await _written(writer, job)
    assert (pieces, end.finish_reason, booth.asked) == ([], FinishReason.CANCELLED, [])


@asynccontextmanager
async def _asking(booth: Booth, writer: TranslatingWriter):
    booth.may_answer.clear()
    task = asyncio.create_task(_written(writer, _job("one")))
    await booth.reached.wait()
    yield task


async def test_who_leaves_takes_the_question_along():
    booth = Booth()
    before = asyncio.all_tasks()
    async with _asking(booth, _writer(booth)) as task:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0)


async def test_the_key_tells_apart_what_may_come_out_differently():
    booth = Booth()
    plain = _writer(booth, [("en", "pt"), ("pt", "en")])
    other = _writer(booth, [("en", "pt")], name="other")
    tokens = _writer(booth, granularity=Granularity.TOKEN)
    german = _writer(booth, sentences=SentenceOptions(language="de"))
    keys = [
        plain.key(_job("one")),
        plain.key(_job("two")),
        plain.key(_job("one", ((0, 1),))),
        plain.key(_job("one", variant=1)),
        *(writer.key(_job("one")) for writer in (other, tokens, german)),
    ]
    assert len(set(keys)) == len(keys)
    assert _writer(booth).key(_job("one")) == keys[0]


TEXTS = st.text(st.sampled_from("aB1 .!?\n,;(\u3002é\U0001f600"), max_size=300)


@given(TEXTS, st.lists(st.integers(0, 300), max_size=6), st.integers(40, 60))
def test_units_join_to_the_segment_and_none_is_too_long(text, cuts, most):
    cuts = sorted({cut for cut in cuts if cut <= len(text)})
    spans = tuple(itertools.islice(zip(cuts[::2], cuts[1::2], strict=False), 3))
    units = units_of(_segment(text, spans), SentenceOptions(), max_chars=most)
    assert "".join(unit for unit, _ in units) == text
    kept = "".join(text[first:last] for first, last in spans)
    for unit, is_prose in units:
        if is_prose:
            assert len(unit) <= most
            assert unit == unit.strip()
            assert any(character.isalnum() for character in unit)
    prose = sum(len(unit) for unit, is_prose in units if is_prose)
    assert prose <= len(text) - len(kept)


def test_a_text_without_spaces_is_cut_all_the_same():
    units = units_of(_segment("```\n" + "x" * 1_000), SentenceOptions(), max_chars=100)
    assert max(len(unit) for unit, _ in units) <= 100


def test_what_makes_an_item_or_a_heading_is_not_translated():
    for mark in ("- ", "## ", "12. ", "\u2022 ", "> "):
        units = units_of(_segment(f"{mark}One 2."), SentenceOptions(), max_chars=100)
        assert units == [(mark, False), ("One 2.", True)]
    assert units_of(_segment("-one"), SentenceOptions(), max_chars=100) == [("-one", True)]
