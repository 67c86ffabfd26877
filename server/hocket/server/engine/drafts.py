"""Guesses at the tokens to come, copied from where the newest ones stood before. Engine thread.

Prompt lookup decoding (Saxena, 2023): answers often repeat their prompt, or themselves. What
followed the last few tokens the time before is a draft that costs no model; the model then tells
how much of it is right. Where drafts are mostly wrong they pause, and are tried again later.
"""

from collections.abc import Sequence

MOST_DRAFTED = 8
_LONGEST, _SHORTEST = 4, 2  # tokens that have to be the same
_TOKEN_BITS = 32
_MOST_INDEXED = 512  # tokens in one call: about 0.3 ms

_FIRST_LENGTH, _GROWTH = 2, 2
_WEIGHT = 0.25  # of the newest draft in the average
_LEAST_SHARE, _NEW_SHARE = 0.3, 0.6  # that has to be right; that is supposed after a pause
_FIRST_PAUSE, _LONGEST_PAUSE = 16, 64  # steps


class Drafts:
    """The drafts of one sequence. It is told all of its tokens, and how each draft came out."""

    __slots__ = ("_index", "_key", "_length", "_num_indexed", "_pause", "_share", "_wait")

    def __init__(self) -> None:
        """Begin without a token known."""
        # Of every run of 2, 3 and 4 tokens but the newest: the position after its last occurrence.
        self._index: dict[int, int] = {}
        self._key = 0  # the last tokens indexed
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
        key = self._key << _TOKEN_BITS | token_ids[last]
        for size in range(_LONGEST, _SHORTEST - 1, -1):
            found = self._index.get(_run(key, size))
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
        index, key = self._index, self._key
        begin = self._num_indexed
        end = min(end, begin + _MOST_INDEXED)
        for position in range(begin, end):
            key = (key << _TOKEN_BITS | token_ids[position]) & _mask(_LONGEST)
            for size in range(_SHORTEST, min(_LONGEST, position + 1) + 1):
                index[_run(key, size)] = position + 1
        self._key, self._num_indexed = key, max(begin, end)


def _mask(size: int) -> int:
    return (1 << _TOKEN_BITS * size) - 1


def _run(key: int, size: int) -> int:
    """Return the number of a run of tokens, another one for each size."""
    return key & _mask(size) | 1 << _TOKEN_BITS * size
