"""Events of many jobs as they come to events in the order that was asked for. Pure. Loop thread.

Whatever the order, what is released is the same; sorted by place and piece it is what `IN_ORDER`
releases. What is not due is held, and no more of it than there are jobs begun before the first
that is not over.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from hocket.server.document.job import JobEnded, JobEvent, Place, place_of


class Order(Enum):
    """In which order the jobs of a document come back."""

    IN_ORDER = "in_order"
    AS_COMPLETED = "as_completed"
    INTERLEAVED = "interleaved"


@dataclass(frozen=True, slots=True)
class Released:
    """An event that is due.

    Attributes:
        event: As it came.
        target_start: For the end of a job, where its text begins in the target of its variant, in
            UTF-8 bytes; None while a segment before it is not over.
    """

    event: JobEvent
    target_start: int | None = None


@dataclass(slots=True)
class _Target:
    """How far the target of a variant is known.

    Attributes:
        size: Bytes of all that stands before the first segment that is not over.
        waiting: Segments that are not over, or not counted in `size` yet, in order.
        ahead: Bytes of those of them that are over, gaps included.
    """

    size: int = 0
    waiting: deque[int] = field(default_factory=deque)
    ahead: dict[int, int] = field(default_factory=dict)

    def end(self, segment: int, gap_bytes: int, text_bytes: int) -> int | None:
        """Take in the end of a segment; return where its text begins, if that is known."""
        is_known = self.waiting[0] == segment
        start = self.size + gap_bytes if is_known else None
        self.ahead[segment] = gap_bytes + text_bytes
        while self.waiting and self.waiting[0] in self.ahead:
            self.size += self.ahead.pop(self.waiting.popleft())
        return start


class Merge:
    """The order of one document."""

    def __init__(self, order: Order, *, variants: int = 1) -> None:
        """Make it.

        Args:
            order: What is due when.
            variants: Targets that there are of each segment.
        """
        self._order = order
        self._targets = tuple(_Target() for _ in range(variants))
        self._line: deque[Place] = deque()  # for IN_ORDER: places that are not released to the end
        self._held: dict[Place, list[JobEvent]] = {}
        self._last: Place | None = None

    @property
    def held(self) -> int:
        """Jobs of which something is held."""
        return len(self._held)

    @property
    def target_bytes(self) -> tuple[int, ...]:
        """Bytes of each variant's target, gaps included, as far as all before it is over."""
        return tuple(target.size for target in self._targets)

    def expect(self, place: Place) -> None:
        """Learn of the next job, before its first event.

        Raises:
            AssertionError: It does not stand behind the last one.
        """
        if self._last is not None and place <= self._last:
            raise AssertionError("a job was announced out of order. This is a bug.")
        self._last = place
        self._targets[place.variant].waiting.append(place.segment)
        if self._order is Order.IN_ORDER:
            self._line.append(place)

    def push(self, event: JobEvent) -> list[Released]:
        """Take in an event and return what is due, in order."""
        match self._order:
            case Order.INTERLEAVED:
                return [self._release(event)]
            case Order.AS_COMPLETED:
                return self._push_completed(event)
            case Order.IN_ORDER:
                return self._push_in_order(event)

    def _push_completed(self, event: JobEvent) -> list[Released]:
        place = place_of(event)
        if not isinstance(event, JobEnded):
            self._held.setdefault(place, []).append(event)
            return []
        return [*map(self._release, self._held.pop(place, [])), self._release(event)]

    def _push_in_order(self, event: JobEvent) -> list[Released]:
        place = place_of(event)
        if place != self._line[0]:
            self._held.setdefault(place, []).append(event)
            return []
        released = [self._release(event)]
        is_over = isinstance(event, JobEnded)
        while is_over:
            self._line.popleft()
            due = self._held.pop(self._line[0], []) if self._line else []
            released += map(self._release, due)
            is_over = bool(due) and isinstance(due[-1], JobEnded)
        return released

    def _release(self, event: JobEvent) -> Released:
        if not isinstance(event, JobEnded):
            return Released(event)
        place, gap = event.job.place, event.job.segment.gap
        target = self._targets[place.variant]
        return Released(event, target.end(place.segment, len(gap.encode()), event.target_bytes))
