"""Threads behind the loop: bounded, in order, and a slot is free only when its thread is."""

import asyncio
import functools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.errors import Overloaded
from hocket.server.executors import ExecutorConfig, Executors


class Held:
    """Work that tells when it begins and ends when it may."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.may_end = threading.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> str:
        self._loop.call_soon_threadsafe(self.began.set)
        assert self.may_end.wait(20)
        return "done"


@pytest.fixture
async def one():
    """Executors with one text thread, before which three pieces of work may wait."""
    executors = Executors(ExecutorConfig(text_threads=1, max_text_waiting=3))
    yield executors
    assert await executors.close(10)


async def idle() -> None:
    """Let everything on the loop happen that needs no other thread."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_result_comes_back_from_a_text_thread(one):
    """The work runs beside the loop, on a thread that is named."""
    name = await one.run_text(lambda: threading.current_thread().name)
    assert name.startswith("hocket-text")
    assert one.text_waiting == 0


@pytest.mark.parametrize("error", [ValueError("no"), KeyError(3), asyncio.CancelledError()])
async def test_what_the_work_raises_comes_out_as_it_is(one, error):
    """And the slot is free again."""

    def fail() -> None:
        raise error

    for _ in range(3):
        with pytest.raises(type(error)) as caught:
            await one.run_text(fail)
        if not isinstance(error, asyncio.CancelledError):
            assert caught.value is error


async def test_a_stop_iteration_does_not_hang_its_caller(one):
    """A future cannot hold one; it comes out as the cause of another."""
    with pytest.raises(RuntimeError) as caught:
        await one.run_text(functools.partial(next, iter(())))
    assert isinstance(caught.value.__cause__, StopIteration)


async def test_a_slot_is_free_when_its_thread_is(one):
    """Who is cancelled leaves at once; his thread goes on, and nobody else is let in meanwhile."""
    held, began = Held(), []
    caller = asyncio.create_task(one.run_text(held))
    await held.began.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    second = asyncio.create_task(one.run_text(lambda: began.append("second")))
    await idle()
    assert (began, one.text_waiting) == ([], 1)
    held.may_end.set()
    await second
    assert (began, one.text_waiting) == (["second"], 0)


async def test_more_than_may_wait_is_refused(one):
    """The refusal names the bound; who gives up waiting makes room."""
    held = Held()
    callers = [asyncio.create_task(one.run_text(held))]
    await held.began.wait()
    callers += [asyncio.create_task(one.run_text(lambda: "later")) for _ in range(3)]
    await idle()
    assert one.text_waiting == 3
    with pytest.raises(Overloaded) as caught:
        await one.run_text(lambda: "too much")
    assert caught.value.metadata == {"scope": "server", "limit": "3"}
    assert caught.value.retry_after_seconds > 0
    callers.pop().cancel()
    await idle()
    assert one.text_waiting == 2
    callers.append(asyncio.create_task(one.run_text(lambda: "later")))
    await idle()
    held.may_end.set()
    assert await asyncio.gather(*callers) == ["done", "later", "later", "later"]


@given(st.integers(2, 12), st.sets(st.integers(0, 11)))
def test_who_waits_is_served_in_order(count, leaving):
    """First come, first served; who leaves meanwhile delays nobody."""

    async def scene() -> list[int]:
        executors = Executors(ExecutorConfig(text_threads=1))
        held, served = Held(), []
        first = asyncio.create_task(executors.run_text(held))
        await held.began.wait()
        callers = [
            asyncio.create_task(executors.run_text(functools.partial(served.append, index)))
            for index in range(count)
        ]
        await idle()
        for index in leaving & set(range(count)):
            callers[index].cancel()
        held.may_end.set()
        await asyncio.gather(first, *callers, return_exceptions=True)
        assert executors.text_waiting == 0
        assert await executors.close(10)
        return served

    assert [index for index in range(count) if index not in leaving] == asyncio.run(scene())


async def test_as_many_run_at_once_as_there_are_threads():
    """All threads are used, and no work is handed over for which none is free."""
    executors = Executors(ExecutorConfig(text_threads=3))
    works = [Held() for _ in range(4)]
    callers = [asyncio.create_task(executors.run_text(work)) for work in works]
    for work in works[:3]:
        await work.began.wait()
    await idle()
    assert not works[3].began.is_set()
    works[1].may_end.set()
    await works[3].began.wait()
    for work in works:
        work.may_end.set()
    assert await asyncio.gather(*callers) == ["done"] * 4
    assert await executors.close(10)


@pytest.mark.parametrize("busy", ["run_text", "run_aside"])
async def test_neither_lane_waits_behind_the_other(one, busy):
    """Prompts and other texts have as many threads each."""
    held = Held()
    callers = [asyncio.create_task(getattr(one, busy)(held))]
    await held.began.wait()
    callers.append(asyncio.create_task(getattr(one, busy)(lambda: "later")))
    await idle()
    assert one.text_waiting == 1
    free = one.run_aside if busy == "run_text" else one.run_text
    assert await free(lambda: "at once") == "at once"
    assert one.text_waiting == 1
    held.may_end.set()
    assert await asyncio.gather(*callers) == ["done", "later"]


async def test_the_engine_has_one_thread_of_its_own(one):
    """It works while the text threads are busy, on the same thread each time."""
    held = Held()
    caller = asyncio.create_task(one.run_text(held))
    await held.began.wait()
    loop = asyncio.get_running_loop()
    names = {
        await loop.run_in_executor(one.engines[0], lambda: threading.current_thread().name)
        for _ in range(3)
    }
    assert len(names) == 1
    assert names.pop().startswith("hocket-engine")
    held.may_end.set()
    await caller


async def test_closing_waits_for_the_threads():
    """They are gone when it returns True; closing again changes nothing."""
    executors = Executors(ExecutorConfig())
    held = Held()
    caller = asyncio.create_task(executors.run_text(held))
    await held.began.wait()
    closing = asyncio.create_task(executors.close(20))
    await idle()
    assert not closing.done()
    held.may_end.set()
    assert await closing
    assert await caller == "done"
    assert await executors.close(0)
    with pytest.raises(RuntimeError):
        await executors.run_text(lambda: "late")
    assert executors.text_waiting == 0


@pytest.mark.parametrize("which", ["engine", "text"])
async def test_closing_does_not_wait_for_ever(which):
    """A thread that is stuck is told of; once it ends, closing again says so."""
    executors = Executors(ExecutorConfig())
    held = Held()
    caller = (
        asyncio.get_running_loop().run_in_executor(executors.engines[0], held)
        if which == "engine"
        else asyncio.ensure_future(executors.run_text(held))
    )
    await held.began.wait()
    assert not await executors.close(0)
    assert not await executors.close(0.02)
    held.may_end.set()
    assert await executors.close(20)
    assert await caller == "done"


def test_a_thread_may_outlive_the_loop(caplog):
    """What ends when the loop is gone finds nobody to tell, and says nothing."""
    ends: list[Held] = []
    executors: list[Executors] = []

    async def leave() -> None:
        executors.append(Executors(ExecutorConfig()))
        held = Held()
        ends.append(held)
        caller = asyncio.create_task(executors[0].run_text(held))
        await held.began.wait()
        caller.cancel()
        assert not await executors[0].close(0)

    asyncio.run(leave())
    ends[0].may_end.set()
    for thread in executors[0]._text._threads:
        thread.join(20)
    assert caplog.records == []
