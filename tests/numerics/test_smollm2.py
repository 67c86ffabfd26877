"""SmolLM2 itself: the same tokens as transformers, and the same in any company."""

from pathlib import Path

import pytest

from hocket.server.engine.config import EngineConfig
from hocket.server.engine.sampling import SamplingParams
from hocket.server.errors import StartupError
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.model.loading import LoadedModel, load_model
from numerics.generation import write
from numerics.real_weights import ask, assert_equals_transformers

pytestmark = [pytest.mark.torch, pytest.mark.weights, pytest.mark.slow, pytest.mark.timeout(900)]

COMPANIES = {
    "alone": EngineConfig(max_num_seqs=1),
    "five at once": EngineConfig(max_num_seqs=5),
}
CHUNKS = {
    f"chunks of {size}": EngineConfig(max_num_seqs=6, max_step_tokens=size) for size in (7, 16, 33)
}


WAYS = {
    "torch": RunnerConfig(dtype="bfloat16", kernels="torch"),
    "kernels": RunnerConfig(kernels="native", quantization="none"),
    "int8": RunnerConfig(kernels="native", quantization="int8"),
}


def _load(path: Path, config: RunnerConfig) -> LoadedModel:
    return load_model(ModelSourceConfig(model=str(path)), config, lambda *_: None)


@pytest.fixture(scope="module")
def exact(smollm2_path: Path) -> LoadedModel:
    return _load(smollm2_path, RunnerConfig(dtype="float32"))


@pytest.fixture(scope="module", params=WAYS.values(), ids=WAYS)
def coarse(request, smollm2_path: Path) -> LoadedModel:
    """The ways to compute in less than float32, as far as this machine can."""
    try:
        return _load(smollm2_path, request.param)
    except StartupError as error:
        pytest.skip(str(error))


def _spread(prompts: dict[str, list[int]]) -> dict[str, int]:
    return {name: index * 3 for index, name in enumerate(prompts)}


def test_greedy_tokens_and_logprobs_equal_transformers(exact, smollm2_path):
    """Over 20 prompts of 128 tokens."""
    assert_equals_transformers(exact, ask(exact), smollm2_path)


@pytest.mark.parametrize("engine", (COMPANIES | CHUNKS).values(), ids=COMPANIES | CHUNKS)
def test_company_and_chunks_change_no_token(exact, engine):
    """In float32."""
    prompts = dict(list(ask(exact).items())[:6])
    together = write(exact.runner, prompts, max_tokens=40)
    apart = write(exact.runner, prompts, max_tokens=40, engine=engine, arrivals=_spread(prompts))
    assert apart.tokens == together.tokens


@pytest.mark.parametrize("engine", (COMPANIES | CHUNKS).values(), ids=COMPANIES | CHUNKS)
def test_company_and_chunks_change_no_logprob(coarse, engine):
    """Rows are computed by themselves in bfloat16 and int8, too: no tolerance."""
    prompts = dict(list(ask(coarse).items())[:6])
    sampling = SamplingParams(logprobs=1)
    together = write(coarse.runner, prompts, max_tokens=32, sampling=sampling)
    apart = write(
        coarse.runner,
        prompts,
        max_tokens=32,
        sampling=sampling,
        engine=engine,
        arrivals=_spread(prompts),
    )
    assert apart.tokens == together.tokens
    assert apart.logprobs == together.logprobs
