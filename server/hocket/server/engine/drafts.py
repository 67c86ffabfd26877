"""Guesses at the tokens to come, copied from where the newest ones stood before. Engine thread.

Prompt lookup decoding (Saxena, 2023): answers often repeat their prompt, or themselves. What
followed the last few tokens the time before is a draft that costs no model; the model then tells
how much of it is right. Where drafts are mostly wrong they pause, and are tried again later.
"""

from collections.abc import Sequence

MOST_DRAFTED = 8
_SIZES = (4, 3, 2)  # of runs of tokens that have to be the same
_MOST_INDEXED = 256  # tokens in one call: less than half a millisecond

_FIRST_LENGTH, _GROWTH = 2, 2
_WEIGHT = 0.25  # of the newest draft in the average
_LEAST_SHARE, _NEW_SHARE = 0.3, 0.6  # that has to be right; that is supposed after a pause
_FIRST_PAUSE, _LONGEST_PAUSE = 16, 64  # steps


class Drafts:
    """The drafts of one sequence. It is told all of its tokens, and how each draft came out."""

    __slots__ = ("_index", "_length", "_num_indexed", "_pause", "_share", "_wait")

    def __init__(self) -> None:
        """Begin without a token known."""
        # Of every run of 2, 3 and 4 tokens but the newest: the position after its last occurrence.
        self._index: dict[tuple[int, ...], int] = {}
        self._num_indexed = 0
        self._length = _FIRST_LENGTH
        self._share = 1.0  # of what was drafted lately, how much was right
        self._pause = _FIRST_PAUSE
        self._wait = 0

    def propose(self, token_ids: Sequence[int], most: int) -> tuple[int, ...]:
        """Guess what comes next; called once for each step in which drafts are welcome.

        Costs a bounded time: a long prompt is indexed in several calls, without a guess before.

        Args:
            token_ids: All tokens so far: those of the last time, and more.
            most: Guesses wanted at most.

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
        count = min(most, self._length)
        if self._num_indexed < last or count <= 0:
            return ()
        for size in _SIZES:
            found = self._index.get(tuple(token_ids[-size:]))
            if found is not None:
                period = last + 1 - found
                return tuple(token_ids[found + at % period] for at in range(count))
        return ()

    def note(self, drafted: int, accepted: int) -> None:
        """Learn how much of a draft was right, and how long the next one should be."""
        self._share += _WEIGHT * (accepted / drafted - self._share)
        if accepted < drafted:
            self._length = accepted + 1
        elif drafted == self._length:
            self._length = min(MOST_DRAFTED, self._length + _GROWTH)
        if self._share >= _LEAST_SHARE:
            return
        self._wait = self._pause
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
        self._share = _NEW_SHARE

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
