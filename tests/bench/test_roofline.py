"""The bound of a model's arithmetic."""

import pytest
from bench.roofline import INT8_BYTES, Rates, Roofline, Size
from hypothesis import given
from hypothesis import strategies as st

SMOLLM2 = Size.of(
    hidden=576, intermediate=1536, vocabulary=49152, layers=30, heads=9, kv_heads=3, head_dim=64
)
RATES = Rates(read=41e9, bf16=0.8e12, int8=1.45e12, source="instructions")
BF16 = Roofline(size=SMOLLM2, rates=RATES, is_int8=False)
INT8 = Roofline(size=SMOLLM2, rates=RATES, is_int8=True)


def test_the_size_of_a_model_that_is_known() -> None:
    assert SMOLLM2.body == 106_168_320
    assert SMOLLM2.head == 28_311_552
    assert SMOLLM2.kv_bytes == 23_040


@pytest.mark.parametrize(
    ("bound", "streams", "expected"), [(BF16, 1, 6.8), (BF16, 8, 8.9), (BF16, 32, 20.0)]
)
def test_decode_steps_calculated_by_hand(bound: Roofline, streams: int, expected: float) -> None:
    """At 512 tokens of context, in milliseconds."""
    assert bound.decode_step(streams, 512) * 1e3 == pytest.approx(expected, abs=0.06)


def test_one_stream_is_bound_by_reading_and_many_by_multiplying() -> None:
    weights = SMOLLM2.body + SMOLLM2.head
    assert INT8.decode_step(1, 0) == pytest.approx(INT8_BYTES * weights / RATES.read)
    assert INT8.decode_step(64, 0) == pytest.approx(2 * 64 * weights / RATES.int8)


@given(st.integers(1, 256), st.integers(1, 4096))
def test_more_work_never_takes_less_time(streams: int, context: int) -> None:
    for bound in (BF16, INT8):
        assert bound.decode_step(streams + 1, context) >= bound.decode_step(streams, context)
        assert bound.decode_step(streams, context + 1) >= bound.decode_step(streams, context)
        assert bound.prefill(streams + 1, context) >= bound.prefill(streams, context)


@given(st.integers(1, 64), st.integers(1, 500), st.integers(1, 50))
def test_a_job_is_its_prompts_and_its_steps(streams: int, prompt: int, new_tokens: int) -> None:
    """The first token comes of the prompt, each further one of a step."""
    longer = INT8.job(streams, prompt, new_tokens + 1)
    step = INT8.decode_step(streams, prompt + new_tokens)
    assert longer - INT8.job(streams, prompt, new_tokens) == pytest.approx(step, rel=1e-6)
    assert INT8.job(streams, prompt, 1) == INT8.prefill(streams, prompt)


def test_the_better_of_two_measurements_counts_rate_by_rate() -> None:
    other = Rates(read=50e9, bf16=0.7e12, int8=1.5e12, source="instructions")
    assert RATES.better(other) == Rates(read=50e9, bf16=0.8e12, int8=1.5e12, source="instructions")
