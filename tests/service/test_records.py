"""Every call that ended has exactly one line, with the code that its caller saw.

A call that carries many generations has one for each of them, and one of its own if it failed.
"""

import asyncio
import contextlib

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.engine.commands import (
    Completion,
    Finished,
    FinishReason,
    RequestOutput,
    Started,
    TextOutput,
    Timings,
)
from hocket.server.errors import EngineFailed
from hocket.server.lifecycle import ServerState
from hocket.server.observe.metrics import Metrics
from hocket.server.rpc.patience import Patience
from hocket.server.rpc.record import AccessRecord
from hocket.server.testing.serving import serving
from hocket.server.text.pieces import Piece, PieceKind
from hocket.v1 import generation_pb2, options_pb2, text_pb2, text_pb2_grpc
from running_app import app_of, running
from service.raw_calls import End, asked, end_of, send, stub_of
from service.turnstile import stepped

LONG = 3_000
MANY = pytest.mark.parametrize("is_many", [False, True], ids=["generate", "generate_many"])


class Caller:
    """Makes one request either way and says what came of it."""

    def __init__(self, channel: grpc.aio.Channel, *, is_many: bool) -> None:
        self.stub = stub_of(channel)
        self.is_many = is_many

    async def ask(self, request, *, seconds: float | None = None, reads: int = 0):
        """Begin a call and read so many events."""
        if self.is_many:
            call = self.stub.GenerateMany(timeout=seconds, metadata=(("x-request-id", "mine"),))
            action = generation_pb2.GenerateManyRequest(generate=request)
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                await send(call, action)
        else:
            call = self.stub.Generate(
                request, timeout=seconds, metadata=(("x-request-id", "mine"),)
            )
        for _ in range(reads):
            await call.read()
        return call

    def check(self, name: str, end: End, logged: list) -> dict:
        """See that the lines tell what was seen; return the generation's."""
        method = "GenerateMany" if self.is_many else "Generate"
        lines = [line for line in logged if line["event"] == "rpc" and line["method"] == method]
        own = [line for line in lines if line["request_id"] == name]
        assert len(own) == 1, lines
        assert own[0]["correlation_id"] == "mine"
        seen = end.codes().get(name, [end.code]) if self.is_many else [end.code]
        assert [own[0]["code"]] == seen
        others = [
            line["code"] for line in lines if line is not own[0] and line["peer"] == own[0]["peer"]
        ]
        assert others == ([end.code] if self.is_many and end.code != "OK" else [])
        return own[0]


def plain():
    return asked("v")


def bad():
    request = asked("v")
    request.sampling.temperature = 99
    return request


REFUSED = {
    "whole": (plain, "OK"),
    "invalid": (bad, "INVALID_ARGUMENT"),
    "no such model": (lambda: asked("v", model="nobody"), "NOT_FOUND"),
    "too long": (lambda: asked("v", "x" * 4_096), "INVALID_ARGUMENT"),
    "failing": (lambda: asked("v", "RAISE"), "INTERNAL"),
}


@MANY
@pytest.mark.parametrize(("make", "code"), REFUSED.values(), ids=REFUSED)
async def test_a_call_that_ends_by_itself(logged, make, code, is_many):
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        caller = Caller(channel, is_many=is_many)
        end = await end_of(await caller.ask(make()))
    assert caller.check("v", end, logged)["code"] == code


@MANY
@pytest.mark.parametrize("moment", ["decode", "prefill"])
async def test_a_call_that_its_caller_left(turnstile, settled, logged, moment, is_many):
    async with (
        serving(stepped(turnstile)) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        turnstile,
    ):
        caller = Caller(channel, is_many=is_many)
        request = asked("v", max_tokens=LONG)
        request.output.granularity = options_pb2.GRANULARITY_TOKEN
        if moment == "prefill":
            turnstile.close()
            call = await caller.ask(request)
        else:
            call = await caller.ask(request, reads=5)
            turnstile.close()
        await turnstile.wait_held()
        call.cancel()
        await settled(app, lambda: app._admission.statistics().in_progress == 0)
        turnstile.open()
    line = caller.check("v", End(code="CANCELLED"), logged)
    if moment == "decode":  # what was handed out is told, although no end ever came
        assert line["completion_tokens"] > 0
        assert 0 < line["queue_ms"] <= line["ttft_ms"]
    assert line["prompt_tokens"] == 2


