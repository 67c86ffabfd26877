"""What a drain does to the calls in progress: all that is accepted finishes, or is told why not."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from hocket.server.app import App
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.testing.scripted_runner import ScriptedRunner, echo
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from hocket.v1 import options_pb2
from service.raw_calls import asked, cancel, end_of, generate, send, stub_of
from service.turnstile import stepped

MANY = pytest.mark.parametrize("is_many", [False, True], ids=["generate", "generate_many"])
LONG = 3_000
DRAINED = ("UNAVAILABLE", "SERVER_DRAINING")


def by_token(name: str, prompt: str = "hi"):
    request = asked(name, prompt, max_tokens=LONG)
    request.output.granularity = options_pb2.GRANULARITY_TOKEN
    return request


async def wait_leaving(app: App) -> None:
    async for _ in app.lifecycle.states():
        if app.lifecycle.is_leaving:
            return


def cut_of(app: App) -> asyncio.Event:
    """Return what is set once the grace is over and all that runs is being ended."""
    cut, cut_all = asyncio.Event(), app._driver.cut_all_nowait

    def cut_all_nowait(failure):
        cut.set()
        return cut_all(failure)

    app._driver.cut_all_nowait = cut_all_nowait
    return cut


@asynccontextmanager
async def patient(model: ScriptedModel, **engine) -> AsyncIterator[App]:
    """Serve with a grace that no test waits for; see that it was not waited for."""
    settings = loopback_settings(engine=engine, drain={"grace_seconds": 3_600})
    async with asyncio.timeout(20), serving(model, settings) as app:
        yield app


@asynccontextmanager
async def hasty(model: ScriptedModel, **engine) -> AsyncIterator[App]:
    """Serve without any grace."""
    settings = loopback_settings(engine=engine, drain={"grace_seconds": 0})
    async with asyncio.timeout(20), serving(model, settings) as app:
        yield app


async def test_an_idle_stream_of_many_does_not_hold_the_drain():
    async with patient(ScriptedModel()) as app, grpc.aio.insecure_channel(app.address) as channel:
        call = stub_of(channel).GenerateMany()
        await send(call, generate("a"), ends=False)
        while (await call.read()).WhichOneof("event") != "finished":
            pass
        app.leave()
        end = await end_of(call)
    assert (end.code, end.reason, end.events) == (*DRAINED, [])


async def test_a_stream_of_many_finishes_what_it_accepted_and_still_reads_cancels(
    turnstile, settled
):
    async with (
        patient(stepped(turnstile)) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        turnstile,
    ):
        turnstile.close()
        call = stub_of(channel).GenerateMany()
        await send(call, generate("a"), generate("b", max_tokens=LONG), ends=False)
        await settled(app, lambda: app._driver.in_progress == 2)
        await turnstile.wait_held()
        app.leave()
        await wait_leaving(app)
        await send(call, cancel("b"), generate("late"), ends=False)
        late = await call.read()
        assert (late.request_id, late.WhichOneof("event")) == ("late", "failed")
        turnstile.open()
        end = await end_of(call)
    assert (end.code, end.reason) == DRAINED
    assert end.kinds("a")[-1] == end.kinds("b")[-1] == "finished"
    (b,) = [
        event.finished
        for event in end.events
        if event.request_id == "b" and event.finished.ByteSize()
    ]
    assert b.completions[0].finish_reason == options_pb2.FINISH_REASON_CANCELLED


async def test_what_a_stream_of_many_holds_back_is_told_at_once(turnstile):
    settings = loopback_settings(
        listener={"max_generations_per_stream": 1}, drain={"grace_seconds": 3_600}
    )
    async with (
        serving(stepped(turnstile), settings) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        turnstile,
    ):
        turnstile.close()
        call = stub_of(channel).GenerateMany()
        await send(call, *map(generate, "abc"))
        await turnstile.wait_held()
        app.leave()
        events = [await call.read() for _ in "bc"]
        assert [(event.request_id, event.WhichOneof("event")) for event in events] == [
            ("b", "failed"), ("c", "failed")
        ]  # fmt: skip
        turnstile.open()
        end = await end_of(call)
    assert end.code == "OK"  # nothing that the caller wanted is left
    assert end.kinds()[-1] == "finished"


@MANY
async def test_what_outlives_the_grace_is_told_why_after_its_text(
    turnstile, settled, logged, is_many
):
    """What runs keeps its text so far, to the last token; what waits has had no event at all."""
    async with (
        hasty(stepped(turnstile), max_num_seqs=1) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        turnstile,
    ):
        if is_many:
            call = stub_of(channel).GenerateMany()
            actions = [generate("r"), generate("w")]
            actions[0].generate.CopyFrom(by_token("r"))
            await send(call, *actions)
            calls = [call]
        else:
            calls = [stub_of(channel).Generate(by_token("r"))]
        await calls[0].read()
        if not is_many:
            calls.append(stub_of(channel).Generate(asked("w")))
        turnstile.close()
        await turnstile.wait_held()
        ends = asyncio.gather(*map(end_of, calls))
        cut = cut_of(app)
        await settled(app, lambda: app._driver.in_progress == 2)
        app.leave()
        await cut.wait()
        turnstile.open()
        ends = await ends
    if is_many:
        (end,) = ends
        assert end.codes() == {"r": ["UNAVAILABLE"], "w": ["UNAVAILABLE"]}
        assert end.kinds("w") == ["failed"]
        assert end.kinds("r")[-1] == "failed"
    else:
        running, waiting = ends
        assert (running.code, running.reason) == (waiting.code, waiting.reason) == DRAINED
        assert set(running.kinds()) == {"delta"}
        assert waiting.events == []
    lines = {line["request_id"]: line for line in logged if line["event"] == "rpc"}
    assert {"r", "w"} == {*lines}
    assert {line["code"] for line in lines.values()} == {"UNAVAILABLE"}
    assert lines["r"]["completion_tokens"] > 0


@pytest.mark.parametrize("is_resumable", [False, True])
async def test_the_text_so_far_holds_what_no_sentence_was_made_of(turnstile, is_resumable):
    """The splitter gives out what it has kept back, unless the stream can go on elsewhere."""
    async with (
        hasty(stepped(turnstile)) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        turnstile,
    ):
        turnstile.close()
        output = {} if is_resumable else {"logprobs": 0}
        call = stub_of(channel).Generate(asked("r", output=output))
        await turnstile.wait_held()
        await turnstile.step(6)
        ending = asyncio.ensure_future(end_of(call))
        cut = cut_of(app)
        app.leave()
        await cut.wait()
        turnstile.open()
        end = await ending
    assert (end.code, end.reason) == DRAINED
    text = "".join(event.sentence.text for event in end.events)
    assert bool(text) is not is_resumable
    assert echo(b"hi").startswith(text.encode())


async def test_an_engine_that_stands_still_keeps_nobody_from_hearing_why(turnstile):
    """It is not waited for without end: the status comes without the last of the text."""
    async with (
        hasty(stepped(turnstile)) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        turnstile,
    ):
        call = stub_of(channel).Generate(by_token("r"))
        await call.read()
        turnstile.close()
        await turnstile.wait_held()
        app.leave()
        end = await end_of(call)
        assert (end.code, end.reason) == DRAINED
        turnstile.open()


class HeldTokenizer(ByteTokenizer):
    """Stands still while it tokenises prompts that say so."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = asyncio.Event()
        self.released = threading.Event()
        self._loop = asyncio.get_running_loop()

    def encode(self, text: str, **kwargs: bool):
        if "HOLD" in text:
            self._loop.call_soon_threadsafe(self.entered.set)
            self.released.wait(20)
        return super().encode(text, **kwargs)


