"""The same tokens alone, in any batch, order, chunking, and after preemption. In float32."""

import pytest
import torch

from hocket.server.engine.config import EngineConfig
from hocket.server.engine.sampling import SamplingParams
from hocket.server.model.config import RunnerConfig
from hocket.server.model.runner import TorchRunner
from numerics.generation import write
from numerics.tiny_models import BUILDERS, VOCABULARY, StateDictCheckpoint, make_model

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


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("name", [name for name in BUILDERS if name in {"llama", "gemma3", "gpt2"}])
def test_company_arrival_and_chunks_change_no_token(name, sampling):
    runner, prompts = _runner(name), _prompts()
    alone = {
        key: write(runner, {key: prompt}, max_tokens=24, sampling=sampling).tokens[key]
        for key, prompt in prompts.items()
    }
    for budget, seqs, spread in [(256, 32, 0), (5, 32, 2), (19, 3, 1), (64, 2, 5)]:
        together = write(
            runner,
            prompts,
            max_tokens=24,
            sampling=sampling,
            engine=EngineConfig(
                max_step_tokens=budget, max_prefill_tokens=budget, max_num_seqs=seqs
            ),
            arrivals={key: index * spread for index, key in enumerate(prompts)},
        )
        assert together.tokens == alone


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_preemption_changes_no_token(name):
    prompts = _prompts()
    roomy = write(_runner(name), prompts, max_tokens=40)
    tight_runner = _runner(name)
    blocks = 12
    limits = tight_runner.limits

    class Tight:
        """The same runner with fewer blocks."""

        def __getattr__(self, attribute):
            return getattr(tight_runner, attribute)

        @property
        def limits(self):
            import dataclasses  # noqa: PLC0415

            return dataclasses.replace(limits, num_blocks=blocks)

    tight = write(Tight(), prompts, max_tokens=40)
    assert tight.preemptions > 0
    assert tight.tokens == roomy.tokens
