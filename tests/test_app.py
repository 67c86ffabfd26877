"""The app: up, serving, and away, whatever happens on the way."""

import asyncio
import json
import socket
import threading
import urllib.request
from pathlib import Path

import psutil
import pytest

from hocket.client import AsyncClient
from hocket.server.errors import StartupError
from hocket.server.lifecycle import ServerState
from hocket.server.testing.serving import loopback_settings
from running_app import Gate, app_of, running, stepping

NEVER = 3_600.0  # seconds that no test waits for


@pytest.mark.parametrize("in_hurry", [False, True])
async def test_leaving_before_anything_began_is_leaving(in_hurry):
    """A wish that comes first is granted; the model is not even loaded."""
    loaded = []
    app = app_of(loading=lambda: loaded.append(True))
    app.leave(in_hurry=in_hurry)
    async with running(app) as task:
        assert await task == 0
    assert app.lifecycle.state is ServerState.STOPPED
    assert loaded == []


async def test_leaving_while_the_model_loads():
    """Nobody waits for a model that will not serve: what it brings, or raises, counts no more."""
    for error in (None, OSError("gone"), StartupError("no such weights")):
        gate = Gate(is_open=False)
        gate.error = error
        app = app_of(loading=gate)
        async with running(app, gate) as task:
            await gate.reached.wait()
            app.leave()
            await app.lifecycle.wait_for(ServerState.STOPPED)
            gate.open()
            assert await task == 0
        assert not app.catalogue.all()


async def test_a_model_that_comes_while_the_server_drains_comes_too_late():
    """The drain has begun when the model is there: it is not served, and no failure."""
    gate = Gate(is_open=False)
    app = app_of(loading=gate)
    async with running(app, gate) as task:
        await gate.reached.wait()
        async with AsyncClient(app.address) as client, client.generate_many():
            await client.check_health()  # by then the stream has been opened as well
            app.leave()
            await app.lifecycle.wait_for(ServerState.DRAINING)
            gate.open()
        assert await task == 0
    assert app.lifecycle.state is ServerState.STOPPED
    assert not app.catalogue.all()


async def test_leaving_while_the_model_warms_up():
    """The step in progress is waited for, further tokens are not; it never serves."""
    gate = Gate(is_open=False)
    model = stepping(gate)
    app = app_of(model)
    async with running(app, gate) as task:
        await gate.reached.wait()
        assert app.lifecycle.state is ServerState.WARMING
        app.leave()
        assert await app.lifecycle.wait_for(ServerState.STOPPED)
        gate.open()
        assert await task == 0
    assert len(model.runner.batches) == 1
    assert not app.catalogue.all()


async def test_a_second_wish_ends_the_delay():
    """Leaving is repeatable; whoever is in a hurry cuts the delay short, once and for all."""
    app = app_of(settings=loopback_settings(drain={"delay_seconds": NEVER}))
    async with running(app) as task:
        await app.lifecycle.wait_for(ServerState.SERVING)
        assert [app.leave(), app.leave()] == [NEVER, NEVER]
        await app.lifecycle.wait_for(ServerState.DRAINING)
        async with AsyncClient(app.address) as client:
            assert (await client.generate("still taken")).text
        assert not task.done()
        assert [app.leave(in_hurry=True), app.leave()] == [0, 0]
        assert await task == 0


