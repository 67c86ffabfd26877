"""Many generations over one stream: no action of a caller disturbs a generation that it means not.

Bad ids, ids in use, cancels among too many requests, messages that are no actions.
"""

import asyncio
import gc
import warnings

import grpc
import pytest

from hocket.client import InvalidRequest
from hocket.server.lifecycle import Lifecycle
from hocket.server.rpc import many
from hocket.server.rpc.access import AccessLog
from hocket.server.rpc.many import ManyGenerations
from hocket.server.rpc.record import AccessRecord
from hocket.server.testing.scripted_runner import echo
from hocket.server.testing.serving import loopback_settings, serving
from hocket.v1 import generation_pb2, options_pb2
from service.raw_calls import cancel, end_of, generate, reason_of, send, stub_of
from service.turnstile import stepped

LONG = 3_000  # tokens; more than anyone waits for
BAD_IDS = {
    "missing": "",
    "long": "a" * 129,
    "huge": "a" * 3_000_000,
    "malformed": "a b",
    "not ASCII": "ü" * 128,
}


def text_of(end, name: str) -> bytes:
    return "".join(event.sentence.text for event in end.events if event.request_id == name).encode()


@pytest.mark.parametrize("bad", BAD_IDS.values(), ids=BAD_IDS)
async def test_a_bad_id_is_refused_and_cut_and_the_others_stay(logged, bad):
    """Even one that begins like the id of a generation in progress."""
    live = "a" * 128
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        call = stub_of(channel).GenerateMany()
        await send(call, generate(live), generate(bad), generate("b"))
        end = await end_of(call)
    assert end.code == "OK"
    (refusal,) = [event for event in end.events if event.WhichOneof("event") == "refused"]
    assert refusal.request_id == bad[:128]
    assert refusal.ByteSize() < 4_096
    assert reason_of(refusal.refused) == "FIELD_INVALID"
    for name in (live, "b"):
        assert text_of(end, name) == echo(b"hi")
        assert end.kinds(name)[-1] in {"finished", "refused"}
    assert all(len(str(line)) < 4_096 for line in logged)
    assert sum(line["code"] == "INVALID_ARGUMENT" for line in logged if line["event"] == "rpc") == 1


async def test_an_id_in_use_is_refused_and_its_owner_goes_on(logged):
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        call = stub_of(channel).GenerateMany()
        await send(call, generate("d"), generate("d"), generate("d"))
        end = await end_of(call)
    assert end.kinds().count("refused") == 2
    assert [kind for kind in end.kinds() if kind != "refused"][-1] == "finished"
    assert text_of(end, "d") == echo(b"hi")
    codes = [line["code"] for line in logged if line["event"] == "rpc"]
    assert sorted(codes) == ["ALREADY_EXISTS", "ALREADY_EXISTS", "OK"]


async def test_a_stream_gives_a_single_call_the_place_that_it_is_due(turnstile, settled):
    """In its first step, though all that the stream waits for was asked for before."""
    settings = loopback_settings(engine={"max_num_seqs": 3})
    model = stepped(turnstile)
    async with (
        serving(model, settings) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        turnstile,
    ):
        turnstile.close()
        call = stub_of(channel).GenerateMany()
        await send(call, *(generate(name, "many", max_tokens=50) for name in "abcdef"))
        await settled(
            app, lambda: len(app._driver._mailboxes) == 6
        )  # submitted, not reserved alone
        await turnstile.wait_held()
        await turnstile.step(2)
        assert model.runner.steps[-1] == "mmm"
        single = stub_of(channel).Generate(generate("x", "single", max_tokens=5).generate)
        await settled(app, lambda: len(app._driver._mailboxes) == 7)
        await turnstile.step(2)
        assert sorted(model.runner.steps[-1]) == sorted("mms")
        turnstile.open()
        assert (await end_of(single)).kinds()[-1] == "finished"
        end = await end_of(call)
    assert all(end.kinds(name)[-1] == "finished" for name in "abcdef")


async def test_an_id_in_use_by_another_call_fails_as_generate_does(turnstile):
    """On this stream it names nothing else, so `failed` is the request's own event."""
    async with (
        serving(stepped(turnstile)) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        turnstile,
    ):
        other = stub_of(channel).Generate(generate("x", max_tokens=LONG).generate)
        await other.read()
        call = stub_of(channel).GenerateMany()
        await send(call, generate("x"))
        end = await end_of(call)
        other.cancel()
    assert end.kinds("x") == ["failed"]
    assert reason_of(end.events[0].failed) == "REQUEST_ID_IN_USE"


async def test_our_client_takes_a_refusal_for_the_end_of_that_request(client_of):
    async with serving() as app, client_of(app) as client, client.generate_many() as stream:
        await stream.submit("hi", request_id="not good")
        await stream.submit("hi", request_id="good")
        with pytest.raises(ValueError, match="128"):
            await stream.submit("hi", request_id="a" * 129)
        stream.close_sending()
        results = dict([pair async for pair in stream.results()])
    assert isinstance(results["not good"], InvalidRequest)
    assert results["good"].text.encode() == echo(b"hi")


