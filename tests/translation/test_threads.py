"""A translator that blocks, behind the loop: failures, cuts, and who leaves."""

import asyncio
import itertools

import pytest

from hocket.server.errors import Draining, EngineFailed, GenerationFailed
from hocket.server.executors import ExecutorConfig, Executors
from hocket.server.translation.protocol import TranslationRequest
from hocket.server.translation.threads import ThreadedInterpreter
from translation.made_up import Upper


def request_of(text: str, pair=("en", "pt")) -> TranslationRequest:
    return TranslationRequest(text=text, pair=pair, request_id="d")


@pytest.fixture
async def executors():
    executors = Executors(ExecutorConfig(translator_threads=2))
    yield executors
    assert await executors.close(10)


async def test_as_many_threads_as_allowed_work_at_once(executors):
    upper = Upper(is_open=False)
    interpreter = ThreadedInterpreter(upper, executors.run_translator)
    texts = [f"text {number}" for number in range(7)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(interpreter.translate(request_of(text))) for text in texts]
        while len(upper.asked) < 2:
            upper.reached.clear()
            await upper.reached.wait()
        assert executors.translator_waiting == 5
        upper.open()
    assert [task.result().text for task in tasks] == [f"[{text.upper()}]" for text in texts]
    assert [asked[0] for asked in upper.asked[2:]] == texts[2:]
    assert upper.most == 2
    assert executors.translator_waiting == 0


async def test_a_failure_is_told_without_its_words(executors):
    told: list[Exception] = []
    interpreter = ThreadedInterpreter(Upper(), executors.run_translator, on_fault=told.append)
    with pytest.raises(GenerationFailed) as caught:
        await interpreter.translate(request_of("a bad one"))
    assert "secret" not in str(caught.value)
    assert [str(error) for error in told] == ["secret"]
    assert (await interpreter.translate(request_of("good"))).text == "[GOOD]"


@pytest.mark.parametrize("error_of", [Draining, EngineFailed])
async def test_after_a_cut_nobody_waits_for_a_thread(executors, error_of):
    upper = Upper(is_open=False)
    interpreter = ThreadedInterpreter(upper, executors.run_translator)
    tasks = [asyncio.create_task(interpreter.translate(request_of("x"))) for _ in range(5)]
    await upper.reached.wait()
    assert interpreter.cut_all_nowait(error_of) == 5
    for task in tasks:
        with pytest.raises(error_of):
            await task
    with pytest.raises(error_of):
        await interpreter.translate(request_of("later"))
    upper.open()


async def test_who_leaves_does_not_wait_and_frees_no_thread(executors):
    """The thread takes the next sentence when it is done with what nobody wants any more."""
    upper = Upper(is_open=False)
    interpreter = ThreadedInterpreter(upper, executors.run_translator)
    leaving = [asyncio.create_task(interpreter.translate(request_of("left"))) for _ in range(3)]
    while len(upper.asked) < 2:
        upper.reached.clear()
        await upper.reached.wait()
    for task in leaving:
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError)
        for end in await asyncio.gather(*leaving, return_exceptions=True)
    )
    staying = asyncio.create_task(interpreter.translate(request_of("stays")))
    while not executors.translator_waiting:
        await asyncio.sleep(0)
    assert len(upper.asked) == 2
    upper.open()
    assert (await staying).text == "[STAYS]"
    assert [asked[0] for asked in upper.asked] == ["left", "left", "stays"]


async def test_waiting_and_working_are_timed(executors):
    seconds: list[float] = []
    interpreter = ThreadedInterpreter(
        Upper(), executors.run_translator, observe=seconds.append, clock=itertools.count().__next__
    )
    assert (await interpreter.translate(request_of("x"))).queue == 1
    assert seconds == [1]
