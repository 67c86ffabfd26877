"""Which tokens a sequence holds, and how often it wrote each of them. Engine thread."""

from array import array
from collections.abc import Sequence


class TokenCounts:
    """What penalties ask of a sequence's tokens, kept up as it grows.

    A step costs what was written since the last one, not the whole text. The arrays are plain
    buffers of int64, which a runner can read without walking them; it reads them during a call and
    keeps nothing.

    Attributes:
        known_ids: The distinct tokens of prompt and answer, in the order in which they first came.
        written_ids: Those of the answer alone.
        written_times: How often each of these was written.
    """

    __slots__ = ("_known", "_num_counted", "_places", "known_ids", "written_ids", "written_times")

    def __init__(self) -> None:
        """Make counts of no tokens at all."""
        self.known_ids = array("q")
        self.written_ids = array("q")
        self.written_times = array("q")
        self._known: set[int] = set()
        self._places: dict[int, int] = {}  # of each written token in the two arrays
        self._num_counted = 0

    def catch_up(self, token_ids: Sequence[int], prompt_length: int) -> None:
        """Count the tokens that came since the last time.

        Args:
            token_ids: All tokens so far, prompt first: those of the last time, and more.
            prompt_length: How many of them are the prompt.
        """
        for position in range(self._num_counted, len(token_ids)):
            token_id = token_ids[position]
            if token_id not in self._known:
                self._known.add(token_id)
                self.known_ids.append(token_id)
            if position >= prompt_length:
                self._count_written(token_id)
        self._num_counted = len(token_ids)

    def _count_written(self, token_id: int) -> None:
        place = self._places.get(token_id)
        if place is None:
            self._places[token_id] = len(self.written_ids)
            self.written_ids.append(token_id)
            self.written_times.append(1)
        else:
            self.written_times[place] += 1
