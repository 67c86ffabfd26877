"""The kernels compute what torch computes, and each row by itself."""

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from hocket.server.engine.commands import Logprobs
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.sampling import SamplingParams
from hocket.server.model.choice import Choice
from hocket.server.model.config import RunnerConfig
from hocket.server.model.native.build import build, is_supported
from hocket.server.model.native.library import Library
from hocket.server.model.runner import TorchRunner
from numerics.generation import write
from numerics.test_batch_laws import SAMPLINGS, Tight
from numerics.test_prefixes import check_that_no_bit_changes
from numerics.tiny_models import BUILDERS, VOCABULARY, StateDictCheckpoint, make_model

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not is_supported(), reason="the kernels are for another processor"),
]

NAMES = [name for name in BUILDERS if name != "gpt2"]
DIVERGENCE = {"bfloat16": 3e-3, "int8": 1e-2}  # Kullback-Leibler, mean over positions, in nats


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Library:
    path = build(tmp_path_factory.mktemp("kernels"))
    if path is None:
        pytest.skip("there is no compiler")
    return Library(path)


def _runner(name: str, library: Library, number: str, **changes) -> TorchRunner:
    settings = {"block_size_tokens": 16, "kv_cache_mib": 8, "num_threads": 2}
    return TorchRunner(
        StateDictCheckpoint(make_model(name, is_wide=True)),
        RunnerConfig(**settings | changes),
        choice=Choice(library=library, dtype=torch.bfloat16, is_int8=number == "int8"),
    )


def _divergences(told: Sequence[Logprobs], exact: Tensor) -> list[float]:
    """Return how far told distributions are from those of `[positions, vocabulary]`."""
    found = []
    for logprobs, row in zip(told, exact, strict=True):
        ids, values = zip(*logprobs.top, strict=True)
        ours = torch.tensor(values)
        found.append(float((ours.exp() * (ours - row[list(ids)])).sum()))
    return found


def _prompts(*lengths: int) -> dict[str, list[int]]:
    generator = torch.Generator().manual_seed(3)
    return {
        str(length): torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()
        for length in lengths
    }


@pytest.mark.parametrize("block_size", [16, 64])
@pytest.mark.parametrize("number", DIVERGENCE)
@pytest.mark.parametrize("name", NAMES)
def test_the_distributions_are_those_of_transformers(name, number, block_size, library):
    """Across blocks, windows and chunks, for prompts and for what is written."""
    runner = _runner(name, library, number, block_size_tokens=block_size)
    prompts = _prompts(1, 17, 70)
    written = write(
        runner,
        prompts,
        max_tokens=40,
        engine=EngineConfig(max_num_seqs=8, max_step_tokens=24),
        sampling=SamplingParams(logprobs=20, prompt_logprobs=20),
    )
    model = make_model(name, is_wide=True)
    divergences = []
    for key, prompt in prompts.items():
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + written.tokens[key]])).logits[0]
        told = [*written.finished[key].prompt_logprobs, *written.logprobs[key]]
        assert len(told) == len(prompt) + 39
        divergences += _divergences(told, logits[:-1].log_softmax(-1))
    mean = sum(divergences) / len(divergences)
    assert abs(mean) < DIVERGENCE[number]


@pytest.mark.parametrize("block_size", [16, 64])
@pytest.mark.parametrize("head_dim", [96, 128, 256])
@pytest.mark.parametrize("number", DIVERGENCE)
def test_wide_heads_are_computed_as_torch_computes_them(number, head_dim, block_size, library):
    """In parts of 64 numbers and the rest, up to the most that a head may have."""
    model = StateDictCheckpoint(make_model("llama", is_wide=True, head_dim=head_dim))
    settings = RunnerConfig(block_size_tokens=block_size, kv_cache_mib=16, num_threads=2)
    choice = Choice(library=library, dtype=torch.bfloat16, is_int8=number == "int8")
    prompts = _prompts(1, 70)
    written = write(
        TorchRunner(model, settings, choice=choice),
        prompts,
        max_tokens=30,
        engine=EngineConfig(max_num_seqs=8, max_step_tokens=24),
        sampling=SamplingParams(logprobs=20, prompt_logprobs=20),
    )
    torch_alone = TorchRunner(model, dataclasses.replace(settings, dtype="float32"))
    texts = {key: prompt + written.tokens[key] for key, prompt in prompts.items()}
    sampling = SamplingParams(prompt_logprobs=VOCABULARY)
    exact = write(torch_alone, texts, max_tokens=1, sampling=sampling)
    divergences = []
    for key in prompts:
        told = [*written.finished[key].prompt_logprobs, *written.logprobs[key]]
        rows = torch.empty((len(told), VOCABULARY))
        for row, logprobs in zip(rows, exact.finished[key].prompt_logprobs, strict=True):
            ids, values = zip(*logprobs.top, strict=True)
            row[list(ids)] = torch.tensor(values)
        divergences += _divergences(told, rows)
    mean = sum(divergences) / len(divergences)
    assert abs(mean) < 2 * DIVERGENCE[number]  # wider sums, with weights as large


