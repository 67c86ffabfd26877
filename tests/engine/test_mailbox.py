"""A mailbox merges what gathers, loses nothing, and is bounded."""

import asyncio
from dataclasses import replace

import pytest

from hocket.server.engine.commands import (
    Finished,
    Logprobs,
    RequestOutput,
    Started,
    TextOutput,
    Timings,
)
from hocket.server.engine.mailbox import Mailbox
from hocket.server.errors import EngineFailed, ReaderTooSlow
from hocket.server.text.pieces import Piece, PieceKind

FINISHED = Finished(
    completions=(),
    prompt_tokens=1,
    cached_tokens=0,
    completion_tokens=1,
    timings=Timings(queue=0, prefill=0, first_token=0, first_text=0, total=0),
)


def text(words: str, at: int, kind=PieceKind.DELTA, choice: int = 0) -> RequestOutput:
    piece = Piece(words, at, at + len(words), kind)
    return RequestOutput(request_id="r", texts=(TextOutput(choice, piece, tuple(words.encode())),))


async def test_outputs_are_merged_while_the_reader_is_away():
    mailbox = Mailbox("r", max_bytes=100_000)
    mailbox.put(RequestOutput(request_id="r", started=Started(prompt_tokens=1, cached_tokens=0)))
    for index in range(50):
        mailbox.put(text("ab", 2 * index))
    mailbox.put(RequestOutput(request_id="r", finished=FINISHED))
    output = await mailbox.take()
    assert output.started is not None
    assert output.finished is FINISHED
    (merged,) = output.texts
    assert merged.piece.text == "ab" * 50
    assert (merged.piece.start_byte, merged.piece.end_byte) == (0, 100)
    assert len(merged.token_ids) == 100
    assert await mailbox.take() is None


async def test_sentences_stay_apart_when_they_are_merged():
    mailbox = Mailbox("r", max_bytes=10_000)
    mailbox.put(text("One. ", 0, PieceKind.SENTENCE))
    mailbox.put(text("Two. ", 5, PieceKind.SENTENCE))
    output = await mailbox.take()
    assert [item.piece.text for item in output.texts] == ["One. ", "Two. "]


async def test_a_reader_that_never_reads_costs_bounded_memory():
    mailbox = Mailbox("r", max_bytes=1_000)
    for index in range(10_000):
        mailbox.put(text("abcdefgh", 8 * index))
        assert mailbox.waiting_bytes <= 1_000
    assert mailbox.has_end
    with pytest.raises(ReaderTooSlow):
        await mailbox.take()
    assert await mailbox.take() is None


@pytest.mark.parametrize("is_last", [False, True])
async def test_a_single_output_makes_no_reader_slow(is_last):
    """Nobody could have taken it earlier, however large it is; what follows is another matter."""
    mailbox = Mailbox("r", max_bytes=1_000)
    whole = text("x" * 5_000, 0)
    mailbox.put(replace(whole, finished=FINISHED if is_last else None))
    assert mailbox.waiting_bytes > 5_000
    mailbox.put(text("y", 5_000))
    if not is_last:
        with pytest.raises(ReaderTooSlow):
            await mailbox.take()
        return
    output = await mailbox.take()
    assert (output.texts, output.finished) == (whole.texts, FINISHED)


async def test_a_large_output_that_was_taken_makes_no_reader_slow():
    mailbox = Mailbox("r", max_bytes=1_000)
    for at in range(3):
        mailbox.put(text("x" * 5_000, 5_000 * at))
        assert len((await mailbox.take()).texts[0].piece.text) == 5_000
        assert mailbox.waiting_bytes == 0


async def test_the_last_output_is_bounded_like_any_other():
    mailbox = Mailbox("r", max_bytes=1_000)
    mailbox.put(text("a", 0))
    mailbox.put(replace(text("x" * 5_000, 1), finished=FINISHED))
    assert mailbox.waiting_bytes == 0
    with pytest.raises(ReaderTooSlow):
        await mailbox.take()


async def test_an_end_without_text_makes_no_reader_slow():
    """Nor does what is told of the prompt, which comes once; but it weighs what it weighs."""
    told = tuple(Logprobs(-0.5, ((1, -0.5),) * 20) for _ in range(100))
    mailbox = Mailbox("r", max_bytes=1_000)
    mailbox.put(text("a" * 2_000, 0))
    mailbox.put(RequestOutput(request_id="r", finished=replace(FINISHED, prompt_logprobs=told)))
    assert mailbox.waiting_bytes > 100 * 20 * 100
    assert (await mailbox.take()).finished.prompt_logprobs == told


async def test_what_came_before_a_failure_is_delivered_first():
    mailbox = Mailbox("r", max_bytes=1_000)
    mailbox.put(text("ab", 0))
    mailbox.fail(EngineFailed())
    mailbox.fail(ReaderTooSlow(limit_bytes=1))
    assert (await mailbox.take()).texts[0].piece.text == "ab"
    with pytest.raises(EngineFailed):
        await mailbox.take()
    mailbox.put(text("cd", 2))
    assert await mailbox.take() is None


async def test_a_waiting_reader_wakes():
    mailbox = Mailbox("r", max_bytes=1_000)
    taking = asyncio.create_task(mailbox.take())
    await asyncio.sleep(0)
    assert not taking.done()
    mailbox.put(text("ab", 0))
    assert (await taking).texts[0].piece.text == "ab"
