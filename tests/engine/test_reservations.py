"""An id is taken from its reservation on: while a prompt is prepared, and until it is let go."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.drivers import DRIVERS
from hocket.server.engine.commands import FinishReason, Submit
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.core import EngineCore
from hocket.server.engine.driver import EngineDriver
from hocket.server.engine.ensemble import Ensemble
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.errors import Draining, DuplicateRequest, EngineFailed
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.testing.scripted_runner import ScriptedRunner, echo


@pytest.fixture(params=DRIVERS.values(), ids=DRIVERS)
async def driver(request) -> AsyncIterator[EngineDriver | Ensemble]:
    """A driver that nobody drives yet."""
    with ThreadPoolExecutor(1) as executor:
        core = EngineCore(ScriptedRunner(), ByteTokenizer(), EngineConfig(), lambda: 0.0)
        yield request.param(core, executor)


def submit(name: str) -> Submit:
    return Submit(
        request_id=name,
        prompt_token_ids=tuple(name.encode()),
        sampling=SamplingParams(),
        stopping=StoppingParams(max_tokens=500),
    )


async def drive(driver: EngineDriver | Ensemble) -> None:
    driver.stop()
    await driver.run()


async def outputs_of(generation) -> list:
    return [output async for output in generation]


def text_of(outputs: list) -> bytes:
    return "".join(item.piece.text for output in outputs for item in output.texts).encode()


async def stand_still() -> None:
    await asyncio.Event().wait()


async def test_a_reserved_id_is_taken_until_it_is_given_back(driver):
    generation = driver.reserve_nowait("a")
    assert driver.in_progress == 1
    for take in (driver.reserve_nowait, lambda name: driver.submit_nowait(submit(name))):
        with pytest.raises(DuplicateRequest):
            take("a")
    generation.close_nowait()
    generation.close_nowait()
    assert driver.in_progress == 0
    again = driver.reserve_nowait("a")
    generation.close_nowait()  # it is not its any more
    with pytest.raises(DuplicateRequest):
        driver.reserve_nowait("a")
    again.submit_nowait(submit("a"))
    await drive(driver)
    assert text_of(await outputs_of(again)) == echo(b"a")
    assert driver.in_progress == 0


@pytest.mark.parametrize("by_name", [False, True])
async def test_an_abort_before_the_request_is_submitted_holds(driver, by_name):
    """The first reason counts; nothing is computed for it."""
    generation = driver.reserve_nowait("a")
    if by_name:
        assert driver.abort_nowait("a", FinishReason.ABORTED)
    else:
        generation.abort_nowait(FinishReason.ABORTED)
    generation.abort_nowait(FinishReason.CANCELLED)
    generation.submit_nowait(submit("a"))
    await drive(driver)
    *_, last = await outputs_of(generation)
    (completion,) = last.finished.completions
    assert completion.finish_reason is FinishReason.ABORTED
    assert completion.completion_tokens == 0
    assert not driver.abort_nowait("a", FinishReason.ABORTED)


async def test_a_cut_gives_up_what_is_being_prepared(driver):
    generation = driver.reserve_nowait("a")
    preparing = asyncio.ensure_future(generation.prepare(stand_still))
    await asyncio.sleep(0)
    assert driver.cut_all_nowait(Draining) == 1
    with pytest.raises(Draining):
        await preparing
    for step in (
        lambda: generation.submit_nowait(submit("a")),
        lambda: driver.reserve_nowait("b"),
        lambda: driver.submit_nowait(submit("b")),
    ):
        with pytest.raises(Draining):
            step()
    with pytest.raises(Draining):
        await generation.prepare(stand_still)
    generation.close_nowait()
    assert driver.in_progress == 0


async def test_a_cut_keeps_the_text_so_far_of_what_runs_and_tells_nothing_of_what_does_not(driver):
    running = asyncio.ensure_future(driver.run())
    begun = driver.submit_nowait(submit("a" * 50))
    outputs = aiter(begun)
    first = [await anext(outputs)]
    driver.cut_all_nowait(Draining)
    with pytest.raises(Draining):
        while True:
            first.append(await anext(outputs))
    assert first[0].started is not None
    assert all(output.finished is None for output in first)
    assert echo(b"a" * 50).startswith(text_of(first))
    driver.stop()
    await running


async def test_a_request_that_has_not_begun_brings_nothing_but_the_reason(driver):
    waiting = driver.submit_nowait(submit("w"))
    driver.cut_all_nowait(Draining)
    await drive(driver)
    outputs = []
    with pytest.raises(Draining):
        async for output in waiting:
            outputs.append(output)  # noqa: PERF401 - what came before it raised counts
    assert outputs == []
    assert driver.in_progress == 0


async def test_a_cut_that_is_repeated_does_not_wait_for_the_engine(driver):
    waiting = driver.submit_nowait(submit("w"))  # nobody drives
    driver.cut_all_nowait(Draining)
    driver.cut_all_nowait(Draining)
    with pytest.raises(Draining):
        await outputs_of(waiting)


async def test_an_engine_that_dies_reaches_what_is_being_prepared(driver):
    generation = driver.reserve_nowait("a")
    preparing = asyncio.ensure_future(generation.prepare(stand_still))
    running = asyncio.ensure_future(driver.run())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(EngineFailed):
        await preparing
    generation.close_nowait()
    with pytest.raises(EngineFailed):
        driver.reserve_nowait("a")
    assert driver.in_progress == 0


async def test_preparing_passes_on_what_the_work_gives_or_raises(driver):
    """A time limit of the work's own is not taken for ours."""

    async def late() -> None:
        raise TimeoutError("its own")

    async def give() -> int:
        return 7

    generation = driver.reserve_nowait("a")
    assert await generation.prepare(give) == 7
    with pytest.raises(TimeoutError, match="its own"):
        await generation.prepare(late)
