"""Turns the crank: asyncio in front, one executor call for each step. Loop thread.

Commands gather while a step runs; all outputs of a step come back as one value and are put into
mailboxes without waiting. Only `core.step` runs on the other thread. Where delivery is overlapped,
the next step begins first and the outputs are put while it runs: what their delivery asks for, such
as the abort for a slow reader, comes a step later, and the thread does not wait for it.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor
from contextlib import suppress
from dataclasses import replace

from hocket.server.engine.commands import (
    Abort,
    Command,
    FinishReason,
    RequestOutput,
    StepOutputs,
    Submit,
)
from hocket.server.engine.generation import DrivenGeneration
from hocket.server.engine.mailbox import Mailbox
from hocket.server.engine.protocol import Core
from hocket.server.engine.reservations import Reservations
from hocket.server.engine.statistics import EngineStatistics
from hocket.server.errors import EngineFailed, HocketError


class EngineDriver:
    """An engine on an executor, behind mailboxes."""

    def __init__(
        self,
        core: Core,
        executor: Executor,
        *,
        mailbox_bytes: int = 1 << 20,
        is_overlapped: bool = False,
        on_step: Callable[[StepOutputs], None] = lambda _: None,
    ) -> None:
        """Make a driver; `run` drives.

        Args:
            core: The engine; from here on only this driver steps it.
            executor: One thread.
            mailbox_bytes: Most that waits for the reader of one request.
            is_overlapped: Whether a step's outputs are delivered while the next one runs.
            on_step: Told of each step's outputs, on the loop; must neither block nor raise.
        """
        self._core = core
        self._executor = executor
        self._is_overlapped = is_overlapped
        self._on_step = on_step
        self._inbox: list[Command] = []
        self._reservations = Reservations(
            self, mailbox_bytes=mailbox_bytes, is_in_progress=self._is_in_progress
        )
        self._mailboxes: dict[str, Mailbox] = {}
        self._leaving: set[str] = set()
        self._statistics = EngineStatistics()
        self._wake = asyncio.Event()
        self._is_abandoned = False
        self._running: asyncio.Task[None] | None = None
        self._has_failed = False

    @property
    def in_progress(self) -> int:
        """Requests whose last output has not come, those that are not submitted yet included."""
        return len(self._reservations) + len(self._mailboxes) + len(self._leaving)

    def statistics(self) -> EngineStatistics:
        """Return the snapshot of the newest step."""
        return self._statistics

    def reserve_nowait(self, request_id: str) -> DrivenGeneration:
        """Take an id for a request that will be submitted.

        Raises:
            DuplicateRequest: A request with this id is in progress.
            Draining: All requests were cut off.
            EngineFailed: The engine died or was stopped.
        """
        return self._reservations.reserve_nowait(request_id)

    def submit_nowait(self, submit: Submit) -> DrivenGeneration:
        """Reserve and hand in at once; raises what `reserve_nowait` does."""
        generation = self.reserve_nowait(submit.request_id)
        generation.submit_nowait(submit)
        return generation

    def enter_nowait(
        self, submit: Submit, mailbox: Mailbox, abort_for: FinishReason | None
    ) -> None:
        """Let a request in, to be aborted at once where a reason is given.

        Its id was reserved, here or by whoever spreads requests over several drivers.

        Raises:
            HocketError: Nothing comes in any more.
        """
        self._reservations.check_open()
        self._reservations.note_submitted(submit.request_id)
        self._mailboxes[submit.request_id] = mailbox
        self._post(submit)
        if abort_for is not None:
            self._post(Abort(request_id=submit.request_id, reason=abort_for))

    def abort_nowait(self, request_id: str, reason: FinishReason) -> bool:
        """Ask that a request end; False if none with this id is in progress."""
        if self._reservations.abort_nowait(request_id, reason):
            return True
        if request_id not in self._mailboxes:
            return False
        self._post(Abort(request_id=request_id, reason=reason))
        return True

    def cut_all_nowait(self, failure: Callable[[], HocketError]) -> int:
        """End every request with a failure, after its text so far; return how many.

        One that has not begun brings nothing else. From here on no request comes in. Called again,
        it no longer waits for what the step in progress may still bring.
        """
        is_again = self._reservations.refusal is not None
        refusal = self._reservations.refuse(failure)
        for request_id, mailbox in self._mailboxes.items():
            if is_again:
                mailbox.fail(refusal())
            else:
                reason = FinishReason.ABORTED
                self._post(Abort(request_id=request_id, reason=reason, is_cut=True))
        return self.in_progress

    def forget_nowait(self, request_id: str, mailbox: Mailbox) -> None:
        """Abort a request whose reader left; the id stays taken until the engine let go of it."""
        if self._mailboxes.get(request_id) is mailbox:
            del self._mailboxes[request_id]
            self._leave(request_id)
        else:
            self._reservations.give_back(request_id, mailbox)

    def stop(self) -> None:
        """Let `run` return once nothing is in progress. Repeatable."""
        self._reservations.close()
        self._wake.set()

    def abandon(self) -> None:
        """Let `run` end now, as if it were cancelled, though a step may never end. Repeatable.

        The thread of that step is left behind; every request in progress gets `EngineFailed`.
        """
        self._is_abandoned = True
        if self._running is not None:
            self._running.cancel()

    async def run(self) -> None:
        """Drive until stopped. Cancellations wait for the step in progress, unless abandoned.

        Raises:
            Exception: The engine broke; every request in progress got `EngineFailed`.
        """
        if self._is_abandoned:
            self._fail_all()
            raise asyncio.CancelledError
        done: StepOutputs | None = None  # the newest step, if it is not delivered yet
        has_work = False
        self._running = asyncio.current_task()
        try:
            while True:
                if done is not None and not (self._is_overlapped and (has_work or self._inbox)):
                    self._deliver(done)  # which may post an abort
                    done = None
                if not (has_work or self._inbox):
                    if self._reservations.is_closed:
                        return
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                done = await self._step(done)
                has_work = done.has_work
        except BaseException:
            self._fail_all()
            raise
        finally:
            self._running = None

    async def _step(self, before: StepOutputs | None) -> StepOutputs:
        """Run a step; deliver what the one before it brought, whatever becomes of this one."""
        commands, self._inbox = self._inbox, []
        loop = asyncio.get_running_loop()
        step: asyncio.Future[StepOutputs] | None = None
        try:
            try:
                step = loop.run_in_executor(self._executor, self._turn, commands)
            finally:
                if before is not None:
                    self._deliver(before)
            return await asyncio.shield(step)
        except BaseException:
            # However often we are cancelled, no step is left running behind our back.
            while not (step is None or step.done() or self._is_abandoned):
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([step])
            raise

    def _turn(self, commands: Sequence[Command]) -> StepOutputs:
        """Step the core; whatever it raises is something that a future can carry. Engine thread."""
        try:
            return self._core.step(commands)
        except (StopIteration, CancelledError, asyncio.CancelledError) as error:
            name = type(error).__name__
            raise RuntimeError(f"{name} left a step of the engine") from error

    def _deliver(self, outputs: StepOutputs) -> None:
        self._statistics = outputs.statistics
        for output in map(self._cut, outputs.outputs):
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

    def _cut(self, output: RequestOutput) -> RequestOutput:
        """Turn the end of a request that `cut_all_nowait` aborted into a failure."""
        refusal = self._reservations.refusal
        if refusal is None or output.finished is None:
            return output
        if all(c.finish_reason is not FinishReason.ABORTED for c in output.finished.completions):
            return output  # it came to its own end just in time
        # One that is only said to have started now, at its end, has not begun.
        texts = () if output.started else output.texts
        return replace(output, started=None, texts=texts, finished=None, failure=refusal())

    def _is_in_progress(self, request_id: str) -> bool:
        return request_id in self._mailboxes or request_id in self._leaving

    def _leave(self, request_id: str) -> None:
        if not self._has_failed:
            self._leaving.add(request_id)
            self._post(Abort(request_id=request_id, reason=FinishReason.CANCELLED))

    def _post(self, command: Command) -> None:
        self._inbox.append(command)
        self._wake.set()

    def _fail_all(self) -> None:
        self._has_failed = True
        self._reservations.fail_all()
        for mailbox in self._mailboxes.values():
            mailbox.fail(EngineFailed())
        self._mailboxes.clear()
        self._leaving.clear()
        self._inbox.clear()
