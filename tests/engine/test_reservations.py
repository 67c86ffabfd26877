"""An id is taken from its reservation on: while a prompt is prepared, and until it is let go."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.drivers import DRIVERS
from hocket.server.engine.commands import FinishReason, Submit
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.core import EngineCore
from hocket.server.engine.driver import EngineDriver
from hocket.server.engine.ensemble import Ensemble
from hocket.server.engine.reservations import Reservations
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.errors import Draining, DuplicateRequest, EngineFailed, NotReady
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


class Entered:
    """An owner that lets everybody in, and tells who came and why they are to end at once."""

    def __init__(self) -> None:
        self.mailboxes, self.aborts = {}, {}
        self.reservations = Reservations(
            self, mailbox_bytes=1_000, is_in_progress=self.mailboxes.__contains__
        )

    def enter_nowait(self, submit, mailbox, abort_for) -> None:
        self.reservations.check_open()
        self.mailboxes[submit.request_id] = mailbox
        self.aborts[submit.request_id] = abort_for
        self.reservations.note_submitted(submit.request_id)

    def abort_nowait(self, request_id, reason) -> bool:
        return self.reservations.abort_nowait(request_id, reason)

    def forget_nowait(self, request_id, mailbox) -> None:
        self.reservations.give_back(request_id, mailbox)


@given(
    history=st.lists(
        st.tuples(
            st.sampled_from(["reserve", "submit", "abort", "close", "let go"]),
            st.sampled_from("ab"),
        ),
        max_size=40,
    )
)
def test_an_id_is_one_requests_from_its_reservation_until_it_is_let_go(history):
    """Whatever is done with it, in any order, by its holder or by those that had it before."""
    owner = Entered()
    held, before = {}, []
    for action, name in history:
        reserved, running = name in held, name in owner.mailboxes
        match action:
            case "reserve" if reserved or running:
                with pytest.raises(DuplicateRequest):
                    owner.reservations.reserve_nowait(name)
            case "reserve":
                held[name] = owner.reservations.reserve_nowait(name)
            case "submit" if reserved:
                held[name].submit_nowait(submit(name))
                before.append(held.pop(name))
            case "abort":
                assert owner.reservations.abort_nowait(name, FinishReason.ABORTED) is reserved
            case "close" if reserved:
                held[name].close_nowait()
                before.append(held.pop(name))
            case "let go":
                owner.mailboxes.pop(name, None)
        for generation in before:
            generation.close_nowait()  # takes nothing from who has the id now
        assert len(owner.reservations) == len(held)


def test_the_first_reason_to_end_is_handed_in_with_the_request():
    owner = Entered()
    for name, reasons in (("a", []), ("b", [FinishReason.ABORTED, FinishReason.CANCELLED])):
        generation = owner.reservations.reserve_nowait(name)
        for reason in reasons:
            assert owner.reservations.abort_nowait(name, reason)
        generation.submit_nowait(submit(name))
    assert owner.aborts == {"a": None, "b": FinishReason.ABORTED}


def test_who_comes_is_told_the_first_reason_and_of_a_death_that():
    """A reason counts for more than that nothing is to come, whichever was first."""
    owner = Entered()
    reservations = owner.reservations
    kept = [reservations.reserve_nowait(name) for name in "ab"]
    reservations.close()
    assert (reservations.is_closed, reservations.refusal) == (True, None)
    with pytest.raises(EngineFailed):
        reservations.reserve_nowait("c")
    with pytest.raises(EngineFailed):
        kept[0].submit_nowait(submit("a"))
    assert reservations.refuse(Draining) is reservations.refuse(NotReady) is Draining
    for ask in (reservations.check_open, lambda: kept[0].submit_nowait(submit("a"))):
        with pytest.raises(Draining):
            ask()
    assert len(reservations) == 2
    kept[1].close_nowait()
    assert len(reservations) == 1
    reservations.fail_all()
    assert len(reservations) == 0
    with pytest.raises(EngineFailed):
        reservations.check_open()
    assert owner.mailboxes == {}
