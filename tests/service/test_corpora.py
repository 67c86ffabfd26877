"""Corpus jobs: every item that was read has one result, a bounded number at a time."""

import asyncio

import grpc
import pytest

from hocket.server.lifecycle import ServerState
from hocket.server.rpc.process import Corpora
from hocket.server.testing.scripted_runner import echo
from hocket.server.testing.serving import loopback_settings, serving
from hocket.v1 import generation_pb2, options_pb2, text_pb2, text_pb2_grpc
from running_app import app_of, running
from service.corpus_calls import (
    SPLIT,
    TOKENIZE,
    Request,
    done,
    item,
    job,
    refusal,
    results,
    start,
    violations,
    writing,
)
from service.raw_calls import NARROW, end_of, reason_of
from service.turnstile import stepped

LONG = 3_000


class Call:
    """A call that has come, and its job once it was let in."""

    job = None


@pytest.fixture
def calls(monkeypatch) -> list[Call]:
    """The calls that have come to the server."""
    come, let_in = [], Corpora._let_in

    async def told(*arguments):
        come.append(call := Call())
        call.job = await let_in(*arguments)
        return call.job

    monkeypatch.setattr(Corpora, "_let_in", told)
    return come


@pytest.mark.parametrize("in_order", [False, True])
async def test_each_item_is_continued_under_its_id(in_order):
    names = [f"text {number}" for number in range(200)]
    async with serving() as app:
        end = await done(
            app,
            start(generate=writing(), in_order=in_order, window=7),
            *(item(name, f"id of {name}") for name in names),
        )
    assert (end.code, end.kinds()) == ("OK", ["started", *["result"] * 200, "finished"])
    assert end.events[0].started.window == 7
    assert end.events[0].started.model == "scripted"
    found = results(end)
    assert sorted(each.index for each in found) == list(range(200))
    assert not in_order or [each.index for each in found] == list(range(200))
    for each in found:
        assert each.id == f"id of {names[each.index]}"
        assert each.generated.text.encode() == echo(names[each.index].encode())
        assert each.generated.finish_reason == options_pb2.FINISH_REASON_END_OF_TEXT
    finished = end.events[-1].finished
    assert (finished.items, finished.failed) == (200, 0)
    for name in ("prompt_tokens", "completion_tokens"):
        spent = sum(getattr(each.generated.usage, name) for each in found)
        assert getattr(finished.usage, name) == spent > 0


async def test_an_item_is_the_last_message_of_a_conversation():
    chat = generation_pb2.ChatInput(messages=[{"role": "system", "content": "Be brief."}])
    request = writing(chat=chat)
    async with serving() as app:
        end = await done(app, start(generate=request), item("one"), item("two"))
        request.chat.messages.add(role="user", content="one")
        async with grpc.aio.insecure_channel(app.address) as channel:
            alone = channel.unary_stream(
                "/hocket.v1.GenerationService/Generate",
                request_serializer=generation_pb2.GenerateRequest.SerializeToString,
                response_deserializer=generation_pb2.GenerateResponse.FromString,
            )(request)
            expected = "".join([event.sentence.text async for event in alone])
    (one,) = [each for each in results(end) if each.id == "one"]
    assert one.generated.text == expected != ""


async def test_texts_are_worked_on_as_alone():
    texts = ["One. Two!", "", "Ünïcödé. " * 900]
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = text_pb2_grpc.TextServiceStub(channel)
        tokens = await done(
            app, start(tokenize=TOKENIZE, in_order=True), *(item(text) for text in texts)
        )
        sentences = await done(
            app, start(split=SPLIT, in_order=True), *(item(text) for text in texts)
        )
        for text, each, other in zip(texts, results(tokens), results(sentences), strict=True):
            request = text_pb2.TokenizeRequest(text=text)
            assert await stub.Tokenize(request) == each.tokens
            request = text_pb2.SplitSentencesRequest(text=text)
            assert await stub.SplitSentences(request) == other.sentences
    assert tokens.events[0].started.model == "scripted"
    assert not sentences.events[0].started.model


