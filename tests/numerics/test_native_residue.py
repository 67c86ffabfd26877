"""In the kernels' layout of the cache, too, nothing stays behind and nothing hides."""

import pytest
import torch

from hocket.server.engine.batch import Batch, SequenceSlice
from hocket.server.model.choice import Choice
from hocket.server.model.config import RunnerConfig
from hocket.server.model.native.build import build, is_supported
from hocket.server.model.native.library import Library
from hocket.server.model.runner import NON_FINITE, TorchRunner
from numerics.tiny_models import VOCABULARY, StateDictCheckpoint, make_model

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not is_supported(), reason="the kernels are for another processor"),
]

TABLE = [5, 0, 4, 1, 3, 2]


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Library:
    path = build(tmp_path_factory.mktemp("kernels"))
    if path is None:
        pytest.skip("there is no compiler")
    return Library(path)


def _runner(model: torch.nn.Module, library: Library, number: str, block_size: int) -> TorchRunner:
    return TorchRunner(
        StateDictCheckpoint(model),
        RunnerConfig(
            block_size_tokens=block_size, kv_cache_mib=8, prefix_cache_mib=0, num_threads=1
        ),
        choice=Choice(library=library, dtype=torch.bfloat16, is_int8=number == "int8"),
    )


def _batch(token_ids: list[int]) -> Batch:
    piece = SequenceSlice(
        sequence_id=0, token_ids=token_ids, start=0, prompt_length=500, block_table=TABLE
    )
    return Batch((piece,))


@pytest.mark.parametrize("block_size", [16, 48, 64])
@pytest.mark.parametrize("number", ["bfloat16", "int8"])
@torch.inference_mode()
def test_what_is_cleared_was_never_computed(number, block_size, library):
    """Wherever it begins: tokens before it stay to the last bit, of those after it nothing does."""
    runner = _runner(make_model("llama", is_wide=True), library, number, block_size)
    tokens = torch.randint(0, VOCABULARY, (90,), generator=torch.Generator().manual_seed(5))
    cache = runner._cache
    for start in (*range(35), 47, 48, 49, 63, 64, 65, 89, 90):
        cache.memory.zero_()
        if start:
            runner.execute(_batch(tokens[:start].tolist()))
        expected = cache.memory.clone()
        cache.memory.zero_()
        runner.execute(_batch(tokens.tolist()))
        cache.clear(TABLE, start)
        assert torch.equal(cache.memory, expected), start


@pytest.mark.parametrize("place", [0, 15, 16, 47, 63])
@pytest.mark.parametrize("name", ["v_proj", "k_proj"])
@pytest.mark.parametrize("number", ["bfloat16", "int8"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_one_number_that_is_none_is_found(value, number, name, place, library):
    """Born in the middle of a layer, in one dimension: int8 has no way to write it down."""
    model = make_model("qwen2", is_wide=True)
    with torch.no_grad():
        bias = getattr(model.model.layers[0].self_attn, name).bias
        bias[place % len(bias)] = value
    runner = _runner(model, library, number, 16)
    result = runner.execute(_batch([1, 2, 3, 4, 5]))
    assert result.results[0].failure == NON_FINITE
    assert not runner._cache.memory.isnan().any()
