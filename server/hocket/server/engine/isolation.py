"""One bad sequence fails alone. Engine thread.

A step is a transaction: a runner that raised has written only where nothing was committed, so
parts of its batch can be tried again. Sequences that never got a token are the first suspects;
after them the batch is halved until the culprit stands alone. Finding one culprit costs about `2
log2(batch)` calls. Drafts are left out of all of them: what they did is nobody's fault.

Where nothing at all could be computed, the sequences alone cannot tell whether they are bad or the
model is broken. Then a canary decides: a sequence of one token of our own, on a spare block. While
it lives, all others may fail, as often as they like.
"""

from collections.abc import Callable
from collections.abc import Sequence as Some

from hocket.server.engine.batch import Batch, ModelRunner, SequenceSlice, SliceResult
from hocket.server.engine.blocks import BlockPool
from hocket.server.engine.sequence import Sequence

FAULT = "fault"

# Times in a row that nothing may be computed, the canary included, before the model is broken.
MOST_BARREN = 3


class Isolation:
    """Computes batches so that what cannot be computed costs nobody else anything."""

    def __init__(
        self,
        runner: ModelRunner,
        pool: BlockPool,
        canary: Sequence,
        on_fault: Callable[[Exception], None],
    ) -> None:
        """Stand between an engine and its runner.

        Args:
            runner: Who computes.
            pool: Lends the canary its block.
            canary: A sequence of one token that runs nowhere else.
            on_fault: Told of each exception, for the log.
        """
        self._runner = runner
        self._pool = pool
        self._canary = canary
        self._on_fault = on_fault
        self._barren = 0
        self._doubt: Exception | None = None

    def execute(
        self, slices: Some[SequenceSlice], is_suspect: Callable[[SequenceSlice], bool]
    ) -> list[SliceResult]:
        """Compute a batch; slices that cannot be computed alone come back with the failure `fault`.

        Args:
            slices: At most one for each sequence.
            is_suspect: Tells which are of sequences that never got a token.

        Raises:
            Exception: Nothing can be computed any more: the runner is broken.
        """
        while slices:
            results, error = self._attempt(slices, is_suspect)
            if any(result.failure is None for result in results):
                self._barren = 0
                return results
            if not self._pool.free:
                self._doubt = error  # those that fail now give their blocks back
                return results
            if self._canary_lives():
                self._barren = 0
                return results
            self._note_barren(error)
            if any(result.failure != FAULT for result in results) or all(map(is_suspect, slices)):
                return results
            # Those that were well until now are not to blame: they wait until the canary lives.
            while not self._canary_lives():
                self._note_barren(error)
        return []

    def settle(self) -> None:
        """Make up for a canary that had no room, once the sequences that failed are gone.

        Raises:
            Exception: The runner is broken.
        """
        if self._doubt is None:
            return
        doubt, self._doubt = self._doubt, None
        if self._canary_lives():
            self._barren = 0
        else:
            self._note_barren(doubt)

    def _attempt(
        self, slices: Some[SequenceSlice], is_suspect: Callable[[SequenceSlice], bool]
    ) -> tuple[list[SliceResult], Exception]:
        """Compute what can be computed; return the first exception too, if it was one."""
        try:
            results = list(self._runner.execute(Batch(tuple(slices))).results)
        except Exception as error:  # noqa: BLE001 - any fault may be one sequence's own
            self._on_fault(error)
            return self._part([piece.without_drafts() for piece in slices], is_suspect), error
        return results, RuntimeError("a model brought nothing but failures")

    def _part(
        self, slices: Some[SequenceSlice], is_suspect: Callable[[SequenceSlice], bool]
    ) -> list[SliceResult]:
        suspects = [piece for piece in slices if is_suspect(piece)]
        others = [piece for piece in slices if not is_suspect(piece)]
        groups = [group for group in (others, suspects) if group]
        if len(groups) == 1:
            groups = _halves(list(slices))
        found: dict[int, SliceResult] = {}
        while groups:
            group = groups.pop(0)
            try:
                for result in self._runner.execute(Batch(tuple(group))).results:
                    found[result.sequence_id] = result
            except Exception as error:  # noqa: BLE001 - the same
                self._on_fault(error)
                if len(group) > 1:
                    groups += _halves(group)
                else:
                    (culprit,) = group
                    found[culprit.sequence_id] = SliceResult(
                        sequence_id=culprit.sequence_id, failure=FAULT
                    )
        return [found[piece.sequence_id] for piece in slices]

    def _canary_lives(self) -> bool:
        """Compute one token that belongs to nobody; afterwards nothing of it is left."""
        table = self._canary.table
        self._pool.extend(table, 1)
        try:
            results = self._runner.execute(Batch((self._canary.slice(1),))).results
        except Exception as error:  # noqa: BLE001 - its death is what is asked for
            self._on_fault(error)
            return False
        finally:
            self._pool.release(table)  # the highest block: nothing moves
        return results[0].failure is None

    def _note_barren(self, error: Exception) -> None:
        self._barren += 1
        if self._barren >= MOST_BARREN:
            raise error


def _halves(slices: list[SequenceSlice]) -> list[list[SequenceSlice]]:
    middle = len(slices) // 2
    return [half for half in (slices[:middle], slices[middle:]) if half]
