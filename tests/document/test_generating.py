"""A writer on the engine: texts as the prompt alone gives them, gaps exact, spans kept."""

import dataclasses
from contextlib import aclosing

import pytest

from document.driven import driven, scripted
from document.jobs import PLAIN, job, spans, text_of, texts_of, write, writer_of
from hocket.server.document.tasks import (
    Classify,
    Instruct,
    Rewrite,
    Summarize,
    Translate,
)
from hocket.server.engine.commands import FinishReason
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.errors import GenerationFailed, InvalidRequest, QueueTimeout, Reason
from hocket.server.text.pieces import Granularity, PieceKind
from hocket.server.text.protection import mask

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")

# The masks as the model is shown them.
FIRST, SECOND, THIRD = mask("abc", ((0, 1), (1, 2), (2, 3))).text.replace("⟧", "⟧ ").split()


@pytest.mark.parametrize("granularity", [Granularity.TOKEN, Granularity.SENTENCE])
async def test_white_space_around_a_text_is_dropped_and_that_inside_stays(granularity):
    async with driven(scripted(("one", " \n One.  Two!\n\nThree \n "))) as model:
        pieces, written = await write(writer_of(model, granularity=granularity), job("one"))
    assert "".join(piece.text for piece in pieces) == "One.  Two!\n\nThree"
    assert written.finish_reason is FinishReason.END_OF_TEXT
    assert written.usage.prompt_tokens == len("one") + 2
    assert written.timings is not None
    kinds = [piece.kind for piece in pieces]
    if granularity is Granularity.SENTENCE:
        assert kinds == [PieceKind.SENTENCE, PieceKind.PARAGRAPH_END, PieceKind.TAIL]
    else:
        assert set(kinds) == {PieceKind.DELTA}


async def test_a_text_of_nothing_but_white_space_has_no_pieces():
    async with driven(scripted(("one", " \n"))) as model:
        pieces, written = await write(writer_of(model), job("one"))
    assert pieces == []
    assert written.finish_reason is FinishReason.END_OF_TEXT


async def test_jobs_side_by_side_write_what_each_writes_alone():
    answers = [(f"<{index}>", f"Answer {index}. It is long.") for index in range(9)]
    jobs = [job(f"<{index}>", at=index) for index in range(9)]
    async with driven(scripted(*answers)) as model:
        writer = writer_of(model)
        together = await texts_of(writer, jobs)
        assert together == [await text_of(writer, one) for one in jobs]
    assert together == [said for _, said in answers]


async def test_protected_spans_stand_where_their_masks_were_written():
    text = "See `a` and `b` now."
    async with driven(
        scripted((f"See {FIRST} and {SECOND} now.", f" Now {SECOND}, then {FIRST}. "))
    ) as model:
        one = job(text, protected=spans(text, "`a`", "`b`"))
        pieces, written = await write(writer_of(model), one)
    assert [piece.text for piece in pieces] == ["Now `b`, then `a`."]
    assert written.protection == "kept"
    assert written.timings.first_text == written.timings.total


@pytest.mark.parametrize("spoiled", ["Lost it.", f"{FIRST} {FIRST}", f"{FIRST} {THIRD} {SECOND}"])
@pytest.mark.parametrize("granularity", [Granularity.TOKEN, Granularity.SENTENCE])
async def test_where_a_mask_was_lost_the_parts_between_are_written(spoiled, granularity):
    """White space and marks around the spans stay as they were."""
    text = "Open  `x`, then close.  {name}"
    answers = [(FIRST, spoiled), ("Open", " Öffne "), ("then", "dann zu. Ja.")]
    async with driven(scripted(*answers)) as model:
        one = job(text, protected=spans(text, "`x`", "{name}"))
        pieces, written = await write(writer_of(model, granularity=granularity), one)
    assert "".join(piece.text for piece in pieces) == "Öffne  `x`, dann zu. Ja.  {name}"
    assert written.protection == "split"
    assert written.usage.completion_tokens > len(spoiled)


async def test_a_segment_that_is_kept_as_a_whole_is_not_written():
    async with driven(scripted()) as model:
        one = job("`x`, `y`.", protected=((0, 3), (5, 8)))
        pieces, written = await write(writer_of(model), one)
        assert model.engine.statistics().steps == 0
    assert "".join(piece.text for piece in pieces) == "`x`, `y`."
    assert (written.protection, written.usage.prompt_tokens) == ("kept", 0)


@pytest.mark.parametrize("task", [Translate(("fr", "de")), Rewrite(), Summarize(2)])
@pytest.mark.parametrize("text", ["", "---", "\N{THUMBS UP SIGN}!"])
async def test_where_there_is_nothing_to_work_on_nothing_is_made_up(task, text):
    """A caller's own segments may be empty; found ones hold a letter or a digit."""
    async with driven(scripted(("", "Made up."))) as model:
        pieces, written = await write(writer_of(model, task), job(text))
        assert model.engine.statistics().steps == 0
    assert "".join(piece.text for piece in pieces) == text
    assert (written.finish_reason, written.protection) == (FinishReason.END_OF_TEXT, "")


