"""One text in sections, given or drafted, in parallel or one after the other. Loop thread.

    outline ▸ what all prompts share, computed once ▸ jobs ▸ fanout ▸ merge ▸ events

In parallel each section is a job of its own, whose prompt holds the task and the outline; one after
the other each prompt holds the texts before it, too. What joins them is a last job over all texts.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from hocket.server.document.fanout import Fanout, OnBug, Places
from hocket.server.document.job import (
    Job,
    JobEnded,
    JobEvent,
    JobPiece,
    JobUsage,
    Place,
)
from hocket.server.document.merge import Merge, Order, Released
from hocket.server.document.outline import Section
from hocket.server.document.tally import DocumentEnded, Tally
from hocket.server.document.writer import Writer
from hocket.server.text.segments import Segment

_GAP = "\n\n"  # between sections


class Parallel(Enum):
    """Whether sections are written in parallel."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Author(Writer, Protocol):
    """Drafts, judges and writes; see `SectionWriter`."""

    async def draft(self, max_sections: int) -> tuple[tuple[Section, ...], JobUsage]:
        """Return the sections that it proposes, at least one, and what that took."""
        ...

    async def judge(self) -> tuple[bool, JobUsage]:
        """Return whether the sections can be written each by itself."""
        ...

    async def prime(self) -> JobUsage:
        """Compute what the prompts of all sections begin with."""
        ...

    def settle(self, sections: Sequence[Section]) -> None:
        """Learn of the outline, before it judges, primes or writes."""
        ...

    def cancel_drafting_nowait(self) -> None:
        """End what it does before the first section."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposePlan:
    """How a text is written.

    Attributes:
        order: In which order its sections come back.
        window: Most sections begun from the first that is not over on.
        parallel: Whether they are written in parallel.
        sections: What to write; empty lets the model draft it.
        max_sections: Most sections that the model drafts.
        has_join: Whether one more job joins them.
    """

    order: Order
    window: int
    parallel: Parallel = Parallel.AUTO
    sections: tuple[Section, ...] = ()
    max_sections: int = 8
    has_join: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineReady:
    """The outline is known; before any section.

    Attributes:
        sections: In order, without what joins them.
        is_drafted: Whether the model drafted it.
        is_parallel: Whether its sections are written in parallel.
        usage: What drafting and judging took.
    """

    sections: tuple[Section, ...]
    is_drafted: bool
    is_parallel: bool
    usage: JobUsage


ComposeEvent = OutlineReady | Released | DocumentEnded


class Compose:
    """One text, for one use."""

    def __init__(self, plan: ComposePlan, *, author: Author, places: Places, on_bug: OnBug) -> None:
        """Make it.

        Args:
            plan: How it is written.
            author: Writes it.
            places: The door, for what runs beside the first section.
            on_bug: Told of bugs of the author.
        """
        self._plan = plan
        self._author = author
        self._fanout = Fanout(author, window=plan.window, places=places, on_bug=on_bug)
        self._merge = Merge(plan.order)
        self._tally = Tally()
        self._drafted = JobUsage()
        self._primed = JobUsage()
        self._texts: defaultdict[int, list[str]] = defaultdict(list)
        self._over: set[int] = set()
        self._news = asyncio.Event()

    @property
    def tally(self) -> Tally:
        """What its sections came to so far."""
        return self._tally

    @property
    def usage(self) -> JobUsage:
        """What all of it took so far: the outline, what prompts share, the sections."""
        return self._drafted + self._primed + self._tally.usage

    def cancel_nowait(self, section: int) -> None:
        """End a section; see `Fanout.cancel_nowait`. One that there cannot be is ignored."""
        most = len(self._plan.sections) or self._plan.max_sections
        if section < most + self._plan.has_join:
            self._fanout.cancel_nowait(section)

    def expire_nowait(self) -> None:
        """End all because the time is up; nothing is awaited. Repeatable."""
        self._author.cancel_drafting_nowait()
        self._fanout.expire_nowait()

    def abort_nowait(self) -> None:
        """End all as `expire_nowait` does, because somebody says so."""
        self._author.cancel_drafting_nowait()
        self._fanout.abort_nowait()

    async def events(self) -> AsyncGenerator[ComposeEvent]:
        """Yield the outline, what is due of all sections, and last how the text ended.

        Raises:
            HocketError: The outline could not be had.
        """
        outline = await self._settled()
        self._drafted = outline.usage
        yield outline
        async with aclosing(self._fanout.events(self._jobs(outline))) as events:
            async for event in events:
                self._note(event)
                for released in self._merge.push(event):
                    if isinstance(released.event, JobEnded):
                        self._tally.note(released.event)
                    yield released
        ended = self._tally.end(
            segments=len(self._over),
            source_bytes=0,
            gap="",
            target_bytes=self._merge.target_bytes,
        )
        yield replace(ended, usage=ended.usage + self._primed)

    async def _settled(self) -> OutlineReady:
        """Draft the outline if none was given, and decide how it is written.

        `AUTO` writes given sections in parallel, and drafted ones if the author judges that each
        can be written by itself. A draft that could not be read is one section, which is not.
        """
        plan, usage = self._plan, JobUsage()
        sections, is_drafted = plan.sections, not plan.sections
        if is_drafted:
            sections, usage = await self._author.draft(plan.max_sections)
        self._author.settle(sections)
        is_parallel = plan.parallel is not Parallel.NEVER
        if is_drafted and is_parallel:
            is_parallel = len(sections) > 1
            if is_parallel and plan.parallel is Parallel.AUTO:
                is_parallel, more = await self._author.judge()
                usage += more
        return OutlineReady(
            sections=sections, is_drafted=is_drafted, is_parallel=is_parallel, usage=usage
        )

    async def _jobs(self, outline: OutlineReady) -> AsyncGenerator[Job]:
        count = len(outline.sections)
        if outline.is_parallel and not self._fanout.is_expired:
            self._primed = await self._author.prime()
        for index, section in enumerate(outline.sections):
            if not outline.is_parallel:
                await self._wait_for(index)
            context = () if outline.is_parallel else self._before(index)
            yield self._job(index, section.title, context)
        if self._plan.has_join:
            await self._wait_for(count)
            yield self._job(count, "", self._before(count))

    def _job(self, index: int, title: str, context: tuple[str, ...]) -> Job:
        place = Place(index)
        self._merge.expect(place)
        gap = _GAP if index else ""
        segment = Segment(index=index, gap=gap, text=title, start_byte=0)
        return Job(place=place, segment=segment, context=context)

    async def _wait_for(self, index: int) -> None:
        """Wait until all sections before one are over."""
        while len(self._over) < index:
            self._news.clear()
            await self._news.wait()

    def _before(self, index: int) -> tuple[str, ...]:
        return tuple("".join(self._texts[before]) for before in range(index))

    def _note(self, event: JobEvent) -> None:
        if isinstance(event, JobPiece):
            self._texts[event.place.segment].append(event.piece.text)
        elif isinstance(event, JobEnded):
            self._over.add(event.job.place.segment)
            self._news.set()
