"""Several drivers as one engine: each request goes to the least loaded of them. Loop thread.

The drivers know nothing of each other; ids, reservations and refusals are kept here for all.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from hocket.server.engine.commands import FinishReason, StepOutputs, Submit
from hocket.server.engine.driver import EngineDriver
from hocket.server.engine.generation import DrivenGeneration
from hocket.server.engine.mailbox import Mailbox
from hocket.server.engine.protocol import Core
from hocket.server.engine.reservations import Reservations
from hocket.server.engine.statistics import EngineStatistics, total
from hocket.server.errors import HocketError


class _Worker:
    """A driver and what it is working on.

    Attributes:
        driver: It.
        held: Sequences and prompt tokens of each request that it has not let go of, by id.
    """

    def __init__(
        self, core: Core, executor: Executor, *, mailbox_bytes: int, is_overlapped: bool
    ) -> None:
        self.driver = EngineDriver(
            core,
            executor,
            mailbox_bytes=mailbox_bytes,
            is_overlapped=is_overlapped,
            on_step=self._let_go,
        )
        self.held: dict[str, _Load] = {}
        self._sequences = self._tokens = 0

    @property
    def load(self) -> tuple[int, int]:
        """Sequences and prompt tokens in progress."""
        return self._sequences, self._tokens

    def take(self, submit: Submit, mailbox: Mailbox, abort_for: FinishReason | None) -> None:
        """Let a request in; raises what the driver does."""
        self.driver.enter_nowait(submit, mailbox, abort_for)
        load = _Load(submit.choices, submit.choices * len(submit.prompt_token_ids))
        self.held[submit.request_id] = load
        self._sequences += load.sequences
        self._tokens += load.tokens

    def _let_go(self, outputs: StepOutputs) -> None:
        for output in outputs.outputs:
            load = self.held.pop(output.request_id, None) if output.is_last else None
            if load is not None:
                self._sequences -= load.sequences
                self._tokens -= load.tokens


@dataclass(frozen=True, slots=True)
class _Load:
    sequences: int
    tokens: int


class Ensemble:
    """An engine of several workers, each with a core, a thread and a driver of its own."""

    def __init__(
        self,
        cores: Sequence[Core],
        executors: Sequence[Executor],
        *,
        mailbox_bytes: int = 1 << 20,
        is_overlapped: bool = False,
    ) -> None:
        """Make the drivers; `run` drives them.

        Args:
            cores: At least one; all write the same texts.
            executors: One thread for each core.
            mailbox_bytes: Most that waits for the reader of one request.
            is_overlapped: Whether a step's outputs are delivered while the next one runs.
        """
        self._workers = [
            _Worker(core, executor, mailbox_bytes=mailbox_bytes, is_overlapped=is_overlapped)
            for core, executor in zip(cores, executors, strict=True)
        ]
        self._reservations = Reservations(
            self,
            mailbox_bytes=mailbox_bytes,
            is_in_progress=lambda request_id: self._worker_of(request_id) is not None,
        )
        self._is_abandoned = False

    @property
    def in_progress(self) -> int:
        """Requests whose last output has not come, those that are not submitted yet included."""
        submitted = sum(worker.driver.in_progress for worker in self._workers)
        return len(self._reservations) + submitted

    def statistics(self) -> EngineStatistics:
        """Return the sum of the workers' newest snapshots."""
        return total([worker.driver.statistics() for worker in self._workers])

    def reserve_nowait(self, request_id: str) -> DrivenGeneration:
        """Take an id for a request that will be submitted; raises what a driver does."""
        return self._reservations.reserve_nowait(request_id)

    def submit_nowait(self, submit: Submit) -> DrivenGeneration:
        """Reserve and hand in at once; raises what `reserve_nowait` does."""
        generation = self.reserve_nowait(submit.request_id)
        generation.submit_nowait(submit)
        return generation

    def enter_nowait(
        self, submit: Submit, mailbox: Mailbox, abort_for: FinishReason | None
    ) -> None:
        """Let a reserved request in at the worker with the fewest sequences, then tokens.

        Raises:
            HocketError: Nothing comes in any more.
        """
        min(self._workers, key=lambda worker: worker.load).take(submit, mailbox, abort_for)
        self._reservations.note_submitted(submit.request_id)

    def abort_nowait(self, request_id: str, reason: FinishReason) -> bool:
        """Ask that a request end; False if none with this id is in progress."""
        if self._reservations.abort_nowait(request_id, reason):
            return True
        worker = self._worker_of(request_id)
        return worker is not None and worker.driver.abort_nowait(request_id, reason)

    def cut_all_nowait(self, failure: Callable[[], HocketError]) -> int:
        """End every request with a failure, as a driver does; return how many."""
        self._reservations.refuse(failure)
        for worker in self._workers:
            worker.driver.cut_all_nowait(failure)
        return self.in_progress

    def forget_nowait(self, request_id: str, mailbox: Mailbox) -> None:
        """Abort a request whose reader left; the id stays taken until its worker let go of it."""
        if self._reservations.give_back(request_id, mailbox):
            return
        worker = self._worker_of(request_id)
        if worker is not None:
            worker.driver.forget_nowait(request_id, mailbox)

    def stop(self) -> None:
        """Let `run` return once nothing is in progress. Repeatable."""
        self._reservations.close()
        for worker in self._workers:
            worker.driver.stop()

    def abandon(self) -> None:
        """Let `run` end now, as if it were cancelled, though steps may never end. Repeatable."""
        self._is_abandoned = True
        for worker in self._workers:
            worker.driver.abandon()

    async def run(self) -> None:
        """Drive all workers until stopped; the death of one is the death of all.

        Cancellations wait for the steps in progress, unless abandoned.

        Raises:
            Exception: A worker broke, the first that did; every request in progress got
                `EngineFailed`, and the others' steps are not waited for.
        """
        error: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for worker in self._workers:
                    group.create_task(self._drive(worker.driver))
        except ExceptionGroup as broken:
            error = broken.exceptions[0]
        if error is not None:
            raise error
        if self._is_abandoned:
            raise asyncio.CancelledError

    async def _drive(self, driver: EngineDriver) -> None:
        try:
            await driver.run()
        except BaseException as error:
            self._reservations.fail_all()
            if isinstance(error, Exception):
                self.abandon()
            raise

    def _worker_of(self, request_id: str) -> _Worker | None:
        return next((worker for worker in self._workers if request_id in worker.held), None)
