"""Where a model is computed and in which number type: what was asked for, what is there."""

import pytest
import torch

from hocket.server.errors import StartupError
from hocket.server.model import eager, probe
from hocket.server.model.choice import choose
from hocket.server.model.config import RunnerConfig
from hocket.server.model.device import choose_device, choose_dtype
from hocket.server.model.head import OutputHead
from hocket.server.model.linear import Linear
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from numerics.tiny_models import StateDictCheckpoint, config_of, make_model

pytestmark = pytest.mark.torch

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(params=[False, True], ids=["without CUDA", "with CUDA"])
def has_cuda(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    return request.param


def test_a_device_is_used_where_there_is_one(has_cuda):
    best = CUDA if has_cuda else CPU
    assert choose_device(RunnerConfig()) == best
    assert choose_device(RunnerConfig(kernels="torch")) == best
    assert choose_device(RunnerConfig(device="cpu")) == CPU
    assert choose_device(RunnerConfig(kernels="native")) == CPU  # they know processors alone


@pytest.mark.parametrize(
    ("build", "reason"),
    [(None, "this build of torch has no CUDA"), ("13.0", "the driver shows none")],
)
def test_a_device_that_is_not_there_is_one_clear_line(monkeypatch, build, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", build)
    with pytest.raises(StartupError, match=rf"runner\.device is cuda, but .*{reason}"):
        choose_device(RunnerConfig(device="cuda"))


def test_the_kernels_on_a_device_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(StartupError, match=r"runner\.kernels is native"):
        choose_device(RunnerConfig(device="cuda", kernels="native"))


@pytest.mark.parametrize(("has_bfloat16", "best"), [(True, torch.bfloat16), (False, torch.float16)])
def test_the_number_type_is_one_that_the_device_multiplies(monkeypatch, has_bfloat16, best):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bfloat16)
    assert choose_dtype("auto", CUDA) is best
    assert choose_dtype("float32", CUDA) is torch.float32
    assert choose_dtype("bfloat16", CUDA) is torch.bfloat16
    assert choose_dtype("auto", CPU) in {torch.bfloat16, torch.float32}


def test_torch_computes_on_a_device_whatever_kernels_there_are(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    checkpoint = StateDictCheckpoint(make_model("llama", is_wide=True))
    tokenizer = ByteTokenizer()
    chosen = choose(checkpoint, RunnerConfig(), tmp_path, key="x", tokenizer=tokenizer)
    assert (chosen.library, chosen.device, chosen.dtype) == (None, CUDA, torch.bfloat16)
    with pytest.raises(StartupError, match="int8"):
        choose(
            checkpoint, RunnerConfig(quantization="int8"), tmp_path, key="x", tokenizer=tokenizer
        )


@pytest.mark.parametrize("asked", ["auto", "cpu"])
def test_a_device_on_which_nothing_was_tried_is_told_of(asked, has_cuda, monkeypatch, tmp_path):
    """Once, with what to set instead; there is nothing to tell of a processor."""
    said = []
    monkeypatch.setattr("hocket.server.model.choice._log.warning", lambda *a, **_: said.append(a))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    config = RunnerConfig(device=asked, kernels="torch")
    checkpoint = StateDictCheckpoint(make_model("llama"))
    chosen = choose(checkpoint, config, tmp_path, key="x", tokenizer=ByteTokenizer())
    assert len(said) == (chosen.device.type == "cuda") == (has_cuda and asked != "cpu")
    assert all("never been tried" in text and "runner.device=cpu" in text for (text,) in said)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_rows_are_computed_the_same_in_any_company(name, dtype):
    """On this processor."""
    network = eager.EagerNetwork(StateDictCheckpoint(make_model(name)), dtype, max_positions=64)
    assert network.is_row_invariant(16)


WEIGHT = torch.randn(48, 48, generator=torch.Generator().manual_seed(1))


def is_passed(*, layer: Linear | None = None, head: OutputHead | None = None) -> bool:
    return probe.is_row_invariant(
        [layer or Linear(WEIGHT)],
        head or OutputHead(WEIGHT),
        config_of(make_model("llama")),
        block_size=16,
        dtype=torch.float32,
        device=CPU,
    )


def test_a_product_that_depends_on_its_company_is_noticed():
    class Swayed(Linear):
        def __call__(self, x):
            return super().__call__(x) + (len(x) > 24) * 1e-6

    assert is_passed()
    assert not is_passed(layer=Swayed(WEIGHT))


def test_an_output_head_that_depends_on_its_company_is_noticed():
    class Swayed(OutputHead):
        def __call__(self, hidden):
            return super().__call__(hidden) + (len(hidden) > 12) * 1e-6

        def stretch(self, count):
            assert count > 0
            return self

    assert not is_passed(head=Swayed(WEIGHT))


def test_a_stretch_of_the_output_head_knows_the_first_tokens():
    head, hidden = OutputHead(WEIGHT), torch.randn(4, 48)
    torch.testing.assert_close(head.stretch(8)(hidden), head(hidden)[:, :8])


@pytest.mark.parametrize("product", ["scores", "values"])
def test_a_decode_that_depends_on_the_blocks_beside_it_is_noticed(monkeypatch, product):
    """In the first product or in the second; what is tried of prompts is left alone."""
    bmm, group = torch.bmm, 3
    is_of_scores = product == "scores"

    def swayed(left, right):
        out = bmm(left, right)
        is_it = left.shape[1] == group and (right.shape[2] == 16) is is_of_scores
        return out + 1e-6 * (len(left) > 8) if is_it else out

    assert is_passed()
    monkeypatch.setattr(torch, "bmm", swayed)
    assert not is_passed()


def test_it_is_said_in_the_log(monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr(eager, "is_row_invariant", lambda *_, **__: False)
    monkeypatch.setattr("hocket.server.model.choice._log.warning", lambda *a, **_: said.append(a))
    checkpoint, config = StateDictCheckpoint(make_model("llama")), RunnerConfig(kernels="torch")
    chosen = choose(checkpoint, config, tmp_path, key="x", tokenizer=ByteTokenizer())
    chosen.read(checkpoint, 64, 16)
    assert len(said) == 1
