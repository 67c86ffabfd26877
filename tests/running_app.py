"""An app that runs beside its test, with a model that can be held and broken. Loop thread."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hocket.server.app import App
from hocket.server.testing.scripted_runner import ScriptedRunner
from hocket.server.testing.serving import ScriptedModel, loopback_settings


class Gate:
    """Something that is passed on the engine's thread: told of, held while closed, broken.

    Attributes:
        reached: Set on the loop whenever somebody stands before it.
        error: Raised by whoever passes.
    """

    def __init__(self, *, is_open: bool = True) -> None:
        self.reached = asyncio.Event()
        self.error: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        self._opened = threading.Event()
        if is_open:
            self._opened.set()

    def open(self) -> None:
        self._opened.set()

    def close(self) -> None:
        """Hold whoever comes from now on; `reached` tells of the next one."""
        self.reached.clear()
        self._opened.clear()

    def __call__(self) -> None:
        self._loop.call_soon_threadsafe(self.reached.set)
        assert self._opened.wait(20)
        if self.error is not None:
            raise self.error


def stepping(gate: Callable[[], None], **runner: object) -> ScriptedModel:
    """Return a model whose every step passes a gate."""
    return ScriptedModel(ScriptedRunner(gate=gate, **runner))


def app_of(
    model: ScriptedModel | None = None,
    settings=None,
    *,
    loading: Callable[[], None] = lambda: None,
    **options: object,
) -> App:
    """Return an app whose model passes `loading` while it is loaded."""

    def load(*_: object) -> ScriptedModel:
        loading()
        return model or ScriptedModel()

    return App(settings or loopback_settings(), load=load, **options)


@asynccontextmanager
async def running(app: App, *gates: Gate) -> AsyncIterator[asyncio.Task[int]]:
    """Run an app; at the end open the gates and see it gone, with every task that came of it."""
    before = asyncio.all_tasks()
    task = asyncio.create_task(app.run())
    try:
        async with asyncio.timeout(30):
            yield task
    finally:
        for gate in gates:
            gate.open()
        app.leave(in_hurry=True)
        await asyncio.wait([task])
        task.cancelled() or task.exception()
        if left := asyncio.all_tasks() - before:
            assert not (await asyncio.wait(left, timeout=5))[1]