@pytest.mark.parametrize("number", DIVERGENCE)
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize(
    ("name", "block_size"), [("llama", 16), ("llama", 64), ("gemma3", 16), ("qwen2", 16)]
)
def test_company_arrival_and_chunks_change_no_bit(name, block_size, sampling, number, library):
    runner = _runner(name, library, number, block_size_tokens=block_size)
    prompts = _prompts(1, 3, 16, 17, 40, 64)
    sampling = dataclasses.replace(sampling, logprobs=2)
    alone = {
        key: write(runner, {key: prompt}, max_tokens=24, sampling=sampling).logprobs[key]
        for key, prompt in prompts.items()
    }
    for budget, seqs, spread in [(256, 32, 0), (5, 5, 2), (3, 3, 9), (19, 3, 1), (63, 2, 5)]:
        together = write(
            runner,
            prompts,
            max_tokens=24,
            sampling=sampling,
            engine=EngineConfig(max_step_tokens=max(budget, seqs), max_num_seqs=seqs),
            arrivals={key: index * spread for index, key in enumerate(prompts)},
        )
        assert together.logprobs == alone


@pytest.mark.parametrize("saved", [0, 3, 64])
@pytest.mark.parametrize(("block_size", "blocks"), [(16, 12), (64, 5)])
@pytest.mark.parametrize("number", DIVERGENCE)
def test_preemption_changes_no_bit(number, block_size, blocks, saved, library):
    prompts, sampling = _prompts(1, 3, 16, 17, 40, 64), SamplingParams(temperature=0.8, logprobs=1)
    roomy_runner, runner = (
        _runner("llama", library, number, block_size_tokens=block_size) for _ in range(2)
    )
    roomy = write(roomy_runner, prompts, max_tokens=40, sampling=sampling)
    tight_runner = Tight(runner, blocks=blocks, saved=saved)
    tight = write(tight_runner, prompts, max_tokens=40, sampling=sampling)
    assert tight.preemptions > 0
    assert tight.logprobs == roomy.logprobs


@pytest.mark.parametrize("number", DIVERGENCE)
@pytest.mark.parametrize(("name", "block_size"), [("llama", 16), ("llama", 64), ("gemma3", 16)])
def test_a_prefix_that_was_kept_changes_no_bit(name, number, block_size, library):
    """Of the prompt of another, or of what another wrote."""
    runner = _runner(name, library, number, block_size_tokens=block_size, prefix_cache_mib=8)
    assert runner.limits.is_slicing_exact
    check_that_no_bit_changes(runner)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("block_size", [16, 64])
def test_the_number_of_threads_changes_no_bit(block_size, threads, library):
    prompts, sampling = _prompts(3, 40, 64), SamplingParams(logprobs=1)
    two, other = (
        write(
            _runner("gemma3", library, "int8", block_size_tokens=block_size, num_threads=count),
            prompts,
            max_tokens=20,
            sampling=sampling,
        )
        for count in (2, threads)
    )
    assert other.logprobs == two.logprobs


@pytest.mark.parametrize("kernels", ["int8", "bfloat16", "torch"])
def test_runners_that_share_weights_write_the_same_side_by_side(kernels, library):
    """Each on a thread of its own, at the same time, on a cache of its own."""
    prompts, sampling = _prompts(1, 3, 17, 40, 64), SamplingParams(temperature=0.8, logprobs=1)
    settings = RunnerConfig(block_size_tokens=16, kv_cache_mib=8, num_threads=1)
    first = (
        TorchRunner(StateDictCheckpoint(make_model("llama", is_wide=True)), settings)
        if kernels == "torch"
        else _runner("llama", library, kernels, num_threads=1)
    )
    alone = write(first, prompts, max_tokens=40, sampling=sampling).logprobs
    meeting = threading.Barrier(3)

    def work(_: int) -> object:
        runner = first.sibling()
        meeting.wait(10)
        return write(runner, prompts, max_tokens=40, sampling=sampling).logprobs

    with ThreadPoolExecutor(3) as executor:
        assert list(executor.map(work, range(3))) == [alone] * 3


def test_fewer_threads_than_asked_for_are_enough(library):
    """Where OpenMP is limited from outside, nobody waits for a thread that never comes."""
    case = f"{__file__}::test_preemption_changes_no_bit[bfloat16-16-12-64]"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", case],
        env={**os.environ, "OMP_THREAD_LIMIT": "1"},  # noqa: TID251 - passed on
        capture_output=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout.decode()[-500:]
