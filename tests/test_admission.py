"""Places: all or none, in all and for each connection, always given back."""

import asyncio
import contextlib
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hocket.server.admission import Admission, AdmissionConfig, Permit
from hocket.server.errors import Overloaded

CONFIG = AdmissionConfig(max_running=3, max_waiting=2, max_per_connection=4)


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Door(RuleBasedStateMachine):
    """A door beside a list of who is inside and when others left."""

    @initialize(
        running=st.integers(1, 4),
        waiting=st.integers(0, 3),
        own=st.integers(1, 5),
        share=st.sampled_from([0.0, 0.5, 0.75, 1.0]),
    )
    def open(self, running: int, waiting: int, own: int, share: float) -> None:
        self.total, self.own, self.share = running + waiting, own, share
        self.clock = Clock()
        self.admission = Admission(
            AdmissionConfig(
                max_running=running,
                max_waiting=waiting,
                max_per_connection=own,
                document_share=share,
            ),
            self.clock,
        )
        self.inside: list[tuple[str, int, Permit]] = []
        self.further: list[Permit] = []
        self.outside: list[Permit] = []
        self.left: list[tuple[float, int]] = []
        self.refused = 0

    @property
    def taken(self) -> Counter[str]:
        taken: Counter[str] = Counter()
        for connection, places, _ in self.inside:
            taken[connection] += places
        return taken

    def rate(self) -> float:
        """Return the places given back in a second, as a mean over the last ten."""
        return sum(places * math.exp((at - self.clock.now) / 10) / 10 for at, places in self.left)

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(connection=st.sampled_from("abc"), places=st.integers(1, 6))
    def enter(self, connection: str, places: int) -> None:
        own, total = self.taken[connection], self.taken.total()
        if own + places <= self.own and total + places <= self.total:
            permit = self.admission.enter_nowait(connection, places)
            self.inside.append((connection, places, permit))
            return
        with pytest.raises(Overloaded) as caught:
            self.admission.enter_nowait(connection, places)
        self.refused += 1
        scope, limit, inside = (
            ("connection", self.own, own)
            if own + places > self.own
            else ("server", self.total, total)
        )
        assert caught.value.metadata == {"scope": scope, "limit": str(limit)}
        self.check_wait(caught.value.retry_after_seconds, places, limit, inside)

    @rule(connection=st.sampled_from("abc"), places=st.integers(1, 6))
    def enter_further(self, connection: str, places: int) -> None:
        """What is free, up to the share in all and of the connection; no refusal is counted."""
        taken = Counter[str]()
        for name, count, permit in self.inside:
            if permit in self.further:
                taken[name] += count
        has_room = (
            self.taken[connection] + places <= self.own
            and self.taken.total() + places <= self.total
            and taken[connection] + places <= self.share * self.own
            and taken.total() + places <= self.share * self.total
        )
        permit = self.admission.try_enter(connection, places)
        assert has_room == (permit is not None)
        if permit is not None:
            self.inside.append((connection, places, permit))
            self.further.append(permit)

    def check_wait(self, wait: float, places: int, limit: int, inside: int) -> None:
        if places > limit:
            assert wait < 0
            return
        assert 0.05 <= wait <= 30
        expected = max(places, inside / 2) / self.rate() if self.left else 1.0
        assert wait == pytest.approx(min(max(expected, 0.05), 30))

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.inside) - 1))
        _, places, permit = self.inside.pop(index)
        permit.release()
        self.outside.append(permit)
        self.left.append((self.clock.now, places))

    @precondition(lambda self: self.outside)
    @rule(data=st.data())
    def leave_again(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.outside)).release()

    @invariant()
    def the_books_balance(self) -> None:
        door, taken = self.admission.statistics(), self.taken
        assert (door.in_progress, door.connections, door.refused) == (
            taken.total(), len(taken), self.refused,
        )  # fmt: skip
        assert door.leave_rate == pytest.approx(self.rate())
        further = sum(places for _, places, permit in self.inside if permit in self.further)
        assert door.further == further <= self.share * self.total

    @rule()
    def take_all_that_is_free(self) -> None:
        """Free and taken places are all there are, also for strangers."""
        free = self.total - self.taken.total()
        permits = [self.admission.enter_nowait(f"stranger {n}") for n in range(free)]
        with pytest.raises(Overloaded):
            self.admission.enter_nowait("one too many")
        self.refused += 1
        for permit in permits:
            permit.release()
            self.left.append((self.clock.now, 1))

    def teardown(self) -> None:
        for *_, permit in self.inside:
            permit.release()
        door = self.admission.statistics()
        assert door.in_progress == door.connections == 0


