"""From logits to tokens, without sorting the vocabulary. Engine thread.

Order: logit bias, penalties, (log probabilities are taken here), bans, temperature, top_k, top_p,
min_p. A random token is the inverse of the cumulative distribution at one uniform number, which is
a hash of (seed, position): a sequence draws the same tokens whatever stands beside it, with no
state.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hocket.server.engine.batch import SampledToken, SampleRequest
from hocket.server.engine.commands import Logprobs
from hocket.server.engine.sampling import SamplingParams

_FIRST_CANDIDATES = 64
_MASK = (1 << 64) - 1


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
    is_finite = logits.sum(-1).isfinite().tolist()
    for row, request in enumerate(requests):
        if is_finite[row]:
            _shift(logits[row], request)
    noted = _logprobs_of(logits, requests)
    for row, request in enumerate(requests):
        if request.banned_token_ids:
            logits[row, list(request.banned_token_ids)] = -torch.inf
    best_values, best = logits.max(-1)
    values, tokens = best_values.tolist(), best.tolist()
    drawn: list[SampledToken | str] = []
    for row, request in enumerate(requests):
        if not is_finite[row]:
            drawn.append("non_finite")
        elif values[row] == -torch.inf:
            drawn.append("all_banned")
        else:
            is_greedy = request.params.is_greedy
            token = tokens[row] if is_greedy else _draw(logits[row], values[row], request)
            drawn.append(SampledToken(token, noted(row, token)))
    return drawn


class _NotedLogprobs:
    """Log probabilities before bans, for the rows that want them."""

    def __init__(self, logits: Tensor, requests: Sequence[SampleRequest]) -> None:
        self._wanted = [request.params.logprobs for request in requests]
        self._rows: dict[int, Tensor] = {}
        for row, count in enumerate(self._wanted):
            if count is not None:
                # Two rows at least: over a single one the sum's order depends on the threads.
                pair = logits[row].expand(2, -1)
                self._rows[row] = torch.log_softmax(pair, dim=-1)[0]

    def __call__(self, row: int, token: int) -> Logprobs | None:
        count = self._wanted[row]
        return None if count is None else logprobs_at(self._rows[row], token, count)


def _logprobs_of(logits: Tensor, requests: Sequence[SampleRequest]) -> _NotedLogprobs:
    return _NotedLogprobs(logits, requests)


def logprobs_at(logprobs: Tensor, token: int, count: int) -> Logprobs:
    """Return a token's log probability with the likeliest `count` beside it.

    Args:
        logprobs: `[vocabulary]`, natural.
        token: The token that stands there.
        count: How many likeliest are reported.
    """
    top: tuple[tuple[int, float], ...] = ()
    if count:
        values, ids = logprobs.topk(min(count, logprobs.shape[0]))
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        top = tuple(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))
    return Logprobs(float(logprobs[token]), top)


def _shift(row: Tensor, request: SampleRequest) -> None:
    """Apply logit bias and penalties to one row in place."""
    params = request.params
    if params.logit_bias:
        ids, biases = zip(*params.logit_bias, strict=True)
        row[list(ids)] += torch.tensor(biases)
    if not params.needs_history:
        return
    if params.repetition_penalty != 1.0:
        seen = torch.tensor(sorted(set(request.history)))
        scores = row[seen]
        penalty = params.repetition_penalty
        row[seen] = torch.where(scores < 0, scores * penalty, scores / penalty)
    written = request.history[request.prompt_length :]
    if written and (params.presence_penalty or params.frequency_penalty):
        ids_array, counts = np.unique(np.asarray(written), return_counts=True)
        penalties = params.presence_penalty + params.frequency_penalty * counts
        row[torch.from_numpy(ids_array)] -= torch.from_numpy(penalties).float()


def _draw(row: Tensor, highest: float, request: SampleRequest) -> int:
    params = request.params
    point = uniform(request.seed, request.position)
    scaled = (row - highest) / params.temperature  # the likeliest is at 0, so nothing overflows
    if params.top_k == 0 and params.top_p == 1.0 and params.min_p == 0.0:
        return _invert(scaled.exp(), point)
    size = row.shape[0]
    count = min(size, max(_FIRST_CANDIDATES, params.top_k))
    total = float(scaled.exp().sum(dtype=torch.float64))
    while True:
        values, ids = scaled.topk(count)
        weights = values.double().exp().numpy()
        kept = _kept(weights, total, params)
        if kept < count or count == size or 0 < params.top_k <= count:
            break
        count = min(size, count * 2)
    chosen = _position(weights[:kept], point)
    return int(ids[chosen])


def _kept(weights: np.ndarray, total: float, params: SamplingParams) -> int:
    """Return how many of the likeliest candidates pass all filters, at least 1.

    Args:
        weights: `[candidates]`, unnormalised probabilities, likeliest (1.0) first.
        total: Their sum over the whole vocabulary.
        params: The filters.
    """
    kept = len(weights)
    if params.top_k:
        kept = min(kept, params.top_k)
        total = float(weights[:kept].sum())
    if params.top_p < 1.0:
        reached = np.cumsum(weights[:kept]) / total >= params.top_p
        kept = int(reached.argmax()) + 1 if reached.any() else kept
    if params.min_p > 0.0:
        kept = min(kept, int((weights[:kept] >= params.min_p).sum()))
    return max(1, kept)


def _position(weights: np.ndarray, point: float) -> int:
    cumulative = np.cumsum(weights)
    found = int(np.searchsorted(cumulative, point * cumulative[-1], side="right"))
    return min(found, len(weights) - 1)


def _invert(weights: Tensor, point: float) -> int:
    """Return the index at a point of the cumulative distribution of weights over the vocabulary."""
    cumulative = weights.double().cumsum(0)
    found = int(torch.searchsorted(cumulative, point * float(cumulative[-1]), right=True))
    if found >= weights.shape[0] or weights[found] == 0.0:
        found = int(weights.nonzero()[-1]) if found >= weights.shape[0] else found
    return found
