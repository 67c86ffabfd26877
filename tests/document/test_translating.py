"""Documents through a translator that is no language model."""

import asyncio

import pytest

from hocket.server.document.job import Job, Place, Written, WrittenPiece
from hocket.server.document.translating import TranslatingWriter, code_of, directions
from hocket.server.engine.commands import FinishReason
from hocket.server.errors import GenerationFailed, InvalidRequest
from hocket.server.text.segments import Segment


class Upper:
    """Knows English and Portuguese, which it takes for capitals; cuts off what is long."""

    name = "upper"
    pairs = frozenset({("en", "pt"), ("pt", "en")})

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    def translate(self, text: str, source: str, target: str) -> str:
        self.asked.append((text, source, target))
        if "bad" in text:
            raise ValueError("secret")
        return f" {text[:450].upper()} "


async def _run(work):
    return await asyncio.to_thread(work)


def _job(text: str, protected=(), variant: int = 0) -> Job:
    segment = Segment(index=3, gap="", text=text, start_byte=0, protected=protected)
    return Job(place=Place(3, variant), segment=segment)


async def _written(writer: TranslatingWriter, job: Job) -> tuple[str, Written]:
    *pieces, end = [event async for event in writer.write(job)]
    assert isinstance(end, Written)
    assert all(isinstance(piece, WrittenPiece) for piece in pieces)
    return "".join(piece.text for piece in pieces), end


async def test_each_variant_goes_in_its_own_direction():
    translator = Upper()
    writer = TranslatingWriter(translator, [("en", "pt"), ("pt", "en")], _run)
    for variant in (0, 1):
        text, end = await _written(writer, _job("one two", variant=variant))
        assert text == "ONE TWO"
        assert end.finish_reason is FinishReason.END_OF_TEXT
        assert end.protection == ""
    assert translator.asked == [("one two", "en", "pt"), ("one two", "pt", "en")]


async def test_protected_spans_never_reach_the_translator():
    translator = Upper()
    writer = TranslatingWriter(translator, [("en", "pt")], _run)
    text, end = await _written(
        writer, _job("see {name} at a.b, or {x}!", ((4, 10), (14, 17), (22, 25)))
    )
    assert text == "SEE {name} AT a.b, OR {x}!"
    assert end.protection == "split"
    assert [asked[0] for asked in translator.asked] == ["see", "at", ", or"]


async def test_a_long_part_goes_through_in_pieces_and_loses_nothing():
    translator = Upper()
    writer = TranslatingWriter(translator, [("en", "pt")], _run)
    source = "word " * 300 + "end"
    text, _ = await _written(writer, _job(source))
    assert text == source.upper()
    assert max(len(asked[0]) for asked in translator.asked) <= 400


async def test_a_failure_is_the_jobs_own_and_tells_nothing_of_it():
    writer = TranslatingWriter(Upper(), [("en", "pt")], _run)
    with pytest.raises(GenerationFailed) as caught:
        await _written(writer, _job("a bad one"))
    assert "secret" not in str(caught.value)
    assert (await _written(writer, _job("a good one")))[0] == "A GOOD ONE"


async def test_a_cancelled_job_ends_without_text():
    writer = TranslatingWriter(Upper(), [("en", "pt")], _run)
    job = _job("one")
    writer.cancel_nowait(job)
    text, end = await _written(writer, job)
    assert (text, end.finish_reason) == ("", FinishReason.CANCELLED)


@pytest.mark.parametrize(
    ("name", "code"),
    [("Portuguese", "pt"), ("pt-BR", "pt"), (" EN ", "en"), ("Klingon", "klingon")],
)
def test_languages_by_name_and_by_code(name, code):
    assert code_of(name) == code


def test_a_pair_that_is_not_known_is_named():
    found = directions(Upper(), "", ["Portuguese"], text_language="en")
    assert found == (("en", "pt"),)
    assert directions(Upper(), "portuguese", ["en"], text_language="de") == (("pt", "en"),)
    with pytest.raises(InvalidRequest) as caught:
        directions(Upper(), "", ["pt", "German"], text_language="en")
    (violation,) = caught.value.violations
    assert violation.field == "start.translate.target_languages[1]"
    assert "en to pt" in violation.description
