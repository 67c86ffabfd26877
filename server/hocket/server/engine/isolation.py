"""One bad sequence fails alone. Engine thread.

A step is a transaction: a runner that raised has written only where nothing was committed, so
parts of its batch can be tried again. Sequences that joined in this step are the first suspects;
after them the batch is halved until the culprit stands alone. Finding one culprit costs about `2
log2(batch)` calls.
"""

from collections.abc import Callable, Sequence

from hocket.server.engine.batch import Batch, ModelRunner, SequenceSlice, SliceResult

FAULT = "fault"


def execute_isolated(
    runner: ModelRunner,
    slices: Sequence[SequenceSlice],
    *,
    is_suspect: Callable[[SequenceSlice], bool],
    on_fault: Callable[[Exception], None],
) -> list[SliceResult]:
    """Compute a batch; slices that cannot be computed alone come back with the failure `fault`.

    Args:
        runner: Who computes.
        slices: At most one for each sequence.
        is_suspect: Tells which slices are new to the batch.
        on_fault: Told of each exception, for the log.

    Raises:
        Exception: Nothing could be computed any more, not even sequences that could be before: the
            runner is broken.
    """
    if not slices:
        return []
    try:
        return list(runner.execute(Batch(tuple(slices))).results)
    except Exception as error:  # noqa: BLE001 - any fault may be one sequence's own
        on_fault(error)
        first = error
    suspects = [piece for piece in slices if is_suspect(piece)]
    others = [piece for piece in slices if not is_suspect(piece)]
    groups = [group for group in (others, suspects) if group]
    if len(groups) == 1:
        groups = _halves(list(slices))
    found: dict[int, SliceResult] = {}
    while groups:
        group = groups.pop(0)
        try:
            for result in runner.execute(Batch(tuple(group))).results:
                found[result.sequence_id] = result
        except Exception as error:  # noqa: BLE001 - the same
            on_fault(error)
            if len(group) > 1:
                groups += _halves(group)
            else:
                (culprit,) = group
                found[culprit.sequence_id] = SliceResult(
                    sequence_id=culprit.sequence_id, failure=FAULT
                )
    if len(slices) > 1 and others and all(item.failure == FAULT for item in found.values()):
        raise first
    return [found[piece.sequence_id] for piece in slices]


def _halves(slices: list[SequenceSlice]) -> list[list[SequenceSlice]]:
    middle = len(slices) // 2
    return [half for half in (slices[:middle], slices[middle:]) if half]
