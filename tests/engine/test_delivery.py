"""Outputs are delivered before the next step or while it runs; none is lost, whatever breaks."""

import asyncio
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest

from hocket.server.engine.commands import (
    Abort,
    FinishReason,
    RequestOutput,
    StepOutputs,
    Submit,
    TextOutput,
)
from hocket.server.engine.driver import EngineDriver
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.engine.statistics import EngineStatistics
from hocket.server.errors import EngineFailed, ReaderTooSlow
from hocket.server.text.pieces import Piece, PieceKind

pytestmark = pytest.mark.parametrize("is_overlapped", [False, True], ids=["strict", "overlapped"])


class Inline(Executor):
    """Works at once, on the thread that asks; notes when, and refuses from some piece of work on.

    Attributes:
        notes: What happened, in order.
    """

    def __init__(self, *, refuses_at: int | None = None) -> None:
        self.notes: list[str] = []
        self._refuses_at = refuses_at
        self._count = 0

    def submit(self, work, /, *args, **kwargs) -> Future:
        if self._count == self._refuses_at:
            raise RuntimeError("cannot schedule new futures after shutdown")
        self.notes.append(f"begin {self._count}")
        self._count += 1
        future = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - carried, as by a thread
            future.set_exception(error)
        return future

    def delivered(self, outputs: StepOutputs) -> None:
        self.notes.append(f"deliver {outputs.statistics.steps}")


class Writer:
    """A core whose step number n writes token n for request `a`.

    Attributes:
        commands: What each step was given.
    """

    def __init__(self, *, steps: int = 1_000, breaks_at: int | None = None) -> None:
        self.commands: list[list] = []
        self._steps = steps
        self._breaks_at = breaks_at

    def step(self, commands) -> StepOutputs:
        number = len(self.commands)
        self.commands.append(list(commands))
        if number == self._breaks_at:
            raise OSError("gone")
        piece = Piece("x", number, number + 1, PieceKind.SENTENCE)
        text = TextOutput(choice_index=0, piece=piece, token_ids=(number,))
        return StepOutputs(
            outputs=(RequestOutput(request_id="a", texts=(text,)),),
            has_work=number + 1 < self._steps,
            statistics=EngineStatistics(steps=number),
        )


def submit() -> Submit:
    return Submit(
        request_id="a",
        prompt_token_ids=(1,),
        sampling=SamplingParams(),
        stopping=StoppingParams(max_tokens=9),
    )


async def tokens_until(failure: type[Exception], generation) -> list[int]:
    """Return the tokens that came before the failure."""
    tokens = []
    with pytest.raises(failure):
        async for output in generation:
            tokens += [token for text in output.texts for token in text.token_ids]
    return tokens


async def test_a_step_waits_for_the_delivery_or_the_delivery_for_its_begin(is_overlapped):
    """The last one is delivered in any case, and then nothing more begins."""
    executor = Inline()
    driver = EngineDriver(
        Writer(steps=3), executor, is_overlapped=is_overlapped, on_step=executor.delivered
    )
    driver.submit_nowait(submit())
    driver.stop()
    await driver.run()
    assert executor.notes == (
        ["begin 0", "begin 1", "deliver 0", "begin 2", "deliver 1", "deliver 2"]
        if is_overlapped
        else ["begin 0", "deliver 0", "begin 1", "deliver 1", "begin 2", "deliver 2"]
    )


@pytest.mark.parametrize("at", range(4))
async def test_all_that_was_written_arrives_before_the_engine_breaks(is_overlapped, at):
    driver = EngineDriver(Writer(breaks_at=at), Inline(), is_overlapped=is_overlapped)
    generation = driver.submit_nowait(submit())
    with pytest.raises(OSError, match="gone"):
        await driver.run()
    assert await tokens_until(EngineFailed, generation) == list(range(at))


@pytest.mark.parametrize("at", range(4))
async def test_all_that_was_written_arrives_before_the_thread_is_gone(is_overlapped, at):
    driver = EngineDriver(Writer(), Inline(refuses_at=at), is_overlapped=is_overlapped)
    generation = driver.submit_nowait(submit())
    with pytest.raises(RuntimeError, match="shutdown"):
        await driver.run()
    assert await tokens_until(EngineFailed, generation) == list(range(at))


async def test_what_a_delivery_asks_for_comes_with_the_next_step_that_begins(is_overlapped):
    """A reader that never takes anything is too slow at the second piece."""
    core = Writer(steps=6)
    driver = EngineDriver(core, Inline(), mailbox_bytes=1, is_overlapped=is_overlapped)
    generation = driver.submit_nowait(submit())
    driver.stop()
    await driver.run()
    abort = Abort(request_id="a", reason=FinishReason.CANCELLED)
    assert [number for number, given in enumerate(core.commands) if abort in given] == [
        3 if is_overlapped else 2
    ]
    assert await tokens_until(ReaderTooSlow, generation) == []


async def test_a_reader_hears_of_a_step_while_the_next_one_runs(is_overlapped):
    """However long that takes; and with it whoever cancels the driver meanwhile."""
    loop, held, may_end = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    class HeldWriter(Writer):
        def step(self, commands) -> StepOutputs:
            if len(self.commands) == 2:
                loop.call_soon_threadsafe(held.set)
                assert may_end.wait(10)
            return super().step(commands)

    with ThreadPoolExecutor(1) as executor:
        driver = EngineDriver(HeldWriter(), executor, is_overlapped=is_overlapped)
        generation = driver.submit_nowait(submit())
        running = asyncio.create_task(driver.run())
        await held.wait()
        running.cancel()
        tokens: list[int] = []
        outputs = aiter(generation)
        while len(tokens) < 2:
            output = await anext(outputs)
            tokens += [token for text in output.texts for token in text.token_ids]
        assert tokens == [0, 1]
        assert not running.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        with pytest.raises(EngineFailed):
            await anext(outputs)
