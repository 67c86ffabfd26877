"""What the engine asks of a model, and what the model answers.

Both sides run on the engine's thread, so slices may refer to the engine's own lists; a runner reads
them during the call and keeps nothing.

The runner is stateless but for the KV cache: `num_blocks` hot blocks, each holding `block_size`
consecutive tokens of one sequence, and beside them a bounded store of saved blocks and the slots of
the prefix cache. The engine alone decides which block and which slot holds what. It keeps the used
blocks at [0, n): a runner may treat them as one contiguous array.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from hocket.server.engine.commands import Logprobs
from hocket.server.engine.counts import TokenCounts
from hocket.server.engine.sampling import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """The bounds that a loaded model sets.

    Attributes:
        max_context_tokens: Most tokens of a sequence, prompt and completion.
        vocabulary_size: Sampled token ids are below it.
        block_size: Tokens in a KV block.
        num_blocks: Hot KV blocks.
        num_saved_blocks: Blocks that the store beside them can keep.
        prefix_chunk_tokens: Tokens in a chunk of the prefix cache; divides `block_size`.
        num_prefix_chunks: Chunks that the prefix cache can keep; 0 turns it off.
        is_slicing_exact: Whether a token leaves the same bits in the cache, and the same logits,
            however its sequence is cut into slices: then drafts may be verified in one, and written
            tokens become another sequence's prefix.
        step_ms: What a step takes, whatever is in it, in milliseconds.
        token_ms: What each token adds that looks back at few; 0 where that is not known.
        stream_ms: What each stream adds: its token, and drawing the next; 0 where that is not
            known.
        key_cost: What looking back at one token costs a token of a prompt, as a share of what it
            costs without looking back; 0 where that is not known.
    """

    max_context_tokens: int
    vocabulary_size: int
    block_size: int
    num_blocks: int
    num_saved_blocks: int = 0
    prefix_chunk_tokens: int = 0
    num_prefix_chunks: int = 0
    is_slicing_exact: bool = False
    step_ms: float = 0.0
    token_ms: float = 0.0
    stream_ms: float = 0.0
    key_cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """Asks for the token after one of a slice.

    Attributes:
        params: How it is drawn.
        seed: The seed of this choice; together with `position` it fixes the random draw.
        position: Index in the sequence of the token to be drawn.
        prompt_length: How many tokens of the sequence are its prompt.
        banned_token_ids: Tokens that must not be drawn, such as end tokens before `min_tokens`.
        counts: Of all tokens so far; None where no penalty asks for them.
    """

    params: SamplingParams
    seed: int
    position: int
    prompt_length: int
    banned_token_ids: Sequence[int] = ()
    counts: TokenCounts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceSlice:
    """Consecutive tokens of one sequence, to be computed in one step.

    Tokens of the prompt are prefilled, those written are decoded: also where they are computed a
    second time, after a preemption, so that they come out the same. The last ones may be drafts:
    guesses at tokens that were not drawn yet.

    Attributes:
        sequence_id: Unique among all sequences of the process.
        token_ids: The tokens to compute, at least one.
        start: Position of the first of them: what the cache holds of the sequence.
        prompt_length: Tokens of the sequence's prompt; those from this position on were written.
        block_table: The sequence's blocks in logical order; room for `start + len(token_ids)`.
        samples: Asks for the token after the last known one, and for one after each draft; empty
            in the middle of a prefill.
        prompt_logprobs: Asks for the log probability of each of the sequence's tokens that follows
            one of `token_ids`, and that many likeliest beside it; None asks for nothing.
        next_token_id: The token after the slice where it is known (the middle of a prefill), so
            that its log probability can be told; None at the end.
    """

    sequence_id: int
    token_ids: Sequence[int]
    start: int
    prompt_length: int
    block_table: Sequence[int]
    samples: tuple[SampleRequest, ...] = ()
    prompt_logprobs: int | None = None
    next_token_id: int | None = None

    @property
    def num_drafts(self) -> int:
        """How many of the last tokens are drafts."""
        return max(0, len(self.samples) - 1)

    def without_drafts(self) -> "SequenceSlice":
        """Return the same with its known tokens alone."""
        if not self.num_drafts:
            return self
        known = self.token_ids[: -self.num_drafts]
        return replace(self, token_ids=known, samples=self.samples[:1])


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixChunks:
    """Consecutive chunks of one sequence, in its blocks and in the prefix cache.

    Attributes:
        sequence_id: Whose blocks they are.
        first: Which chunk of the sequence the first of them is: from position
            `first * prefix_chunk_tokens` on.
        slots: Their slots in the prefix cache, in order, at least one.
        block_table: The sequence's blocks in logical order; room for all of the chunks.
    """

    sequence_id: int
    first: int
    slots: Sequence[int]
    block_table: Sequence[int]


@dataclass(frozen=True, slots=True)
class Batch:
    """All that one step computes; at most one slice for each sequence."""

    slices: tuple[SequenceSlice, ...]


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A drawn token, with its log probabilities where they were asked for."""

    token_id: int
    logprobs: Logprobs | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceResult:
    """What a slice brought.

    Attributes:
        sequence_id: Whose it is.
        tokens: The drawn tokens, where any were asked for and the first could be drawn: one for
            each draft that was right, in order, and one more. A draft is right if it is what is
            drawn in its place; only tokens whose drafts before them are right are drawn.
        prompt_logprobs: One for each known token that follows one of the slice's.
        failure: Why this slice alone failed, in one word (`non_finite`, `all_banned`); None if it
            did not.
    """

    sequence_id: int
    tokens: tuple[SampledToken, ...] = ()
    prompt_logprobs: tuple[Logprobs, ...] = ()
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a batch brought: one result for each slice, in their order."""

    results: tuple[SliceResult, ...]


class ModelRunner(Protocol):
    """A loaded decoder model. Every call is made on the engine's thread."""

    @property
    def limits(self) -> ModelLimits:
        """The bounds that the model sets."""
        ...

    def execute(self, batch: Batch) -> StepResult:
        """Compute a batch: write its KV rows, draw the tokens asked for.

        Writes to the cache only past the `start` of each slice, so that a batch that raised may be
        tried again, whole or in parts, with the same outcome.

        Raises:
            Exception: The batch as a whole could not be computed. Any slice may be to blame.
        """
        ...

    def move_blocks(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy whole hot blocks from the first of each pair to the second, in order."""
        ...

    def save_blocks(self, sequence_id: int, blocks: Sequence[int]) -> None:
        """Keep a copy of a sequence's blocks, in logical order, until loaded or dropped."""
        ...

    def load_blocks(self, sequence_id: int, blocks: Sequence[int]) -> None:
        """Copy what was saved of a sequence into these blocks and forget the copy."""
        ...

    def drop_saved(self, sequence_id: int) -> None:
        """Forget what was saved of a sequence."""
        ...

    def keep_chunks(self, chunks: PrefixChunks) -> None:
        """Copy computed tokens of a sequence into slots of the prefix cache."""
        ...

    def load_chunks(self, chunks: PrefixChunks) -> None:
        """Copy slots of the prefix cache into the blocks of a sequence."""
        ...
