"""Computes no prefix twice: keeps copies of computed tokens and gives them to later sequences.

Engine thread. What is kept lies beside the hot blocks, in a store of the runner's own: a sequence
that finds its prefix there gets a copy of it, and shares nothing with anybody. A copy that fails
costs time, never a text.
"""

from collections.abc import Callable
from collections.abc import Sequence as Some

from hocket.server.engine.batch import ModelRunner, PrefixChunks
from hocket.server.engine.prefix_index import PrefixIndex, Trail
from hocket.server.engine.sequence import Sequence


class PrefixCache:
    """Prefixes of all sequences of one model."""

    def __init__(self, runner: ModelRunner, on_setback: Callable[[Exception], None]) -> None:
        """Make an empty one.

        Args:
            runner: Who copies; its limits say how much there is room for.
            on_setback: Told of copies that failed, for the log.
        """
        limits = runner.limits
        self._runner = runner
        self._on_setback = on_setback
        self._chunk_tokens = limits.prefix_chunk_tokens
        self._is_slicing_exact = limits.is_slicing_exact
        self.index = PrefixIndex(
            num_slots=limits.num_prefix_chunks, chunk_tokens=limits.prefix_chunk_tokens
        )
        # Who waits for blocks is looked for in every step: one at a time, the first that waits.
        self._sought: int | None = None
        self._trail: Trail = []
        self.queried_tokens = 0
        self.hit_tokens = 0

    def find(self, sequence: Sequence) -> list[int]:
        """Return the slots of the prefix that a sequence need not compute; none is a miss.

        They begin with its first token, those that it has already included.

        One token at least is left to compute, since a token is drawn from its logits. Who asks for
        the log probabilities of a prompt computes all of it.
        """
        if not self._is_open_to(sequence):
            return []
        most = self._shareable(sequence, len(sequence.token_ids) - 1)
        if self._sought != sequence.sequence_id:
            self._sought, self._trail = sequence.sequence_id, []
        return self.index.find(sequence.token_ids, most, owner=sequence.owner, trail=self._trail)

    def tokens_in(self, slots: Some[int]) -> int:
        """Return how many tokens slots hold."""
        return len(slots) * self._chunk_tokens

    def start(self, sequence: Sequence, slots: Some[int]) -> None:
        """Note that a sequence runs, and gets copies of what `find` returned before it computes."""
        if self._is_open_to(sequence) and sequence.num_computed == 0:
            self.queried_tokens += len(sequence.token_ids)
        sequence.copied_until = self.tokens_in(slots)

    def load(self, sequence: Sequence, most: int) -> int:
        """Copy so many more tokens at most into the blocks of a sequence, but one chunk at least.

        Returns:
            How many were copied. What was forgotten meanwhile, or cannot be copied, the sequence
            computes itself.
        """
        slots = self.find(sequence)[: sequence.copied_until // self._chunk_tokens]
        first = sequence.num_computed // self._chunk_tokens
        part = slots[first : first + max(1, most // self._chunk_tokens)]
        self.index.touch(slots)
        try:
            if part:
                self._runner.load_chunks(self._chunks(sequence, first, part))
        except Exception as error:  # noqa: BLE001 - it computes them itself
            self._on_setback(error)
            self.index.drop(part)
            slots = part = []
        copied = self.tokens_in(part)
        sequence.num_computed += copied
        sequence.copied_until = self.tokens_in(slots)
        self.hit_tokens += copied
        return copied

    def keep(self, sequence: Sequence, count: int) -> None:
        """Keep the chunks that the newest `count` computed tokens of a running sequence complete.

        Each is copied once, right when it is complete: no step has much to copy, and where more is
        computed than there is room for, nothing is copied again and again.
        """
        if not self.index.total:
            return
        limit = self._shareable(sequence, sequence.num_computed)
        begin = self._shareable(sequence, sequence.num_computed - count) // self._chunk_tokens
        if begin == limit // self._chunk_tokens:
            return
        added = self.index.add(sequence.token_ids, limit, known=begin, owner=sequence.owner)
        if not added.slots:
            return
        try:
            self._runner.keep_chunks(self._chunks(sequence, added.first, added.slots))
        except Exception as error:  # noqa: BLE001 - others compute them again
            self._on_setback(error)
            self.index.drop(added.slots)

    def _is_open_to(self, sequence: Sequence) -> bool:
        return (
            self.index.total > 0
            and (sequence.num_computed == 0 or sequence.is_copying)
            and not sequence.wants_prompt_logprobs
        )

    def _shareable(self, sequence: Sequence, count: int) -> int:
        """Return how many of the first tokens are the same for all, computed by whomever."""
        return count if self._is_slicing_exact else min(count, sequence.prompt_length)

    def _chunks(self, sequence: Sequence, first: int, slots: Some[int]) -> PrefixChunks:
        return PrefixChunks(
            sequence_id=sequence.sequence_id,
            first=first,
            slots=slots,
            block_table=sequence.table.blocks,
        )
