"""Who computes what in the next step. Engine thread; no time, no tensors, no text.

Tokens computed catch up with tokens known: that one rule covers prefill in chunks, decode, and
resuming after a preemption (after the scheduler of vLLM v1). Sequences run in the order of
priority, then arrival. A sequence that lacks a block takes it from the last of those that run
after it; the one put aside keeps a copy of its blocks if there is room for it, and otherwise
computes them again.
"""

from bisect import insort
from dataclasses import dataclass
from operator import attrgetter

from hocket.server.engine.batch import ModelRunner
from hocket.server.engine.blocks import BlockPool
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.sequence import Place, Sequence


@dataclass(frozen=True, slots=True)
class Work:
    """So many of a sequence's pending tokens."""

    sequence: Sequence
    count: int


_ORDER = attrgetter("order")


class Scheduler:
    """Holds the waiting and the running sequences and decides on each step."""

    def __init__(self, runner: ModelRunner, config: EngineConfig) -> None:
        limits = runner.limits
        self._runner = runner
        self._config = config
        self._block_size = limits.block_size
        self._saved_capacity = limits.num_saved_blocks
        self.pool = BlockPool(limits.num_blocks)
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.saved_blocks = 0
        self.preemptions = 0

    @property
    def has_work(self) -> bool:
        """Whether any sequence waits or runs."""
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait."""
        insort(self.waiting, sequence, key=_ORDER)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence and take back all it holds, wherever it stands."""
        if sequence.place is Place.RUNNING:
            self.running.remove(sequence)
            self._release(sequence)
        elif sequence.place is Place.WAITING:
            self.waiting.remove(sequence)
            self._drop_saved(sequence)
        sequence.place = Place.ENDED

    def schedule(self) -> list[Work]:
        """Choose the work of one step; decodes first, then prompts, then newcomers."""
        budget = self._config.max_step_tokens
        if not any(sequence.is_decoding for sequence in self.running):
            budget = max(budget, self._config.max_prefill_tokens)
        chosen: dict[Sequence, int] = {}
        for is_decode in (True, False):
            for sequence in tuple(self.running):
                if sequence.place is not Place.RUNNING or sequence.is_decoding is not is_decode:
                    continue
                count = min(sequence.num_pending, budget)
                if count > 0 and self._make_room(sequence, count, chosen):
                    chosen[sequence] = count
                    budget -= count
        self._admit(budget, chosen)
        return [Work(sequence, count) for sequence, count in chosen.items()]

    def check_integrity(self) -> None:
        """Raise if the books do not balance."""
        self.pool.check_integrity()
        held = sum(len(sequence.table) for sequence in self.running)
        if held != self.pool.used:
            raise AssertionError("blocks belong to no running sequence. This is a bug.")
        if self.saved_blocks != sum(sequence.num_saved for sequence in self.waiting):
            raise AssertionError("saved blocks belong to no waiting sequence. This is a bug.")
        if self.saved_blocks > self._saved_capacity:
            raise AssertionError("more blocks are saved than the store can hold. This is a bug.")

    def _admit(self, budget: int, chosen: dict[Sequence, int]) -> None:
        while budget > 0 and self.waiting and len(self.running) < self._config.max_num_seqs:
            sequence = self.waiting[0]
            count = min(sequence.num_pending, budget)
            needed = self._blocks_for(sequence.num_computed + count)
            # One block stays free for each running sequence, or the newcomer is put aside at once.
            spare = len(self.running) if self.running else 0
            if needed + min(spare, self.pool.total // 8) > self.pool.free:
                return
            del self.waiting[0]
            self._start(sequence)
            self.pool.extend(sequence.table, needed - len(sequence.table))
            chosen[sequence] = count
            budget -= count

    def _start(self, sequence: Sequence) -> None:
        sequence.place = Place.RUNNING
        insort(self.running, sequence, key=_ORDER)
        if sequence.num_saved:
            self.pool.extend(sequence.table, sequence.num_saved)
            self._runner.load_blocks(sequence.sequence_id, sequence.table.blocks)
            self.saved_blocks -= sequence.num_saved
            sequence.num_saved = 0

    def _make_room(self, sequence: Sequence, count: int, chosen: dict[Sequence, int]) -> bool:
        """Give a running sequence blocks for its next tokens; False if it was put aside instead."""
        lacking = self._blocks_for(sequence.num_computed + count) - len(sequence.table)
        while lacking > 0 and not self.pool.extend(sequence.table, lacking):
            victim = self.running[-1]
            chosen.pop(victim, None)
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        self.running.remove(sequence)
        held = self._blocks_for(sequence.num_computed)
        if 0 < held <= self._saved_capacity - self.saved_blocks:
            self._runner.save_blocks(sequence.sequence_id, sequence.table.blocks[:held])
            sequence.num_saved = held
            self.saved_blocks += held
        else:
            sequence.num_computed = 0
        self._release(sequence)
        sequence.place = Place.WAITING
        insort(self.waiting, sequence, key=_ORDER)

    def _release(self, sequence: Sequence) -> None:
        moves = self.pool.release(sequence.table)
        if moves:
            self._runner.move_blocks(moves)

    def _drop_saved(self, sequence: Sequence) -> None:
        if sequence.num_saved:
            self._runner.drop_saved(sequence.sequence_id)
            self.saved_blocks -= sequence.num_saved
            sequence.num_saved = 0

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self._block_size)
