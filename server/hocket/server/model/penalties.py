"""Moves logits before a token is drawn: bias and penalties, for all rows at once. Engine thread."""

from collections.abc import Sequence

import numpy as np

from hocket.server.engine.batch import SampleRequest


class _Places:
    """Single logits of several rows, each with a number that belongs to it."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._counts: list[int] = []
        self._ids: list[np.ndarray] = []
        self._numbers: list[np.ndarray] = []

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, row: int, ids: Sequence[int], numbers: np.ndarray | float) -> None:
        """Add distinct tokens of a row, with a number each or one for all."""
        self._rows.append(row)
        self._counts.append(len(ids))
        # Copied: the engine's array cannot grow as long as something looks into it.
        self._ids.append(np.array(ids, dtype=np.intp))
        self._numbers.append(np.broadcast_to(np.asarray(numbers, dtype=np.float32), len(ids)))

    @property
    def index(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and tokens."""
        return np.repeat(self._rows, self._counts), np.concatenate(self._ids)

    @property
    def numbers(self) -> np.ndarray:
        """One for each."""
        return np.concatenate(self._numbers)


def shift(logits: np.ndarray, requests: Sequence[SampleRequest]) -> None:
    """Apply logit bias, then the repetition penalty, then the other two, in place.

    What becomes infinite or NaN stays so; the sampler looks at it.

    Args:
        logits: `[rows, vocabulary]` float32.
        requests: One for each row.
    """
    biases, repetitions, writings = _Places(), _Places(), _Places()
    for row, request in enumerate(requests):
        params = request.params
        if params.logit_bias:
            ids, values = zip(*params.logit_bias, strict=True)
            biases.add(row, ids, np.array(values))
        counts = request.counts
        if counts is None:
            continue
        if params.repetition_penalty != 1.0:
            repetitions.add(row, counts.known_ids, params.repetition_penalty)
        if counts.written_ids and (params.presence_penalty or params.frequency_penalty):
            times = np.array(counts.written_times)
            numbers = params.presence_penalty + params.frequency_penalty * times
            writings.add(row, counts.written_ids, numbers)
    with np.errstate(over="ignore", invalid="ignore"):
        if biases:
            logits[biases.index] += biases.numbers
        if repetitions:
            index, penalties = repetitions.index, repetitions.numbers
            scores = logits[index]
            logits[index] = np.where(scores < 0, scores * penalties, scores / penalties)
        if writings:
            logits[writings.index] -= writings.numbers
