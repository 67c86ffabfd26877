"""A prefix that is copied is the one that would have been computed, bit for bit."""

import dataclasses

import pytest
import torch

from hocket.server.engine.batch import PrefixChunks
from hocket.server.engine.config import EngineConfig
from hocket.server.model.config import RunnerConfig
from hocket.server.model.kv_cache import KVCache
from hocket.server.model.prefix_store import PrefixStore, chunk_tokens
from hocket.server.model.runner import TorchRunner
from numerics.generation import Written, write
from numerics.test_batch_laws import SAMPLINGS, Tight
from numerics.tiny_models import VOCABULARY, StateDictCheckpoint, make_model

pytestmark = pytest.mark.torch

TOKENS = 20
SHARED = torch.randint(0, VOCABULARY, (130,), generator=torch.Generator().manual_seed(7)).tolist()
SAMPLING = dataclasses.replace(SAMPLINGS["drawn"], logprobs=2)


def _prompts(answers: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return prompts that share beginnings of any length, and go on with others' answers."""
    prompts = {f"cut{length}": [*SHARED[:length], 1, length] for length in (1, 16, 31, 33, 64)}
    prompts |= {"whole": SHARED, "same": SHARED, "longer": [*SHARED, 5, 6, 7]}
    turns = {f"turn{name}": [*prompts[name], *answers[name][:-3], 9] for name in answers}
    return prompts | turns


def _without(runner: TorchRunner) -> tuple[dict[str, list[int]], Written]:
    """Return all prompts, and what is written where nothing is kept."""
    plain = Tight(runner, blocks=runner.limits.num_blocks, saved=64)
    first = write(plain, _prompts({}), max_tokens=TOKENS, sampling=SAMPLING)
    prompts = _prompts({name: first.tokens[name] for name in ("cut31", "cut64")})
    written = write(plain, prompts, max_tokens=TOKENS, sampling=SAMPLING)
    assert not any(done.cached_tokens for done in written.finished.values())
    return prompts, written


def check_that_no_bit_changes(runner: TorchRunner, *, in_tokens_alone: bool = False) -> None:
    """Compare a runner without a prefix cache to itself with one: large, tiny, under pressure."""
    prompts, without = _without(runner)
    size, chunk = runner.limits.block_size, runner.limits.prefix_chunk_tokens
    roomy, tight = 4_096 // size, 192 // size
    for chunks, blocks, budget, spread in [
        (10_000, roomy, 256, 8),
        (4, roomy, 40, 7),
        (10_000, tight, 40, 0),
        (3, tight, 40, 1),
    ]:
        cached = write(
            Tight(runner, blocks=blocks, saved=0, chunks=chunks),
            prompts,
            max_tokens=TOKENS,
            sampling=SAMPLING,
            engine=EngineConfig(max_step_tokens=budget),
            arrivals={name: index * spread for index, name in enumerate(prompts)},
        )
        assert cached.tokens == without.tokens
        if not in_tokens_alone:
            assert cached.logprobs == without.logprobs
        found = {name: done.cached_tokens for name, done in cached.finished.items()}
        assert sum(found.values()) > 0
        assert all(found[name] < len(prompts[name]) for name in prompts)
        if spread == 8:  # the earlier ones are done when they are looked for
            assert found["same"] == (len(SHARED) - 1) // chunk * chunk
            theirs = len(prompts["turncut64"]) - 1
            if not runner.limits.is_slicing_exact:
                theirs = len(prompts["cut64"])
            assert found["turncut64"] == theirs // chunk * chunk
        if size < 64:  # fewer and larger blocks let nobody start who would be put aside
            assert (cached.preemptions > 0) == (blocks == tight)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "block_size"), [("llama", 8), ("llama", 64), ("gemma3", 16), ("gpt2", 16)]
)
def test_on_torch_no_bit_changes(name, dtype, block_size):
    """Of prompts, since a decode may differ from a prefill in its last bit there."""
    config = RunnerConfig(
        dtype=dtype, block_size_tokens=block_size, kv_cache_mib=32, num_threads=1,
        prefix_cache_mib=8,
    )  # fmt: skip
    runner = TorchRunner(StateDictCheckpoint(make_model(name)), config)
    assert not runner.limits.is_slicing_exact
    check_that_no_bit_changes(runner, in_tokens_alone=dtype == "float32")


@pytest.mark.parametrize("block_size", [8, 16, 24, 64, 96])
def test_chunks_come_back_as_they_were(block_size):
    """At every place of a block, whatever lay in the target; what lies around them stays."""
    size = {"num_layers": 2, "num_blocks": 6, "num_kv_heads": 3, "head_dim": 4}
    cache = KVCache(**size, block_size=block_size, dtype=torch.float32, device=torch.device("cpu"))
    tokens = chunk_tokens(block_size)
    per_block = block_size // tokens
    count = 2 * per_block - 1
    store = PrefixStore(cache, num_slots=count + 2)
    cache.memory.normal_()
    before = cache.memory.clone()
    slots = list(range(count, 0, -1))
    source = PrefixChunks(sequence_id=0, first=1, slots=slots, block_table=[5, 1])
    target = PrefixChunks(sequence_id=1, first=1, slots=slots, block_table=[2, 0])
    store.keep(source)
    assert torch.equal(cache.memory, before)
    store.load(target)
    for index in range(1, count + 1):
        block, place = divmod(index, per_block)
        rows = slice(place * tokens, (place + 1) * tokens)
        came = cache.memory[:, :, target.block_table[block], :, rows]
        assert torch.equal(came, before[:, :, source.block_table[block], :, rows])
    assert torch.equal(cache.memory[:, :, 2, :, :tokens], before[:, :, 2, :, :tokens])
    for block in (1, 3, 4, 5):
        assert torch.equal(cache.memory[:, :, block], before[:, :, block])


def test_the_store_holds_what_the_setting_says():
    checkpoint = StateDictCheckpoint(make_model("llama"))
    for mib, is_on in [(0, False), (1, True), (3, True)]:
        config = RunnerConfig(dtype="float32", kv_cache_mib=1, num_threads=1, prefix_cache_mib=mib)
        runner = TorchRunner(checkpoint, config)
        slots = runner.limits.num_prefix_chunks
        assert (slots > 0) == is_on
        per_slot = runner._prefixes.nbytes // slots if slots else 0
        assert mib * (1 << 20) - per_slot < runner._prefixes.nbytes <= mib * (1 << 20) or not is_on
