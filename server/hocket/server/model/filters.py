"""Which tokens may be drawn: top_k, top_p and min_p, without sorting the vocabulary. Engine thread.

Tokens are ordered by their logits, likeliest first, and equal ones by their ids; a filter keeps the
first of them. Where the order has to be cut is found digit by digit, in sums over the tokens that
share the digits found so far: what a row costs depends on the vocabulary alone, however flat its
distribution is.
"""

import numpy as np

from hocket.server.engine.sampling import SamplingParams

_DIGIT_BITS = 12
_GROUPS = 1_024  # of tokens, of which the maxima are taken
_DENSE = 0.25  # share of the tokens from which on it costs less to look at all of them


def narrow(logits: np.ndarray, weights: np.ndarray, params: SamplingParams) -> None:
    """Zero the weights of one row's tokens that do not pass the filters; at least one passes.

    Args:
        logits: `[vocabulary]` float32, none of them NaN or +inf.
        weights: `[vocabulary]` float32, unnormalised probabilities; the likeliest has 1.
        params: The filters.
    """
    size = len(weights)
    has_top_k = 0 < params.top_k < size
    total = float(weights.sum(dtype=np.float64))
    if has_top_k:
        is_candidate = logits >= floor(logits, params.top_k)
    else:
        # Those below weigh less together than top_p leaves out. Half of it, to round safely.
        negligible = (1.0 - params.top_p) * total / size / 2
        is_candidate = weights >= max(params.min_p, negligible)
    if np.count_nonzero(is_candidate) < _DENSE * size:
        ids = np.flatnonzero(is_candidate)
        logits, passing = logits[ids], weights[ids]
    else:
        ids, passing = None, weights
    if has_top_k:
        passing *= likeliest(logits, None, params.top_k)
        total = float(passing.sum(dtype=np.float64))
    if params.top_p < 1.0:
        passing *= likeliest(logits, passing, params.top_p * total)
    if params.min_p > 0.0:
        passing *= passing >= params.min_p
    if ids is not None:
        weights.fill(0.0)
        weights[ids] = passing


def likeliest(logits: np.ndarray, masses: np.ndarray | None, needed: float) -> np.ndarray:
    """Return which are the fewest tokens, likeliest first, whose masses reach a sum; all, if none.

    Args:
        logits: `[tokens]` float32, without NaN.
        masses: `[tokens]`, not negative; None gives each 1.
        needed: Above 0.
    """
    keys = _keys(logits)
    rest, reached, shift = keys, 0.0, _DIGIT_BITS
    while shift:
        lowest = rest.min()
        shift = max(0, int(rest.max() - lowest).bit_length() - _DIGIT_BITS)
        digits = (rest - lowest) >> np.uint32(shift)
        sums = reached + np.bincount(digits, masses).cumsum()
        cut = min(int(sums.searchsorted(needed)), len(sums) - 1)
        reached = float(sums[cut - 1]) if cut else reached
        inside = np.flatnonzero(digits == cut)
        rest = rest[inside]
        masses = masses[inside] if masses is not None else None
    # What is left is equal, so the ids decide.
    sums = reached + np.cumsum(np.ones(len(rest)) if masses is None else masses, dtype=np.float64)
    passes: np.ndarray = keys < rest[0]
    passes[np.flatnonzero(keys == rest[0])[: int(sums.searchsorted(needed)) + 1]] = True
    return passes


def floor(logits: np.ndarray, count: int) -> float:
    """Return a number that the `count` likeliest tokens reach, and few others if they are few.

    So many maxima of groups are not below it, so nor are so many tokens.
    """
    width = len(logits) // _GROUPS
    if width == 0 or 2 * count > _GROUPS:
        return -np.inf
    maxima = logits[: width * _GROUPS].reshape(width, _GROUPS).max(0)
    return float(np.partition(maxima, _GROUPS - count)[_GROUPS - count])


def _keys(logits: np.ndarray) -> np.ndarray:
    """Return 32-bit numbers in the opposite order, equal where the logits are."""
    bits = (logits + np.float32(0.0)).view(np.int32)  # the sum makes -0.0 the same as 0.0
    # Of positive numbers the larger magnitudes come first, of negative ones they come last.
    upwards = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    return upwards.view(np.uint32) ^ np.uint32(0x7FFFFFFF)