async def test_a_callers_own_words_are_put_to_any_segment():
    """They may be about signs, and a label is wanted whatever the text."""
    async with driven(scripted(("\N{THUMBS UP SIGN}", "good"))) as model:
        for task in (PLAIN, Instruct("Say it."), Classify(("good", "bad"))):
            assert await text_of(writer_of(model, task), job("\N{THUMBS UP SIGN}")) == "good"


@pytest.mark.parametrize(
    ("most", "text"), [(10, "12345 `x` 1234 `y`"), (6, "12345 `x`  `y`"), (3, "123 `x`  `y`")]
)
async def test_the_parts_of_a_segment_share_its_max_tokens(most, text):
    """The end of a text is a token, too. Spans come all the same."""
    source = "aaa `x` bbb `y` ccc"
    answers = [(FIRST, "lost"), ("aaa", "12345"), ("bbb", "123456789"), ("ccc", "never")]
    stopping = StoppingParams(max_tokens=most)
    async with driven(scripted(*answers)) as model:
        writer = writer_of(model, stopping=stopping, has_max_tokens=True)
        one = job(source, protected=spans(source, "`x`", "`y`"))
        pieces, written = await write(writer, one)
    assert "".join(piece.text for piece in pieces) == text
    assert written.finish_reason is FinishReason.MAX_TOKENS


async def test_a_part_that_was_cut_off_is_told():
    """Whatever became of the parts behind it."""
    source = "aaa `x` bbb `y`"
    answers = [(FIRST, "lost"), ("aaa", "1" * 600), ("bbb", "22")]
    async with driven(scripted(*answers)) as model:
        one = job(source, protected=spans(source, "`x`", "`y`"))
        pieces, written = await write(writer_of(model), one)
    assert "".join(piece.text for piece in pieces) == f"{'1' * 512} `x` 22 `y`"
    assert written.finish_reason is FinishReason.MAX_TOKENS


async def test_a_stop_string_of_the_caller_ends_the_whole_segment():
    text = "aaa `x` bbb `y`"
    answers = [(FIRST, "lost"), ("aaa", "12345"), ("bbb", "never")]
    stopping = StoppingParams(max_tokens=100, stop=("45",))
    async with driven(scripted(*answers)) as model:
        one = job(text, protected=spans(text, "`x`", "`y`"))
        pieces, written = await write(writer_of(model, stopping=stopping), one)
    assert "".join(piece.text for piece in pieces) == "123"
    assert written.finish_reason is FinishReason.STOP_STRING


async def test_a_summary_keeps_no_spans():
    """Its text need not hold what the source held."""
    async with driven(scripted(("See `x`.", "Short."))) as model:
        writer = writer_of(model, Summarize())
        pieces, written = await write(writer, job("See `x`.", protected=((4, 7),)))
    assert [piece.text for piece in pieces] == ["Short."]
    assert not written.protection


async def test_a_model_without_a_template_ends_where_the_form_goes_on():
    """For the caller that is the natural end; a stop string of their own is not."""
    said = " Bonjour.\n\nText: And so on"
    async with driven(scripted(("Text: Hello.\nFrench:", said), chat=False)) as model:
        task = Translate(("fr",))
        pieces, written = await write(writer_of(model, task), job("Hello."))
        assert [piece.text for piece in pieces] == ["Bonjour."]
        assert written.finish_reason is FinishReason.END_OF_TEXT
        stopping = StoppingParams(max_tokens=9, stop=("jour",))
        pieces, written = await write(writer_of(model, task, stopping=stopping), job("Hello."))
        assert [piece.text for piece in pieces] == ["Bon"]
        assert written.finish_reason is FinishReason.STOP_STRING


async def test_a_prompt_that_is_too_long_fails_alone():
    async with driven(scripted(("b", "Yes."), max_context_tokens=64)) as model:
        writer = writer_of(model)
        with pytest.raises(InvalidRequest) as refused:
            await write(writer, job("a" * 80))
        assert refused.value.reason is Reason.PROMPT_TOO_LONG
        assert await text_of(writer, job("b")) == "Yes."


async def test_a_request_that_fails_fails_its_job():
    async with driven(scripted()) as model:
        with pytest.raises(GenerationFailed):
            await write(writer_of(model), job("NAN"))


@pytest.mark.parametrize("protected", [(), ((0, 1),)], ids=["live", "masked"])
@pytest.mark.parametrize("when", ["before", "during"])
async def test_a_cancelled_job_ends_as_cancelled(protected, when):
    """Whether its prompt is still being encoded or its text is being written."""
    writer = None

    def on_step(outputs):
        if when == "during" and outputs.has_work:
            writer.cancel_nowait(one)

    one = job("x is long", protected=protected)
    async with driven(scripted(("long", "go on " * 600)), on_step=on_step) as model:
        writer = writer_of(model, granularity=Granularity.TOKEN)
        if when == "before":
            real = writer._run_text

            async def cancelling(work):
                writer.cancel_nowait(one)
                writer.cancel_nowait(one)
                return await real(work)

            writer._run_text = cancelling
        _, written = await write(writer, one)
    assert written.finish_reason is FinishReason.CANCELLED
    assert not written.protection
    writer.cancel_nowait(one)  # it is over


