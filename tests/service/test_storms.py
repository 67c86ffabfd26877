"""After storms of cancels, deadlines and disconnects everything is back at the baseline."""

import asyncio
import contextlib
import random
import threading

import grpc
import psutil
import pytest

from hocket.client import NO_RETRIES, AsyncClient, ClientError
from hocket.server.testing.scripted_runner import ScriptedRunner, echo
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from hocket.v1 import generation_pb2, generation_pb2_grpc

ENDLESS = {"ignore_eos": True, "max_tokens": 1_500}


def is_at_rest(app, model: ScriptedModel) -> bool:
    statistics = app.statistics()
    door = app._admission.statistics()
    return (
        door.in_progress == door.connections == 0
        and app._driver.in_progress == 0
        and statistics.running_sequences == statistics.waiting_sequences == 0
        and statistics.blocks_used == statistics.saved_blocks == 0
        and model.runner.saved_sequences == 0
    )


async def leave_early(address: str, chance: random.Random) -> None:
    async with AsyncClient(address, retry=NO_RETRIES) as client:
        async with client.stream("x" * chance.randint(1, 80), **ENDLESS) as stream:
            for _ in range(chance.randint(0, 3)):
                await anext(aiter(stream))


async def be_cancelled(address: str, chance: random.Random) -> None:
    async with AsyncClient(address, retry=NO_RETRIES) as client:
        task = asyncio.create_task(client.generate("y", n=chance.randint(1, 4), **ENDLESS))
        for _ in range(chance.randint(0, 200)):
            await asyncio.sleep(0)  # so many turns of the loop into its life, not so much time
        task.cancel()
        with pytest.raises((asyncio.CancelledError, ClientError)):
            await task


async def run_late(address: str, chance: random.Random) -> None:
    async with AsyncClient(address, retry=NO_RETRIES) as client:
        with contextlib.suppress(ClientError):  # or the engine was in time with what it had
            await client.generate("z", timeout=0.001 + chance.random() * 0.05, **ENDLESS)


async def hang_up(address: str, chance: random.Random) -> None:
    channel = grpc.aio.insecure_channel(address)
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    request = generation_pb2.GenerateRequest(prompt="w")
    request.stopping.ignore_eos, request.stopping.max_tokens = True, 1_500
    call = stub.Generate(request)
    if chance.random() < 0.7:
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError, StopAsyncIteration)):
            await call.read()
            raise StopAsyncIteration
    await channel.close(None)


async def abandon_many(address: str, chance: random.Random) -> None:
    async with AsyncClient(address, retry=NO_RETRIES) as client:
        async with client.generate_many() as many:
            for _ in range(chance.randint(1, 5)):
                many.cancel(await many.submit("v", **ENDLESS))
            await many.submit("v", **ENDLESS)
            if chance.random() < 0.5:
                await anext(aiter(many))


def count_threads() -> tuple[int, int]:
    """Return how many threads there are, and how many more that work on texts.

    Those come one by one, up to their bound, as they are wanted.
    """
    names = [thread.name for thread in threading.enumerate()]
    text = sum(name.startswith("hocket-text") for name in names)
    return len(names) - text, text


async def test_a_storm_leaves_nothing_behind(settled):
    model = ScriptedModel(ScriptedRunner(num_blocks=200, num_saved_blocks=40))
    settings = loopback_settings(
        admission={"max_running": 64, "max_waiting": 64}, engine={"max_num_seqs": 16}
    )
    async with serving(model, settings) as app:
        async with AsyncClient(app.address) as client:
            await client.generate("warm")
        await settled(app, lambda: is_at_rest(app, model))
        process = psutil.Process()
        tasks, (threads, _) = len(asyncio.all_tasks()), count_threads()
        chance = random.Random(7)
        kinds = [leave_early, be_cancelled, run_late, hang_up, abandon_many]
        for _ in range(4):
            await asyncio.gather(*(chance.choice(kinds)(app.address, chance) for _ in range(25)))
        await settled(app, lambda: is_at_rest(app, model))
        async with asyncio.timeout(10):
            while len(running := asyncio.all_tasks()) > tasks:
                ours = {asyncio.current_task()}
                await asyncio.wait(running - ours, return_when=asyncio.FIRST_COMPLETED)
        others, text = count_threads()
        assert others <= threads
        assert text <= 2 * settings.executors.text_threads
        assert process.num_fds() < 500
        async with AsyncClient(app.address) as client:
            assert (await client.generate("after")).text == echo(b"after").decode()
