"""SmolLM2 itself: the same tokens as transformers, and the same in any company."""

from pathlib import Path

import pytest

from engine.lost_streams import Had
from hocket.server.engine.commands import Submit, TextOutput
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.core import EngineCore
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.errors import StartupError
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.model.loading import LoadedModel, load_model
from hocket.server.text.pieces import Granularity
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


DRAWS = {
    "greedy": SamplingParams(),
    "drawn": SamplingParams(temperature=1.0, top_p=0.95, seed=7, repetition_penalty=1.1),
}


@pytest.mark.parametrize("granularity", list(Granularity)[:3])
@pytest.mark.parametrize("sampling", DRAWS.values(), ids=DRAWS)
def test_a_stream_that_is_lost_goes_on_as_it_was(coarse, sampling, granularity):
    """Wherever it breaks: what was received and what comes is the text, piece by piece."""
    _, prompt = next(iter(ask(coarse).items()))
    request = Submit(
        request_id="whole",
        prompt_token_ids=tuple(prompt),
        sampling=sampling,
        stopping=StoppingParams(max_tokens=64),
        granularity=granularity,
    )

    def texts(requests: list[Submit]) -> dict[str, list[TextOutput]]:
        core = EngineCore(coarse.runner, coarse.tokenizer, EngineConfig(), lambda: 0.0)
        found: dict[str, list[TextOutput]] = {each.request_id: [] for each in requests}
        outputs = core.step(requests)
        while True:
            for output in outputs.outputs:
                assert output.failure is None
                found[output.request_id] += output.texts
            if not outputs.has_work:
                return found
            outputs = core.step([])

    whole = texts([request])["whole"]
    assert sum(len(text.token_ids) for text in whole) > 40
    cuts = range(0, len(whole) + 1, 1 if len(whole) < 12 else 11)
    lost = [Had().and_then(whole[:cut]).resume(request, str(cut)) for cut in cuts]
    rests = texts(lost)
    for cut in cuts:
        assert whole[:cut] + rests[str(cut)] == whole
