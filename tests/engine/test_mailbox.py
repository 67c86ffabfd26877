"""A mailbox merges what gathers, loses nothing, and is bounded."""

import asyncio

import pytest

from hocket.server.engine.commands import Finished, RequestOutput, Started, TextOutput, Timings
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
    mailbox = Mailbox("r", max_bytes=10_000)
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
