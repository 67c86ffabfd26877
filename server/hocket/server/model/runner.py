"""Runs a decoder model: a batch in, tokens out. Engine thread: every call, loading included."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hocket.server.engine.batch import (
    Batch,
    ModelLimits,
    PrefixChunks,
    SampleRequest,
    SequenceSlice,
    SliceResult,
    StepResult,
)
from hocket.server.engine.commands import Logprobs
from hocket.server.engine.sampling import SamplingParams
from hocket.server.errors import StartupError
from hocket.server.model.checkpoint import Architecture, Checkpoint, DecoderConfig
from hocket.server.model.choice import Choice, Weights
from hocket.server.model.config import RunnerConfig
from hocket.server.model.device import (
    choose_device,
    choose_dtype,
    compute_threads,
    keep_freed_memory,
)
from hocket.server.model.kv_cache import KVCache
from hocket.server.model.network import Forward
from hocket.server.model.prefix_store import PrefixStore, chunk_tokens
from hocket.server.model.sampler import logprobs_at
from hocket.server.model.transfer import to_host
from hocket.server.model.tuning import choose_threads, step_cost
from hocket.server.model.verification import Drawn, draw

_MEBI = 1 << 20
_SCORED_ROWS = 64  # prompt rows whose logits are held at once
# How much longer a multiplication takes in attention than in a large product, for its softmax and
# its smaller tiles; measured for prompts of 2,000 tokens.
_ATTENTION_SLOWNESS = 2.5
NON_FINITE = "non_finite"


class TorchRunner:
    """A decoder model on torch, with its KV cache."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: RunnerConfig,
        *,
        num_tokens: int | None = None,
        choice: Choice | None = None,
        weights: Weights | None = None,
    ) -> None:
        """Load the weights and allocate the cache.

        Args:
            checkpoint: Hyperparameters and weights.
            config: How to run them.
            num_tokens: The tokenizer's vocabulary, where the embedding has more rows than that;
                what lies beyond is never drawn.
            choice: How to compute; torch alone without one.
            weights: What another runner read, to be shared with it.

        Raises:
            StartupError: A tensor is missing or broken, or the cache cannot hold one block.
        """
        keep_freed_memory()
        torch.set_num_threads(compute_threads(config))
        model = checkpoint.config
        self._checkpoint = checkpoint
        self._config = config
        if choice is None:
            device = choose_device(config)
            dtype = choose_dtype(config.dtype, device)
            choice = Choice(library=None, dtype=dtype, device=device)
        self._choice = choice
        dtype = self._choice.dtype
        self._num_tokens = min(num_tokens or model.vocabulary_size, model.vocabulary_size)
        context = min(
            model.max_context_tokens, config.max_context_tokens or model.max_context_tokens
        )
        size = config.block_size_tokens
        block_bytes = (
            2 * model.num_layers * model.num_kv_heads * size * model.head_dim * dtype.itemsize
        )
        num_blocks = config.kv_cache_mib * _MEBI // block_bytes
        if num_blocks < 1:
            needed = -(-block_bytes // _MEBI)
            raise StartupError(
                f"runner.kv_cache_mib is {config.kv_cache_mib}, but one block of this model takes"
                f" {needed} MiB"
            )
        context = min(context, num_blocks * size)  # a sequence that cannot be held never ends
        self._limits = ModelLimits(
            max_context_tokens=context,
            vocabulary_size=self._num_tokens,
            block_size=size,
            num_blocks=num_blocks,
            num_saved_blocks=config.saved_kv_mib * _MEBI // block_bytes,
            prefix_chunk_tokens=chunk_tokens(size),
            num_prefix_chunks=(
                config.prefix_cache_mib * _MEBI * size // (block_bytes * chunk_tokens(size))
            ),
            is_slicing_exact=self._choice.is_slicing_exact,
            key_cost=_key_cost(model),
        )
        with torch.inference_mode():
            self._cache = KVCache(
                num_layers=model.num_layers,
                num_blocks=num_blocks,
                num_kv_heads=model.num_kv_heads,
                block_size=size,
                head_dim=model.head_dim,
                dtype=dtype,
                device=self._choice.device,
                is_tiled=self._choice.library is not None,
            )
            self._prefixes = PrefixStore(self._cache, num_slots=self._limits.num_prefix_chunks)
            self._weights = weights or self._choice.read(checkpoint, context, size)
            self._network = self._choice.network(self._weights, config, self._cache)

    def tune(self) -> int:
        """Measure what a step takes, and how many threads are best where none are set.

        Returns:
            How many compute.
        """
        threads = compute_threads(self._config)
        with torch.inference_mode():
            if not self._config.num_threads and self._cache.device.type == "cpu":
                threads = choose_threads(threads, self._network.set_threads, self._try_out)
            cost = step_cost(self._try_out, self._try_streams)
        self._limits = replace(
            self._limits,
            step_ms=cost.step_ms,
            token_ms=cost.token_ms,
            stream_ms=cost.stream_ms,
        )
        return threads

    def _try_out(self, rows: int) -> None:
        """Compute a step of so many rows, as far as there is room, and leave nothing behind."""
        size = self._limits.block_size
        rows = min(rows, self._limits.max_context_tokens)
        piece = SequenceSlice(
            sequence_id=0,
            token_ids=[0] * rows,
            start=0,
            prompt_length=rows,
            block_table=range(-(-rows // size)),
        )
        done = self._network.forward(Batch((piece,)), self._cache)
        self._logits(done, [rows - 1])
        self._cache.clear(piece.block_table, 0)

    def _try_streams(self, count: int) -> None:
        """Draw the next token of so many sequences, or of fewer, and leave nothing behind."""
        blocks = range(min(count, self._limits.num_blocks))
        sample = SampleRequest(params=SamplingParams(), seed=0, position=1, prompt_length=1)
        self._compute(
            Batch(
                tuple(
                    SequenceSlice(
                        sequence_id=block,
                        token_ids=(0,),
                        start=0,
                        prompt_length=0,
                        block_table=(block,),
                        samples=(sample,),
                    )
                    for block in blocks
                )
            )
        )
        for block in blocks:
            self._cache.clear((block,), 0)

    def sibling(self) -> "TorchRunner":
        """Return a runner over the same weights, with a cache of its own.

        Called on the thread that will run it.
        """
        sibling = TorchRunner(
            self._checkpoint,
            self._config,
            num_tokens=self._num_tokens,
            choice=self._choice,
            weights=self._weights,
        )
        sibling._limits = self._limits
        return sibling

    @property
    def limits(self) -> ModelLimits:
        """The bounds that the model sets."""
        return self._limits

    @property
    def parameters(self) -> int:
        """How many numbers the weights hold."""
        return self._network.parameters

    @property
    def dtype_name(self) -> str:
        """Number type of the weights, such as `bfloat16`."""
        return self._choice.name

    @property
    def cache_bytes(self) -> int:
        """Bytes of the hot KV cache."""
        return self._cache.nbytes

    def execute(self, batch: Batch) -> StepResult:
        """Compute a batch; see `ModelRunner`."""
        for piece in batch.slices:
            self._check(piece)
        with torch.inference_mode():
            try:
                return self._compute(batch)
            except BaseException:
                for piece in batch.slices:
                    self._cache.clear(piece.block_table, piece.start)
                raise

    def move_blocks(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy whole hot blocks from the first of each pair to the second, in order."""
        with torch.inference_mode():
            self._cache.move(moves)

    def save_blocks(self, sequence_id: int, blocks: Sequence[int]) -> None:
        """Keep a copy of a sequence's blocks, in logical order, until loaded or dropped."""
        with torch.inference_mode():
            self._cache.save(sequence_id, blocks)

    def load_blocks(self, sequence_id: int, blocks: Sequence[int]) -> None:
        """Copy what was saved of a sequence into these blocks and forget the copy."""
        with torch.inference_mode():
            self._cache.load(sequence_id, blocks)

    def drop_saved(self, sequence_id: int) -> None:
        """Forget what was saved of a sequence."""
        self._cache.drop(sequence_id)

    def keep_chunks(self, chunks: PrefixChunks) -> None:
        """Copy computed tokens of a sequence into slots of the prefix cache."""
        with torch.inference_mode():
            self._prefixes.keep(chunks)

    def load_chunks(self, chunks: PrefixChunks) -> None:
        """Copy slots of the prefix cache into the blocks of a sequence."""
        with torch.inference_mode():
            self._prefixes.load(chunks)

    def _check(self, piece: SequenceSlice) -> None:
        rows = self._limits.vocabulary_size
        if not all(0 <= token < rows for token in piece.token_ids):
            raise ValueError("a token id lies outside the vocabulary. This is a bug.")
        if piece.start + len(piece.token_ids) > self._limits.max_context_tokens:
            raise ValueError("a slice reaches past the context. This is a bug.")
        if any(not 0 <= block < self._limits.num_blocks for block in piece.block_table):
            raise ValueError("a block lies outside the cache. This is a bug.")

    def _logits(self, done: Forward, rows: Sequence[int]) -> Tensor:
        """Return `[rows or more, vocabulary]`."""
        return self._network.logits(done.hidden, rows)[:, : self._num_tokens]

    def _compute(self, batch: Batch) -> StepResult:
        done = self._network.forward(batch, self._cache)
        # A NaN anywhere in a sequence reaches the hidden states of the row that it was computed
        # in, so it is found in this step, whether or not the row draws a token.
        is_finite = to_host(done.hidden.sum(-1, dtype=torch.float32).isfinite()).tolist()
        spoiled = [
            piece
            for piece, rows in zip(batch.slices, done.rows, strict=True)
            if piece.num_drafts and not all(is_finite[row] for row in rows)
        ]
        if spoiled:
            # A draft must fail nobody, but may have spoiled the rows before it: what is masked is
            # still multiplied by zero, and 0 times NaN is NaN.
            for piece in spoiled:
                self._cache.clear(piece.block_table, piece.start)
            return self._compute(Batch(tuple(piece.without_drafts() for piece in batch.slices)))
        drawn = self._sample(batch, done)
        results = []
        for piece, rows, found in zip(batch.slices, done.rows, drawn, strict=True):
            failure = found if isinstance(found, str) else None
            if not all(is_finite[row] for row in rows):
                failure = NON_FINITE
            tokens = () if failure or isinstance(found, str) else found
            told = () if failure else self._prompt_logprobs(piece, rows, done)
            results.append(
                SliceResult(
                    sequence_id=piece.sequence_id,
                    tokens=tokens,
                    prompt_logprobs=told,
                    failure=failure,
                )
            )
        # Nothing may fail from here on: a batch that raised must find the cache as it was.
        for piece, result in zip(batch.slices, results, strict=True):
            if result.failure:
                self._cache.clear(piece.block_table, 0)
        return StepResult(tuple(results))

    def _sample(self, batch: Batch, done: Forward) -> list[Drawn]:
        """Draw tokens for each slice that asks for any."""
        rows = [
            row
            for piece, its_rows in zip(batch.slices, done.rows, strict=True)
            for row in its_rows[len(its_rows) - len(piece.samples) :]
        ]
        return draw(self._logits(done, rows), batch.slices) if rows else [()] * len(batch.slices)

    def _prompt_logprobs(
        self, piece: SequenceSlice, rows: Sequence[int], done: Forward
    ) -> tuple[Logprobs, ...]:
        """Return one for each known token that follows one of the slice's."""
        if piece.prompt_logprobs is None:
            return ()
        following = list(piece.token_ids[1:])
        if piece.next_token_id is not None:
            following.append(piece.next_token_id)
        found: list[Logprobs] = []
        for begin in range(0, len(following), _SCORED_ROWS):
            chunk = following[begin : begin + _SCORED_ROWS]
            scored = list(rows[begin : begin + len(chunk)])
            logprobs = torch.log_softmax(self._logits(done, scored), dim=-1)
            found += [
                logprobs_at(logprobs[at], token, piece.prompt_logprobs)
                for at, token in enumerate(chunk)
            ]
        return tuple(found)


def _key_cost(model: DecoderConfig) -> float:
    """Return what looking back at one token costs, as a share of a token's matrix products."""
    inner, width = model.intermediate_size, model.num_heads * model.head_dim
    matrices = 3 if model.architecture is not Architecture.GPT2 else 2
    keys = 2 * model.num_kv_heads * model.head_dim
    products = model.hidden_size * (2 * width + keys + matrices * inner)
    return _ATTENTION_SLOWNESS * 2 * width / products
