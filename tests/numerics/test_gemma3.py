"""Gemma 3 itself: sliding windows, two rotary bases and norms after each half, on real weights."""

import pytest

from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.model.loading import load_model
from hocket.server.model.registry import NAMED_MODELS, find
from numerics.real_weights import ask, assert_equals_transformers

pytestmark = [pytest.mark.torch, pytest.mark.weights, pytest.mark.slow, pytest.mark.timeout(900)]


def test_greedy_tokens_and_logprobs_equal_transformers():
    """Over 20 prompts of 128 tokens, where someone has accepted the terms and fetched it."""
    found = find(NAMED_MODELS["gemma3-270m"], ModelSourceConfig())
    if found is None:
        pytest.skip("gemma3-270m is not fetched; its terms must be accepted by a person")
    loaded = load_model(
        ModelSourceConfig(model=str(found.path)), RunnerConfig(dtype="float32"), lambda *_: None
    )
    assert_equals_transformers(loaded, ask(loaded), found.path)