async def test_nothing_more_is_read_while_a_window_has_no_result(turnstile, settled):
    """Whatever the caller sends; a result that was sent makes room for one item."""
    async with serving(stepped(turnstile)) as app:
        turnstile.close()
        texts = [f"{number}" for number in range(20)]
        async with job(
            app, start(generate=writing(), window=3), *(item(text) for text in texts)
        ) as call:
            await settled(app, lambda: app._driver.in_progress == 3)
            for _ in range(5):
                await turnstile.step()
                assert app._driver.in_progress == 3
            turnstile.open()
            end = await end_of(call)
    assert len(results(end)) == 20
    assert end.code == "OK"


async def test_in_order_results_that_wait_for_the_first_count_for_the_window(turnstile, settled):
    """So that what is held back is bounded."""
    lengths = {b"a": b"a" * 40, b"b": b"", b"c": b"", b"d": b""}
    async with serving(stepped(turnstile, script=lambda prompt: lengths.get(prompt, b""))) as app:
        turnstile.close()
        async with job(
            app,
            start(generate=writing(), window=3, in_order=True),
            *(item(text) for text in "abcd"),
        ) as call:
            await settled(app, lambda: app._driver.in_progress == 3)
            for _ in range(10):
                await turnstile.step()
            assert app._driver.in_progress == 1  # `d` is not read, though `b` and `c` are over
            turnstile.open()
            end = await end_of(call)
    assert [each.id for each in results(end)] == list("abcd")


async def test_items_wait_for_places_at_the_door(turnstile, settled):
    """The door holds two; nobody fails, and no more are inside."""
    settings = loopback_settings(admission={"max_running": 2, "max_waiting": 0})
    inside = []
    async with serving(stepped(turnstile), settings) as app:
        turnstile.close()
        async with job(
            app, start(generate=writing()), *(item(f"{number}") for number in range(12))
        ) as call:
            await settled(app, lambda: app._admission.statistics().in_progress == 2)
            for _ in range(20):
                await turnstile.step()
                inside.append(app._admission.statistics().in_progress)
            turnstile.open()
            end = await end_of(call)
        assert app._admission.statistics().refused == 0
    assert max(inside) == 2
    assert [each.WhichOneof("outcome") for each in results(end)] == ["generated"] * 12


BAD_ITEMS = {
    "long id": (item("x", "i" * 257), "FIELD_INVALID"),
    "long text": (item("x" * 262_145, "long"), "FIELD_INVALID"),
    "no prompt": (item("", "none"), "PROMPT_EMPTY"),
    "long prompt": (item("x" * 4_096, "p"), "PROMPT_TOO_LONG"),
    "raising": (item("RAISE", "r"), "GENERATION_FAILED"),
}


@pytest.mark.parametrize(("bad", "reason"), BAD_ITEMS.values(), ids=BAD_ITEMS)
async def test_an_item_that_fails_disturbs_no_other(logged, bad, reason):
    async with serving() as app:
        end = await done(
            app, start(generate=writing(), in_order=True), item("one"), bad, item("two")
        )
    before, failed, after = results(end)
    assert (before.generated.text, after.generated.text) == (
        echo(b"one").decode(),
        echo(b"two").decode(),
    )
    assert reason_of(failed.error) == reason
    assert failed.id == bad.item.id[:256]
    assert violations(failed.error) <= {"item.id", "item.text"}
    assert (end.events[-1].finished.items, end.events[-1].finished.failed) == (3, 1)
    (line,) = [line for line in logged if line["event"] == "rpc"]
    assert (line["method"], line["code"]) == ("Process", "OK")
    assert (line["items"], line["failed_items"]) == (3, 1)
    assert line["completion_tokens"] == end.events[-1].finished.usage.completion_tokens
    assert line["request_id"] == end.events[0].started.request_id


