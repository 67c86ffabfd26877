"""Drafts change no bit of what the kernels compute, greedy or drawn."""

import dataclasses

import pytest
import torch

from hocket.server.engine.batch import Batch, SampleRequest, SequenceSlice, SliceResult
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.sampling import SamplingParams
from hocket.server.model.choice import Choice
from hocket.server.model.config import RunnerConfig
from hocket.server.model.native.build import build, is_supported
from hocket.server.model.native.library import Library
from hocket.server.model.runner import TorchRunner
from numerics.generation import Written, write
from numerics.test_batch_laws import Tight
from numerics.tiny_models import VOCABULARY, StateDictCheckpoint, make_model

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not is_supported(), reason="the kernels are for another processor"),
]

# A model with random weights seldom repeats itself; with three tokens to choose from it must.
FEW = tuple((token, 100.0) for token in (5, 6, 7))
SAMPLINGS = {
    "greedy": SamplingParams(logit_bias=FEW, logprobs=2),
    "drawn": SamplingParams(temperature=3.0, seed=11, logit_bias=FEW, logprobs=2),
    "narrowed": SamplingParams(
        temperature=5.0, top_k=4, top_p=0.9, min_p=0.02, seed=4, logit_bias=FEW, logprobs=1
    ),
}
POISON = 250  # a token whose embedding is not a number


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Library:
    path = build(tmp_path_factory.mktemp("kernels"))
    if path is None:
        pytest.skip("there is no compiler")
    return Library(path)


def _runner(name: str, library: Library | None, number: str, *, poison: bool = False):
    model = make_model(name, is_wide=True)
    if poison:
        with torch.no_grad():
            model.get_input_embeddings().weight[POISON] = torch.nan
    dtype = torch.float32 if number == "float32" else torch.bfloat16
    return TorchRunner(
        StateDictCheckpoint(model),
        RunnerConfig(block_size_tokens=16, kv_cache_mib=4, num_threads=2),
        choice=Choice(library=library, dtype=dtype, is_int8=number == "int8"),
    )


def _prompts() -> dict[str, list[int]]:
    generator = torch.Generator().manual_seed(3)
    return {
        str(length): torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()
        for length in (1, 16, 40)
    }


def _write(runner, prompts, sampling, up_to: int) -> Written:
    engine = EngineConfig(speculate_up_to=up_to, max_num_seqs=8, max_step_tokens=24)
    return write(runner, prompts, max_tokens=60, sampling=sampling, engine=engine)


@pytest.mark.parametrize("number", ["bfloat16", "int8"])
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_drafts_change_no_bit(name, sampling, number, library):
    """Alone and beside others; among them right drafts and wrong ones."""
    runner, prompts = _runner(name, library, number), _prompts()
    plain = _write(runner, prompts, sampling, 0)
    assert plain.draft_tokens == 0
    for company in (prompts, {"16": prompts["16"]}):
        drafted = _write(runner, company, sampling, 4)
        assert drafted.tokens == {key: plain.tokens[key] for key in company}
        assert drafted.logprobs == {key: plain.logprobs[key] for key in company}
        assert drafted.accepted_tokens > 0
    assert sampling.is_greedy or drafted.accepted_tokens < drafted.draft_tokens


@pytest.mark.parametrize("saved", [0, 64])
@pytest.mark.parametrize("number", ["bfloat16", "int8"])
def test_drafts_and_preemption_change_no_bit(number, saved, library):
    prompts, sampling = _prompts(), SAMPLINGS["drawn"]
    plain = _write(_runner("llama", library, number), prompts, sampling, 0)
    tight = _write(
        Tight(_runner("llama", library, number), blocks=9, saved=saved), prompts, sampling, 4
    )
    assert tight.preemptions > 0
    assert tight.accepted_tokens > 0
    assert tight.logprobs == plain.logprobs


@pytest.mark.parametrize("number", ["float32", "bfloat16"])
def test_torch_alone_promises_no_exact_drafts(number):
    runner = _runner("llama", None, number)
    assert not runner.limits.is_slicing_exact
    assert _write(runner, _prompts(), SAMPLINGS["greedy"], 4).draft_tokens == 0


def _compute(runner, known: list[int], drafts: list[int]) -> SliceResult:
    """Compute a sequence of one token of prompt at once, with drafts of what follows it."""
    samples = tuple(
        SampleRequest(
            params=SamplingParams(logprobs=3), seed=0, position=len(known) + at, prompt_length=1
        )
        for at in range(len(drafts) + 1)
    )
    piece = SequenceSlice(
        sequence_id=0,
        token_ids=[*known, *drafts],
        start=0,
        prompt_length=1,
        block_table=[1, 0, 2],
        samples=samples,
    )
    return runner.execute(Batch((piece,))).results[0]


@pytest.mark.parametrize("number", ["bfloat16", "int8"])
@pytest.mark.parametrize("place", range(5))
def test_a_draft_that_is_no_number_fails_nobody(place, number, library):
    """It is as if it had not been there, and nothing of it stays in the cache."""
    runner, known = _runner("llama", library, number, poison=True), [3, 1, 4]
    alone = _compute(runner, known, [])
    drafts = [alone.tokens[0].token_id, 9, 2, 6, 8]
    drafts[place] = POISON
    drafted = _compute(runner, known, drafts)
    assert drafted.failure is None
    assert drafted.tokens[:1] == alone.tokens
    assert all(bool(tensor.isfinite().all()) for tensor in runner._cache.tensors)


@pytest.mark.parametrize("number", ["bfloat16", "int8"])
def test_a_sequence_that_is_no_number_fails_with_its_drafts(number, library):
    runner = _runner("llama", library, number, poison=True)
    assert _compute(runner, [3, POISON, 4], [1, 2]).failure == "non_finite"
    assert all(bool(tensor.isfinite().all()) for tensor in runner._cache.tensors)


@pytest.mark.parametrize("count", range(5))
def test_as_many_tokens_come_as_drafts_are_right_and_one_more(count, library):
    runner, tokens = _runner("llama", library, "int8"), [3, 1, 4]
    singles = []
    for _ in range(5):
        singles += _compute(runner, tokens, []).tokens
        tokens.append(singles[-1].token_id)
    drafts = [token.token_id for token in singles[:4]]
    drafts[count:] = [(token + 1) % VOCABULARY for token in drafts[count:]]
    found = _compute(runner, [3, 1, 4], drafts)
    assert found.tokens == tuple(singles[: count + 1])


def test_slices_without_drafts_are_what_is_left_of_those_with_them():
    sample = SampleRequest(params=SamplingParams(), seed=0, position=3, prompt_length=1)
    piece = SequenceSlice(
        sequence_id=0, token_ids=[1, 2, 3], start=0, prompt_length=1, block_table=[0],
        samples=(sample,),
    )  # fmt: skip
    drafted = dataclasses.replace(piece, token_ids=[1, 2, 3, 9, 9], samples=(sample,) * 3)
    assert drafted.num_drafts == 2
    assert drafted.without_drafts() == piece == piece.without_drafts()
