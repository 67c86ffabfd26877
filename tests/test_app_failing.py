"""What goes wrong while a server starts, serves or leaves: told and never waited for."""

import asyncio
import threading

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hocket.client import NO_RETRIES, AsyncClient, EngineFailed
from hocket.server.engine.batch import SliceResult, StepResult
from hocket.server.engine.driver import EngineDriver
from hocket.server.errors import StartupError
from hocket.server.lifecycle import ServerState
from hocket.server.testing.scripted_runner import Broken, ScriptedRunner
from hocket.server.testing.serving import ScriptedModel, loopback_settings
from running_app import Gate, app_of, running, stepping

# Two choices: if neither can be computed any more, it is the engine that is broken.
ENDLESS = {"n": 2, "ignore_eos": True, "max_tokens": 4_000}
NEVER = 3_600.0  # seconds that no test waits for


@pytest.fixture(autouse=True)
def logged():
    """What the server logs, as it is told."""
    with structlog.testing.capture_logs() as lines:
        yield lines


async def watch(address: str, name: str, *, reached: asyncio.Event) -> list[int]:
    """Return all that a health watch tells; `reached` is set with the first of it."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        told = []
        async for response in stub.Watch(health_pb2.HealthCheckRequest(service=name)):
            told.append(response.status)
            reached.set()
        return told


@pytest.mark.parametrize("error", [StartupError("no such weights", exit_code=3), OSError("gone")])
async def test_a_load_that_fails_ends_the_server(error, logged):
    """What can be told in a line is raised, anything else is exit code 1; health says so before."""
    gate = Gate(is_open=False)
    gate.error = error
    app, reached = app_of(loading=gate), asyncio.Event()
    async with running(app, gate) as task, asyncio.TaskGroup() as group:
        await app.lifecycle.wait_for(ServerState.LOADING)
        watching = group.create_task(watch(app.address, "liveness", reached=reached))
        await reached.wait()
        gate.open()
        if isinstance(error, StartupError):
            with pytest.raises(StartupError) as caught:
                await task
            assert caught.value is error
        else:
            assert await task == 1
    alive, dead = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert watching.result() == [alive, dead]
    assert app.lifecycle.state is ServerState.FAILED
    told = [line["exc_info"] for line in logged if line["log_level"] == "critical"]
    assert told == ([] if isinstance(error, StartupError) else [error])


class Mute(ScriptedRunner):
    """Computes, but with a result for which there is no word."""

    def execute(self, batch):
        failed = (SliceResult(sequence_id=s.sequence_id, failure="mute") for s in batch.slices)
        return StepResult(tuple(failed))


def broken() -> None:
    raise Broken("the weights are nonsense")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (stepping(broken), "scripted cannot write: the generation failed (fault)"),
        (ScriptedModel(Mute()), "scripted cannot write: the generation failed (mute)"),
    ],
)
async def test_a_model_that_cannot_write_is_never_served(model, words):
    """The first real token decides; the line names the model, and no exception's text."""
    app, seen = app_of(model), []
    async with running(app) as task:
        with pytest.raises(StartupError, match=r"^scripted ") as caught:
            async for state in app.lifecycle.states():
                seen.append(state)
                if state is ServerState.FAILED:
                    await task
    assert str(caught.value).startswith(words)
    assert ServerState.SERVING not in seen
    assert not app.catalogue.all()


class HastyDriver(EngineDriver):
    """Aborts what it is given before it is computed."""

    def submit_nowait(self, submit):
        generation = super().submit_nowait(submit)
        generation.abort_nowait()
        return generation


async def test_an_end_before_the_first_token_is_not_enough(monkeypatch):
    """What ended well, but wrote nothing, is no sign of a model that writes."""
    monkeypatch.setattr("hocket.server.startup.EngineDriver", HastyDriver)
    app = app_of()
    async with running(app) as task:
        with pytest.raises(StartupError, match=r"^scripted wrote nothing when it was tried out$"):
            await task


