"""Which sequences compute drafts in a step, and how many. Engine thread.

A step of one token each leaves most of the processor waiting for weights; a few more rows cost
little then (Leviathan et al., "Fast inference from transformers via speculative decoding", 2023).
So drafts are computed only while few sequences run, all of them decoding, and take only what
nobody else asks for: what is left of the step's budget, and blocks that are free.

An index is made only while at most `speculate_up_to` sequences run, and given back by who ends or
is put aside: so there are never more of them than that, each of at most a whole context.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Some

from hocket.server.engine.batch import ModelLimits
from hocket.server.engine.blocks import BlockPool
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.sequence import Sequence

# What one row more adds to a step of one row, where nobody has measured it: about 0.05 of it in
# int8, 0.1 in bfloat16.
_ROW_COST = 0.08


class Speculation:
    """Gives drafts to the sequences of a step."""

    def __init__(self, limits: ModelLimits, config: EngineConfig, pool: BlockPool) -> None:
        """Stand beside a scheduler.

        Args:
            limits: Say whether the runner can verify drafts; it does not speculate otherwise.
            config: Up to how many sequences it speculates.
            pool: Where blocks for drafts come from.
        """
        self._pool = pool
        self._limits = limits
        self._most_sequences = config.speculate_up_to if limits.is_slicing_exact else 0
        self._block_size = limits.block_size
        self._max_context = min(limits.max_context_tokens, limits.num_blocks * limits.block_size)

    def choose(
        self, running: Some[Sequence], chosen: Iterable[Sequence], budget: float
    ) -> dict[Sequence, tuple[int, ...]]:
        """Return drafts for some of the sequences chosen for a step, and make room for them.

        Args:
            running: All sequences that run.
            chosen: Those that compute something in this step.
            budget: Tokens that are left in it.
        """
        if len(running) > self._most_sequences or not all(s.is_decoding for s in running):
            return {}
        found: dict[Sequence, tuple[int, ...]] = {}
        left, cost = int(budget), self._cost(len(running))
        for sequence in chosen:
            if sequence.sampling.needs_counts:
                continue  # each draft would have to be counted before the next token is drawn
            most = self._most(sequence, left)
            drafts = sequence.drafts.propose(sequence.token_ids, most, cost)
            drafts = drafts[: self._room(sequence, len(drafts), len(running))]
            if drafts:
                found[sequence] = drafts
                left -= len(drafts)
        return found

    def check_integrity(self, running: Some[Sequence], waiting: Some[Sequence]) -> None:
        """Raise if more memory is held than is told of in `EngineConfig`."""
        if any(sequence.drafts.is_indexed for sequence in waiting):
            raise AssertionError("who waits holds an index of drafts. This is a bug.")
        if sum(sequence.drafts.is_indexed for sequence in running) > self._most_sequences:
            raise AssertionError("there are too many indices of drafts. This is a bug.")

    def _cost(self, running: int) -> float:
        """Return what a draft costs, as a share of what the step costs for each token it brings.

        The more sequences run, the more tokens come of the step anyway, and the less is one more
        worth.
        """
        limits = self._limits
        if not limits.token_ms:
            return _ROW_COST * running
        rows_ms = limits.token_ms * running
        return rows_ms / (limits.step_ms + rows_ms)

    def _most(self, sequence: Sequence, left: int) -> int:
        """Return how many drafts may become text, beside the token that is drawn anyway."""
        until_full = self._max_context - len(sequence.token_ids)
        until_end = sequence.stopping.max_tokens - sequence.num_written
        return min(left, until_full - 1, until_end - 1)

    def _room(self, sequence: Sequence, count: int, spare: int) -> int:
        """Return how many drafts have room, in new blocks if others find some after that."""
        known = len(sequence.token_ids)
        lacking = -(-(known + count) // self._block_size) - len(sequence.table)
        if lacking > 0 and self._pool.free >= lacking + spare:
            self._pool.extend(sequence.table, lacking)
        return min(count, len(sequence.table) * self._block_size - known)
