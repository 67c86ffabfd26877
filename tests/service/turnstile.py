"""The engine's steps in a test's hands: let through one by one, and written down."""

import asyncio
import threading
from typing import Self

from hocket.server.engine.batch import Batch, StepResult
from hocket.server.testing.scripted_runner import ScriptedRunner
from hocket.server.testing.serving import ScriptedModel


class Turnstile:
    """Stands before each step of the engine; open until it is closed.

    Closed, it lets as many steps through as are allowed, and says when the engine stands before it:
    commands are applied then, and the batch is made but not computed. Made on the loop thread;
    passed on the engine's.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._moved = threading.Condition()
        self._allowed: int | None = None
        self._is_held = False

    def __call__(self) -> None:
        with self._moved:
            if self._allowed == 0:
                self._is_held = True
                self._loop.call_soon_threadsafe(self._news.set)
                if not self._moved.wait_for(lambda: self._allowed != 0, timeout=20):
                    self._allowed, self.error = None, AssertionError("nobody let the engine on")
                self._is_held = False
            if self._allowed is not None:
                self._allowed -= 1
        if self.error is not None:
            raise self.error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Open, so that a test which failed while it held the engine can end at once."""
        self.open()

    def close(self) -> None:
        """Hold the engine at its next step."""
        self._allow(0)

    def open(self) -> None:
        """Let every step through."""
        self._allow(None)

    async def step(self, count: int = 1) -> None:
        """Let a held engine take some steps, and wait until it stands before the next."""
        with self._moved:
            self._allowed, self._is_held = count, False
            self._moved.notify_all()
        await self.wait_held()

    async def wait_held(self) -> None:
        """Wait until the engine stands before the closed turnstile."""
        async with asyncio.timeout(10):
            while not self._holds():
                await self._news.wait()

    def _holds(self) -> bool:
        self._news.clear()
        with self._moved:
            return self._is_held

    def _allow(self, count: int | None) -> None:
        with self._moved:
            self._allowed = count
            self._moved.notify_all()


class RecordingRunner(ScriptedRunner):
    """Writes down whose tokens each batch held, as the first letters of their prompts."""

    def __init__(self, turnstile: Turnstile, **kwargs) -> None:
        super().__init__(gate=turnstile, **kwargs)
        self.steps: list[str] = []
        self._letters: dict[int, str] = {}

    def execute(self, batch: Batch) -> StepResult:
        for piece in batch.slices:
            if piece.start == 0:
                self._letters[piece.sequence_id] = chr(piece.token_ids[0])
        result = super().execute(batch)
        self.steps.append("".join(self._letters[piece.sequence_id] for piece in batch.slices))
        return result


def stepped(turnstile: Turnstile, **kwargs) -> ScriptedModel:
    """Return a model whose steps pass a turnstile and are written down."""
    return ScriptedModel(RecordingRunner(turnstile, **kwargs))