async def test_the_first_failure_ends_the_call_if_that_is_asked_for():
    """Its result says which item it was; the call has its status."""
    async with serving() as app:
        end = await done(
            app,
            start(generate=writing(), in_order=True, stop_on_error=True),
            *(item(text) for text in ("one", "RAISE", "two")),
        )
    assert end.kinds() == ["started", "result", "result"]
    assert results(end)[1].id == "RAISE"
    assert (end.code, end.reason) == ("INTERNAL", "GENERATION_FAILED")


async def test_all_that_is_wrong_with_a_start_is_told_at_once(logged):
    request = writing(prompt="mine", request_id="mine")
    request.sampling.temperature, request.sampling.top_p = 99, 2
    request.output.n, request.output.logprobs = 2, 1
    async with serving() as app:
        status = await refusal(app, start(generate=request, window=65), item("x"))
    names = ("prompt", "request_id", "sampling.temperature", "sampling.top_p", "output.n")
    assert violations(status) == {
        "start.window",
        "start.generate.output.logprobs",
        *(f"start.generate.{name}" for name in names),
    }
    assert [line["code"] for line in logged if line["event"] == "rpc"] == ["INVALID_ARGUMENT"]


REFUSED = {
    "no operation": ([start()], "FIELD_INVALID"),
    "no window": ([start(split=SPLIT, window=0)], "FIELD_INVALID"),
    "no start": ([item("x")], "FIELD_INVALID"),
    "nothing": ([], "FIELD_INVALID"),
    "no such model": ([start(generate=writing(model="nobody"))], "MODEL_NOT_FOUND"),
    "no such tokenizer": (
        [start(tokenize=text_pb2.TokenizeRequest(model="nobody"))],
        "MODEL_NOT_FOUND",
    ),
    "a text": ([start(split=text_pb2.SplitSentencesRequest(text="x"))], "FIELD_INVALID"),
    "tokens": ([start(tokenize=text_pb2.TokenizeRequest(text="x"))], "FIELD_INVALID"),
}


@pytest.mark.parametrize(("requests", "reason"), REFUSED.values(), ids=REFUSED)
async def test_a_job_that_is_not_let_in_has_no_event(requests, reason):
    async with serving() as app:
        end = await done(app, *requests)
    assert (end.events, end.reason) == ([], reason)


@pytest.mark.parametrize("bad", [start(split=SPLIT), Request()], ids=["start", "empty"])
async def test_what_is_no_item_ends_the_call_after_what_was_read(bad):
    async with serving() as app:
        end = await done(app, start(split=SPLIT), item("one"), item("two"), bad, item("three"))
    assert end.kinds() == ["started", "result", "result"]
    assert (end.code, end.reason) == ("INVALID_ARGUMENT", "FIELD_INVALID")


@pytest.mark.parametrize("has_started", [False, True])
async def test_an_idle_job_does_not_hold_the_drain(calls, has_started):
    settings = loopback_settings(drain={"grace_seconds": 3_600})
    async with asyncio.timeout(20), serving(settings=settings) as app:
        async with job(app, *[start(split=SPLIT)] * has_started, ends=False) as call:
            if has_started:
                assert (await call.read()).HasField("started")
            while not calls:
                await asyncio.sleep(0)
            app.leave()
            end = await end_of(call)
    assert (end.code, end.reason) == ("UNAVAILABLE", "SERVER_DRAINING")