@pytest.mark.parametrize("stale", ["", "not even JSON"])
async def test_the_ready_file_appears_whole_and_only_when_the_server_serves(
    stale, tmp_path, monkeypatch
):
    """What an earlier process left goes before anything else; what appears is complete."""
    file = tmp_path / "ready.json"
    if stale:
        file.write_text(stale)
    appeared = []
    replace = Path.replace

    def appear(draft: Path, target: Path) -> Path:
        appeared.append((target, target.exists(), draft.parent, json.loads(draft.read_text())))
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", appear)
    gate = Gate(is_open=False)
    app = app_of(
        settings=loopback_settings(metrics={"enabled": True, "address": "127.0.0.1:0"}),
        loading=gate,
        ready_file=file,
    )
    async with running(app, gate):
        await gate.reached.wait()
        assert list(tmp_path.iterdir()) == []
        gate.open()
        await app.lifecycle.wait_for(ServerState.SERVING)
    document = json.loads(file.read_text())
    assert appeared == [(file, False, tmp_path, document)]
    assert document == {
        "address": app.address,
        "metrics_address": app.metrics_address,
        "pid": psutil.Process().pid,
    }
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", [".", "absent/ready.json"])
async def test_a_ready_file_that_cannot_be_had_is_one_line(name, tmp_path):
    """Whether it cannot be removed or not be written; no draft of it stays."""
    app = app_of(ready_file=tmp_path / name)
    async with running(app) as task:
        with pytest.raises(StartupError, match=rf"^cannot write {tmp_path}"):
            await task
    assert app.lifecycle.state is ServerState.FAILED
    assert list(tmp_path.iterdir()) == []


async def test_a_ready_file_whose_place_was_taken_meanwhile_leaves_no_draft(tmp_path):
    """The server does not serve unseen: it ends, and its folder is as it was."""
    gate = Gate(is_open=False)
    file = tmp_path / "ready.json"
    app = app_of(loading=gate, ready_file=file)
    async with running(app, gate) as task:
        await gate.reached.wait()
        file.mkdir()
        gate.open()
        with pytest.raises(StartupError, match=rf"^cannot write {file}"):
            await task
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("section", ["listener", "metrics"])
async def test_an_address_that_is_taken_is_told_before_a_model_is_loaded(section):
    """The line names the address; nothing of the server stays behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        sections = {"metrics": {"enabled": True, "address": "127.0.0.1:0"}}
        sections.setdefault(section, {})["address"] = address
        loaded = []
        app = app_of(
            settings=loopback_settings(**sections), loading=lambda: loaded.append("loaded")
        )
        async with running(app) as task:
            with pytest.raises(StartupError, match=address):
                await task
    assert loaded == []
    assert app.lifecycle.state is ServerState.FAILED


async def test_metrics_are_there_for_as_long_as_the_server(monkeypatch):
    """Scrapes are answered from the first moment until the end; turned off, nothing listens."""
    app = app_of(settings=loopback_settings(metrics={"enabled": True, "address": "127.0.0.1:0"}))
    async with running(app) as task:
        await app.lifecycle.wait_for(ServerState.SERVING)

        def scrape() -> str:
            with urllib.request.urlopen(f"http://{app.metrics_address}/metrics") as answer:
                return answer.read().decode()

        assert "hocket_requests_in_progress" in await asyncio.to_thread(scrape)
        app.leave()
        assert await task == 0
    host, _, port = app.metrics_address.partition(":")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)))
    silent = app_of()
    async with running(silent):
        await silent.lifecycle.wait_for(ServerState.SERVING)
        assert silent.metrics_address == ""


async def test_a_run_that_is_cancelled_leaves_nothing_behind():
    """Its port is free again at once."""
    app = app_of()
    async with running(app) as task:
        await app.lifecycle.wait_for(ServerState.SERVING)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    again = app_of(settings=loopback_settings(listener={"address": app.address}))
    async with running(again):
        await again.lifecycle.wait_for(ServerState.SERVING)


async def test_a_process_can_serve_again_and_again():
    """After each server its tasks, threads and files are gone."""
    process, counts = psutil.Process(), []
    settings = loopback_settings(metrics={"enabled": True, "address": "127.0.0.1:0"})
    for _ in range(4):
        app = app_of(settings=settings)
        async with running(app) as task:
            await app.lifecycle.wait_for(ServerState.SERVING)
            async with AsyncClient(app.address) as client:
                assert (await client.generate("hi")).text
            app.leave()
            assert await task == 0
        counts.append((len(asyncio.all_tasks()), threading.active_count(), process.num_fds()))
    # gRPC's own threads and files come with the first server and stay.
    assert max(counts[2:]) <= counts[1]
