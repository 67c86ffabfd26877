"""A server whose time a test moves on."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hocket.server.app import App
from hocket.server.lifecycle import ServerState
from hocket.server.settings import Settings
from hocket.server.testing.serving import ScriptedModel
from running_app import app_of, running


class Clock:
    """Monotonic seconds, with leaps."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds


@asynccontextmanager
async def serving_by(
    clock: Clock, model: ScriptedModel, settings: Settings | None = None
) -> AsyncIterator[App]:
    """Run a server that reads deadlines by a clock, until the block ends."""
    app = app_of(model, settings, clock=clock)
    async with running(app):
        await app.lifecycle.wait_for(ServerState.SERVING)
        yield app