async def test_a_drain_finishes_what_runs_and_says_so_of_the_rest(turnstile, settled, calls):
    """Two run, two wait at the door: these fail each, the call ends as draining."""
    settings = loopback_settings(
        admission={"max_running": 2, "max_waiting": 0}, drain={"grace_seconds": 3_600}
    )
    async with asyncio.timeout(20), serving(stepped(turnstile), settings) as app:
        turnstile.close()
        async with job(
            app,
            start(generate=writing(), window=4, in_order=True),
            *(item(text) for text in "abcdef"),
            ends=False,
        ) as call:
            await settled(app, lambda: app._admission.statistics().in_progress == 2)
            while calls[0].job._read < 4:
                await asyncio.sleep(0)
            app.leave()
            async for _ in app.lifecycle.states():
                if app.lifecycle.is_leaving:
                    break
            turnstile.open()
            end = await end_of(call)
    assert (end.code, end.reason) == ("UNAVAILABLE", "SERVER_DRAINING")
    outcomes = [reason_of(each.error) or each.generated.text[-9:] for each in results(end)]
    assert outcomes == ["Good bye!", "Good bye!", "SERVER_DRAINING", "SERVER_DRAINING"]


def code_of(task: asyncio.Task) -> str:
    return getattr(getattr(task.get_coro(), "cr_code", None), "co_filename", "")


@pytest.mark.parametrize("operation", ["generate", "tokenize"])
async def test_a_caller_that_leaves_leaves_nothing(turnstile, settled, logged, operation):
    """No generation, no place, no task; one line that says so."""
    fields = {"generate": {"generate": writing(LONG)}, "tokenize": {"tokenize": TOKENIZE}}
    async with serving(stepped(turnstile)) as app:
        requests = [start(**fields[operation]), *(item(f"{number}") for number in range(5))]
        async with job(app, *requests, ends=False) as call:
            assert (await call.read()).HasField("started")
            if operation == "generate":
                await settled(app, lambda: app._driver.in_progress == 5)
            else:
                for _ in range(5):
                    await call.read()
            call.cancel()
            await settled(app, lambda: any(line["event"] == "rpc" for line in logged))
        await settled(app, lambda: app._driver.in_progress == 0)
        assert app._admission.statistics().in_progress == 0
        while any("process.py" in code_of(task) for task in asyncio.all_tasks()):
            await asyncio.sleep(0)
    (line,) = [line for line in logged if line["event"] == "rpc"]
    assert line["code"] == "CANCELLED"


async def test_a_caller_that_does_not_read_is_told(settled, logged):
    """Results that wait for it hold their places at the door of texts, until it is given up."""
    settings = loopback_settings(listener={"write_seconds": 0.2, "max_message_kib": 256})
    texts = ["x" * 12_000] * 40
    async with serving(settings=settings) as app:
        async with job(
            app,
            start(tokenize=TOKENIZE),
            *(item(text) for text in texts[:20]),
            options=NARROW,
            ends=False,
        ):
            await settled(app, lambda: any(line["event"] == "rpc" for line in logged))
        end = await done(app, start(tokenize=TOKENIZE), *(item(text) for text in texts))
    assert (end.code, len(results(end))) == ("OK", 40)
    assert logged_reasons(logged) == ["READER_TOO_SLOW", ""]


def logged_reasons(logged: list) -> list[str]:
    return [line["reason"] or "" for line in logged if line["event"] == "rpc"]


async def test_an_engine_that_dies_ends_the_call_and_each_item(turnstile, settled):
    """Each is told, and so is the caller, who had more to send."""
    app = app_of(stepped(turnstile))
    async with running(app) as task:
        await app.lifecycle.wait_for(ServerState.SERVING)
        turnstile.close()
        requests = [start(generate=writing(LONG)), *(item(text) for text in "abc")]
        async with job(app, *requests, ends=False) as call:
            await settled(app, lambda: app._driver.in_progress == 3)
            await turnstile.wait_held()
            await turnstile.step(3)  # the newest are no longer suspected of what fails the others
            turnstile.error = MemoryError()
            turnstile.open()
            end = await end_of(call)
        assert await task == 1
    assert (end.code, end.reason) == ("UNAVAILABLE", "ENGINE_FAILED")
    assert [reason_of(each.error) for each in results(end)] == ["ENGINE_FAILED"] * 3
