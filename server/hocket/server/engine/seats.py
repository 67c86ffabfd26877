"""Who sits in the batch and who waits for a seat, group by group. Engine thread.

A group is what was asked for at once: a request with its choices, a document, a stream of requests.
Within a group, sequences stand in their own order; between groups, whoever holds fewer seats comes
first. So those that run stand in the order of turns: the first of each group, then the second of
each, and so on.

Where two groups hold the same, the one that had its turn longer ago is first: whenever a sequence
that ran has ended, its group stands behind all that came until then. A group without end, and many
of them, keep nobody waiting for longer than the sequences that sit.

A seat changes hands where the group that gets it will not hold more than the other keeps, so that
it is not taken back in turn. No more seats change hands than sequences come; where priorities
differ, no more than come and end.
"""

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter

from hocket.server.engine.sequence import Place, Sequence

_ORDER = attrgetter("order")

_Entry = tuple[int, float, int, str]


@dataclass(eq=False, slots=True)
class _Group:
    """Sequences that were asked for together.

    Attributes:
        name: Of the group.
        running: Those that sit, in order.
        waiting: Those that wait, in order.
        turn: The rank of whoever came when its last one ended.
        entry: Where it stands among the groups that wait; None if nobody of it does.
    """

    name: str
    running: list[Sequence] = field(default_factory=list)
    waiting: list[Sequence] = field(default_factory=list)
    turn: float = -math.inf
    entry: _Entry | None = None


class Seats:
    """Those that run and those that wait."""

    def __init__(self) -> None:
        self.running: list[Sequence] = []
        self.num_waiting = 0
        self._groups: dict[str, _Group] = {}
        self._heads: list[_Entry] = []

    @property
    def waiting(self) -> list[Sequence]:
        """All that wait, group by group."""
        return [sequence for group in self._groups.values() for sequence in group.waiting]

    @property
    def waiting_groups(self) -> frozenset[str]:
        """The groups of which somebody waits."""
        return frozenset(entry[3] for entry in self._heads)

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait, whether it is new or was put aside."""
        group = self._groups.get(sequence.group)
        if group is None:
            group = self._groups[sequence.group] = _Group(sequence.group)
        insort(group.waiting, sequence, key=_ORDER)
        sequence.place = Place.WAITING
        self.num_waiting += 1
        self._file(group)

    def seat(self, sequence: Sequence) -> None:
        """Let a sequence that waits run."""
        self._stop_waiting(sequence)
        group = self._groups[sequence.group]
        insort(group.running, sequence, key=_ORDER)
        insort(self.running, sequence, key=_ORDER)
        sequence.place = Place.RUNNING
        self._file(group)

    def put_aside(self, sequence: Sequence) -> None:
        """Let a sequence that runs wait again."""
        self._stop_running(sequence)
        self.add(sequence)

    def remove(self, sequence: Sequence, rank: float) -> None:
        """Forget a sequence that ended; one that was never added has nothing to be forgotten.

        Args:
            sequence: Waits or runs.
            rank: Of one of its priority that comes now: if it ran, its group stands behind that.
        """
        group = self._groups.get(sequence.group)
        if group is None or not (sequence in group.waiting or sequence in group.running):
            sequence.place = Place.ENDED
            return
        if sequence.place is Place.RUNNING:
            self._stop_running(sequence)
            group.turn = max(group.turn, rank)
        else:
            self._stop_waiting(sequence)
        sequence.place = Place.ENDED
        self._file(group)

    def next(self, below: float = math.inf) -> Sequence | None:
        """Return who gets the next seat, if anybody waits whose group holds fewer than `below`."""
        if not self._heads or self._heads[0][0] >= below:
            return None
        return self._groups[self._heads[0][3]].waiting[0]

    def narrow(self) -> frozenset[str]:
        """Return the groups that have, seated and waiting, at most half of the widest's seats."""
        widest = max((len(group.running) for group in self._groups.values()), default=0)
        return frozenset(
            name
            for name, group in self._groups.items()
            if 2 * (len(group.running) + len(group.waiting)) <= widest
        )

    def in_turn(self) -> list[tuple[int, Sequence]]:
        """Return those that run in the order of turns.

        Each with how many of its group stand before it.
        """
        held: Counter[str] = Counter()
        turns = []
        for sequence in self.running:
            turns.append((held[sequence.group], sequence))
            held[sequence.group] += 1
        turns.sort(key=itemgetter(0))  # which keeps the order of equals
        return turns

    def last(self) -> Sequence:
        """Return who is last in the order of turns; somebody runs."""
        return self.in_turn()[-1][1]

    def givers(self, newcomer: Sequence) -> Iterator[Sequence]:
        """Yield those that run whose seats one that waits may take, as if each was taken.

        They are the last of whichever group holds most, while that group keeps no fewer seats than
        the newcomer's will hold. Whoever is more urgent than the newcomer keeps its seat.
        """
        will_hold = len(self._groups[newcomer.group].running) + 1
        names = {sequence.group for sequence in self.running}
        left = [list(self._groups[name].running) for name in names]
        while left := [held for held in left if len(held) > will_hold]:
            most = max(left, key=lambda held: (len(held), held[-1].order))
            if most[-1].priority < newcomer.priority:
                left.remove(most)
            else:
                yield most.pop()

    def check_integrity(self) -> None:
        """Raise if the books do not balance."""
        groups = self._groups.values()
        running = sorted((s for group in groups for s in group.running), key=_ORDER)
        entries = sorted(self._entry(group) for group in groups if group.waiting)
        if running != self.running or entries != self._heads:
            raise AssertionError("seats and groups disagree. This is a bug.")
        if self.num_waiting != sum(len(group.waiting) for group in groups):
            raise AssertionError("those that wait were miscounted. This is a bug.")
        if not all(group.running or group.waiting for group in groups):
            raise AssertionError("a group is kept that has nobody. This is a bug.")

    def _stop_waiting(self, sequence: Sequence) -> None:
        self._groups[sequence.group].waiting.remove(sequence)
        self.num_waiting -= 1

    def _stop_running(self, sequence: Sequence) -> None:
        self._groups[sequence.group].running.remove(sequence)
        self.running.remove(sequence)

    def _file(self, group: _Group) -> None:
        """Put a group where it now stands among those that wait, or forget it if it has nobody."""
        entry = self._entry(group) if group.waiting else None
        if entry != group.entry:
            if group.entry is not None:
                del self._heads[bisect_left(self._heads, group.entry)]
            if entry is not None:
                insort(self._heads, entry)
            group.entry = entry
        if not group.waiting and not group.running:
            del self._groups[group.name]

    def _entry(self, group: _Group) -> _Entry:
        """Return what sorts a group among those that wait."""
        head = group.waiting[0]
        held, turn = len(group.running), max(group.turn, head.rank)
        return held, turn, head.sequence_id, group.name
