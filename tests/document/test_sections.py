"""Prompts of sections begin alike, and hold of what was written before what the context holds."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from document.driven import driven, run_here, scripted
from document.jobs import job, options, write
from hocket.server.document.outline import Section
from hocket.server.document.sections import SectionQuestion, SectionWriter, _evenly, _newest, tell
from hocket.server.engine.commands import FinishReason
from hocket.server.engine.sampling import StoppingParams
from hocket.server.errors import InvalidRequest
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.testing.serving import ScriptedModel

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")

SECTIONS = (Section("One", "Be brief."), Section("Two"), Section("Three"))
TOLD = "Bees.\n\nOutline:\n1. One\n2. Two\n3. Three"


def author_of(model, task="Bees.", join="", **changes) -> SectionWriter:
    return SectionWriter(
        model,
        options(**changes),
        task=task,
        join=join,
        run_text=run_here,
        clock=asyncio.get_running_loop().time,
    )


def content_of(author, index, before=()):
    return author._question(index, before).content(10_000)


async def test_a_section_is_asked_for_behind_the_task_and_the_outline():
    author = author_of(None, join="Conclude.")
    author.settle(SECTIONS)
    assert tell("Bees.", SECTIONS) == TOLD
    assert content_of(author, 0) == f'{TOLD}\n\nWrite the section "One" only.\nBe brief.'
    assert content_of(author, 1, ("Uno.",)) == (
        f'{TOLD}\n\nOne\nUno.\n\nWrite the section "Two" only.'
    )
    assert content_of(author, 3, ("A.", "", "C.")) == f"{TOLD}\n\nOne\nA.\n\nThree\nC.\n\nConclude."


@given(
    texts=st.lists(st.text(st.sampled_from("ab \u00e9")), max_size=4).map(tuple),
    most=st.integers(80, 200),
    is_join=st.booleans(),
)
def test_a_prompt_fits_if_it_can(texts, most, is_join):
    """What was written before gives way; the task, the outline and the question do not."""
    titles = tuple(map(str, range(len(texts))))
    question = SectionQuestion("TOLD" * 10, titles, texts, "ASKED", is_join=is_join)
    runner = scripted(max_context_tokens=most).runner
    token_ids = question.encode(ScriptedModel(runner=runner), reserved=20)
    text = ByteTokenizer().decode(token_ids)
    assert text.startswith("TOLD" * 10)
    assert text.endswith("ASKED")
    assert len(token_ids) <= most - 21 or text == "TOLD" * 10 + "\n\nASKED"
    whole = question.content(10_000)
    assert (text == whole) == (len(whole.encode()) + 2 <= most - 21) or not any(texts)


@given(st.lists(st.text(st.sampled_from("ab "))), st.integers(0, 40))
def test_no_more_is_kept_than_there_is_room_for(texts, keep):
    newest, evenly = _newest(texts, keep), _evenly(texts, keep)
    assert sum(map(len, newest)) <= keep
    assert sum(map(len, evenly)) <= keep
    assert all(text.endswith(kept) for text, kept in zip(texts, newest, strict=True))
    assert all(text.startswith(kept) for text, kept in zip(texts, evenly, strict=True))
    if sum(map(len, texts)) <= keep:
        assert newest == evenly == texts


def test_what_gives_way_is_old_or_long():
    assert _newest(["aaa bbb", "ccc"], 7) == ["bbb", "ccc"]
    assert _evenly(["aaa", "bbb bbb bbb", "cc"], 12) == ["aaa", "bbb bbb", "cc"]
    assert _evenly(["bbbb"], 2) == ["bb"]
    assert _evenly(["aaa", "bbb bbb bbb", "cc"], 14) == ["aaa", "bbb bbb", "cc"]


async def test_a_draft_is_read_and_what_is_none_becomes_one_section():
    drafts = (("about ants", "1. Legs\n2. Hills\n3. Queens"), ("about", "I do not know that."))
    async with driven(scripted(*drafts)) as model:
        sections, usage = await author_of(model, "Write about ants.").draft(2)
        assert sections == (Section("Legs"), Section("Hills"))
        assert usage.completion_tokens > 20
        sections, _ = await author_of(model, "Write about bees.").draft(2)
        assert sections == (Section("Write about bees."),)


@pytest.mark.parametrize(
    "stopping",
    [
        StoppingParams(max_tokens=9, stop=("Hills", "\n")),
        StoppingParams(max_tokens=99, min_tokens=60),
        StoppingParams(max_tokens=99, ignore_eos=True),
        StoppingParams(max_tokens=9, stop_token_ids=frozenset(b"L")),
    ],
    ids=["stop", "min_tokens", "ignore_eos", "stop_token_ids"],
)
async def test_what_ends_a_section_ends_no_draft_and_no_answer(stopping):
    """The outline and the judgement are asked for as if nothing had been said of the sections."""
    said = (("yes or no", "yes"), ("about ants", "1. Legs\n2. Hills"))
    async with driven(scripted(*said)) as model:
        author = author_of(model, "Write about ants.", stopping=stopping)
        sections, usage = await author.draft(4)
        assert sections == (Section("Legs"), Section("Hills"))
        assert usage.completion_tokens == len(said[1][1]) + 1
        author.settle(sections)
        assert (await author.judge())[0]


@pytest.mark.parametrize(("said", "is_parallel"), [("yes", True), ("Yes!", True), ("no", False)])
async def test_one_token_says_whether_sections_are_independent(said, is_parallel):
    async with driven(scripted(("yes or no", said))) as model:
        author = author_of(model)
        author.settle(SECTIONS)
        judged, usage = await author.judge()
    assert judged is is_parallel
    assert usage.completion_tokens == 1


async def test_what_sections_share_is_computed_once():
    """All but the first chunk's worth is copied, whoever comes first."""
    async with driven(scripted(("One", "1"), num_prefix_chunks=64)) as model:
        author = author_of(model)
        author.settle(SECTIONS)
        primed = await author.prime()
        shared = len(author._shared())
        assert (primed.prompt_tokens, primed.cached_tokens) == (shared, 0)
        assert shared == len(TOLD) + 1 + len('\n\nWrite the section "')
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(write(author, job("", at=at))) for at in range(3)]
        usages = [task.result()[1].usage for task in tasks]
        assert [usage.cached_tokens for usage in usages] == [shared // 4 * 4] * 3
        computed = sum(usage.prompt_tokens - usage.cached_tokens for usage in (primed, *usages))
        # The engine counts the same: nothing was computed behind anybody's back.
        assert model.engine.statistics().prefill_tokens == computed


async def test_few_prompts_tell_what_all_of_them_share():
    """A thousand long ones would hold a thread for a long time; any few begin as all do."""
    sections = tuple(Section(f"Part {index}") for index in range(1_000))
    async with driven(scripted(("", "1"), num_prefix_chunks=4_096)) as model:
        author = author_of(model)
        author.settle(sections)
        real, asked = author._question, []

        def counting(index, before):
            asked.append(index)
            return real(index, before)

        author._question = counting
        shared = author._shared()
    assert len(asked) <= 16
    assert ByteTokenizer().decode(shared).endswith('Write the section "Part ')


@pytest.mark.parametrize(
    ("sections", "chunks", "task"),
    [(SECTIONS[:1], 64, "Bees."), (SECTIONS, 0, "Bees."), (SECTIONS, 1, "B")],
    ids=["one section", "no cache", "too short"],
)
async def test_where_nothing_can_be_shared_nothing_is_computed_ahead(sections, chunks, task):
    bounds = {"block_size": 128, "prefix_chunk_tokens": 128, "num_blocks": 64}
    async with driven(scripted(num_prefix_chunks=chunks, **bounds)) as model:
        author = author_of(model, task)
        author.settle(sections)
        assert (await author.prime()).prompt_tokens == 0
        assert model.engine.statistics().steps == 0


async def test_a_task_that_is_too_long_is_named():
    async with driven(scripted(max_context_tokens=64)) as model:
        author = author_of(model, "bees " * 40, stopping=StoppingParams(max_tokens=8))
        author.settle(SECTIONS)
        with pytest.raises(InvalidRequest) as refused:
            await write(author, job("", at=0))
    assert refused.value.violations[0].field == "start.task"


async def test_where_the_time_is_up_there_is_still_an_outline():
    async with driven(scripted()) as model:
        author = author_of(model, deadline=0.0)
        sections, usage = await author.draft(3)
        assert (sections, usage.prompt_tokens) == ((Section("Bees."),), 0)
        author.settle(SECTIONS)
        assert (await author.judge())[0] is False
        pieces, written = await write(author, job("", at=0))
    assert (pieces, written.finish_reason) == ([], FinishReason.TIME_BUDGET)


async def test_drafting_can_be_cut_short():
    """What there is of the outline is taken."""
    author = None

    def on_step(outputs):
        if outputs.statistics.decode_tokens > 30:
            author.cancel_drafting_nowait()

    endless = "1. Legs\n2. Hills\n3." + " more" * 500
    async with driven(scripted(("Bees", endless)), on_step=on_step) as model:
        author = author_of(model)
        sections, usage = await author.draft(30)
        assert sections[:2] == (Section("Legs"), Section("Hills"))
        assert usage.completion_tokens < 60
        author.settle(sections)
        assert (await author.judge())[1].completion_tokens == 0


async def test_a_section_is_cancelled_alone():
    author, one = None, job("", at=0)

    def on_step(outputs):
        if outputs.statistics.decode_tokens > 30:
            author.cancel_nowait(one)

    answers = (('"One" only', "on and " * 500), ('"Two" only', "Two. " * 20))
    async with driven(scripted(*answers), on_step=on_step) as model:
        author = author_of(model)
        author.settle(SECTIONS)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(write(author, job("", at=at))) for at in range(2)]
    (_, first), (pieces, second) = (task.result() for task in tasks)
    assert first.finish_reason is FinishReason.CANCELLED
    assert second.finish_reason is FinishReason.END_OF_TEXT
    assert "".join(piece.text for piece in pieces) == ("Two. " * 20).strip()
