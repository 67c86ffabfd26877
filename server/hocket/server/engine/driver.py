"""Turns the crank: asyncio in front, one executor call for each step. Loop thread.

Commands gather while a step runs; all outputs of a step come back as one value and are put into
mailboxes without waiting. Only `core.step` runs on the other thread.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor

from hocket.server.engine.commands import (
    Abort,
    Command,
    FinishReason,
    RequestOutput,
    StepOutputs,
    Submit,
)
from hocket.server.engine.core import EngineCore
from hocket.server.engine.mailbox import Mailbox
from hocket.server.engine.statistics import EngineStatistics
from hocket.server.errors import DuplicateRequest, EngineFailed, HocketError


class SubmittedGeneration:
    """A request in progress, as its handler holds it."""

    def __init__(self, driver: "EngineDriver", request_id: str, mailbox: Mailbox) -> None:
        self._driver = driver
        self._request_id = request_id
        self._mailbox = mailbox

    async def __aiter__(self) -> AsyncIterator[RequestOutput]:
        while (output := await self._mailbox.take()) is not None:
            yield output

    def abort_nowait(self, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Ask that the request end; its last output still comes. Repeatable."""
        if not self._mailbox.has_end:
            self._driver.abort_nowait(self._request_id, reason)

    def close_nowait(self) -> None:
        """Leave: abort the request if it runs, and throw its outputs away. Repeatable."""
        self._driver.forget_nowait(self._request_id, self._mailbox)


class EngineDriver:
    """An engine on an executor, behind mailboxes."""

    def __init__(
        self,
        core: EngineCore,
        executor: Executor,
        *,
        mailbox_bytes: int = 1 << 20,
        on_step: Callable[[StepOutputs], None] = lambda _: None,
    ) -> None:
        """Make a driver; `run` drives.

        Args:
            core: The engine; from here on only this driver steps it.
            executor: One thread.
            mailbox_bytes: Most that waits for the reader of one request.
            on_step: Told of each step's outputs, on the loop; must neither block nor raise.
        """
        self._core = core
        self._executor = executor
        self._mailbox_bytes = mailbox_bytes
        self._on_step = on_step
        self._inbox: list[Command] = []
        self._mailboxes: dict[str, Mailbox] = {}
        self._leaving: set[str] = set()
        self._statistics = EngineStatistics()
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._failure: HocketError | None = None

    @property
    def in_progress(self) -> int:
        """Requests whose last output has not come."""
        return len(self._mailboxes) + len(self._leaving)

    def statistics(self) -> EngineStatistics:
        """Return the snapshot of the newest step."""
        return self._statistics

    def submit_nowait(self, submit: Submit) -> SubmittedGeneration:
        """Hand in a request.

        Raises:
            DuplicateRequest: A request with this id is in progress.
            EngineFailed: The engine died or was stopped.
        """
        if self._failure is not None or self._is_stopping:
            raise EngineFailed
        if submit.request_id in self._mailboxes or submit.request_id in self._leaving:
            raise DuplicateRequest(submit.request_id)
        mailbox = Mailbox(submit.request_id, max_bytes=self._mailbox_bytes)
        self._mailboxes[submit.request_id] = mailbox
        self._post(submit)
        return SubmittedGeneration(self, submit.request_id, mailbox)

    def abort_nowait(self, request_id: str, reason: FinishReason) -> bool:
        """Ask that a request end; False if none with this id is in progress."""
        if request_id not in self._mailboxes:
            return False
        self._post(Abort(request_id=request_id, reason=reason))
        return True

    def abort_all_nowait(self, reason: FinishReason) -> None:
        """Ask that every request end."""
        for request_id in self._mailboxes:
            self._post(Abort(request_id=request_id, reason=reason))

    def forget_nowait(self, request_id: str, mailbox: Mailbox) -> None:
        """Abort a request whose reader left; the id stays taken until the engine let go of it."""
        if self._mailboxes.get(request_id) is mailbox:
            del self._mailboxes[request_id]
            self._leave(request_id)

    def stop(self) -> None:
        """Let `run` return once nothing is in progress. Repeatable."""
        self._is_stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Drive until stopped. A cancellation waits for the step in progress.

        Raises:
            Exception: The engine broke; every request in progress got `EngineFailed`.
        """
        has_work = False
        try:
            while True:
                if not (has_work or self._inbox):
                    if self._is_stopping:
                        return
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                outputs = await self._step()
                self._deliver(outputs)
                has_work = outputs.has_work
        except BaseException:
            self._fail_all()
            raise

    async def _step(self) -> StepOutputs:
        commands, self._inbox = self._inbox, []
        loop = asyncio.get_running_loop()
        step = loop.run_in_executor(self._executor, self._core.step, commands)
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.wait([step])  # a step is never left running behind our back
            raise

    def _deliver(self, outputs: StepOutputs) -> None:
        self._statistics = outputs.statistics
        for output in outputs.outputs:
            mailbox = self._mailboxes.get(output.request_id)
            if output.is_last:
                self._mailboxes.pop(output.request_id, None)
                self._leaving.discard(output.request_id)
            if mailbox is None:
                continue
            mailbox.put(output)
            if mailbox.has_end and not output.is_last:
                del self._mailboxes[output.request_id]
                self._leave(output.request_id)
        self._on_step(outputs)

    def _leave(self, request_id: str) -> None:
        if self._failure is None:
            self._leaving.add(request_id)
            self._post(Abort(request_id=request_id, reason=FinishReason.CANCELLED))

    def _post(self, command: Command) -> None:
        self._inbox.append(command)
        self._wake.set()

    def _fail_all(self) -> None:
        self._failure = EngineFailed()
        for mailbox in self._mailboxes.values():
            mailbox.fail(EngineFailed())
        self._mailboxes.clear()
        self._leaving.clear()
        self._inbox.clear()
