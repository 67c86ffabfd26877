"""What is chosen for one step, and how much room is left in it. Engine thread."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from hocket.server.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Work:
    """So many of a sequence's pending tokens, and drafts of those that follow."""

    sequence: Sequence
    count: int
    drafts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wide:
    """What wide groups may take of a step that narrow ones are in.

    Attributes:
        narrow: The groups that are not bounded by it.
        tokens: For all others together; above 0.
        stream_cost: What a stream takes of it, in tokens of a prompt.
    """

    narrow: frozenset[str]
    tokens: float
    stream_cost: float


@dataclass(slots=True)
class Plan:
    """What is chosen for a step, and how much is left in it.

    Attributes:
        budget: Tokens that may be added, each counted as one that looks back at nothing.
        key_cost: What one more token to look back at adds to that.
        wide: What bounds wide groups; None where there is none beside narrow ones.
        chosen: So many tokens of each sequence.
        costs: What they took from the budget.
        wide_taken: What wide groups took, in tokens of a prompt.
    """

    budget: float
    key_cost: float = 0.0
    wide: Wide | None = None
    chosen: dict[Sequence, int] = field(default_factory=dict)
    costs: dict[Sequence, float] = field(default_factory=dict)
    wide_taken: float = 0.0

    def has_room(self, sequence: Sequence, refund: float = 0.0) -> bool:
        """Whether a token of a sequence fits, if others would leave `refund` to it."""
        return self.budget + refund >= 1 and self._wide_left(sequence) > 0

    def room_for(self, sequence: Sequence, refund: float = 0.0) -> float:
        """Return how many tokens fit, at least one, of a sequence for which there is room."""
        return min(self.budget + refund, max(1.0, self._wide_left(sequence)))

    def pay(self, sequence: Sequence, cost: float) -> None:
        """Take from the room of a sequence what something costs that is no token of it."""
        self.budget -= cost
        if self._wide_left(sequence) < math.inf:
            self.wide_taken += cost

    def affordable(self, sequence: Sequence, skipped: int = 0, refund: float = 0.0) -> int:
        """Return how many pending tokens of a sequence fit: one at least, while anything is left.

        Tokens from position `s` on cost `n + key_cost * (n * s + n * n / 2)`; a stream's token
        counts as one wherever it stands.

        Args:
            sequence: Whose.
            skipped: So many of them need not be computed.
            refund: What others would leave to it.
        """
        if not self.has_room(sequence, refund):
            return 0
        budget = self.room_for(sequence, refund)
        count = sequence.num_pending - skipped
        if not sequence.is_decoding:
            count = min(count, self._fitting(sequence.num_computed + skipped, budget))
        return min(count, int(budget))

    def refund(self, sequences: Iterable[Sequence]) -> float:
        """Return what the budget grows by where these are left out again."""
        return sum(self.costs.get(sequence, 0.0) for sequence in sequences)

    def add(self, sequence: Sequence, count: int) -> None:
        """Choose so many tokens of a sequence."""
        cost = float(count)
        if not sequence.is_decoding:
            cost += self.key_cost * count * (sequence.num_computed + count / 2)
        self.chosen[sequence] = count
        self.costs[sequence] = cost
        self.budget -= cost
        self.wide_taken += self._share(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Leave a sequence out again; others may have its tokens."""
        if self.chosen.pop(sequence, None) is not None:
            self.wide_taken -= self._share(sequence)
        self.budget += self.costs.pop(sequence, 0.0)

    def _wide_left(self, sequence: Sequence) -> float:
        """Return what is left of what wide groups may take; without bound for a narrow one."""
        if self.wide is None or sequence.group in self.wide.narrow:
            return math.inf
        return self.wide.tokens - self.wide_taken

    def _share(self, sequence: Sequence) -> float:
        """Return what a chosen sequence takes of what wide groups may take."""
        if self.wide is None or sequence.group in self.wide.narrow:
            return 0.0
        return self.wide.stream_cost if sequence.is_decoding else self.costs[sequence]

    def _fitting(self, start: int, budget: float) -> int:
        """Return the largest count whose cost is within a budget, at least 1."""
        if not self.key_cost:
            return int(budget)
        slope = 1 + self.key_cost * start
        root = math.sqrt(slope * slope + 2 * self.key_cost * budget)
        return max(1, int((root - slope) / self.key_cost))
