"""Which network computes: what was asked for, what can be had, and what the gate lets through."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from hocket.server.errors import StartupError
from hocket.server.model import choice
from hocket.server.model.choice import choose
from hocket.server.model.config import RunnerConfig
from hocket.server.model.native import build as building
from hocket.server.model.native import compiler, gate
from hocket.server.model.native.gate import GateResult, measure
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from numerics.tiny_models import StateDictCheckpoint, make_model

pytestmark = pytest.mark.torch

NEEDS_PROCESSOR = pytest.mark.skipif(
    not building.is_supported(), reason="the kernels are for another processor"
)


@pytest.fixture(autouse=True)
def _nothing_shipped(tmp_path, monkeypatch):
    """Kernels are compiled and kept, as in a checkout, wherever the tests run."""
    monkeypatch.setattr(building, "SHIPPED", tmp_path / "prebuilt")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Compiled kernels, once."""
    command = compiler.find()
    if command is None:
        pytest.skip("there is no compiler")
    return compiler.compile_kernels(command, tmp_path_factory.mktemp("kernels")).parent


def _choose(folder, *, is_wide=True, key="weights", **changes):
    checkpoint = StateDictCheckpoint(make_model("llama", is_wide=is_wide))
    config = RunnerConfig(**{"num_threads": 1} | changes)
    return choose(checkpoint, config, folder, key=key, tokenizer=ByteTokenizer())


@NEEDS_PROCESSOR
def test_the_kernels_compute_where_they_can(folder):
    assert _choose(folder, quantization="none").library is not None
    assert _choose(folder, kernels="torch").library is None
    assert _choose(folder, dtype="float32").library is None
    assert _choose(folder, is_wide=False).library is None  # heads of 8 numbers are no whole vector
    assert _choose(None).library is None  # nowhere to keep them, and none shipped


@NEEDS_PROCESSOR
def test_a_model_that_the_kernels_cannot_compute_is_told_if_they_were_asked_for(folder):
    with pytest.raises(StartupError, match="model is not supported"):
        _choose(folder, is_wide=False, kernels="native")


def test_without_a_compiler_torch_computes(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "find", lambda: None)
    assert _choose(tmp_path).library is None
    with pytest.raises(StartupError, match="no kernels"):
        _choose(tmp_path, kernels="native")
    with pytest.raises(StartupError, match="int8"):
        _choose(tmp_path, quantization="int8")


@NEEDS_PROCESSOR
def test_a_compiler_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    false = compiler.Compiler(
        compile=("/bin/false",), link=("/bin/false",), file=Path("/bin/false"), platform="any"
    )
    monkeypatch.setattr(compiler, "find", lambda: false)
    assert building.build(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@NEEDS_PROCESSOR
def test_kernels_that_are_no_library_are_one_clear_line(tmp_path, folder):
    (made,) = folder.glob("*.so")
    (tmp_path / made.name).write_bytes(b"not a library")
    with pytest.raises(StartupError, match="delete the file"):
        _choose(tmp_path, quantization="none")


@NEEDS_PROCESSOR
def test_shipped_kernels_compute_where_nothing_can_be_kept(folder, monkeypatch):
    """In bfloat16 unless int8 was asked for: the gate has nowhere to keep what it measures."""
    monkeypatch.setattr(building, "SHIPPED", folder)
    monkeypatch.setattr(compiler, "find", lambda: None)
    chosen = _choose(None)
    assert chosen.library is not None
    assert not chosen.is_int8
    assert _choose(None, quantization="int8").is_int8


@NEEDS_PROCESSOR
@pytest.mark.parametrize(("ratio", "is_int8"), [(1.0099, True), (1.0101, False)])
def test_the_gate_decides_once_for_each_model(folder, monkeypatch, ratio, is_int8):
    """It is measured for the first, and remembered after that."""
    calls = []

    def measured(*arguments):
        calls.append(arguments)
        return GateResult(perplexity_ratio=ratio, agreement=0.9)

    monkeypatch.setattr(choice.gate, "measure", measured)
    key = f"model-{ratio}"
    assert [_choose(folder, key=key).is_int8 for _ in range(2)] == [is_int8, is_int8]
    assert len(calls) == 1
    (file,) = folder.glob(f"{key}-*.gate.json")
    file.write_text(json.dumps({"perplexity_ratio": "x"}))  # what cannot be read is measured again
    _choose(folder, key=key)
    assert len(calls) == 2


@NEEDS_PROCESSOR
def test_a_tiny_model_goes_through_the_real_gate(folder):
    chosen = _choose(folder, key="tiny")
    (file,) = folder.glob("tiny-*.gate.json")
    assert gate.recall(file).is_passed is chosen.is_int8


def test_the_gate_compares_perplexities():
    """Against the definition, on made-up distributions."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(gate.TOKENS, 50, generator=generator)
    tokens = torch.randint(0, 50, (700,), generator=generator).tolist()

    def exact(window):
        return logits[: len(window)]

    def rounded(window):
        return logits[: len(window)] * 1.5

    result = measure(tokens, exact, rounded)
    losses = [[], []]
    for begin in range(0, 700, gate.WINDOW):
        window = tokens[begin : begin + gate.WINDOW]
        for index, scores in enumerate((exact, rounded)):
            logprobs = scores(window).log_softmax(-1)
            losses[index] += [-float(logprobs[at, token]) for at, token in enumerate(window[1:])]
    difference = sum(losses[1]) / len(losses[1]) - sum(losses[0]) / len(losses[0])
    assert result.perplexity_ratio == pytest.approx(2.718281828**difference, rel=1e-5)
    assert result.agreement == 1.0
    assert not result.is_passed
    assert measure([], exact, rounded) == GateResult(perplexity_ratio=float("inf"), agreement=0.0)


def test_the_gate_lets_equals_through():
    result = GateResult(perplexity_ratio=1.0, agreement=1.0)
    assert result.is_passed
    assert not dataclasses.replace(result, perplexity_ratio=float("nan")).is_passed
