"""From logits to tokens, without sorting the vocabulary. Engine thread.

Order: logit bias, penalties, (log probabilities are taken here), bans, temperature, top_k, top_p,
min_p. A random token is the inverse of the cumulative distribution, in the order of the ids, at one
uniform number, which is a hash of (seed, position): a sequence draws the same tokens whatever
stands beside it, with no state.

A logit of -inf is a token that is never drawn; NaN or +inf fails its row. Sums are of float64, so
that a token's share does not hang on how its row is added up.
"""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from hocket.server.engine.batch import SampledToken, SampleRequest
from hocket.server.engine.commands import Logprobs
from hocket.server.model.filters import floor, narrow
from hocket.server.model.penalties import shift

_MASK = (1 << 64) - 1
_BLOCK = 256  # tokens whose weights are summed at first
_TINY = float(np.finfo(np.float32).tiny)


def uniform(seed: int, position: int) -> float:
    """Return a number in [0, 1) that (seed, position) fixes: two rounds of splitmix64.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    state = (seed + 0x9E3779B97F4A7C15 * (position + 1)) & _MASK
    for _ in range(2):
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return (state >> 11) * 2.0**-53


def sample(logits: Tensor, requests: Sequence[SampleRequest]) -> list[SampledToken | str]:
    """Draw one token for each row.

    Args:
        logits: `[rows, vocabulary]` float32; changed in place. Rows beyond the requests are
            ignored.
        requests: One for each row.

    Returns:
        For each request its token, or in one word why none can be drawn: `non_finite`,
        `all_banned`.
    """
    logits = logits[: len(requests)]
    view = logits.numpy()
    shift(view, requests)
    bans, unbanned = _ban(view, requests)
    # By row: numpy would copy all of them together where the vocabulary is padded.
    tokens = np.array([row.argmax() for row in view], dtype=np.intp)
    highest = view[np.arange(len(view)), tokens]  # NaN, if there is any
    is_broken = ~(highest < np.inf)
    is_broken[bans[0][~(unbanned < np.inf)]] = True
    is_barren = highest == -np.inf
    weights = _Weights(view.shape[1])
    for row, request in enumerate(requests):
        if not (request.params.is_greedy or is_broken[row] or is_barren[row]):
            tokens[row] = weights.draw(view[row], highest[row], request)
    view[bans] = unbanned
    drawn: list[SampledToken | str] = []
    for row, (token, request) in enumerate(zip(tokens.tolist(), requests, strict=True)):
        if is_broken[row]:
            drawn.append("non_finite")
        elif is_barren[row]:
            drawn.append("all_banned")
        else:
            drawn.append(SampledToken(token, _logprobs(view[row], token, request.params.logprobs)))
    return drawn


def logprobs_at(logprobs: Tensor, token: int, count: int) -> Logprobs:
    """Return a token's log probability with the likeliest `count` beside it, lowest ids on ties.

    Args:
        logprobs: `[vocabulary]`, natural.
        token: The token that stands there.
        count: How many likeliest are reported.
    """
    row = logprobs.numpy()
    top = tuple((token_id, float(row[token_id])) for token_id in _top(row, count))
    return Logprobs(float(row[token]), top)


def _logprobs(row: np.ndarray, token: int, count: int | None) -> Logprobs | None:
    """Return the same out of logits; None if none are asked for."""
    if count is None:
        return None
    highest = row.max()
    with np.errstate(over="ignore"):  # to -inf, which has no weight
        weights = np.exp(row - highest)
    total = float(highest) + math.log(weights.sum(dtype=np.float64))
    top = tuple((token_id, float(row[token_id]) - total) for token_id in _top(row, count))
    return Logprobs(float(row[token]) - total, top)


def _top(row: np.ndarray, count: int) -> list[int]:
    """Return the `count` highest numbers' indices, the highest first, the lowest of equal ones."""
    if count == 0:
        return []
    ids = np.flatnonzero(row >= floor(row, count))
    found: list[int] = ids[np.argsort(-row[ids], kind="stable")[:count]].tolist()
    return found


def _ban(
    view: np.ndarray, requests: Sequence[SampleRequest]
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Make banned logits -inf; return where they are, and what they were."""
    pairs = [
        (row, token)
        for row, request in enumerate(requests)
        for token in request.banned_token_ids
        if token < view.shape[1]  # a tokenizer may know end tokens that the model has no row for
    ]
    rows, ids = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    unbanned = view[rows, ids]
    view[rows, ids] = -np.inf
    return (rows, ids), unbanned


class _Weights:
    """Room for the weights of one row: it stays in the processor's cache from row to row."""

    def __init__(self, size: int) -> None:
        self._blocks = np.zeros((-(-size // _BLOCK), _BLOCK), dtype=np.float32)
        self._weights = self._blocks.reshape(-1)[:size]

    def draw(self, logits: np.ndarray, highest: np.float32, request: SampleRequest) -> int:
        """Draw a random token.

        Args:
            logits: `[vocabulary]`.
            highest: The highest of them, finite.
            request: How it is drawn.
        """
        params, weights = request.params, self._weights
        with np.errstate(over="ignore"):  # to -inf, which has no weight
            np.subtract(logits, highest, out=weights)
            # The likeliest is at 0, and stays so divided by anything but 0.
            weights /= max(params.temperature, _TINY)
        np.exp(weights, out=weights)
        if params.top_k or params.top_p < 1.0 or params.min_p:
            narrow(logits, weights, params)
        sums = self._blocks.sum(-1, dtype=np.float64).cumsum()
        block, target = _place(sums, uniform(request.seed, request.position) * float(sums[-1]))
        token, _ = _place(self._blocks[block].cumsum(dtype=np.float64), target)
        return block * _BLOCK + token


def _place(sums: np.ndarray, target: float) -> tuple[int, float]:
    """Return which part a target falls into, and where in it.

    What has no weight is never hit, not even by rounding: a target stays below the whole.

    Args:
        sums: `[parts]`, cumulative; the last is above 0.
        target: Not negative.
    """
    target = min(target, math.nextafter(float(sums[-1]), 0.0))
    place = int(sums.searchsorted(target, side="right"))
    return place, target - float(sums[place - 1]) if place else target
