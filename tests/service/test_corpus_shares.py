"""Corpus jobs beside single calls: none is refused for them, and none waits for their items."""

import asyncio

import grpc
import pytest

from hocket.server.rpc import porch
from hocket.server.testing.serving import loopback_settings, serving
from hocket.v1 import document_pb2, generation_pb2, text_pb2, text_pb2_grpc
from service.corpus_calls import TOKENIZE, item, job, results, start, writing
from service.raw_calls import NARROW, end_of, stub_of
from service.turnstile import stepped

TRANSFORM = document_pb2.TransformStart(instruction="Do: ", cache=False)


async def test_jobs_that_fill_their_share_have_no_single_call_refused(turnstile, settled):
    """Of eight places four are kept: three jobs have one of them each, the last is for calls."""
    sections = {"admission": {"max_running": 8, "max_waiting": 0, "document_share": 0.5}}
    async with (
        asyncio.timeout(20),
        serving(stepped(turnstile), loopback_settings(**sections)) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        turnstile.close()
        items = [item(f"{number}. More. And more.") for number in range(40)]
        async with (
            job(app, start(generate=writing()), *items) as one,
            job(app, start(transform=TRANSFORM), *items) as two,
            job(app, start(generate=writing(), in_order=True), *items) as three,
        ):
            await settled(app, lambda: app._admission.statistics().in_progress == 7)
            turnstile.open()
            ends = [asyncio.create_task(end_of(call)) for call in (one, two, three)]
            count, most = 0, 0
            while not all(task.done() for task in ends):
                single = await end_of(
                    stub_of(channel).Generate(generation_pb2.GenerateRequest(prompt="single"))
                )
                assert single.code == "OK"
                count += 1
                most = max(most, app._admission.statistics().in_progress)
        assert most <= 7
        assert count > 3
        assert app._admission.statistics().refused == 0
    for task in ends:
        assert task.result().code == "OK"
        assert len(results(task.result())) == 40
        assert {each.WhichOneof("outcome") for each in results(task.result())} <= {
            "generated",
            "transformed",
        }


async def test_jobs_that_nobody_reads_have_no_single_text_refused(monkeypatch):
    """Their results hold their places: of the 20 that the door of texts has 15, and one each."""
    doors, make = [], porch.text_admission

    def made(*arguments):
        doors.append(make(*arguments))
        return doors[-1]

    monkeypatch.setattr(porch, "text_admission", made)
    settings = loopback_settings(listener={"max_message_kib": 256})
    items = [item("x" * 12_000, str(number)) for number in range(40)]
    async with asyncio.timeout(20), serving(settings=settings) as app:

        def unread():
            own = ("grpc.use_local_subchannel_pool", 1)  # a connection of its own
            return job(app, start(tokenize=TOKENIZE), *items, options=[*NARROW, own], ends=False)

        async with unread(), unread(), unread():
            while doors[0].statistics().in_progress < 18:
                await asyncio.sleep(0)
            async with grpc.aio.insecure_channel(app.address) as channel:
                stub = text_pb2_grpc.TextServiceStub(channel)
                for _ in range(30):
                    await stub.Tokenize(text_pb2.TokenizeRequest(text="single"))
            assert doors[0].statistics().in_progress == 18
        assert doors[0].statistics().refused == 0


@pytest.mark.parametrize(
    "operation",
    [{"generate": writing(3_000)}, {"transform": TRANSFORM}],
    ids=["generate", "transform"],
)
async def test_the_items_of_a_job_are_one_group(turnstile, settled, operation):
    """A single call has a seat in the step in which it comes, though items hold all of them."""
    sections = {"engine": {"max_num_seqs": 3}}
    model = stepped(turnstile, script=lambda _: b"long " * 300)
    async with asyncio.timeout(20), serving(model, loopback_settings(**sections)) as app:
        turnstile.close()
        async with (
            grpc.aio.insecure_channel(app.address) as channel,
            job(app, start(**operation), *map(item, "abcdef"), ends=False),
        ):
            await settled(app, lambda: len(app._driver._mailboxes) == 6)
            await turnstile.step(5)
            call = stub_of(channel).Generate(generation_pb2.GenerateRequest(prompt="single"))
            await settled(app, lambda: len(app._driver._mailboxes) == 7)
            await turnstile.step(2)
            assert "s" in model.runner.steps[-1]
            call.cancel()
            turnstile.open()
