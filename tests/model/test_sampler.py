"""A token is drawn as asked, from what may be drawn, and by its own row alone."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.engine.commands import Logprobs
from hocket.server.model import sampler
from hocket.server.model.sampler import logprobs_at, sample
from model.sample_requests import ask, drawn, tokens

pytestmark = pytest.mark.torch

LEAST, MOST = 0.0, 1.0 - 2.0**-53  # what `uniform` may return
NO_SPREAD = [
    {"temperature": 0.0},
    {"temperature": 0.0, "top_k": 7, "top_p": 0.5, "min_p": 0.1},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 1.0, "top_p": 1e-9},
    {"temperature": 10.0, "top_p": 1.401298464324817e-45},
    {"temperature": 0.7, "top_p": 1e-6, "top_k": 50},
]
FILTERS = [
    {},
    {"top_k": 3},
    {"top_p": 0.999999},
    {"min_p": 1e-9},
    {"top_k": 50, "top_p": 0.9999},
    {"top_k": 40, "top_p": 0.5, "min_p": 0.001},
]
MIXED = [
    ask(seed=seed, position=seed % 3, logprobs=3, banned=(4,), temperature=temperature, **filters)
    for seed, (temperature, filters) in enumerate(itertools.product([0.0, 0.8, 10.0], FILTERS))
] + [
    ask(history=[1, 2, 2], prompt_length=1, temperature=1.0, frequency_penalty=0.5, logprobs=0),
    ask(history=[1, 2], prompt_length=1, repetition_penalty=1.4, logit_bias=((3, 9.0),)),
]


def rows(count: int, size: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed)) * 3


@given(
    whole=st.lists(st.integers(-3, 3), min_size=1, max_size=30),
    times=st.sampled_from([1, 3, 500]),
    params=st.sampled_from(NO_SPREAD),
    seed=st.integers(0, 2**64 - 1),
)
def test_without_spread_the_likeliest_is_drawn(whole, times, params, seed):
    """The lowest id of equal ones, whatever their number; -0.0 equals 0.0."""
    logits = [-0.0 if logit == 0 and index % 2 else logit for index, logit in enumerate(whole)]
    expected = whole.index(max(whole))
    assert [expected] == tokens([logits * times], ask(seed=seed, **params))


@pytest.mark.parametrize("point", [LEAST, 0.3, MOST])
@pytest.mark.parametrize("params", FILTERS, ids=str)
@pytest.mark.parametrize("size", [50, 256, 600])
def test_what_may_not_be_drawn_never_is(monkeypatch, point, params, size):
    """Banned tokens, tokens of no probability and filtered ones, at both ends of the draw."""
    monkeypatch.setattr(sampler, "uniform", lambda _seed, _position: point)
    (logits,) = rows(1, size, seed=size)
    logits[::7] = -torch.inf
    allowed = np.flatnonzero(np.isfinite(logits.numpy()))
    bans = ((), range(size - 20), range(20, size), allowed[1:], allowed[:-1])
    for banned, temperature in itertools.product(bans, (1e-3, 0.5, 1.0, 10.0)):
        request = ask(banned=[int(token) for token in banned], temperature=temperature, **params)
        (token,) = tokens(logits, request)
        open_ = [token for token in allowed if token not in set(banned)]
        likeliest = sorted(open_, key=lambda token: -float(logits[token]))
        assert token in likeliest[: params.get("top_k") or size]


@pytest.mark.parametrize("params", [{}, {"top_k": 30}, {"top_p": 0.7}, {"min_p": 0.05}], ids=str)
@pytest.mark.parametrize(("size", "temperature"), [(40, 1.0), (40, 5.0), (700, 2.0)])
def test_tokens_come_as_often_as_their_probability_says(size, temperature, params):
    """By a chi-square test whose draws never change."""
    (logits,) = rows(1, size)
    count = 2_000
    requests = [
        ask(seed=7, position=position, temperature=temperature, **params)
        for position in range(count)
    ]
    found = np.bincount(tokens(logits, *requests), minlength=size)
    chances = torch.softmax(logits.double() / temperature, dim=-1).numpy()
    order = np.argsort(-chances, kind="stable")
    kept = order[: params.get("top_k", size)]
    kept = kept[np.cumsum(chances[kept]) - chances[kept] < params.get("top_p", 1.0)]
    kept = kept[chances[kept] >= params.get("min_p", 0.0) * chances.max()]
    assert count == found[kept].sum()
    expected = chances[kept] / chances[kept].sum() * count
    by_id = np.argsort(kept)
    bins = np.floor(np.cumsum(expected[by_id]) / 20).astype(int)  # rare neighbours together
    seen = np.bincount(bins, weights=found[kept][by_id])
    hoped = np.bincount(bins, weights=expected[by_id])
    seen, hoped = seen[hoped > 5], hoped[hoped > 5]
    assert len(hoped) > 2
    statistic = ((seen - hoped) ** 2 / hoped).sum()
    assert statistic < len(hoped) + 4 * math.sqrt(2 * len(hoped))


@pytest.mark.parametrize("size", [30, 512, 1_000, 40_000])
def test_company_changes_nothing(size):
    """Neither other rows, nor their order, nor rows and columns of padding, nor threads."""
    logits = rows(len(MIXED), size)
    alone = [drawn(logits[row], request)[0] for row, request in enumerate(MIXED)]
    assert alone == drawn(logits, *MIXED)
    assert alone[::-1] == drawn(logits.flip(0), *MIXED[::-1])
    padded = torch.full((len(MIXED) + 3, size + 5), torch.nan)
    padded[: len(MIXED), :size] = logits
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        assert alone == sample(padded[:, :size], MIXED)
    finally:
        torch.set_num_threads(threads)


def test_a_draw_hangs_on_seed_and_position():
    """And on both of them."""
    (logits,) = rows(1, 1_000)
    requests = [
        ask(seed=seed, position=position, temperature=5.0)
        for seed in range(20)
        for position in range(20)
    ]
    found = tokens(logits, *requests)
    assert found == tokens(logits, *requests)
    assert len(set(found)) > 150


def test_filters_that_keep_all_change_no_draw():
    """Tokens are drawn in one order, filtered or not."""
    (logits,) = rows(1, 3_000)
    for params in ({"top_k": 3_000}, {"top_k": 2_999}, {"min_p": 1e-30}, {"top_p": 1 - 1e-12}):
        requests = [
            (ask(seed=seed, temperature=0.5), ask(seed=seed, temperature=0.5, **params))
            for seed in range(50)
        ]
        plain, filtered = zip(*requests, strict=True)
        assert tokens(logits, *plain) == tokens(logits, *filtered)


@pytest.mark.parametrize("spoiled", [torch.nan, torch.inf])
@pytest.mark.parametrize("banned", [(), (2, 5)])
def test_a_broken_row_fails_alone(spoiled, banned):
    """Even where what is broken could not be drawn."""
    logits = rows(len(MIXED), 40)
    expected: list[object] = drawn(logits, *MIXED)
    requests = list(MIXED)
    for row in (0, 8):
        logits[row, 5] = spoiled
        requests[row] = ask(banned=banned, temperature=row / 10, logprobs=2)
        expected[row] = "non_finite"
    assert expected == drawn(logits, *requests)


@pytest.mark.parametrize("params", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.5}])
def test_where_all_is_banned_nothing_is_drawn(params):
    """By the request, by the model, or by both together."""
    whole, half = [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, -torch.inf, -torch.inf]
    logits = [whole, half, [-torch.inf] * 4, half]
    bans = [(0, 1, 2, 3), (0, 1), (), (1,)]
    found = drawn(logits, *(ask(banned=banned, logprobs=1, **params) for banned in bans))
    assert found[:3] == ["all_banned"] * 3
    assert found[3].token_id == 0


def test_log_probabilities_are_those_before_bans_and_temperature():
    """After bias and penalties, whatever filters leave."""
    logits = rows(1, 2_000)
    shifted = logits.clone()
    shifted[0, 7] = (shifted[0, 7] + 30.0) - 0.5
    expected = torch.log_softmax(shifted[0].double(), dim=-1)
    order = expected.argsort(descending=True).tolist()
    request = ask(
        logit_bias=((7, 30.0),), history=[7], presence_penalty=0.5, banned=(7,), logprobs=20,
        temperature=3.0, top_k=5,
    )  # fmt: skip
    (found,) = drawn(logits, request)
    assert found.token_id != 7
    assert found.logprobs.logprob == pytest.approx(float(expected[found.token_id]), abs=1e-5)
    assert [token for token, _ in found.logprobs.top] == order[:20]
    assert [told for _, told in found.logprobs.top] == pytest.approx(
        expected[order[:20]].tolist(), abs=1e-5
    )


@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_equally_likely_tokens_are_told_by_id(count):
    """Those at the end of the list included; no more than there are."""
    for size in (2, 10, 5_000):
        logits = torch.zeros(size)
        logits[size // 2] = 1.0
        expected = [size // 2, *(token for token in range(size) if token != size // 2)][:count]
        (found,) = drawn(logits, ask(logprobs=count))
        assert expected == [token for token, _ in found.logprobs.top]
        told = logprobs_at(torch.log_softmax(logits, dim=-1), 1, count)
        assert expected == [token for token, _ in told.top]
        assert told.logprob == pytest.approx(-math.log(size - 1 + math.e) + (size == 2), abs=1e-5)


def test_a_token_without_probability_has_the_log_of_none():
    """Where a model rules it out."""
    (found,) = drawn([0.0, -torch.inf], ask(logprobs=2))
    assert Logprobs(0.0, ((0, 0.0), (1, -math.inf))) == found.logprobs


@pytest.mark.parametrize("params", FILTERS, ids=str)
@pytest.mark.parametrize(
    "logits",
    [
        [0.0, 1e-45, -1e-45, 1e-39],
        [3e38, -3e38, 0.0, 2.9e38],
        [-3e38, -3.1e38, -3e38, -3.2e38],
        [1e-45] * 4,
        [5.0],
    ],
    ids=str,
)
def test_extreme_numbers_are_numbers(params, logits):
    """From the smallest a float32 has to the largest; biases and penalties at their ends."""
    shifts = (
        {},
        {"repetition_penalty": 10.0, "presence_penalty": 2.0, "frequency_penalty": 2.0},
        {"logit_bias": ((0, -100.0), (len(logits) - 1, 100.0))},
    )
    temperatures = (0.0, 1e-45, 1e-38, 1e-30, 1.0, 10.0)
    for shifted, temperature in itertools.product(shifts, temperatures):
        request = ask(history=[0, 0], temperature=temperature, logprobs=4, **params, **shifted)
        (found,) = drawn(logits, request)
        assert 0 <= found.token_id < len(logits)
        assert found.logprobs.logprob <= 1e-6
        assert not any(math.isnan(told) for _, told in found.logprobs.top)


def test_a_bias_of_a_hundred_decides():
    """Both ways."""
    logits = rows(1, 100)
    for bias in (100.0, -100.0):
        token = int(logits.argmax()) if bias < 0 else int(logits.argmin())
        requests = [
            ask(seed=seed, temperature=1.0, logit_bias=((token, bias),)) for seed in range(50)
        ]
        found = tokens(logits[0], *requests)
        assert (set(found) == {token}) if bias > 0 else (token not in found)


def test_greedy_rows_cost_no_more_than_their_maximum(monkeypatch):
    """No weights are computed for them, nor log probabilities that nobody wants."""

    def unwanted(*_: object) -> None:
        raise AssertionError

    for name in ("exp", "subtract", "partition", "flatnonzero", "bincount"):
        monkeypatch.setattr(sampler.np, name, unwanted)
    logits = rows(3, 100)
    expected = logits.argmax(-1).tolist()
    assert expected == tokens(logits, ask(), ask(top_k=4), ask(temperature=0.5, top_k=1))


def test_bans_beyond_the_vocabulary_mean_nothing():
    """A tokenizer may know end tokens that the model has no row for."""
    request = ask(banned=(9, 10, 1 << 30))
    assert tokens(torch.arange(10.0), request) == [8]
