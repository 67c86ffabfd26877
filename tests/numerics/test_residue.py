"""A sequence whose numbers are not finite leaves nothing behind for those that come after it."""

import pytest
import torch

from hocket.server.engine.commands import Abort, FinishReason, Submit
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.core import EngineCore
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.errors import GenerationFailed
from hocket.server.model.config import RunnerConfig
from hocket.server.model.runner import TorchRunner
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from numerics.generation import write
from numerics.tiny_models import StateDictCheckpoint, make_model

pytestmark = pytest.mark.torch

POISON = 250  # a token whose embedding is not a number
SIZES = {"dtype": "float32", "block_size_tokens": 16, "kv_cache_mib": 1, "num_threads": 1}


@pytest.fixture
def runner() -> TorchRunner:
    model = make_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[POISON] = torch.nan
    return TorchRunner(StateDictCheckpoint(model), RunnerConfig(**SIZES))


def _submit(name: str, prompt: list[int], choices: int = 1) -> Submit:
    return Submit(
        request_id=name,
        prompt_token_ids=tuple(prompt),
        sampling=SamplingParams(),
        stopping=StoppingParams(max_tokens=4, ignore_eos=True),
        choices=choices,
    )


def _is_clean(runner: TorchRunner) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in runner._cache.tensors)


@pytest.mark.parametrize("choices", [1, 3])
@pytest.mark.parametrize("place", [0, 7, 20, 39])
def test_a_poisonous_prompt_fails_in_the_step_that_meets_it(runner, place, choices):
    """In whichever chunk of it, the cache is clean after each step, and others write the same."""
    healthy = list(range(30))
    alone = write(runner, {"a": healthy}, max_tokens=8).tokens["a"]
    prompt = list(range(40))
    prompt[place] = POISON
    core = EngineCore(
        runner,
        ByteTokenizer(),
        EngineConfig(max_step_tokens=12, max_num_seqs=4),
        lambda: 0.0,
    )
    outputs = core.step([_submit("bad", prompt, choices)])
    failures = [output.failure for output in outputs.outputs]
    while outputs.has_work:
        assert _is_clean(runner)
        outputs = core.step([])
        failures += [output.failure for output in outputs.outputs]
    assert [type(failure) for failure in failures if failure] == [GenerationFailed]
    assert _is_clean(runner)
    assert write(runner, {"a": healthy}, max_tokens=8).tokens["a"] == alone


def test_a_cancelled_poisonous_prompt_leaves_nothing(runner):
    prompt = [POISON, *range(39)]
    config = EngineConfig(max_step_tokens=12, max_num_seqs=4)
    core = EngineCore(runner, ByteTokenizer(), config, lambda: 0.0)
    core.step([_submit("bad", prompt)])
    core.step([Abort(request_id="bad", reason=FinishReason.CANCELLED)])
    assert _is_clean(runner)


def test_a_batch_that_raised_leaves_the_cache_as_it_was(runner, monkeypatch):
    """What it wrote past what was committed is gone, NaN or not."""
    core = EngineCore(runner, ByteTokenizer(), EngineConfig(), lambda: 0.0)
    real = runner._sample

    def raising(*arguments):
        real(*arguments)
        raise MemoryError

    monkeypatch.setattr(runner, "_sample", raising)
    core.step([_submit("bad", [POISON, 1, 2])])
    assert all(not tensor.any() for tensor in runner._cache.tensors)
