"""The same tokens alone, in any batch, order, chunking, and after preemption."""

import dataclasses

import pytest
import torch

from hocket.server.engine.config import EngineConfig
from hocket.server.engine.sampling import SamplingParams
from hocket.server.model.config import RunnerConfig
from hocket.server.model.runner import TorchRunner
from numerics.generation import write
from numerics.tiny_models import VOCABULARY, StateDictCheckpoint, make_model

pytestmark = pytest.mark.torch

SAMPLINGS = {
    "greedy": SamplingParams(),
    "drawn": SamplingParams(temperature=0.9, top_p=0.9, top_k=50, min_p=0.01, seed=11),
    "penalised": SamplingParams(
        temperature=0.7, repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.2, seed=5
    ),
}


def _prompts() -> dict[str, list[int]]:
    generator = torch.Generator().manual_seed(3)
    lengths = (1, 3, 16, 17, 31, 40, 64)
    return {
        str(length): torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()
        for length in lengths
    }


def _runner(name: str, **changes) -> TorchRunner:
    settings = {"dtype": "float32", "block_size_tokens": 16, "kv_cache_mib": 8, "num_threads": 1}
    return TorchRunner(StateDictCheckpoint(make_model(name)), RunnerConfig(**settings | changes))


def _chunks(size: int, seqs: int = 32) -> EngineConfig:
    return EngineConfig(max_step_tokens=max(size, seqs), max_num_seqs=seqs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_company_arrival_and_chunks_change_no_token(name, sampling, dtype):
    """Chunks that leave one token of a prompt for the last included."""
    runner, prompts = _runner(name, dtype=dtype), _prompts()
    alone = {
        key: write(runner, {key: prompt}, max_tokens=24, sampling=sampling).tokens[key]
        for key, prompt in prompts.items()
    }
    for budget, seqs, spread in [(256, 32, 0), (5, 5, 2), (3, 3, 9), (19, 3, 1), (64, 2, 5)]:
        together = write(
            runner,
            prompts,
            max_tokens=24,
            sampling=sampling,
            engine=_chunks(budget, seqs),
            arrivals={key: index * spread for index, key in enumerate(prompts)},
        )
        assert together.tokens == alone


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_chunks_change_no_logprob_in_bfloat16(name):
    """Bit for bit, for every size of the last chunk."""
    runner, prompts = _runner(name, dtype="bfloat16"), {"64": _prompts()["64"]}
    sampling = SamplingParams(logprobs=3)
    whole = write(runner, prompts, max_tokens=8, sampling=sampling)
    for size in (1, 2, 3, 7, 9, 16, 21, 31, 63):
        parts = write(runner, prompts, max_tokens=8, sampling=sampling, engine=_chunks(size, 1))
        assert parts.logprobs == whole.logprobs


class Tight:
    """A runner with fewer blocks, hot and saved, and few chunks of prefixes or none."""

    def __init__(self, runner: TorchRunner, *, blocks: int, saved: int, chunks: int = 0) -> None:
        self._runner = runner
        self.limits = dataclasses.replace(
            runner.limits,
            num_blocks=blocks,
            num_saved_blocks=saved,
            num_prefix_chunks=min(chunks, runner.limits.num_prefix_chunks),
        )

    def __getattr__(self, name: str) -> object:
        return getattr(self._runner, name)


@pytest.mark.parametrize("saved", [0, 3, 64])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_preemption_changes_no_token(name, dtype, saved):
    """Whether blocks were saved or must be computed again."""
    prompts, sampling = _prompts(), SamplingParams(temperature=0.8, seed=3, logprobs=1)
    roomy = write(_runner(name, dtype=dtype), prompts, max_tokens=40, sampling=sampling)
    tight_runner = Tight(_runner(name, dtype=dtype), blocks=12, saved=saved)
    tight = write(tight_runner, prompts, max_tokens=40, sampling=sampling)
    assert tight.preemptions > 0
    assert tight.tokens == roomy.tokens
    if dtype == "bfloat16":
        assert tight.logprobs == roomy.logprobs
