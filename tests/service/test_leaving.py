"""A caller that leaves frees its place within one step of the engine, whenever and however it goes.

Each scene brings one request, `v`, to a moment of its life and holds the engine there, so that
nothing but leaving can end it. Once the server knows that the caller left, the step in progress may
still hold the request, and no later one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hocket.server.app import App
from hocket.server.engine.commands import Abort
from hocket.server.testing.scripted_runner import echo
from hocket.server.testing.serving import loopback_settings, serving
from hocket.v1 import generation_pb2, generation_pb2_grpc, options_pb2
from service.turnstile import RecordingRunner, Turnstile, stepped

MOMENTS = pytest.mark.parametrize("moment", ["queued", "prefill", "decode", "suspended"])
# Little fits on the way to a caller that does not read, which stops its handler at a write.
NARROW = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
STEP_TOKENS = 8


def request_of(name: str, *, max_tokens: int = 0) -> generation_pb2.GenerateRequest:
    """Return a request for one piece of text, without a natural end if `max_tokens` is given."""
    request = generation_pb2.GenerateRequest(prompt=name, request_id=name)
    request.output.granularity = options_pb2.GRANULARITY_FULL
    if max_tokens:
        request.stopping.ignore_eos, request.stopping.max_tokens = True, max_tokens
    return request


def leaver_of(moment: str) -> generation_pb2.GenerateRequest:
    """Return `v`, which has much to tell at each step."""
    request = request_of("v", max_tokens=3_500)
    request.prompt = "v" * (100 if moment == "prefill" else 1)
    request.output.granularity = options_pb2.GRANULARITY_TOKEN
    request.output.logprobs = 20
    return request


def of_many(request: generation_pb2.GenerateRequest) -> generation_pb2.GenerateManyRequest:
    """Return it as an action; urgent, since one stream has but one share of the seats."""
    request.priority = -1
    return generation_pb2.GenerateManyRequest(generate=request)


@dataclass
class Scene:
    """A held engine that writes for others, `w` who waits for a place, and `v` who will leave."""

    app: App
    runner: RecordingRunner
    turnstile: Turnstile
    settled: Callable
    moment: str
    others: grpc.aio.Channel
    channel: grpc.aio.Channel

    @property
    def stub(self) -> generation_pb2_grpc.GenerationServiceStub:
        return generation_pb2_grpc.GenerationServiceStub(self.channel)

    async def wait_submitted(self, name: str) -> None:
        await self.settled(self.app, lambda: name in self.app._driver._mailboxes)

    async def bring_to_moment(self) -> grpc.aio.UnaryStreamCall:
        """Let `v` come as far as it shall, with the engine held there; return the call of `w`."""
        await self.wait_submitted("v")
        await (
            self.turnstile.step()
        )  # it has its seat before `w` comes, whoever else its group holds
        waiting = generation_pb2_grpc.GenerationServiceStub(self.others).Generate(request_of("w"))
        await self.wait_submitted("w")
        await self.turnstile.step()
        if self.moment in {"prefill", "decode"}:
            await self.turnstile.step(3)
        while self.moment == "suspended" and not await self._is_suspended():
            await self.turnstile.step(16)
        return waiting

    async def check_freed(self) -> None:
        """See that the step in progress was the last with `v`, and that its place is taken."""
        await self.settled(self.app, self._is_told)
        known = len(self.runner.steps)
        company = set(self.runner.steps[-1]) - {"v"}
        await self.turnstile.step(3)
        in_progress, *later = map(set, self.runner.steps[known:])
        if self.moment == "queued":
            assert [in_progress, *later] == [company] * 3
            assert self.app.statistics().waiting_sequences == 1
        else:
            assert in_progress == company | {"v"}
            assert later == [company | {"w"}] * 2

    def _is_told(self) -> bool:
        return any(
            isinstance(command, Abort) and command.request_id == "v"
            for command in self.app._driver._inbox
        )

    async def _is_suspended(self) -> bool:
        """Whether outputs wait although the server was free to send them."""
        health = health_pb2_grpc.HealthStub(self.others)
        for _ in range(3):
            await health.Check(health_pb2.HealthCheckRequest())
        return self.app._driver._mailboxes["v"].waiting_bytes > 0


@asynccontextmanager
async def scene_of(
    moment: str, turnstile: Turnstile, settled: Callable, *, seats: int = 2
) -> AsyncIterator[Scene]:
    """Hold a server that writes `b` for somebody; see it at rest when the block has ended."""
    turnstile.open()
    engine = {
        "max_num_seqs": seats - (moment == "queued"),
        "max_step_tokens": STEP_TOKENS,
    }
    model = stepped(turnstile)
    options = NARROW if moment == "suspended" else []
    async with serving(model, loopback_settings(engine=engine)) as app:
        async with (
            grpc.aio.insecure_channel(app.address) as others,
            grpc.aio.insecure_channel(app.address, options=options) as channel,
        ):
            stub = generation_pb2_grpc.GenerationServiceStub(others)
            call = stub.Generate(request_of("b", max_tokens=3_500))
            await call.read()
            turnstile.close()
            await turnstile.wait_held()
            async with turnstile:
                yield Scene(app, model.runner, turnstile, settled, moment, others, channel)
                call.cancel()
        await settled(app, lambda: app._driver.in_progress == 0)
        assert app.statistics().blocks_used == 0
        assert app._admission.statistics().in_progress == 0


async def text_of(call: grpc.aio.UnaryStreamCall) -> bytes:
    return "".join([event.delta.text async for event in call]).encode()


@MOMENTS
@pytest.mark.parametrize("way", ["cancel", "disconnect"])
@pytest.mark.parametrize("is_many", [False, True], ids=["generate", "generate_many"])
async def test_a_call_that_is_left_frees_its_place(turnstile, settled, moment, way, is_many):
    async with scene_of(moment, turnstile, settled) as scene:
        if is_many:
            call = scene.stub.GenerateMany()
            await call.write(of_many(leaver_of(moment)))
        else:
            call = scene.stub.Generate(leaver_of(moment))
        waiting = await scene.bring_to_moment()
        if way == "cancel":
            call.cancel()
        else:
            await scene.channel.close()
        # The place at the door comes back although the engine stands still.
        await settled(scene.app, lambda: scene.app._admission.statistics().in_progress == 2)
        await scene.check_freed()
        if moment != "queued":
            turnstile.open()
            assert await text_of(waiting) == echo(b"w")
        waiting.cancel()


@MOMENTS
async def test_a_call_whose_deadline_passes_frees_its_place(turnstile, settled, moment):
    for timeout in (0.3, 3.0, 15.0):  # a machine that is busy may need more to come to the moment
        async with scene_of(moment, turnstile, settled) as scene:
            call = scene.stub.Generate(leaver_of(moment), timeout=timeout)
            reaching = asyncio.create_task(scene.bring_to_moment())
            ended = asyncio.create_task(call.code())
            await asyncio.wait({reaching, ended}, return_when=asyncio.FIRST_COMPLETED)
            is_in_time = not ended.done()
            if is_in_time:
                assert await ended is grpc.StatusCode.DEADLINE_EXCEEDED
                await scene.check_freed()
            reaching.cancel()
            await asyncio.wait({reaching})
        if is_in_time:
            return
    pytest.fail("no deadline was long enough to come to the moment")


@MOMENTS
async def test_one_of_many_frees_its_place_and_the_others_stay(turnstile, settled, moment):
    """Cancelling an id ends that generation alone; its last event is still told."""
    async with scene_of(moment, turnstile, settled, seats=3) as scene:
        call = scene.stub.GenerateMany()
        await call.write(of_many(request_of("k", max_tokens=3_500)))
        await scene.wait_submitted("k")
        await turnstile.step()
        await call.write(of_many(leaver_of(moment)))
        waiting = await scene.bring_to_moment()
        await cancel(call, "v")
        await scene.check_freed()
        assert "k" in scene.runner.steps[-1]
        await cancel(call, "k")
        await call.done_writing()
        turnstile.open()
        ends = {
            event.request_id: event.finished async for event in call if event.finished.ByteSize()
        }
        for name in "vk":
            (completion,) = ends[name].completions
            assert completion.finish_reason == options_pb2.FINISH_REASON_CANCELLED
            taken = sum(name in step for step in scene.runner.steps)
            assert completion.completion_tokens <= taken
        waiting.cancel()


async def cancel(call: grpc.aio.StreamStreamCall, name: str) -> None:
    action = generation_pb2.CancelGeneration(request_id=name)
    await call.write(generation_pb2.GenerateManyRequest(cancel=action))
