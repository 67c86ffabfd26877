"""How far a stream has come: laws of a state without I/O, the same for both clients."""

import pytest

from client.fake_server import started
from hocket.client import ClientError, Draining, InvalidRequest, StreamError, _many_state
from hocket.client._calls import CallSettings
from hocket.client._channel import Connection
from hocket.client._collect import GenerationState
from hocket.client._many_state import MAX_UNSENT, Outbox
from hocket.client._retry import RetryPolicy
from hocket.v1 import generation_pb2

PASSING = Draining("no", code="UNAVAILABLE", reason="SERVER_DRAINING")
LASTING = InvalidRequest("no", code="INVALID_ARGUMENT", reason="FIELD_INVALID")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connection() -> Connection[None]:
    return Connection(None)


@pytest.fixture
def settings(clock) -> CallSettings:
    tokens = iter("abcdef")
    return CallSettings(
        token=lambda: next(tokens), timeout=9, retry=RetryPolicy(jitter=0), clock=clock
    )


@pytest.fixture
def state(settings, connection):
    return settings.stream(connection, 3)


def test_one_budget_for_all_attempts(state, clock) -> None:
    """Each attempt gets what the earlier ones and the waits left over, and a fresh token."""
    assert state.arguments() == {"timeout": 3, "metadata": (("authorization", "Bearer a"),)}
    clock.now += 1
    assert state.wait_after(PASSING) == 0.2
    clock.now += 0.5
    assert state.arguments() == {"timeout": 1.5, "metadata": (("authorization", "Bearer b"),)}
    clock.now += 2
    assert state.arguments()["timeout"] == 0


def test_a_stream_without_a_timeout_has_its_clients(settings, connection) -> None:
    """A watch has none at all, and is never made again."""
    assert settings.stream(connection, None).arguments()["timeout"] == 9
    watch = settings.watch(connection)
    assert watch.arguments()["timeout"] is None
    with pytest.raises(Draining):
        watch.wait_after(PASSING)


def test_a_failed_stream_fails_the_same_way_each_time(state) -> None:
    """For reading and for writing, also after it was closed."""
    with pytest.raises(InvalidRequest):
        state.wait_after(LASTING)
    state.close()
    for check in (state.check_open, state.check_unfinished):
        with pytest.raises(InvalidRequest) as caught:
            check()
        assert caught.value is LASTING


def test_a_waited_for_failure_leaves_the_stream_open(state) -> None:
    """It is over only with the last attempt."""
    for _ in range(3):
        state.wait_after(PASSING)
        state.check_unfinished()
    with pytest.raises(Draining):
        state.wait_after(PASSING)


@pytest.mark.parametrize("step", ["begin", "end", "forgo_repeats"])
def test_nothing_is_made_again_after(state, step) -> None:
    """Something has arrived, or what was sent is no longer known."""
    getattr(state, step)()
    with pytest.raises(Draining):
        state.wait_after(PASSING)


def test_the_end_can_be_read_and_not_written_to(state) -> None:
    """A reader learns of the end as often as it asks."""
    state.end()
    state.check_open()
    with pytest.raises(StreamError, match="closed"):
        state.check_unfinished()


def test_leaving_the_client_closes_its_streams(state, connection) -> None:
    """Whatever they were doing."""
    state.check_open()
    connection.is_closed = True
    assert state.is_closed
    with pytest.raises(StreamError, match="closed"):
        state.check_open()
    with pytest.raises(ClientError, match="closed during the call"):
        connection.check_open()


def test_each_attempt_begins_with_nothing() -> None:
    """Under a new id, unless the caller gave one."""
    generation = GenerationState(generation_pb2.GenerateRequest(prompt="x"))
    ids = set()
    for _ in range(3):
        ids.add(generation.begin().request_id)
        assert generation.texts == ("",)
        generation.take(started())
    assert len(ids) == 3
    named = GenerationState(generation_pb2.GenerateRequest(request_id="mine"))
    assert [named.begin().request_id for _ in range(2)] == ["mine"] * 2


def action(number: int) -> generation_pb2.GenerateManyRequest:
    request = generation_pb2.GenerateRequest(request_id=str(number))
    return generation_pb2.GenerateManyRequest(generate=request)


def test_a_new_attempt_sends_everything_in_order() -> None:
    """What was sent, then what was not, however often."""
    outbox = Outbox()
    actions = [action(number) for number in range(5)]
    for each in actions:
        outbox.put(each)
    for sent in (2, 4, 5):
        outbox.rewind()
        assert [outbox.take() for _ in range(sent)] == actions[:sent]
    assert outbox.take() is None


def test_the_outbox_keeps_a_bounded_size(monkeypatch) -> None:
    """Past the bound it forgets what was sent, and says so."""
    monkeypatch.setattr(_many_state, "MAX_KEPT_BYTES", 10 * action(0).ByteSize())
    outbox = Outbox()
    for number in range(10):
        outbox.put(action(number % 10))
        outbox.take()
        assert outbox.keeps_sent
    outbox.put(action(0))
    assert outbox.take() == action(0)
    assert not outbox.keeps_sent
    outbox.rewind()
    assert outbox.take() is None


def test_few_wait_while_somebody_takes() -> None:
    """So that submitting is no faster than sending."""
    outbox = Outbox()
    for number in range(MAX_UNSENT):
        assert outbox.has_room(is_served=True)
        outbox.put(action(number))
    assert not outbox.has_room(is_served=True)
    outbox.take()
    assert outbox.has_room(is_served=True)


def test_nobody_waits_for_room_that_nobody_makes(monkeypatch) -> None:
    """After an attempt ended unread: room for the next one, up to a bound, or an error."""
    monkeypatch.setattr(_many_state, "MAX_KEPT_BYTES", 200 * action(0).ByteSize())
    outbox = Outbox()
    for number in range(200):
        assert outbox.has_room(is_served=False)
        outbox.put(action(number % 10))
        if number % 3 == 0:
            outbox.take()
    assert not outbox.has_room(is_served=True)
    with pytest.raises(StreamError, match="tells why"):
        outbox.has_room(is_served=False)


def test_there_is_no_room_for_an_attempt_that_cannot_come() -> None:
    """After the first answer, an ended stream stays ended."""
    outbox = Outbox()
    outbox.forget()
    for number in range(MAX_UNSENT):
        assert outbox.has_room(is_served=False)
        outbox.put(action(number))
    with pytest.raises(StreamError, match="tells why"):
        outbox.has_room(is_served=False)
