"""The door before corpus jobs: each gets on, and all together leave the rest to others."""

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hocket.server.admission import Admission, AdmissionConfig, Permit
from hocket.server.errors import Overloaded
from hocket.server.rpc.corpus_door import CorpusDoor


def open_door(running: int, share: float, own: int = 128) -> Admission:
    return Admission(
        AdmissionConfig(
            max_running=running, max_waiting=0, max_per_connection=own, document_share=share
        )
    )


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=20), min_size=1, max_size=4),
    places=st.integers(12, 30),
    share=st.sampled_from([0.0, 0.3, 0.75, 1.0]),
    own=st.integers(6, 40),
    data=st.data(),
)
def test_jobs_get_on_within_their_share(sizes, places, share, own, data):
    """Whoever of those inside leaves first: the first item of each job apart, all are a share."""

    async def run() -> None:
        admission = open_door(places, share, own)
        inside: list[Permit] = []
        begun: list[tuple[int, int]] = []

        async def item(job: int, number: int, door: CorpusDoor, size: int) -> None:
            permit = await door.enter(size)
            begun.append((job, number))
            inside.append(permit)

        doors = [CorpusDoor(admission, f"connection {job % 2}") for job in range(len(sizes))]
        async with asyncio.TaskGroup() as tasks:
            for job, items in enumerate(sizes):
                for number, size in enumerate(items):
                    tasks.create_task(item(job, number, doors[job], size))
            while len(begun) < sum(map(len, sizes)):
                for _ in range(200):
                    await asyncio.sleep(0)
                assert inside  # whoever waits, waits for somebody
                door = admission.statistics()
                assert door.further <= math.floor(share * places)
                assert door.in_progress <= door.further + 3 * len(sizes)
                inside.pop(data.draw(st.integers(0, len(inside) - 1))).release()
        for permit in inside:
            permit.release()
        for job, items in enumerate(sizes):  # in the order in which they were read
            assert [number for each, number in begun if each == job] == list(range(len(items)))
        assert admission.statistics().in_progress == 0
        assert admission.statistics().refused == 0

    asyncio.run(run())


async def test_an_item_that_no_longer_waits_takes_nothing():
    admission = open_door(1, 0.75)
    door = CorpusDoor(admission, "c")
    permit = await door.enter()
    waiting = [asyncio.create_task(door.enter()) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting[:2]:
        task.cancel()
    permit.release()
    with await waiting[2]:
        assert [task.cancelled() for task in waiting] == [True, True, False]
        assert admission.statistics().in_progress == 1
    assert admission.statistics().in_progress == 0


async def test_what_never_fits_is_refused():
    door = CorpusDoor(open_door(2, 0.75), "c")
    with pytest.raises(Overloaded):
        await door.enter(3)
    with await door.enter(2):
        pass


async def test_what_is_too_large_for_the_share_waits_to_be_first():
    admission = open_door(4, 0.5)
    door = CorpusDoor(admission, "c")
    first, further = await door.enter(), await door.enter()
    large = asyncio.create_task(door.enter(3))
    further.release()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not large.done()
    first.release()
    with await large:
        assert admission.statistics().in_progress == 3
