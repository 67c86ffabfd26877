"""A runner without a model: it writes what a script says, out of a real KV cache of token ids.

Each step reads the whole sequence back from the blocks that the engine names. A wrong block table,
a lost move or a stale save therefore changes the text or raises, as it would with a real model.
Engine thread; `gate` and `calls` may be used from any.
"""

from collections.abc import Callable, Sequence

from hocket.server.engine.batch import (
    Batch,
    ModelLimits,
    SampledToken,
    SequenceSlice,
    SliceResult,
    StepResult,
)
from hocket.server.engine.commands import Logprobs
from hocket.server.testing.byte_tokenizer import ByteTokenizer

Script = Callable[[bytes], bytes]

_EMPTY = -1
_VOCABULARY = 260


def echo(prompt: bytes) -> bytes:
    """Answer with three sentences about the prompt."""
    return b"You said: " + prompt + b". That is all. Good bye!"


class Broken(Exception):
    """What a scripted fault raises."""


class ScriptedRunner:
    """Writes `script(prompt)` byte by byte, then the end token, again and again.

    A prompt that holds `RAISE` raises whenever it is computed, one that holds `NAN` fails as if
    its logits were not finite.
    """

    def __init__(
        self,
        script: Script = echo,
        *,
        max_context_tokens: int = 4_096,
        block_size: int = 8,
        num_blocks: int = 1_024,
        num_saved_blocks: int = 64,
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
        )
        self._blocks = [[_EMPTY] * block_size for _ in range(num_blocks)]
        self._saved: dict[int, list[list[int]]] = {}
        self.batches: list[tuple[int, ...]] = []

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
        results = [self._compute(piece) for piece in batch.slices]
        return StepResult(tuple(results))

    def move_blocks(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy blocks, one after the other."""
        for source, target in moves:
            self._blocks[target] = list(self._blocks[source])
            self._blocks[source] = [_EMPTY] * self._limits.block_size

    def save_blocks(self, sequence_id: int, blocks: Sequence[int]) -> None:
        """Keep a copy."""
        self._saved[sequence_id] = [list(self._blocks[block]) for block in blocks]

    def load_blocks(self, sequence_id: int, blocks: Sequence[int]) -> None:
        """Copy back and forget."""
        for block, content in zip(blocks, self._saved.pop(sequence_id), strict=True):
            self._blocks[block] = list(content)

    def drop_saved(self, sequence_id: int) -> None:
        """Forget a copy."""
        del self._saved[sequence_id]

    def _compute(self, piece: SequenceSlice) -> SliceResult:
        size = self._limits.block_size
        for offset, token_id in enumerate(piece.token_ids):
            block, slot = divmod(piece.start + offset, size)
            self._blocks[piece.block_table[block]][slot] = token_id
        length = piece.start + len(piece.token_ids)
        tokens = [
            self._blocks[piece.block_table[position // size]][position % size]
            for position in range(length)
        ]
        if _EMPTY in tokens:
            raise AssertionError("a block was read that was not written. This is a bug.")
        if b"RAISE" in _text(tokens):
            raise Broken("a prompt asked for it")
        if b"NAN" in _text(tokens):
            return SliceResult(sequence_id=piece.sequence_id, failure="non_finite")
        told: tuple[Logprobs, ...] = ()
        if piece.prompt_logprobs is not None:
            known = len(piece.token_ids) - (piece.next_token_id is None)
            told = tuple(Logprobs(-1.0) for _ in range(known))
        request = piece.sample
        if request is None:
            return SliceResult(sequence_id=piece.sequence_id, prompt_logprobs=told)
        answer = [
            *self._script(_text(tokens[: request.prompt_length])),
            ByteTokenizer.END,
        ]
        token_id = answer[(length - request.prompt_length) % len(answer)]
        if token_id in request.banned_token_ids:
            token_id = ord("-")
        count = request.params.logprobs
        logprobs = None
        if count is not None:
            logprobs = Logprobs(-0.5, tuple((token_id + i, -0.5 - i) for i in range(count)))
        return SliceResult(
            sequence_id=piece.sequence_id,
            token=SampledToken(token_id, logprobs),
            prompt_logprobs=told,
        )


def _text(token_ids: Sequence[int]) -> bytes:
    return bytes(token_id for token_id in token_ids if token_id < ByteTokenizer.END)