TestDoor = Door.TestCase
TestDoor.settings = settings(max_examples=25, stateful_step_count=30)


@given(
    running=st.integers(1, 40),
    own=st.integers(1, 60),
    documents=st.integers(1, 5),
    share=st.floats(0, 0.75),
)
def test_documents_leave_places_for_others(running, own, documents, share):
    """However much they ask for: a quarter is kept, of their own connection and of all."""
    config = AdmissionConfig(
        max_running=running, max_waiting=20, max_per_connection=own, document_share=share
    )
    admission = Admission(config, Clock())
    for number in range(documents):
        while admission.try_enter(str(number)):
            pass
    kept = math.ceil((running + 20) / 4)
    permits = [admission.enter_nowait(f"stranger {number}") for number in range(kept)]
    door = admission.statistics()
    assert door.refused == 0
    assert door.further <= share * (running + 20)
    for permit in permits:
        permit.release()
    if own > 1:
        admission.enter_nowait("0", min(math.ceil(own / 4), kept))


@given(st.integers(1, 4), st.sampled_from([None, ValueError]))
def test_a_permit_is_a_block(places, error):
    """Its end gives the places back, however it ends; what was raised passes through."""
    admission = Admission(CONFIG, Clock())
    with contextlib.suppress(ValueError):
        with admission.enter_nowait("a", places) as permit:
            assert admission.statistics().in_progress == places
            if error:
                permit.release()
                raise error
    assert admission.statistics().in_progress == 0


@given(st.floats(0.01, 1.0), st.integers(1, 3))
def test_who_leaves_regularly_is_counted_as_often_as_he_leaves(pace, places):
    """The rate is places in a second, neither more nor less."""
    clock = Clock()
    admission = Admission(CONFIG, clock)
    for _ in range(math.ceil(60 / pace)):
        with admission.enter_nowait("a", places):
            clock.now += pace
    assert admission.statistics().leave_rate == pytest.approx(places / pace, rel=0.06)


@given(st.lists(st.floats(0, 20_000), max_size=20))
def test_the_longer_nobody_leaves_the_longer_is_the_wait(pauses):
    """However long: the wait grows to its bound and stays there."""
    clock = Clock()
    admission = Admission(CONFIG, clock)
    admission.enter_nowait("b").release()
    admission.enter_nowait("a", 4)
    waits = []
    for pause in pauses:
        clock.now += pause
        with pytest.raises(Overloaded) as caught:
            admission.enter_nowait("a")
        waits.append(caught.value.retry_after_seconds)
    assert sorted(waits) == waits


async def test_who_waits_outside_enters_once_there_is_room():
    """For all of its places, in the house and for its connection; nobody counts it as refused."""
    door = Admission(CONFIG)
    mine, other = door.enter_nowait("a", 3), door.enter_nowait("b")
    waiting = asyncio.create_task(door.enter("a", 2))
    other.release()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()  # two of five are free, one of its connection's four
    mine.release()
    permit = await waiting
    assert door.statistics().in_progress == 2
    assert door.statistics().refused == 0
    permit.release()


async def test_who_would_never_have_room_does_not_wait():
    with pytest.raises(Overloaded):
        await Admission(CONFIG).enter("a", 5)


async def test_who_gives_up_waiting_holds_nothing():
    door = Admission(CONFIG)
    inside = door.enter_nowait("a", 4)
    waiting = asyncio.create_task(door.enter("a"))
    await asyncio.sleep(0)
    waiting.cancel()
    inside.release()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert door.statistics().in_progress == 0
