"""Logits move as the wire contract says, each row by its own request."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.model.penalties import shift
from model.sample_requests import ask, drawn

pytestmark = pytest.mark.torch

SIZE = 12
TOKENS = st.integers(0, SIZE - 1)
WISHES = st.fixed_dictionaries(
    {
        "history": st.lists(TOKENS, max_size=20),
        "prompt_length": st.integers(0, 20),
        "repetition_penalty": st.sampled_from([1.0, 0.01, 0.5, 1.3, 10.0]),
        "presence_penalty": st.sampled_from([0.0, -2.0, 0.4, 2.0]),
        "frequency_penalty": st.sampled_from([0.0, -2.0, 0.2, 2.0]),
        "logit_bias": st.dictionaries(TOKENS, st.sampled_from([-100.0, 0.5, 100.0])).map(
            lambda biases: tuple(sorted(biases.items()))
        ),
    }
)


def moved(logit: float, token: int, wish: dict) -> float:
    """Return a logit as `SamplingOptions` describes it."""
    logit += dict(wish["logit_bias"]).get(token, 0.0)
    if token in wish["history"]:
        penalty = wish["repetition_penalty"]
        logit = logit / penalty if logit > 0 else logit * penalty
    times = Counter(wish["history"][wish["prompt_length"] :])[token]
    presence = wish["presence_penalty"] if times else 0.0
    return logit - presence - times * wish["frequency_penalty"]


@given(wishes=st.lists(WISHES, min_size=1, max_size=5))
def test_each_row_moves_as_its_request_says(wishes):
    """Bias, repetition, then presence and frequency, which count the answer alone."""
    logits = np.random.default_rng(3).normal(size=(len(wishes), SIZE)).astype(np.float32) * 5
    expected = [
        [moved(float(logit), token, wish) for token, logit in enumerate(row)]
        for row, wish in zip(logits, wishes, strict=True)
    ]
    shift(logits, [ask(**wish) for wish in wishes])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_the_repetition_penalty_is_that_of_transformers():
    """On the tokens of prompt and answer."""
    transformers = pytest.importorskip("transformers")
    history = [1, 5, 5, 9, 2]
    logits = torch.randn(1, SIZE, generator=torch.Generator().manual_seed(1))
    processor = transformers.RepetitionPenaltyLogitsProcessor(1.3)
    expected = processor(torch.tensor([history]), logits.clone())
    shift(logits.numpy(), [ask(history=history, prompt_length=3, repetition_penalty=1.3)])
    torch.testing.assert_close(logits, expected)


def test_the_lowest_penalty_keeps_logits_finite():
    """What a model writes is far below what a hundredfold could make infinite."""
    row = np.array([[1e6, -1e6, 30.0]], dtype=np.float32)
    shift(row, [ask(history=[0, 1, 2], repetition_penalty=0.01)])
    np.testing.assert_allclose(row, [[1e8, -1e4, 3e3]], rtol=1e-5)


def test_what_a_penalty_makes_infinite_is_found():
    """A logit is looked at after the shift: +inf fails its row, -inf is a token never drawn."""
    history = [0]
    high, low = [3e38, 0.0], [-3e38, 0.0]
    assert drawn(high, ask(history=history, repetition_penalty=0.01)) == ["non_finite"]
    (token,) = drawn(
        low, ask(history=history, repetition_penalty=10.0, temperature=10.0, logprobs=0)
    )
    assert (token.token_id, token.logprobs.logprob) == (1, 0.0)