async def test_started_tells_an_id_that_the_server_made(client_of):
    """A caller without an id of its own can be named to an operator."""
    settings = loopback_settings(listener={"control": True})
    async with (
        serving(settings=settings) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        client_of(app) as operator,
    ):
        call = stub_of(channel).Generate(generate(max_tokens=LONG).generate)
        started = (await call.read()).started
        assert await operator.abort(started.request_id)
        end = await end_of(call)
    (completion,) = end.events[-1].finished.completions
    assert completion.finish_reason == options_pb2.FINISH_REASON_ABORTED


async def test_a_cancel_is_read_while_the_stream_has_no_room(turnstile):
    """Two run, two are held back; cancels of either kind are obeyed, in any order."""
    settings = loopback_settings(listener={"max_generations_per_stream": 2})
    async with (
        serving(stepped(turnstile), settings) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        turnstile,
    ):
        call = stub_of(channel).GenerateMany()
        await send(call, *(generate(name, max_tokens=LONG) for name in "abcd"), ends=False)
        for _ in "ab":
            assert (await call.read()).request_id in "ab"
        turnstile.close()
        await turnstile.wait_held()
        assert app._driver.in_progress == 2
        await send(call, *(cancel(name) for name in "dab"), generate("e"), cancel("c"))
        turnstile.open()
        end = await end_of(call)
    for name in "abcd":
        (last,) = [
            event for event in end.events if event.request_id == name and event.finished.ByteSize()
        ]
        (completion,) = last.finished.completions
        assert completion.finish_reason == options_pb2.FINISH_REASON_CANCELLED
        assert completion.completion_tokens < LONG
    assert text_of(end, "e") == echo(b"hi")


async def test_what_is_held_back_is_bounded(monkeypatch, turnstile, settled):
    """Beyond some requests, or some bytes of them, the stream is no longer read."""
    monkeypatch.setattr(many, "_MOST_HELD", 3)
    settings = loopback_settings(listener={"max_generations_per_stream": 1})
    begun = []
    accept = ManyGenerations._accept

    async def counted(self, request):
        begun.append(request.request_id)
        await accept(self, request)

    monkeypatch.setattr(ManyGenerations, "_accept", counted)
    async with (
        serving(stepped(turnstile), settings) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        turnstile,
    ):
        turnstile.close()
        call = stub_of(channel).GenerateMany()
        await send(call, *(generate(f"{number}") for number in range(20)))
        await settled(app, lambda: app._driver.in_progress == 1)
        await turnstile.wait_held()
        assert len(begun) <= 1 + 3
        turnstile.open()
        end = await end_of(call)
    assert [f"{number}" for number in range(20)] == begun
    assert end.kinds().count("finished") == 20


@pytest.mark.parametrize("bad", [b"\x1a\x00", b"", b"\xff\xff"], ids=["unknown", "empty", "broken"])
async def test_what_is_no_action_ends_the_stream_after_what_was_accepted(logged, bad):
    """Nothing more is read; the call has a line of its own, since somebody must be told."""
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        call = channel.stream_stream(
            "/hocket.v1.GenerationService/GenerateMany",
            response_deserializer=generation_pb2.GenerateManyResponse.FromString,
        )()
        for raw in (generate("k").SerializeToString(), generate("l").SerializeToString(), bad):
            await call.write(raw)
        end = await end_of(call)
    assert (end.code, end.reason) == ("INVALID_ARGUMENT", "FIELD_INVALID")
    for name in "kl":
        assert text_of(end, name) == echo(b"hi")
        assert end.kinds(name)[-1] == "finished"
    lines = [(line["code"], line["request_id"]) for line in logged if line["event"] == "rpc"]
    assert sorted(lines[:2]) == [("OK", "k"), ("OK", "l")]
    assert [code for code, _ in lines[2:]] == ["INVALID_ARGUMENT"]


@pytest.mark.parametrize("turns", range(6))
async def test_a_generation_that_is_left_before_its_task_ran_has_its_line(logged, turns):
    """Whichever turn of the loop the caller leaves in: one line for what was read, no warning."""

    async def requests():
        read.append("a")
        yield generate("a")
        await asyncio.Event().wait()

    class Silent:
        async def events(self, *_args, **_kwargs):
            await asyncio.Event().wait()
            yield

    read: list[str] = []
    call = AccessRecord(method="GenerateMany")
    generations = ManyGenerations(Silent(), AccessLog(), Lifecycle(), call=call, max_in_progress=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reading = asyncio.ensure_future(anext(generations.responses(requests())))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        gc.collect()
    assert [(line["request_id"], line["code"]) for line in logged] == [
        (name, "CANCELLED") for name in read
    ]
    assert len(read) == (turns > 0)