@MANY
async def test_what_is_still_being_tokenised_is_told_why(is_many):
    """Nobody waits for the thread that tokenises."""
    tokenizer = HeldTokenizer()
    model = ScriptedModel(ScriptedRunner(), tokenizer)
    async with hasty(model) as app, grpc.aio.insecure_channel(app.address) as channel:
        if is_many:
            call = stub_of(channel).GenerateMany()
            await send(call, generate("t", "HOLD"))
        else:
            call = stub_of(channel).Generate(asked("t", "HOLD"))
        await tokenizer.entered.wait()
        app.leave()
        end = await end_of(call)
        tokenizer.released.set()
    if is_many:
        assert end.codes() == {"t": ["UNAVAILABLE"]}
    else:
        assert (end.code, end.reason, end.events) == (*DRAINED, [])


@MANY
async def test_an_id_is_taken_while_its_prompt_is_tokenised(client_of, is_many):
    """No second request runs under it, and an operator can end it."""
    tokenizer = HeldTokenizer()
    model = ScriptedModel(ScriptedRunner(), tokenizer)
    settings = loopback_settings(listener={"control": True})
    async with (
        serving(model, settings) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        client_of(app) as operator,
    ):
        if is_many:
            call = stub_of(channel).GenerateMany()
            await send(call, generate("t", "HOLD"))
        else:
            call = stub_of(channel).Generate(asked("t", "HOLD"))
        await tokenizer.entered.wait()
        second = await end_of(stub_of(channel).Generate(asked("t")))
        assert second.reason == "REQUEST_ID_IN_USE"
        assert await operator.abort("t")
        tokenizer.released.set()
        end = await end_of(call)
        (completion,) = end.events[-1].finished.completions
        assert completion.finish_reason == options_pb2.FINISH_REASON_ABORTED
        assert (await end_of(stub_of(channel).Generate(asked("t")))).code == "OK"
