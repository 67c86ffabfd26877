"""What a file is asked for is what a model reads."""

import pytest
import torch

from hocket.server.model.checkpoint import check_config, tensor_shapes
from hocket.server.model.eager import EagerNetwork
from numerics.tiny_models import BUILDERS, StateDictCheckpoint, make_model

pytestmark = pytest.mark.torch


class _Recorder(StateDictCheckpoint):
    def tensor(self, name: str) -> torch.Tensor:
        tensor = super().tensor(name)
        self.read.append((name, tuple(tensor.shape)))
        return tensor


@pytest.mark.parametrize("name", BUILDERS)
def test_a_model_reads_the_tensors_that_its_hyperparameters_ask_for(name: str) -> None:
    """Each of them once, in the shape that was asked for, and no other."""
    checkpoint = _Recorder(make_model(name))
    checkpoint.read = []
    check_config(checkpoint.config, name)
    EagerNetwork(checkpoint, torch.float32, max_positions=8)
    assert sorted(tensor_shapes(checkpoint.config)) == sorted(checkpoint.read)
