"""Guesses at the tokens to come, copied from where the newest ones stood before. Engine thread.

Prompt lookup decoding (Saxena, 2023): answers often repeat their prompt, or themselves. What
followed the last few tokens the time before is a draft that costs no model; the model then tells
how much of it is right. Where drafts are mostly wrong they pause, and are tried again later.
"""

from collections.abc import Sequence

MOST_DRAFTED = 8
INDEX_BYTES = 480  # what a token takes in the index, at most; measured
_SIZES = (4, 3, 2)  # of runs of tokens that have to be the same
_MOST_INDEXED = 256  # tokens in one call: less than half a millisecond

_KEPT = 0.75  # of what earlier drafts count for, at each draft
_SUPPOSED = 0.7  # chance of a draft of which nothing is known
_FIRST_PAUSE, _LONGEST_PAUSE = 16, 64  # steps


class Drafts:
    """The drafts of one sequence. It is told all of its tokens, and how each draft came out."""

    __slots__ = ("_index", "_num_indexed", "_pause", "_right", "_tried", "_wait")

    def __init__(self) -> None:
        """Begin without a token known."""
        # Of every run of 2, 3 and 4 tokens but the newest: the position after its last occurrence.
        self._index: dict[tuple[int, ...], int] = {}
        self._num_indexed = 0
        self._right, self._tried = _SUPPOSED, 1.0  # lately; those after a wrong one do not count
        self._pause = _FIRST_PAUSE
        self._wait = 0

    @property
    def is_indexed(self) -> bool:
        """Whether it holds an index, of up to `INDEX_BYTES` for each token."""
        return bool(self._index)

    def forget(self) -> None:
        """Give back the memory of the index; the next calls to `propose` make it again."""
        self._index = {}
        self._num_indexed = 0

    def propose(self, token_ids: Sequence[int], most: int, cost: float) -> tuple[int, ...]:
        """Guess what comes next; called once for each step in which drafts are welcome.

        Costs a bounded time: a long prompt is indexed in several calls, without a guess before.

        Args:
            token_ids: All tokens so far: those of the last time, and more.
            most: Guesses wanted at most.
            cost: What computing a guess costs, as a share of what one that is right saves. As many
                are returned as are likely enough to be right for that, all those before them too.

        Returns:
            The tokens after the newest earlier place at which the last four tokens stood, else the
            last three, else two; at most `MOST_DRAFTED`. Where that runs into the end, it is
            taken to go round.
        """
        last = len(token_ids) - 1
        self._catch_up(token_ids, last)
        if self._wait:
            self._wait -= 1
            return ()
        if self._num_indexed < last or most <= 0:
            return ()
        found = self._find(token_ids)
        if found is None:
            return ()
        count = min(most, self._worthwhile(cost))
        period = last + 1 - found
        return tuple(token_ids[found + at % period] for at in range(count))

    def note(self, drafted: int, accepted: int) -> None:
        """Learn how many guesses of a draft were right."""
        self._right = _KEPT * self._right + accepted
        self._tried = _KEPT * self._tried + min(drafted, accepted + 1)

    def _find(self, token_ids: Sequence[int]) -> int | None:
        """Return the position after the newest earlier place of the last tokens."""
        for size in _SIZES:
            found = self._index.get(tuple(token_ids[-size:]))
            if found is not None:
                return found
        return None

    def _worthwhile(self, cost: float) -> int:
        """Return how many guesses are worth their cost; a pause begins where none is."""
        chance = self._right / self._tried
        count, likely = 0, chance
        while likely >= cost and count < MOST_DRAFTED:
            count, likely = count + 1, likely * chance
        if not count:
            self._wait = self._pause
            self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
            self._right, self._tried = _SUPPOSED, 1.0
        return count

    def _catch_up(self, token_ids: Sequence[int], end: int) -> None:
        begin = self._num_indexed
        end = min(end, begin + _MOST_INDEXED)
        for size in _SIZES:
            first = max(begin, size - 1)  # where the first run ends that is new
            starts = range(first + 1 - size, max(first, end) + 1 - size)
            columns = [token_ids[starts.start + at : starts.stop + at] for at in range(size)]
            runs = zip(*columns, strict=True)
            self._index.update(zip(runs, range(first + 1, first + 1 + len(starts)), strict=True))
        self._num_indexed = max(begin, end)
