"""Who computes what in the next step. Engine thread; no time, no tensors, no text.

Tokens computed catch up with tokens known: that one rule covers prefill in chunks, decode, and
resuming after a preemption (after the scheduler of vLLM v1). Streams come first; what is left goes
to prompts and newcomers in the order of turns (`seats.py`), so that what was asked for at once, be
it one sequence or hundreds, gets no more than its share. A sequence that lacks a block takes it
from the last in that order; a newcomer takes seats and blocks of groups that hold more. Whoever is
put aside keeps a copy of its blocks if there is room for it, and otherwise computes them again. A
sequence that starts with nothing gets what the prefix cache knows of it, over as many steps as
there is room for copies in.

Nobody starves. A rank is the step of arrival, moved by `PRIORITY_STEPS` for each unit of priority:
waiting makes up for priority, and nobody is overtaken by those that come later than that. And a
step has room for a token of every sequence in it, so that neither streams nor prompts stand still;
but for those of wide groups while narrow ones are written beside them, of which the first in the
order of turns go on, at least one in every step.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from hocket.server.engine.batch import ModelRunner
from hocket.server.engine.blocks import BlockPool
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.pace import Pace
from hocket.server.engine.plan import Plan, Work
from hocket.server.engine.prefix_cache import PrefixCache
from hocket.server.engine.seats import Seats
from hocket.server.engine.sequence import Place, Sequence
from hocket.server.engine.speculation import Speculation

# What copying a token from the prefix cache costs, as a share of computing it. Measured for a small
# model, 5 of 170 microseconds; for larger ones it is less.
COPY_COST = 1 / 32

# Steps of waiting that make up for one unit of priority.
PRIORITY_STEPS = 100


class Scheduler:
    """Holds the waiting and the running sequences and decides on each step."""

    def __init__(
        self,
        runner: ModelRunner,
        config: EngineConfig,
        on_setback: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """Make a scheduler.

        Args:
            runner: Whose blocks are given away.
            config: Bounds of a step.
            on_setback: Told of what went wrong but cost nobody anything, for the log.
        """
        limits = runner.limits
        self._runner = runner
        self._config = config
        self._on_setback = on_setback
        self._steps = 0
        self._block_size = limits.block_size
        self._pace = Pace(limits, config)
        self._key_cost = limits.key_cost
        self._saved_capacity = limits.num_saved_blocks
        self.pool = BlockPool(limits.num_blocks)
        self._speculation = Speculation(limits, config, self.pool)
        self.prefixes = PrefixCache(runner, on_setback)
        self.seats = Seats()
        self.saved_blocks = 0
        self.preemptions = 0
        self.yields = 0

    @property
    def running(self) -> list[Sequence]:
        """Those in the batch, in order."""
        return self.seats.running

    @property
    def has_work(self) -> bool:
        """Whether any sequence waits or runs."""
        return bool(self.seats.num_waiting or self.running)

    def rank(self, priority: int) -> int:
        """Return the rank of a sequence that arrives now: what is lower runs first."""
        return self._steps + PRIORITY_STEPS * priority

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait."""
        self.seats.add(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence and take back all it holds, whether it waits or runs."""
        self.seats.remove(sequence, self.rank(sequence.priority))
        self._release(sequence)
        self._drop_saved(sequence)

    def schedule(self) -> list[Work]:
        """Choose the work of one step: streams first, then prompts and newcomers in turn."""
        self._steps += 1
        plan = self._plan()
        prompts: list[tuple[int, Sequence]] = []
        for held, sequence in self.seats.in_turn():
            if sequence.is_decoding:
                self._go_on(sequence, plan)
            else:
                prompts.append((held, sequence))
        is_open = True
        for held, sequence in prompts:
            is_open = is_open and self._admit(plan, below=held)
            self._go_on(sequence, plan)
        if is_open:
            self._admit(plan, below=math.inf)
        drafts = self._speculation.choose(self.running, plan.chosen, plan.budget)
        return [
            Work(sequence, count, drafts.get(sequence, ()))
            for sequence, count in plan.chosen.items()
        ]

    def check_integrity(self) -> None:
        """Raise if the books do not balance."""
        self.pool.check_integrity()
        self.seats.check_integrity()
        self.prefixes.index.check_integrity()
        self._speculation.check_integrity(self.running, self.seats.waiting)
        held = sum(len(sequence.table) for sequence in self.running)
        if held != self.pool.used:
            raise AssertionError("blocks belong to no running sequence. This is a bug.")
        if self.saved_blocks != sum(sequence.num_saved for sequence in self.seats.waiting):
            raise AssertionError("saved blocks belong to no waiting sequence. This is a bug.")
        if self.saved_blocks > self._saved_capacity:
            raise AssertionError("more blocks are saved than the store can hold. This is a bug.")

    def _plan(self) -> Plan:
        """Return a plan with the room of the next step."""
        streams = [sequence.group for sequence in self.running if sequence.is_decoding]
        written = set(streams)
        seats = self._config.max_num_seqs - len(self.running)
        unheard = {s.group for s in self.running} - written
        newcomers = self.seats.waiting_groups - unheard - written
        is_rush = len(unheard) + min(len(newcomers), seats) > len(written)
        budget = self._pace.budget(streams=len(streams), is_rush=is_rush)
        return Plan(budget, self._key_cost, self._pace.wide(self.running, self.seats.narrow()))

    def _go_on(self, sequence: Sequence, plan: Plan) -> None:
        """Let a sequence that runs compute what it can, if it was not put aside meanwhile."""
        if sequence.place is not Place.RUNNING:
            return
        if sequence.is_copying and not self._copy(sequence, plan):
            return
        count = plan.affordable(sequence)
        if count > 0 and self._make_room(sequence, count, plan):
            plan.add(sequence, count)

    def _admit(self, plan: Plan, *, below: float) -> bool:
        """Let those start whose groups hold fewer seats than `below`; False if one of them cannot.

        Then nobody else starts either: what is free is kept for that one.
        """
        while (newcomer := self.seats.next(below)) is not None:
            if not self._try_start(newcomer, plan):
                return False
        return True

    def _try_start(self, sequence: Sequence, plan: Plan) -> bool:
        """Let a sequence that waits start, if need be in the place of others; False if not now."""
        givers = self.seats.givers(sequence)
        leaving: list[Sequence] = []
        if len(self.running) == self._config.max_num_seqs:
            leaving.extend(islice(givers, 1))
            if not leaving:
                return False
        if not plan.has_room(sequence, plan.refund(leaving)):
            return False
        prefix = self.prefixes.find(sequence)
        skipped = max(0, self.prefixes.tokens_in(prefix) - sequence.num_computed)
        count = plan.affordable(sequence, skipped, plan.refund(leaving))
        needed = self._blocks_for(sequence.num_computed + skipped + count)
        while needed + self._spare(leaving) > self.pool.free + sum(len(s.table) for s in leaving):
            if (giver := next(givers, None)) is None:
                return False
            leaving.append(giver)
        for giver in leaving:
            plan.drop(giver)
            self._preempt(giver)
        self.yields += len(leaving)
        self._start(sequence)
        self.pool.extend(sequence.table, needed - len(sequence.table))
        self.prefixes.start(sequence, prefix)
        if not sequence.is_copying or self._copy(sequence, plan):
            count = min(count, plan.affordable(sequence))
            if count > 0:
                plan.add(sequence, count)
        return True

    def _copy(self, sequence: Sequence, plan: Plan) -> bool:
        """Copy as many known tokens as a step has room for; return whether these are all."""
        if plan.has_room(sequence):
            copied = self.prefixes.load(sequence, int(plan.room_for(sequence) / COPY_COST))
            plan.pay(sequence, COPY_COST * copied)
        return not sequence.is_copying

    def _spare(self, leaving: list[Sequence]) -> int:
        """Return the blocks that stay free when one starts: otherwise it is put aside at once."""
        return min(len(self.running) - len(leaving), self.pool.total // 8)

    def _start(self, sequence: Sequence) -> None:
        self.seats.seat(sequence)
        if sequence.num_saved:
            self.pool.extend(sequence.table, sequence.num_saved)
            self._load(sequence)
            self.saved_blocks -= sequence.num_saved
            sequence.num_saved = 0

    def _make_room(self, sequence: Sequence, count: int, plan: Plan) -> bool:
        """Give a running sequence blocks for its next tokens; False if it was put aside instead."""
        lacking = self._blocks_for(sequence.num_computed + count) - len(sequence.table)
        while lacking > 0 and not self.pool.extend(sequence.table, lacking):
            victim = self.seats.last()
            plan.drop(victim)
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        if not self._save(sequence):
            sequence.num_computed = 0
        self._release(sequence)
        sequence.drafts.forget()
        self.seats.put_aside(sequence)

    def _save(self, sequence: Sequence) -> bool:
        """Keep a copy of a sequence's blocks; False if it has to compute them again."""
        held = self._blocks_for(sequence.num_computed)
        if not 0 < held <= self._saved_capacity - self.saved_blocks:
            return False
        try:
            self._runner.save_blocks(sequence.sequence_id, sequence.table.blocks[:held])
        except Exception as error:  # noqa: BLE001 - a copy only saves time
            self._on_setback(error)
            return False
        sequence.num_saved = held
        self.saved_blocks += held
        return True

    def _load(self, sequence: Sequence) -> None:
        try:
            self._runner.load_blocks(sequence.sequence_id, sequence.table.blocks)
        except Exception as error:  # noqa: BLE001 - the same: it computes them again
            self._on_setback(error)
            sequence.num_computed = 0
            with suppress(Exception):  # the copy may be gone or not
                self._runner.drop_saved(sequence.sequence_id)

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