def impatient(**sections):
    """Return settings under which a step of some milliseconds is a stall."""
    return loopback_settings(watchdog={"step_seconds": 0.02}, **sections)


@pytest.fixture
def _busy_watchdog(monkeypatch):
    monkeypatch.setattr("hocket.server.observe.watchdog._LOOK_SECONDS", 0.05)


@pytest.mark.usefixtures("_busy_watchdog")
async def test_a_step_that_does_not_end_is_not_waited_for():
    """Calls get `EngineFailed`, and the server leaves with 1, while the step still hangs."""
    gate = Gate()
    app = app_of(stepping(gate), impatient())
    async with running(app, gate) as task:
        await app.lifecycle.wait_for(ServerState.SERVING)
        async with AsyncClient(app.address, retry=NO_RETRIES) as client:
            async with client.stream("hi", granularity="token", **ENDLESS) as stream:
                await anext(aiter(stream))
                gate.close()
                with pytest.raises(EngineFailed):
                    async for _ in stream:
                        pass
        assert await task == 1
        assert app.lifecycle.state is ServerState.FAILED
        assert any(thread.name.startswith("hocket-engine") for thread in threading.enumerate())


@pytest.mark.usefixtures("_busy_watchdog")
async def test_a_warm_up_that_does_not_end_is_not_waited_for():
    """The watchdog looks from the first step on."""
    gate = Gate(is_open=False)
    app = app_of(stepping(gate), impatient())
    async with running(app, gate) as task:
        assert await task == 1
    assert app.lifecycle.state is ServerState.FAILED


async def test_an_engine_that_dies_ends_the_server():
    """Every call in progress hears of it, and the exit code tells."""
    gate = Gate()
    app = app_of(stepping(gate))
    async with running(app, gate) as task:
        await app.lifecycle.wait_for(ServerState.SERVING)
        async with AsyncClient(app.address, retry=NO_RETRIES) as client:
            async with client.stream("hi", granularity="token", **ENDLESS) as stream:
                await anext(aiter(stream))
                gate.error = MemoryError()
                with pytest.raises(EngineFailed):
                    async for _ in stream:
                        pass
        assert await task == 1


async def test_an_engine_that_dies_cuts_a_drain_short(monkeypatch):
    """However long the grace, nobody waits for calls that can bring nothing more."""
    monkeypatch.setattr("hocket.server.app._LAST_WORDS_SECONDS", 0.1)
    gate = Gate()
    settings = loopback_settings(drain={"delay_seconds": NEVER, "grace_seconds": NEVER})
    app = app_of(stepping(gate), settings)
    async with running(app, gate) as task:
        await app.lifecycle.wait_for(ServerState.SERVING)
        async with AsyncClient(app.address, retry=NO_RETRIES) as client:
            async with client.generate_many(), client.stream("hi", **ENDLESS) as stream:
                await anext(aiter(stream))
                app.leave(in_hurry=True)
                await app.lifecycle.wait_for(ServerState.DRAINING)
                gate.error = MemoryError()
                with pytest.raises(EngineFailed):
                    await stream.result()
                assert await task == 1
    assert app.lifecycle.state is ServerState.FAILED


async def test_an_engine_that_dies_when_all_is_said_spoils_nothing_but_the_exit_code():
    """All calls have ended well; the last step is not one of theirs."""
    gate = Gate()
    app = app_of(stepping(gate))
    async with running(app, gate) as task:
        await app.lifecycle.wait_for(ServerState.SERVING)
        async with AsyncClient(app.address) as client:
            async with client.stream("hi", granularity="token", **ENDLESS) as stream:
                await anext(aiter(stream))
                gate.close()
                await gate.reached.wait()
            gate.error = MemoryError()
        app.leave(in_hurry=True)
        await app.lifecycle.wait_for(ServerState.STOPPED)
        gate.open()
        assert await task == 1
    assert app.lifecycle.state is ServerState.STOPPED
