"""The driver: one step at a time on its thread, mailboxes in front, death as an event."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.drivers import DRIVERS
from hocket.server.engine.commands import Submit
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.core import EngineCore
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.errors import DuplicateRequest, EngineFailed
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.testing.scripted_runner import ScriptedRunner, echo


class Engine:
    """A driver with its executor."""

    def __init__(self, make) -> None:
        self.make = make
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[str] = set()
        self.held = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="hocket-engine")
        self.runner = ScriptedRunner(gate=self._step)
        core = EngineCore(self.runner, ByteTokenizer(), EngineConfig(), lambda: 0.0)
        self.driver = make(core, self.executor)

    def _step(self) -> None:
        self.threads.add(threading.current_thread().name)
        if not self.gate.is_set():
            self._loop.call_soon_threadsafe(self.held.set)
        assert self.gate.wait(10)
        if self.error:
            raise self.error


@pytest.fixture(params=DRIVERS.values(), ids=DRIVERS)
async def engine(request) -> AsyncIterator[Engine]:
    engine = Engine(request.param)
    yield engine
    engine.gate.set()
    engine.executor.shutdown()


def submit(name: str, prompt: bytes = b"hello") -> Submit:
    return Submit(
        request_id=name,
        prompt_token_ids=tuple(prompt),
        sampling=SamplingParams(),
        stopping=StoppingParams(max_tokens=500),
    )


async def text(generation) -> bytes:
    return "".join(
        [item.piece.text async for output in generation for item in output.texts]
    ).encode()


async def test_requests_are_written_on_one_thread_until_stopped(engine):
    running = asyncio.create_task(engine.driver.run())
    generations = [engine.driver.submit_nowait(submit(str(i), b"%d" % i)) for i in range(9)]
    engine.driver.stop()
    texts = await asyncio.gather(*map(text, generations))
    assert texts == [echo(b"%d" % i) for i in range(9)]
    await running
    assert len(engine.threads) == 1
    assert engine.driver.in_progress == 0
    with pytest.raises(EngineFailed):
        engine.driver.submit_nowait(submit("late"))


async def test_an_id_stays_taken_until_the_engine_let_go(engine):
    running = asyncio.create_task(engine.driver.run())
    engine.gate.clear()
    generation = engine.driver.submit_nowait(submit("same"))
    with pytest.raises(DuplicateRequest):
        engine.driver.submit_nowait(submit("same"))
    generation.close_nowait()
    generation.close_nowait()
    with pytest.raises(DuplicateRequest):
        engine.driver.submit_nowait(submit("same"))
    engine.gate.set()
    engine.driver.stop()
    await running
    assert engine.driver.in_progress == 0
    assert engine.driver.statistics().blocks_used == 0


async def test_a_broken_engine_reaches_every_reader(engine):
    running = asyncio.create_task(engine.driver.run())
    generations = [engine.driver.submit_nowait(submit(str(i))) for i in range(3)]
    first = aiter(generations[0])
    await anext(first)
    engine.error = OSError("gone")
    for generation in generations:
        with pytest.raises(EngineFailed):
            await text(generation)
    with pytest.raises(OSError, match="gone"):
        await running
    with pytest.raises(EngineFailed):
        engine.driver.submit_nowait(submit("after"))


async def test_a_cancelled_driver_waits_for_its_step(engine):
    running = asyncio.create_task(engine.driver.run())
    engine.gate.clear()
    generation = engine.driver.submit_nowait(submit("a"))
    await engine.held.wait()
    running.cancel()
    for _ in range(20):
        await asyncio.sleep(0)  # turns of the loop, in which one that does not wait would end
    assert not running.done()
    engine.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(EngineFailed):
        await text(generation)


async def test_a_driver_that_is_cancelled_again_waits_still(engine):
    """No number of cancellations leaves a step running behind our back."""
    running = asyncio.create_task(engine.driver.run())
    engine.gate.clear()
    engine.driver.submit_nowait(submit("a"))
    await engine.held.wait()
    for _ in range(5):
        running.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not running.done()
    engine.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("cancelled", [0, 2])
async def test_a_driver_that_is_abandoned_waits_for_nothing(engine, cancelled):
    """Whether or not it was cancelled before: its readers hear of it while the step hangs."""
    running = asyncio.create_task(engine.driver.run())
    engine.gate.clear()
    generation = engine.driver.submit_nowait(submit("a"))
    await engine.held.wait()
    for _ in range(cancelled):
        running.cancel()
        await asyncio.sleep(0)
    engine.driver.abandon()
    engine.driver.abandon()
    await asyncio.wait([running], timeout=5)  # less than the step hangs
    assert running.cancelled()
    with pytest.raises(EngineFailed):
        await text(generation)
    with pytest.raises(EngineFailed):
        engine.driver.submit_nowait(submit("after"))
    engine.driver.abandon()


async def test_a_driver_that_was_abandoned_before_it_ran_never_runs(engine):
    generation = engine.driver.submit_nowait(submit("a"))
    engine.driver.abandon()
    with pytest.raises(asyncio.CancelledError):
        await engine.driver.run()
    with pytest.raises(EngineFailed):
        await text(generation)
    assert not engine.threads


class Leaking:
    """A core whose step raises what no future can carry."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def step(self, commands):
        raise self._error


@pytest.mark.parametrize(
    "error", [StopIteration(), asyncio.CancelledError(), futures.CancelledError()], ids=repr
)
async def test_whatever_leaves_a_step_ends_the_driver(engine, error):
    """Even what asyncio takes for the end of a coroutine, or for our own cancellation."""
    driver = engine.make(Leaking(error), engine.executor)
    generation = driver.submit_nowait(submit("a"))
    with pytest.raises(RuntimeError, match=type(error).__name__) as caught:
        await driver.run()
    assert caught.value.__cause__ is error
    with pytest.raises(EngineFailed):
        await text(generation)


async def test_a_reader_that_leaves_is_in_one_more_step_at_most(engine):
    """The step in progress goes on with it; the next is without it, and says that it ended."""
    running = asyncio.create_task(engine.driver.run())
    left = engine.driver.submit_nowait(submit("left", b"l" * 100))
    stays = engine.driver.submit_nowait(submit("stays", b"s"))
    await anext(aiter(stays))
    engine.gate.clear()
    await engine.held.wait()
    known = len(engine.runner.batches)
    left.close_nowait()
    engine.gate.set()
    engine.driver.stop()
    assert echo(b"s").endswith(await text(stays))
    await running
    assert [len(batch) for batch in engine.runner.batches[known:]][:3] == [2, 1, 1]
    assert engine.driver.statistics().blocks_used == 0
