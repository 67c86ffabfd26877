"""Greedy tokens and log probabilities equal those of transformers, in float32."""

import pytest
import torch

from hocket.server.engine.config import EngineConfig
from hocket.server.engine.sampling import SamplingParams
from hocket.server.model.config import RunnerConfig
from hocket.server.model.runner import TorchRunner
from numerics.generation import write
from numerics.tiny_models import BUILDERS, VOCABULARY, StateDictCheckpoint, make_model

pytestmark = pytest.mark.torch

NEW_TOKENS = 80
TOLERANCE = 2e-4  # of log probabilities; float32 sums in another order
CLOSE_CALL = 1e-4  # a smaller gap between the two likeliest tokens decides nothing


def _prompts() -> dict[str, list[int]]:
    generator = torch.Generator().manual_seed(7)
    lengths = {"one": 1, "short": 5, "block": 16, "over": 17, "long": 70}
    return {
        name: torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()
        for name, length in lengths.items()
    }


@pytest.mark.parametrize("name", BUILDERS)
def test_greedy_tokens_equal_transformers(name: str) -> None:
    """Token for token, across block and window edges, with prompts in chunks."""
    model = make_model(name)
    config = RunnerConfig(dtype="float32", block_size_tokens=16, kv_cache_mib=8, num_threads=1)
    runner = TorchRunner(StateDictCheckpoint(model), config)
    prompts = _prompts()
    written = write(
        runner,
        prompts,
        max_tokens=NEW_TOKENS,
        engine=EngineConfig(max_num_seqs=24, max_step_tokens=24),
        sampling=SamplingParams(logprobs=2, prompt_logprobs=1),
    )
    for key, prompt in prompts.items():
        ids = torch.tensor([prompt + written.tokens[key]])
        with torch.inference_mode():
            logprobs = model(ids).logits[0].log_softmax(-1)
        for at, token in enumerate(written.tokens[key], start=len(prompt) - 1):
            best = logprobs[at].topk(2)
            gap = float(best.values[0] - best.values[1])
            assert token == int(best.indices[0]) or gap < CLOSE_CALL, (key, at, gap)
            ours = written.logprobs[key][at - len(prompt) + 1]
            assert ours.logprob == pytest.approx(float(logprobs[at, token]), abs=TOLERANCE)
            assert ours.top[0][1] == pytest.approx(float(best.values[0]), abs=TOLERANCE)
        theirs = [float(logprobs[at, token]) for at, token in enumerate(prompt[1:])]
        found = [item.logprob for item in written.finished[key].prompt_logprobs]
        assert theirs == pytest.approx(found, abs=TOLERANCE)


def test_generate_itself_writes_the_same() -> None:
    """The comparison above is with the model's own loop, too."""
    model = make_model("llama")
    prompt = _prompts()["over"]
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS
        )
    config = RunnerConfig(dtype="float32", block_size_tokens=16, kv_cache_mib=8, num_threads=1)
    runner = TorchRunner(StateDictCheckpoint(model), config)
    ours = write(runner, {"only": prompt}, max_tokens=NEW_TOKENS)
    assert theirs[0, len(prompt) :].tolist() == ours.tokens["only"]