@MANY
@pytest.mark.parametrize("moment", ["decode", "prefill"])
async def test_a_call_whose_deadline_passed(turnstile, settled, logged, moment, is_many):
    """To the caller's own clock, which is the first to see it."""
    async with (
        serving(stepped(turnstile)) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        turnstile,
    ):
        caller = Caller(channel, is_many=is_many)
        turnstile.close()
        call = await caller.ask(asked("v", max_tokens=LONG), seconds=0.5)
        await turnstile.wait_held()
        if moment == "decode":
            await turnstile.step(3)
        end = await end_of(call)
        await settled(app, lambda: app._admission.statistics().in_progress == 0)
        turnstile.open()
    assert end.code == "DEADLINE_EXCEEDED"
    caller.check("v", end, logged)


@MANY
async def test_a_call_whose_engine_died(turnstile, logged, is_many):
    app = app_of(stepped(turnstile))
    async with running(app) as task:
        await app.lifecycle.wait_for(ServerState.SERVING)
        async with grpc.aio.insecure_channel(app.address) as channel:
            caller = Caller(channel, is_many=is_many)
            request = asked("v", max_tokens=LONG)
            request.output.n = 2  # who fails alone does not bring the engine down
            call = await caller.ask(request, reads=1)
            turnstile.error = OSError("gone")
            end = await end_of(call)
        assert await task == 1
    end.events = [event for event in end.events if event.WhichOneof("event") != "started"]
    line = caller.check("v", end, logged)
    assert (line["code"], line["reason"]) == ("UNAVAILABLE", "ENGINE_FAILED")


@MANY
async def test_a_call_that_runs_into_a_bug(monkeypatch, logged, is_many):
    """Wherever it is; and no word of it goes to the caller."""

    def bug(*_args, **_kwargs):
        raise RuntimeError("secret")

    monkeypatch.setattr("hocket.server.rpc.generator.EventRenderer", bug)
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        caller = Caller(channel, is_many=is_many)
        end = await end_of(await caller.ask(asked("v")))
    assert "secret" not in str(end)
    assert caller.check("v", end, logged)["code"] == "INTERNAL"


@MANY
async def test_no_text_of_an_exception_finds_a_way_around_the_net(monkeypatch, logged, is_many):
    """Not even from where the answer is written; the log has it."""

    async def wait(_patience, write):
        write.close()
        raise RuntimeError("secret")

    monkeypatch.setattr(Patience, "wait", wait)
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        caller = Caller(channel, is_many=is_many)
        call = await caller.ask(asked("v"))
        end = await end_of(call)
        assert "secret" not in await call.details()
    assert (end.code, end.reason, end.events) == ("INTERNAL", "INTERNAL", [])
    assert [line["event"] for line in logged].count("bug") == 1
    assert "INTERNAL" in {line["code"] for line in logged if line["event"] == "rpc"}


@MANY
async def test_an_observer_that_raises_changes_nothing(monkeypatch, logged, is_many):
    def observe(*_args):
        raise RuntimeError("secret")

    monkeypatch.setattr(Metrics, "observe_request", observe)
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        caller = Caller(channel, is_many=is_many)
        end = await end_of(await caller.ask(asked("v")))
        texts = text_pb2_grpc.TextServiceStub(channel)
        assert (await texts.Tokenize(text_pb2.TokenizeRequest(text="a"))).tokens
    assert caller.check("v", end, logged)["code"] == "OK"


class Hands:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def output_of(*counts: int, kind: PieceKind = PieceKind.DELTA, **fields) -> RequestOutput:
    """Return an output with so many tokens for each choice."""
    texts = tuple(
        TextOutput(choice, Piece("x", 0, 1, kind), (7,) * count)
        for choice, count in enumerate(counts)
        if count
    )
    return RequestOutput(request_id="r", texts=texts, **fields)


