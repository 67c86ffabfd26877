"""One document, from its parts as they come to events in the order that was asked for.

    parts ▸ segmenter ▸ jobs ▸ fanout ▸ merge ▸ events

Parts are cut as jobs are asked for, slice by slice, on a text thread; the segments that are ahead
of the window are those of one slice. Loop thread.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from hocket.server.document.fanout import Fanout, OnBug, Places
from hocket.server.document.job import Job, JobEnded, Place
from hocket.server.document.merge import Merge, Order, Released
from hocket.server.document.tally import DocumentEnded, Tally
from hocket.server.document.writer import Writer
from hocket.server.errors import InvalidRequest
from hocket.server.text.segments import Segment

_SLICE_CHARS = 4_096  # that are cut at once
_MOST_HELD_CHARS = 1 << 20  # that wait to be cut, before no more is taken
_PART_CHARS = 64  # that a part costs beside its own

_T = TypeVar("_T")
_Part = str | tuple[str, str]  # a slice of text, or a given segment and the gap before it

DocumentEvent = Released | DocumentEnded


class Cutter(Protocol):
    """Cuts one document; see `Segmenter`."""

    def push(self, text: str, /) -> list[Segment]:
        """Return the segments that are decided by more text."""
        ...

    def push_given(self, text: str, gap: str, /) -> Segment:
        """Return the next segment as the caller cut it."""
        ...

    def finish(self) -> tuple[list[Segment], str]:
        """Return the last segments, and what stands behind them."""
        ...


class Run(Protocol):
    """Runs a short function on a text thread."""

    async def __call__(self, work: Callable[[], _T]) -> _T:
        """Return what it returns; raise what it raises."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformPlan:
    """How a document is worked through.

    Attributes:
        order: In which order its jobs come back.
        window: Most jobs begun from the first that is not over on.
        variants: Targets of each segment.
        context_segments: So many segments before each one go with it.
        max_segments: Most segments that it may have.
        max_bytes: Most bytes that it may have.
        max_gap_bytes: Most bytes that may stand between two segments.
    """

    order: Order
    window: int
    variants: int = 1
    context_segments: int = 0
    max_segments: int = 65_536
    max_bytes: int = 1 << 24
    max_gap_bytes: int = 1 << 21


