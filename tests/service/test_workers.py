"""A server of several engine workers is to its callers what a server of one is."""

import asyncio
import threading

import pytest

from hocket.client import AsyncClient, EngineFailed
from hocket.server.lifecycle import ServerState
from hocket.server.testing.scripted_runner import echo
from hocket.server.testing.serving import loopback_settings, serving
from running_app import Gate, app_of, running, stepping


def settings_of(workers: int, delivery: str = "overlapped"):
    return loopback_settings(engine={"workers": workers, "delivery": delivery})


@pytest.mark.parametrize("delivery", ["strict", "overlapped"])
@pytest.mark.parametrize("workers", [1, 2, 3])
async def test_texts_are_the_same_whichever_worker_writes(client_of, workers, delivery):
    """And each worker has a thread and has written before the first call comes in."""
    prompts = [f"Prompt {number}. 日本" for number in range(12)]
    async with (
        serving(settings=settings_of(workers, delivery)) as app,
        client_of(app) as client,
    ):
        threads = [t for t in threading.enumerate() if t.name.startswith("hocket-engine")]
        assert len(threads) == workers
        assert app.statistics().finished_requests == workers
        results = await asyncio.gather(*map(client.generate, prompts))
        assert [result.text.encode() for result in results] == [
            echo(prompt.encode()) for prompt in prompts
        ]
        statistics = app.statistics()
        assert statistics.finished_requests == workers + len(prompts)
        assert statistics.blocks_used == 0


async def test_a_worker_that_dies_ends_the_server():
    """Callers of the others hear of it, too, and the exit code tells."""
    gate = Gate()
    app = app_of(stepping(gate), settings_of(2))
    async with running(app, gate) as task:
        await app.lifecycle.wait_for(ServerState.SERVING)
        async with AsyncClient(app.address) as client:
            endless = {"n": 2, "ignore_eos": True, "max_tokens": 4_000, "granularity": "token"}
            async with (
                client.stream("one", **endless) as one,
                client.stream("two", **endless) as two,
            ):
                await anext(aiter(one))
                await anext(aiter(two))
                gate.error = OSError("gone")
                for stream in (one, two):
                    with pytest.raises(EngineFailed):
                        async for _ in stream:
                            pass
        assert await task == 1