STARTED = Started(prompt_tokens=5, cached_tokens=2)


def finished(tokens: int) -> Finished:
    completion = Completion(
        index=0, finish_reason=FinishReason.MAX_TOKENS, completion_tokens=tokens, text_bytes=1
    )
    return Finished(
        completions=(completion,),
        prompt_tokens=5,
        cached_tokens=2,
        completion_tokens=tokens,
        timings=Timings(queue=0.5, prefill=0.25, first_token=0.75, first_text=0.875, total=3.0),
    )


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=8), max_size=12))
def test_gaps_between_tokens_are_those_of_each_choice(steps):
    """However many choices are written at once: their gaps add up to the time of each."""
    clock = Hands()
    record = AccessRecord(method="Generate", clock=clock, is_by_token=True)
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    gaps = 0
    for counts in steps:
        clock.now += 1.0
        record.note_output(output_of(*counts))
        for choice, count in enumerate(counts):
            if count:
                gaps += count if choice in first else 0
                first.setdefault(choice, clock.now)
                last[choice] = clock.now
    assert len(record.itl_seconds) == gaps
    written = sum(last[choice] - first[choice] for choice in first)
    assert sum(record.itl_seconds) == pytest.approx(written)
    assert record.completion_tokens == sum(map(sum, steps))


@pytest.mark.parametrize("kind", [PieceKind.DELTA, PieceKind.SENTENCE])
def test_only_sentences_have_a_first_one(kind):
    clock = Hands()
    record = AccessRecord(method="Generate", clock=clock)
    record.note_output(output_of(started=STARTED))
    clock.now += 1
    record.note_output(output_of(3, kind=kind))
    seen = None if kind is PieceKind.DELTA else 1.0
    assert (record.ttfs_seconds, record.ttft_seconds) == (seen, None)
    record.note_output(output_of(finished=finished(9)))
    ended = record.finish()
    assert ended.ttfs_seconds == (None if kind is PieceKind.DELTA else 0.875)
    assert (ended.queue_seconds, ended.ttft_seconds, ended.completion_tokens) == (0.5, 0.75, 9)


def test_what_was_cut_short_is_told_as_it_was_seen():
    clock = Hands()
    record = AccessRecord(method="Generate", clock=clock, is_by_token=True)
    clock.now += 2
    record.note_output(output_of(started=STARTED))
    clock.now += 1
    record.note_output(output_of(2, 3))
    record.note_left()
    record.note_failure(EngineFailed())  # comes too late: the caller was gone
    ended = record.finish()
    assert (ended.code, ended.reason, ended.finish_reason) == ("CANCELLED", "", "")
    assert (ended.queue_seconds, ended.ttft_seconds, ended.completion_tokens) == (2.0, 3.0, 5)
    assert (ended.prompt_tokens, ended.cached_tokens) == (5, 2)


@pytest.mark.parametrize(
    ("after", "left", "whole"),
    [
        (5.0, "CANCELLED", "OK"),
        (9.5, "CANCELLED", "OK"),
        (9.95, "DEADLINE_EXCEEDED", "OK"),
        (10.0, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
        (11.0, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
    ],
)
def test_a_call_that_is_left_at_its_deadline_was_left_because_of_it(after, left, whole):
    """A caller's clock is a little ahead; past the deadline no caller takes an answer for whole."""
    clock = Hands()
    call = AccessRecord(
        method="GenerateMany", clock=clock, deadline=110.0, peer="p", correlation_id="c"
    )
    records = call.child("a"), call.child("b")
    assert records[0].remaining_seconds() == 10.0
    clock.now += after
    total = clock.now - call.arrived
    records[0].note_left()
    records[1].note_whole()
    assert [left, whole] == [record.code for record in records]
    assert {("p", "c", total)} == {
        (record.peer, record.correlation_id, record.finish().total_seconds) for record in records
    }
