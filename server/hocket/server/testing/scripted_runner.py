"""A runner without a model: it writes what a script says, out of a real KV cache of token ids.

Each step reads the whole sequence back from the blocks that the engine names. Blocks are never
emptied: as in a real cache, what was in them stays until it is written over. But each place knows
whose token it holds, and of which position, so that a wrong block table, a lost move or a stale
copy raises. What is not a number stays too, and spoils whoever reads its block.
Engine thread; `gate` and `calls` may be used from any.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hocket.server.engine.batch import (
    Batch,
    ModelLimits,
    PrefixChunks,
    SampledToken,
    SampleRequest,
    SequenceSlice,
    SliceResult,
    StepResult,
)
from hocket.server.engine.commands import Logprobs
from hocket.server.testing.byte_tokenizer import ByteTokenizer

Script = Callable[[bytes], bytes]

_NOTHING = -1  # a token that was never written
_NAN = -2  # what a token becomes that spoils its block
_NOBODY = -1
_POSITION_BITS = 32
_VOCABULARY = 260


def echo(prompt: bytes) -> bytes:
    """Answer with three sentences about the prompt."""
    return b"You said: " + prompt + b". That is all. Good bye!"


class Broken(Exception):
    """What a scripted fault raises."""


@dataclass(slots=True)
class _Block:
    """Tokens, and for each its mark: whose it is, and of which position."""

    token_ids: list[int]
    marks: list[int]

    def copy(self) -> "_Block":
        return _Block(list(self.token_ids), list(self.marks))


def _mark(sequence_id: int, position: int) -> int:
    return (sequence_id + 1 << _POSITION_BITS) + position


class ScriptedRunner:
    """Writes `script(prompt)` byte by byte, then the end token, again and again.

    A text that holds `RAISE` raises whenever it is computed, one that holds `NAN` fails as if its
    logits were not finite, and so does whoever reads a block in which it left that.
    """

    def __init__(
        self,
        script: Script = echo,
        *,
        max_context_tokens: int = 4_096,
        block_size: int = 8,
        num_blocks: int = 1_024,
        num_saved_blocks: int = 64,
        step_ms: float = 0.0,
        token_ms: float = 0.0,
        stream_ms: float = 0.0,
        prefix_chunk_tokens: int = 4,
        num_prefix_chunks: int = 0,
        is_slicing_exact: bool = False,
        gate: Callable[[], None] = lambda: None,
    ) -> None:
        """Make a runner; `gate` is called before each batch and may block or raise."""
        self._script = script
        self._gate = gate
        self._limits = ModelLimits(
            max_context_tokens=min(max_context_tokens, num_blocks * block_size),
            vocabulary_size=_VOCABULARY,
            block_size=block_size,
            num_blocks=num_blocks,
            num_saved_blocks=num_saved_blocks,
            step_ms=step_ms,
            token_ms=token_ms,
            stream_ms=stream_ms,
            prefix_chunk_tokens=prefix_chunk_tokens,
            num_prefix_chunks=num_prefix_chunks,
            is_slicing_exact=is_slicing_exact,
        )
        self._blocks = [
            _Block([_NOTHING] * block_size, [_NOBODY] * block_size) for _ in range(num_blocks)
        ]
        self._saved: dict[int, list[_Block]] = {}
        self._prefixes: dict[int, list[int]] = {}
        self.batches: list[tuple[int, ...]] = []

    def sibling(self) -> "ScriptedRunner":
        """Return a runner with the same script, gate and bounds, and a cache of its own."""
        limits = self._limits
        return ScriptedRunner(
            self._script,
            max_context_tokens=limits.max_context_tokens,
            block_size=limits.block_size,
            num_blocks=limits.num_blocks,
            num_saved_blocks=limits.num_saved_blocks,
            step_ms=limits.step_ms,
            token_ms=limits.token_ms,
            stream_ms=limits.stream_ms,
            prefix_chunk_tokens=limits.prefix_chunk_tokens,
            num_prefix_chunks=limits.num_prefix_chunks,
            is_slicing_exact=limits.is_slicing_exact,
            gate=self._gate,
        )

    @property
    def limits(self) -> ModelLimits:
        """The bounds that it was made with."""
        return self._limits

    @property
    def saved_sequences(self) -> int:
        """Sequences of which a copy is kept."""
        return len(self._saved)

    def execute(self, batch: Batch) -> StepResult:
        """Write the slices' tokens into their blocks and draw what the script says.

        Raises:
            Broken: A prompt asked for it.
        """
        self._gate()
        self.batches.append(tuple(len(piece.token_ids) for piece in batch.slices))
        try:
            results = [self._verify(piece) for piece in batch.slices]
        except Exception:
            for piece in batch.slices:
                self._clear(piece, piece.start)
            raise
        for piece, result in zip(batch.slices, results, strict=True):
            if result.failure is not None:
                self._clear(piece, 0)
        return StepResult(tuple(results))

    def move_blocks(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy blocks, one after the other."""
        for source, target in moves:
            self._blocks[target] = self._blocks[source].copy()

    def save_blocks(self, sequence_id: int, blocks: Sequence[int]) -> None:
        """Keep a copy."""
        self._saved[sequence_id] = [self._blocks[block].copy() for block in blocks]

    def load_blocks(self, sequence_id: int, blocks: Sequence[int]) -> None:
        """Copy back and forget."""
        for block, content in zip(blocks, self._saved.pop(sequence_id), strict=True):
            self._blocks[block] = content

    def drop_saved(self, sequence_id: int) -> None:
        """Forget a copy."""
        del self._saved[sequence_id]

    def keep_chunks(self, chunks: PrefixChunks) -> None:
        """Keep a copy of the tokens; they must be the sequence's own."""
        size = self._limits.block_size
        for slot, positions in self._positions(chunks):
            kept: list[int] = []
            for position in positions:
                block = self._blocks[chunks.block_table[position // size]]
                if block.marks[position % size] != _mark(chunks.sequence_id, position):
                    raise AssertionError("a prefix was kept that is another's. This is a bug.")
                kept.append(block.token_ids[position % size])
            self._prefixes[slot] = kept

    def load_chunks(self, chunks: PrefixChunks) -> None:
        """Copy back, as the sequence's own."""
        size = self._limits.block_size
        for slot, positions in self._positions(chunks):
            for position, token_id in zip(positions, self._prefixes[slot], strict=True):
                block = self._blocks[chunks.block_table[position // size]]
                block.token_ids[position % size] = token_id
                block.marks[position % size] = _mark(chunks.sequence_id, position)

    def _positions(self, chunks: PrefixChunks) -> Iterator[tuple[int, range]]:
        """Yield each slot and the positions of its tokens."""
        count = self._limits.prefix_chunk_tokens
        for index, slot in enumerate(chunks.slots, start=chunks.first):
            yield slot, range(index * count, (index + 1) * count)

    def _clear(self, piece: SequenceSlice, start: int) -> None:
        """Take away what is not a number from a position on."""
        size = self._limits.block_size
        for position in range(start, len(piece.block_table) * size):
            block = self._blocks[piece.block_table[position // size]]
            if block.token_ids[position % size] == _NAN:
                block.token_ids[position % size] = _NOTHING
                block.marks[position % size] = _NOBODY

    def _write(self, piece: SequenceSlice) -> None:
        size = self._limits.block_size
        for position, token_id in enumerate(piece.token_ids, start=piece.start):
            block = self._blocks[piece.block_table[position // size]]
            block.token_ids[position % size] = token_id
            block.marks[position % size] = _mark(piece.sequence_id, position)

    def _read(self, piece: SequenceSlice) -> tuple[list[int], bool]:
        """Return the sequence so far, and whether all that lies in its blocks is a number."""
        length = piece.start + len(piece.token_ids)
        token_ids: list[int] = []
        marks: list[int] = []
        for block in piece.block_table[: -(-length // self._limits.block_size)]:
            token_ids += self._blocks[block].token_ids
            marks += self._blocks[block].marks
        first = _mark(piece.sequence_id, 0)
        if marks[:length] != list(range(first, first + length)):
            raise AssertionError("a place was read that holds another's token. This is a bug.")
        return token_ids[:length], _NAN not in token_ids

    def _verify(self, piece: SequenceSlice) -> SliceResult:
        """Compute a slice; what its drafts make of it is nobody's failure."""
        result = self._compute(piece)
        if result.failure is None or not piece.num_drafts:
            return result
        self._clear(piece, piece.start)
        return self._compute(piece.without_drafts())

    def _compute(self, piece: SequenceSlice) -> SliceResult:
        self._write(piece)
        tokens, is_finite = self._read(piece)
        length = len(tokens)
        if b"RAISE" in _text(tokens):
            raise Broken("a text asked for it")
        if b"NAN" in _text(tokens):
            last = length - 1
            block = self._blocks[piece.block_table[last // self._limits.block_size]]
            block.token_ids[last % self._limits.block_size] = _NAN
            is_finite = False
        if not is_finite:
            return SliceResult(sequence_id=piece.sequence_id, failure="non_finite")
        told: tuple[Logprobs, ...] = ()
        if piece.prompt_logprobs is not None:
            known = len(piece.token_ids) - (piece.next_token_id is None)
            told = tuple(Logprobs(-1.0) for _ in range(known))
        sampled: list[SampledToken] = []
        for at, request in enumerate(piece.samples, start=length - piece.num_drafts):
            sampled.append(self._draw(tokens[:at], request))
            if at < length and tokens[at] != sampled[-1].token_id:
                break
        return SliceResult(
            sequence_id=piece.sequence_id, tokens=tuple(sampled), prompt_logprobs=told
        )

    def _draw(self, tokens: Sequence[int], request: SampleRequest) -> SampledToken:
        token_id = self.next_token(tokens, request)
        if token_id in request.banned_token_ids:
            token_id = ord("-")
        count = request.params.logprobs
        if count is None:
            return SampledToken(token_id)
        top = tuple((token_id + i, -0.5 - i) for i in range(count))
        return SampledToken(token_id, Logprobs(-0.5, top))

    def next_token(self, tokens: Sequence[int], request: SampleRequest) -> int:
        """Return what follows the tokens of a sequence, as they were read back."""
        answer: list[int] = [
            *self._script(_text(tokens[: request.prompt_length])),
            ByteTokenizer.END,
        ]
        return answer[(len(tokens) - request.prompt_length) % len(answer)]


def _text(token_ids: Sequence[int]) -> bytes:
    return bytes(token_id for token_id in token_ids if 0 <= token_id < ByteTokenizer.END)