class DocumentTransform:
    """One document, for one use.

    Some task pushes its parts and says when it is whole; another reads `events`.
    """

    def __init__(
        self,
        plan: TransformPlan,
        *,
        writer: Writer,
        segmenter: Cutter,
        places: Places,
        run: Run,
        on_bug: OnBug,
    ) -> None:
        """Make it.

        Args:
            plan: How it is worked through.
            writer: Writes each segment and variant.
            segmenter: Cuts this document, and no other.
            places: The door, for what runs beside the first job.
            run: Where text is cut.
            on_bug: Told of bugs of the writer.
        """
        self._plan = plan
        self._segmenter = segmenter
        self._run = run
        self._fanout = Fanout(writer, window=plan.window, places=places, on_bug=on_bug)
        self._merge = Merge(plan.order, variants=plan.variants)
        self._tally = Tally()
        self._parts: deque[_Part] = deque()
        self._held_chars = 0
        self._news = asyncio.Event()
        self._has_room = asyncio.Event()
        self._is_closed = False
        self._is_cut = False
        self._error: Exception | None = None
        self._field = "text"  # under which the document is complained about
        self._source_bytes = 0
        self._segments = 0
        self._gap = ""

    @property
    def tally(self) -> Tally:
        """What its jobs came to so far."""
        return self._tally

    async def push(self, text: str) -> None:
        """Add text; wait while much of it is not cut yet.

        Raises:
            InvalidRequest: The document has become too long.
        """
        self._weigh(text)
        slices = (text[at : at + _SLICE_CHARS] for at in range(0, len(text), _SLICE_CHARS))
        await self._hold(*slices)

    async def push_given(self, text: str, gap: str) -> None:
        """Add a segment as the caller cut it; wait as `push` does.

        Raises:
            InvalidRequest: The document has become too long.
        """
        self._field = "segment"
        self._weigh(gap, text)
        await self._hold((text, gap))

    def close_nowait(self, error: Exception | None = None) -> None:
        """Add no more: the document is whole, unless an error says why it is not. Repeatable.

        With an error all segments that are certain are worked on, then it is raised.
        """
        if not self._is_closed:
            self._is_closed, self._error = True, error
        self._news.set()

    def cancel_nowait(self, segment: int, variant: int | None = None) -> None:
        """End a segment; see `Fanout.cancel_nowait`. One that there cannot be is ignored."""
        if segment < self._plan.max_segments and (variant or 0) < self._plan.variants:
            self._fanout.cancel_nowait(segment, variant)

    def expire_nowait(self) -> None:
        """End all because the time is up: what came is cut, but not written; nothing is awaited."""
        self._is_cut |= not self._is_closed
        self._fanout.expire_nowait()
        self.close_nowait()

    def abort_nowait(self) -> None:
        """End all as `expire_nowait` does, because an operator says so."""
        self._fanout.abort_nowait()
        self.close_nowait()

    async def events(self) -> AsyncGenerator[DocumentEvent]:
        """Yield what is due of all jobs, and last how the document ended.

        Raises:
            InvalidRequest: It has too many segments, or too much between two of them; raised once
                all before that is over.
            Exception: What it was closed with; raised as late.
        """
        async with aclosing(self._fanout.events(self._jobs())) as events:
            async for event in events:
                for released in self._merge.push(event):
                    if isinstance(released.event, JobEnded):
                        self._tally.note(released.event)
                    yield released
        yield self._tally.end(
            segments=self._segments,
            source_bytes=self._source_bytes,
            gap=self._gap,
            target_bytes=self._merge.target_bytes,
            is_cut=self._is_cut,
        )

    async def _jobs(self) -> AsyncGenerator[Job]:
        before: deque[str] = deque(maxlen=self._plan.context_segments)
        async with aclosing(self._cut_all()) as segments:
            async for segment in segments:
                context = tuple(before)
                for variant in range(self._plan.variants):
                    place = Place(segment.index, variant)
                    self._merge.expect(place)
                    yield Job(place=place, segment=segment, context=context)
                before.append(segment.text)

    async def _cut_all(self) -> AsyncGenerator[Segment]:
        while (part := await self._next_part()) is not None:
            for segment in await self._cut(part):
                yield self._checked(segment)
        if self._error is not None:
            raise self._error
        last, gap = await self._run(self._segmenter.finish)
        for segment in last:
            yield self._checked(segment)
        self._check_gap(gap)
        self._gap = gap

    async def _cut(self, part: _Part) -> list[Segment]:
        if isinstance(part, str):
            return await self._run(partial(self._segmenter.push, part))
        return [await self._run(partial(self._segmenter.push_given, *part))]

    async def _next_part(self) -> _Part | None:
        """Return the next part once it is there; None if no more comes."""
        while not self._parts:
            if self._is_closed:
                return None
            self._news.clear()
            await self._news.wait()
        part = self._parts.popleft()
        self._held_chars -= _chars(part)
        self._has_room.set()
        return part

    async def _hold(self, *parts: _Part) -> None:
        if self._is_closed:
            return  # the time was up meanwhile
        self._parts.extend(parts)
        self._held_chars += sum(map(_chars, parts))
        self._news.set()
        while self._held_chars > _MOST_HELD_CHARS:
            self._has_room.clear()
            await self._has_room.wait()

    def _weigh(self, *texts: str) -> None:
        size = sum(len(text.encode()) for text in texts)
        if self._source_bytes + size > self._plan.max_bytes:
            raise InvalidRequest.of(
                self._field, f"makes the document longer than {self._plan.max_bytes} bytes"
            )
        if not self._is_closed:
            self._source_bytes += size

    def _checked(self, segment: Segment) -> Segment:
        if segment.index >= self._plan.max_segments:
            raise InvalidRequest.of(
                self._field, f"makes more than {self._plan.max_segments} segments of the document"
            )
        self._check_gap(segment.gap)
        self._segments = segment.index + 1
        return segment

    def _check_gap(self, gap: str) -> None:
        size = len(gap.encode())
        if size > self._plan.max_gap_bytes:
            raise InvalidRequest.of(
                self._field,
                f"has {size} bytes between two segments, more than {self._plan.max_gap_bytes}",
            )


def _chars(part: _Part) -> int:
    return _PART_CHARS + (len(part) if isinstance(part, str) else sum(map(len, part)))
