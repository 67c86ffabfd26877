"""One job: rows up, records down, the journal after each batch, a new call when one is lost.

Main thread, but for the rows' iteration.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hocket.client import (
    Client,
    ClientError,
    MapOperation,
    MapOptions,
    MapResult,
    Overloaded,
    StreamError,
    TransportError,
    Unavailable,
)
from hocket.client._commands.connection import UsageError
from hocket.client._map.feed import Feed
from hocket.client._map.journal import Journal, JournalEntry, WrongJournal, row_digest
from hocket.client._map.progress import JobProgress
from hocket.client._map.records import is_failed, record_of, tokens_of
from hocket.client._map.sinks import Sink
from hocket.client._map.sources import Row, Source

_BATCH_ROWS, _BATCH_SECONDS = 256, 0.5
_LEAST_WAIT, _MOST_WAIT = 0.2, 5.0
_PASSING = (TransportError, StreamError, Unavailable, Overloaded)


class ItemFailed(Exception):
    """A row failed, or a part of it, and that shall end the job."""

    def __init__(self, row: Row, result: MapResult) -> None:
        parts = f"{result.failed_segments} of {result.segments} segments"
        super().__init__(f"{row.id!r} failed: {result.error or parts}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """What is done, and how.

    Attributes:
        op: What is done with each row.
        options: The arguments of that.
        window: Most rows in flight; the server's bound if None.
        in_order: Whether records keep the order of the rows.
        stops_on_error: Whether a row that fails ends the job; else its record tells.
        patience_seconds: How long no row may be done before a lost server is given up.
        is_quiet: Show nothing.
    """

    op: MapOperation
    options: MapOptions
    window: int | None = None
    in_order: bool = False
    stops_on_error: bool = False
    patience_seconds: float = 60.0
    is_quiet: bool = False


class Job:
    """Does what a plan says with all rows of a source that are not done yet."""

    def __init__(
        self,
        client: Client,
        plan: JobPlan,
        source: Source,
        sink: Sink,
        journal: Journal,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._client = client
        self._plan = plan
        self._source = source
        self._sink = sink
        self._journal = journal
        self._clock = clock
        self._sleep = sleep
        self._ahead: set[int] = set()
        self._next = 0
        self._digest = 0
        self._failed = 0
        self._uncommitted = 0
        self._committed_at = clock()
        self._last_result_at = clock()

    def run(self, *, restarts: bool = False) -> int:
        """Do it; return how many rows failed, earlier runs counted.

        Args:
            restarts: Begin anew, whatever there is.

        Raises:
            UsageError: The output or the journal is of another job, or the source is not what it
                was, or not readable.
            ItemFailed: A row failed, and the plan says to stop then.
            ClientError: The server was lost for too long, or refuses the job.
        """
        if restarts:
            self._journal.remove()
            self._sink.remove()
        entry = self._found()
        if entry.is_finished:
            JobProgress(entry.rows, done=entry.rows, is_quiet=self._plan.is_quiet)
            return entry.failed
        total = self._source.count()
        rows = self._source.rows()
        waiting = self._check_source(entry, rows)
        self._next, self._ahead = entry.next, set(entry.ahead)
        self._digest, self._failed = entry.digest, entry.failed
        self._sink.open_at(entry.output_bytes)
        self._journal.begin(entry)
        feed = Feed(waiting, rows, next_seq=entry.next)
        progress = JobProgress(
            total, done=entry.rows, failed=entry.failed, is_quiet=self._plan.is_quiet
        )
        try:
            self._run_calls(feed, progress)
        finally:
            feed.stop()
            self._commit()
            progress.finish()
        self._sink.finish()
        if self._sink.file != self._sink.path:
            # Nothing of its bytes counts any more: what held them is removed.
            self._journal.append(replace(self._entry(), is_finished=True, output_bytes=0))
        self._sink.clear()
        return self._failed

    def _found(self) -> JournalEntry:
        """Return what an earlier run has done."""
        there = f"{self._sink.path} is there already"
        if not self._journal.exists:
            if not self._sink.is_empty:
                raise UsageError(f"{there}; --restart writes it anew")
            return JournalEntry()
        try:
            found = self._journal.read(self._sink.found_bytes)
        except WrongJournal:
            if self._sink.is_empty:
                return JournalEntry()
            raise UsageError(
                f"{there}, begun with other parameters; --restart writes it anew"
            ) from None
        return JournalEntry() if found.is_finished and not self._sink.is_whole else found

    def _check_source(self, entry: JournalEntry, rows: Any) -> list[Row]:  # noqa: ANN401 - an iterator of rows
        """Read past what is done and see that it is what was done; return what was left out."""
        waiting, digest = [], 0
        for seq in range(entry.end):
            row = next(rows, None)
            if row is None:
                break
            if entry.holds(seq):
                digest ^= row_digest(seq, row.id, row.text)
            else:
                waiting.append(row)
        if digest != entry.digest:
            raise UsageError(
                f"{self._source.path} is not what it was; --restart does all of it anew"
            )
        return waiting

    def _run_calls(self, feed: Feed, progress: JobProgress) -> None:
        """Make calls until every row is done."""
        attempt, lost_at = 0, self._clock()
        while not feed.is_empty:
            before = self._last_result_at
            try:
                failure = self._run_call(feed, progress)
            except _PASSING as error:
                failure = error
            feed.stop()
            self._commit()
            if failure is None:
                continue
            if self._last_result_at != before:
                attempt, lost_at = 0, self._clock()
            wait = failure.retry_after or min(_MOST_WAIT, _LEAST_WAIT * 2**attempt)
            attempt += 1
            if self._clock() + wait > lost_at + self._plan.patience_seconds:
                raise failure
            progress.say(f"{failure}; again in {wait:.1f} s")
            self._sleep(wait)

    def _run_call(self, feed: Feed, progress: JobProgress) -> ClientError | None:
        """Make one call; return what kept rows of it from being done, if that may pass."""
        plan, passing = self._plan, None
        results = self._client.map(
            feed.begin(), op=plan.op, window=plan.window, in_order=plan.in_order, **plan.options
        )
        with results:
            for result in results:
                if isinstance(result.error, _PASSING):
                    passing = result.error
                    if plan.in_order:
                        break  # what comes after it would come too early
                else:
                    self._take(feed, progress, result)
        return passing

    def _take(self, feed: Feed, progress: JobProgress, result: MapResult) -> None:
        seq = int(result.id)
        row = feed.row(seq)
        failed = is_failed(result)
        if failed and self._plan.stops_on_error:
            raise ItemFailed(row, result)
        self._sink.add(record_of(self._plan.op, row, result))
        self._digest ^= row_digest(seq, row.id, row.text)
        self._failed += failed
        self._ahead.add(seq)
        while self._next in self._ahead:
            self._ahead.remove(self._next)
            self._next += 1
        feed.end(seq, next_seq=self._next)
        self._uncommitted += 1
        self._last_result_at = self._clock()
        progress.add(is_failed=failed, tokens=tokens_of(self._plan.op, result))
        is_due = self._last_result_at - self._committed_at >= _BATCH_SECONDS
        if is_due or self._uncommitted >= _BATCH_ROWS:
            self._commit()

    def _commit(self) -> None:
        """Put what is gathered to the disk, and then the word that it is there."""
        self._committed_at = self._clock()
        self._sink.flush()
        if self._uncommitted:
            self._journal.append(self._entry())
            self._uncommitted = 0

    def _entry(self) -> JournalEntry:
        return JournalEntry(
            next=self._next,
            ahead=frozenset(self._ahead),
            digest=self._digest,
            output_bytes=self._sink.flush(),
            failed=self._failed,
        )