async def test_a_document_that_was_left_may_come_again_at_once():
    """Under the same id: what the engine has not let go of yet is in nobody's way."""
    one = job("long")
    async with driven(scripted(("long", "go on " * 9))) as model:
        items = writer_of(model, granularity=Granularity.TOKEN).write(one)
        await anext(items)
        await items.aclose()
        assert await text_of(writer_of(model), one) == "go on " * 8 + "go on"


async def test_a_job_is_given_up_by_closing_it():
    async with driven(scripted(("long", "go on " * 600))) as model:
        writer = writer_of(model, granularity=Granularity.TOKEN)
        async with aclosing(writer.write(job("long"))) as items:
            await anext(items)
        assert await text_of(writer, job("other", at=1)) == "?"


async def test_what_does_not_begin_in_time_ends_by_its_time():
    async with driven(scripted(("one", "Yes."))) as model:
        pieces, written = await write(writer_of(model, deadline=0.0), job("one"))
    assert pieces == []
    assert written.finish_reason is FinishReason.TIME_BUDGET


async def test_parts_that_were_written_in_time_come_though_the_next_was_late():
    text = "aaa `x` bbb `y`"
    answers = [(FIRST, "lost"), ("aaa", "12345"), ("bbb", "never")]
    async with driven(scripted(*answers)) as model:
        writer = writer_of(model)
        real, asked = writer._run_text, []

        async def late(work):
            asked.append(work)
            if len(asked) == 3:
                raise QueueTimeout
            return await real(work)

        writer._run_text = late
        one = job(text, protected=spans(text, "`x`", "`y`"))
        pieces, written = await write(writer, one)
    assert "".join(piece.text for piece in pieces) == "12345 `x`"
    assert written.finish_reason is FinishReason.TIME_BUDGET
    assert written.protection == "split"


async def test_a_job_draws_with_a_seed_of_its_own():
    """Made from the document's, and the same whenever it is written."""
    seeds = []

    def note(runner):
        draw = runner._draw

        def noting(tokens, request):
            seeds.append(request.seed)
            return draw(tokens, request)

        runner._draw = noting

    model = scripted(("one", "1"))
    note(model.runner)
    async with driven(model, engine=EngineConfig(speculate_up_to=0)) as served:
        sampling = SamplingParams(temperature=1.0, seed=7)
        for place in ({"at": 0}, {"at": 1}, {"at": 0, "variant": 1}, {"at": 0}):
            task = Translate(("fr", "de"))
            await write(writer_of(served, task, sampling=sampling), job("one", **place))
    first, second, third, fourth = (seeds[index] for index in range(0, len(seeds), len(seeds) // 4))
    assert len({first, second, third}) == 3
    assert first == fourth


async def test_the_key_tells_apart_what_may_come_out_differently():
    """And only that."""
    async with driven(scripted()) as model, driven(scripted(chat=False)) as plain:
        one = job("one")

        def key(place=one, *, task=PLAIN, served=model, **changes):
            return writer_of(served, task, **changes).key(place)

        same = [
            key(),
            key(request_id="other", deadline=9.0, priority=3),
            key(job("one", at=7)),
            key(sampling=SamplingParams(seed=9)),
        ]
        assert len(set(same)) == 1
        drawn = SamplingParams(temperature=1.0, seed=9)
        others = [
            same[0],
            key(job("two")),
            key(job("one", protected=((0, 1),))),
            key(task=Rewrite()),
            key(job("one", context=("zero",)), task=Rewrite()),
            key(task=Translate(("fr", "de"))),
            key(job("one", variant=1), task=Translate(("fr", "de"))),
            key(task=Classify(("a", "b"))),
            key(task=Classify(("a, b", "c"))),
            key(task=Classify(("a", "b, c"))),
            key(served=plain),
            key(owner="somebody"),
            key(granularity=Granularity.TOKEN),
            key(stopping=StoppingParams(max_tokens=9), has_max_tokens=True),
            key(stopping=StoppingParams(max_tokens=512, stop_token_ids=frozenset({3}))),
            key(sampling=SamplingParams(repetition_penalty=1.5)),
            key(sampling=drawn, is_seed_given=True),
            key(job("one", at=7), sampling=drawn, is_seed_given=True),
            key(sampling=dataclasses.replace(drawn, seed=8), is_seed_given=True),
        ]
        assert len(set(others)) == len(others)
        assert None not in others
        assert key(sampling=drawn) is None
        assert key(task=Classify(("a", "b")), sampling=drawn) is not None
