"""Filters keep the first tokens of one order: by logit, equal ones by id."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.engine.sampling import SamplingParams
from hocket.server.model import filters
from hocket.server.model.filters import floor, likeliest, narrow

pytestmark = pytest.mark.torch

LOGITS = st.one_of(
    st.sampled_from([-np.inf, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 1.0000001, 3e38, -3e38]),
    st.floats(-50, 50, width=32),
)


def spread(logits: np.ndarray) -> dict[str, np.ndarray]:
    """Return distributions of all kinds of flatness, of distinct logits each."""
    ones = np.full(len(logits), 1.0, dtype=np.float32).view(np.int32)
    return {
        "peaked": logits * 4,
        "usual": logits,
        "flat": logits / 10,
        "in a narrow band": logits * np.float32(1e-3) + np.float32(7),
        "neighbouring floats": (ones + np.arange(len(logits), dtype=np.int32)).view(np.float32),
    }


def in_order(logits: np.ndarray) -> list[int]:
    return sorted(range(len(logits)), key=lambda token: (-logits[token], token))


@given(
    pairs=st.lists(st.tuples(LOGITS, st.integers(0, 5)), min_size=1, max_size=60),
    share=st.floats(0, 1.2, exclude_min=True),
)
def test_the_fewest_that_reach_a_sum(pairs, share):
    """As a sort would find them; all, where none are enough."""
    logits, masses = (np.array(column, dtype=np.float32) for column in zip(*pairs, strict=True))
    needed = max(1e-3, share * float(masses.sum()))
    expected: set[int] = set()
    for token in in_order(logits):
        if masses[list(expected)].sum() >= needed:
            break
        expected.add(token)
    assert expected == set(np.flatnonzero(likeliest(logits, masses, needed)))


@given(logits=st.lists(LOGITS, min_size=1, max_size=60), data=st.data())
def test_the_k_likeliest_are_exactly_k(logits, data):
    """The lowest ids of equal logits at the end; -0.0 equals 0.0."""
    row = np.array(logits, dtype=np.float32)
    count = data.draw(st.integers(1, len(row)))
    assert set(in_order(row)[:count]) == set(np.flatnonzero(likeliest(row, None, count)))


@pytest.mark.parametrize("count", [1, 2, 20, 512, 513, 5_000])
def test_a_floor_is_reached_by_all_that_count(count):
    """And by few others where few count."""
    rng = np.random.default_rng(count)
    for size in (1, 1_023, 1_024, 5_001):
        row = rng.normal(size=size).astype(np.float32)
        reaching = int((row >= floor(row, count)).sum())
        assert reaching >= min(count, size)
        if count <= 20 and size == 5_001:
            assert reaching <= 4 * count


@pytest.mark.parametrize("name", spread(np.zeros(1, dtype=np.float32)))
def test_the_work_is_bounded_by_the_vocabulary(monkeypatch, name):
    """However flat a row is: each token is looked at once for each digit of its key."""
    size = 20_000
    logits = spread(np.random.default_rng(1).normal(size=size).astype(np.float32))[name]
    weights = np.exp(logits - logits.max())
    looked_at: list[int] = []
    bincount = np.bincount
    monkeypatch.setattr(
        filters.np,
        "bincount",
        lambda digits, masses=None: looked_at.append(len(digits)) or bincount(digits, masses),
    )
    narrow(logits, weights, SamplingParams(top_k=size - 1, top_p=0.9, min_p=1e-6))
    assert len(looked_at) <= 6
    assert sum(looked_at) <= 6 * size


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0.7, top_k=40),
        SamplingParams(temperature=1.0, top_k=3_000),
        SamplingParams(temperature=1.0, top_p=0.9),
        SamplingParams(temperature=10.0, top_p=0.95),
        SamplingParams(temperature=0.5, min_p=0.05),
        SamplingParams(temperature=10.0, min_p=0.6),
        SamplingParams(temperature=1.0, top_k=50, min_p=0.95),
        SamplingParams(temperature=1.0, top_k=700, top_p=0.8),
        SamplingParams(temperature=1.3, top_k=50, top_p=0.97, min_p=0.02),
        SamplingParams(temperature=2.0, top_k=4_000, top_p=0.99, min_p=0.001),
    ],
    ids=lambda params: f"{params.temperature:g} {params.top_k} {params.top_p:g} {params.min_p:g}",
)
@pytest.mark.parametrize("name", spread(np.zeros(1, dtype=np.float32)))
def test_the_same_tokens_pass_as_in_transformers(params, name):
    """The same processors in the same order, but for sums that rounding moves across a bound."""
    transformers = pytest.importorskip("transformers")
    logits = spread(np.random.default_rng(2).permutation(5_000).astype(np.float32) / 500)[name]
    weights = np.exp((logits - logits.max()) / np.float32(params.temperature))
    processors = transformers.LogitsProcessorList(
        [
            transformers.TemperatureLogitsWarper(params.temperature),
            *([transformers.TopKLogitsWarper(params.top_k)] if params.top_k else []),
            *([transformers.TopPLogitsWarper(params.top_p)] if params.top_p < 1 else []),
            *([transformers.MinPLogitsWarper(params.min_p)] if params.min_p else []),
        ]
    )
    scores = processors(
        torch.zeros(1, 1, dtype=torch.long), torch.from_numpy(logits).double()[None]
    )
    expected = set(torch.isfinite(scores[0]).nonzero().flatten().tolist())
    kept = weights.copy()
    narrow(logits, kept, params)
    passing = set(np.flatnonzero(kept).tolist())
    assert np.array_equal(kept[list(passing)], weights[list(passing)])
    assert len(expected ^ passing) <= 1
    assert passing == set(in_order(logits)[: len(passing)])
