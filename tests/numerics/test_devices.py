"""The torch path on a device that is not the processor, as far as it can be known without one.

Fake tensors have shapes, types and a device, but no numbers; an operation whose tensors lie on
different devices raises. The device is one that torch lets a program make up: a build without CUDA
refuses to slice even a fake tensor of it.
"""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError, FakeTensorMode
from torch.utils import backend_registration

from hocket.server.engine.batch import Batch, SequenceSlice
from hocket.server.model import eager, inputs, kv_cache, layer_reader, rope, transfer
from hocket.server.model.eager import EagerNetwork
from hocket.server.model.kv_cache import KVCache
from numerics.tiny_models import config_of, make_model

pytestmark = pytest.mark.torch

NAME = "elsewhere"
BLOCK = 16


@pytest.fixture(scope="module", autouse=True)
def device() -> torch.device:
    """The made-up device, which a process has once."""
    if torch._C._get_privateuse1_backend_name() != NAME:
        backend_registration._setup_privateuseone_for_python_backend(NAME)
    return torch.device(NAME, 0)


class FakeCheckpoint:
    """A model's shapes, without numbers."""

    def __init__(self, name: str) -> None:
        model = make_model(name)
        self._shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
        self.config = config_of(model)

    def tensor(self, name: str) -> Tensor:
        shape = self._shapes[name]
        is_transposed = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        return torch.empty(shape[::-1] if is_transposed else shape)


class Transfers:
    """The declared transfers, which a build of torch without CUDA cannot make itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
        self._device = device
        self.to_device: list[torch.Size] = []
        self.to_host: list[torch.Size] = []
        for module in (eager, inputs, kv_cache, layer_reader, rope, transfer):
            for name in ("to_device", "to_host"):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, getattr(self, f"_{name}"))

    def _to_device(self, tensor: Tensor, device: torch.device) -> Tensor:
        assert (tensor.device.type, device) == ("cpu", self._device)
        self.to_device.append(tensor.shape)
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

    def _to_host(self, tensor: Tensor) -> Tensor:
        assert tensor.device == self._device
        self.to_host.append(tensor.shape)
        return torch.empty(tensor.shape, dtype=tensor.dtype)


@pytest.fixture
def transfers(monkeypatch, device):
    return Transfers(monkeypatch, device)


def _slice(number: int, start: int, count: int, prompt: int, blocks: list[int]) -> SequenceSlice:
    return SequenceSlice(
        sequence_id=number,
        token_ids=[1] * count,
        start=start,
        prompt_length=prompt,
        block_table=blocks,
    )


BATCHES = {
    "decodes": [_slice(0, 20, 1, 5, [0, 1]), _slice(1, 3, 1, 2, [2])],
    "short decodes": [_slice(0, 7, 1, 5, [0])],
    "few decodes of many blocks": [_slice(0, 20, 1, 5, [8, 9])],
    "prompts": [_slice(0, 0, 20, 20, [0, 1]), _slice(1, 8, 4, 40, [2])],
    "both": [_slice(0, 20, 1, 5, [0, 1]), _slice(1, 8, 30, 40, [2, 3, 4])],
    "computed again": [_slice(0, 0, 20, 5, [0, 1])],
}


def _place(
    checkpoint: FakeCheckpoint, dtype: torch.dtype, device: torch.device
) -> tuple[EagerNetwork, KVCache]:
    config = checkpoint.config
    cache = KVCache(
        num_layers=config.num_layers,
        num_blocks=12,
        num_kv_heads=config.num_kv_heads,
        block_size=BLOCK,
        head_dim=config.head_dim,
        dtype=dtype,
        device=device,
    )
    return EagerNetwork(checkpoint, dtype, max_positions=64, device=device), cache


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", ["llama", "llama-tied", "mistral", "qwen3", "gemma3", "gpt2"])
def test_a_step_computes_on_the_device_alone(name, dtype, transfers, device):
    """Numbers go there in few copies, and only the logits that are asked for come back."""
    checkpoint = FakeCheckpoint(name)
    with FakeTensorMode(), torch.inference_mode():
        network, cache = _place(checkpoint, dtype, device)
        assert not transfers.to_host
        for slices in BATCHES.values():
            transfers.to_device.clear()
            done = network.forward(Batch(tuple(slices)), cache)
            assert done.hidden.device == device
            assert not transfers.to_host
            chunks = sum(piece.start < piece.prompt_length for piece in slices)
            assert len(transfers.to_device) <= 2 + chunks
            logits = network.logits(done.hidden, [done.rows[0][-1]])
            assert logits.device.type == "cpu"
            assert logits.dtype is torch.float32
            assert transfers.to_host == [logits.shape]
            transfers.to_host.clear()


def test_saved_blocks_lie_in_host_memory(transfers, device):
    checkpoint = FakeCheckpoint("llama")
    with FakeTensorMode(), torch.inference_mode():
        _, cache = _place(checkpoint, torch.bfloat16, device)
        cache.save(1, [0, 2])
        assert {tensor.device.type for tensor in cache._saved[1]} == {"cpu"}
        assert len(transfers.to_host) == len(cache.tensors)
        cache.load(1, [3, 4])
        cache.move([(3, 0)])
        cache.clear([0, 1], 5)
        assert {tensor.device for tensor in cache.tensors} == {device}


def test_a_tensor_on_another_device_would_be_noticed(transfers, device, monkeypatch):
    """The tests above can fail."""
    real = inputs._bias

    def strayed(is_seen: Tensor) -> Tensor:
        return transfers._to_host(real(is_seen))

    checkpoint = FakeCheckpoint("llama")
    with FakeTensorMode(), torch.inference_mode():
        network, cache = _place(checkpoint, torch.bfloat16, device)
        monkeypatch.setattr(inputs, "_bias", strayed)
        for slices in BATCHES.values():
            with pytest.raises((FakeTensorDeviceMismatchError, RuntimeError), match="device"):
                network.forward(Batch(tuple(slices)), cache)
