"""Several workers as one engine: the least loaded computes, nobody sees which, all die together."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.engine.commands import FinishReason, Submit
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.core import EngineCore
from hocket.server.engine.ensemble import Ensemble
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.engine.statistics import EngineStatistics, total
from hocket.server.errors import Draining, DuplicateRequest, EngineFailed
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.testing.scripted_runner import ScriptedRunner, echo


class Gated:
    """A core before whose steps something is called."""

    def __init__(self, core: EngineCore, gate: Callable[[], None]) -> None:
        self._core = core
        self._gate = gate

    def step(self, commands):
        self._gate()
        return self._core.step(commands)


class Workers:
    """An ensemble whose workers' steps can be held and broken, each for itself.

    Attributes:
        gates: Open unless a test closes them.
        errors: Raised by the next step of a worker.
        reached: Set on the loop when a worker stands before its closed gate.
    """

    def __init__(self, count: int) -> None:
        self.gates = [threading.Event() for _ in range(count)]
        self.errors: list[Exception | None] = [None] * count
        self.reached = [asyncio.Event() for _ in range(count)]
        self._loop = asyncio.get_running_loop()
        self.executors = [ThreadPoolExecutor(1) for _ in range(count)]
        self.runners = [ScriptedRunner() for _ in range(count)]
        cores = [
            Gated(
                EngineCore(runner, ByteTokenizer(), EngineConfig(), lambda: 0.0),
                partial(self._pass, number),
            )
            for number, runner in enumerate(self.runners)
        ]
        self.ensemble = Ensemble(cores, self.executors)
        for gate in self.gates:
            gate.set()

    def _pass(self, number: int) -> None:
        if not self.gates[number].is_set():
            self._loop.call_soon_threadsafe(self.reached[number].set)
        assert self.gates[number].wait(10)
        if error := self.errors[number]:
            raise error

    def rows(self, number: int) -> set[int]:
        """Return the batch sizes of one worker."""
        return {len(batch) for batch in self.runners[number].batches}

    def close(self) -> None:
        for gate in self.gates:
            gate.set()
        for executor in self.executors:
            executor.shutdown()


@pytest.fixture
async def three() -> AsyncIterator[Workers]:
    workers = Workers(3)
    yield workers
    workers.close()


def submit(name: str, prompt: bytes = b"hello", *, choices: int = 1) -> Submit:
    return Submit(
        request_id=name,
        prompt_token_ids=tuple(prompt),
        sampling=SamplingParams(),
        stopping=StoppingParams(max_tokens=500),
        choices=choices,
    )


async def text(generation) -> bytes:
    return "".join(
        [item.piece.text async for output in generation for item in output.texts]
    ).encode()


async def drive(ensemble: Ensemble) -> None:
    ensemble.stop()
    await ensemble.run()


async def test_nobody_sees_who_writes(three):
    """All texts are whole, each worker wrote its part, and the numbers are those of all."""
    generations = [three.ensemble.submit_nowait(submit(str(i), b"%d" % i)) for i in range(20)]
    assert three.ensemble.in_progress == 20
    running = asyncio.create_task(drive(three.ensemble))
    assert await asyncio.gather(*map(text, generations)) == [echo(b"%d" % i) for i in range(20)]
    await running
    assert three.ensemble.in_progress == 0
    assert [max(three.rows(number)) for number in range(3)] == [7, 7, 6]
    statistics = three.ensemble.statistics()
    assert statistics.finished_requests == 20
    assert statistics.blocks_total == 3 * three.runners[0].limits.num_blocks
    assert statistics.blocks_used == statistics.running_sequences == 0


@given(sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=24))
def test_a_request_goes_to_the_fewest_sequences_then_tokens(sizes):
    """So no worker is ever ahead of another by more than one request."""

    async def check() -> None:
        workers = Workers(3)
        loads = [(0, 0)] * 3
        for number, (choices, length) in enumerate(sizes):
            workers.ensemble.submit_nowait(submit(str(number), b"p" * length, choices=choices))
            least = loads.index(min(loads))
            sequences, tokens = loads[least]
            loads[least] = (sequences + choices, tokens + choices * length)
        assert [worker.load for worker in workers.ensemble._workers] == loads
        await drive(workers.ensemble)
        assert [worker.load for worker in workers.ensemble._workers] == [(0, 0)] * 3
        workers.close()

    asyncio.run(check())


async def test_an_id_is_taken_whichever_worker_has_it(three):
    """From its reservation until the worker let go of it, though its reader left."""
    names = [str(number) for number in range(6)]
    generations = [three.ensemble.submit_nowait(submit(name)) for name in names]
    generations.append(three.ensemble.reserve_nowait("reserved"))
    for generation in generations[:3]:
        generation.close_nowait()
    for name in [*names, "reserved"]:
        with pytest.raises(DuplicateRequest):
            three.ensemble.reserve_nowait(name)
    generations[-1].close_nowait()
    await drive(three.ensemble)
    assert three.ensemble.in_progress == 0


async def test_an_abort_finds_the_worker(three):
    generations = [three.ensemble.submit_nowait(submit(str(number))) for number in range(6)]
    assert three.ensemble.abort_nowait("4", FinishReason.ABORTED)
    assert not three.ensemble.abort_nowait("6", FinishReason.ABORTED)
    await drive(three.ensemble)
    reasons = []
    for generation in generations:
        *_, last = [output async for output in generation]
        reasons.append(last.finished.completions[0].finish_reason)
    ended = FinishReason.END_OF_TEXT
    assert reasons == [ended] * 4 + [FinishReason.ABORTED, ended]


async def test_the_death_of_one_worker_is_the_death_of_all(three):
    """Whatever the others do: here one is idle and one hangs in a step."""
    three.gates[0].clear()
    three.gates[1].clear()
    generations = [three.ensemble.submit_nowait(submit(str(number))) for number in range(2)]
    generations.append(three.ensemble.reserve_nowait("reserved"))
    running = asyncio.create_task(three.ensemble.run())
    await three.reached[0].wait()
    await three.reached[1].wait()
    three.errors[1] = OSError("gone")
    three.gates[1].set()
    with pytest.raises(OSError, match="gone"):
        await running
    for generation in generations[:2]:
        with pytest.raises(EngineFailed):
            await text(generation)
    with pytest.raises(EngineFailed):
        generations[2].submit_nowait(submit("reserved"))
    with pytest.raises(EngineFailed):
        three.ensemble.reserve_nowait("after")
    assert three.ensemble.in_progress == 0


async def test_a_drain_waits_for_all_workers(three):
    """One that is slow keeps the engine running, and its text is whole."""
    three.gates[2].clear()
    generations = [three.ensemble.submit_nowait(submit(str(number))) for number in range(3)]
    running = asyncio.create_task(drive(three.ensemble))
    assert await text(generations[0]) == await text(generations[1]) == echo(b"hello")
    await three.reached[2].wait()
    assert not running.done()
    assert three.ensemble.in_progress == 1
    three.gates[2].set()
    assert await text(generations[2]) == echo(b"hello")
    await running


async def test_a_cut_reaches_all_workers(three):
    generations = [three.ensemble.submit_nowait(submit(str(number))) for number in range(6)]
    assert three.ensemble.cut_all_nowait(Draining) == 6
    await drive(three.ensemble)
    for generation in generations:
        with pytest.raises(Draining):
            await text(generation)


def test_numbers_are_summed_and_times_are_the_newest():
    first = EngineStatistics(steps=3, step_seconds=0.5, blocks_used=1, last_step_at=7.0)
    second = EngineStatistics(steps=4, step_seconds=0.25, decode_tokens=9, last_step_at=8.0)
    assert total([first, second]) == EngineStatistics(
        steps=7, step_seconds=0.25, blocks_used=1, decode_tokens=9, last_step_at=8.0
    )
