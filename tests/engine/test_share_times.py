"""What single calls wait for beside a document, by a clock that steps move by what they cost."""

from bench.arrivals import poisson
from bench.samples import percentile

from engine.test_core import Crank, submit
from hocket.server.testing.scripted_runner import ScriptedRunner

STEP_MS, TOKEN_MS = 4.0, 0.5
SECONDS = 20.0
RATE = 4.0  # calls a second


class Scene:
    """Calls of one sentence at random moments, beside a document with so many segments begun."""

    def __init__(self, *, seats: int, window: int, group: str, slowdown: float = 1_000.0) -> None:
        runner = ScriptedRunner(
            num_blocks=4_096, num_saved_blocks=2_048, step_ms=STEP_MS, token_ms=TOKEN_MS
        )
        self.crank = Crank(
            runner,
            max_num_seqs=seats,
            max_step_tokens=512,
            max_step_ms=30.0,
            narrow_slowdown=slowdown,
        )
        self.window = window
        self.group = group
        self.segments = self.in_progress = 0
        self.called: dict[str, float] = {}
        self.waited: dict[str, float] = {}

    def p95(self) -> float:
        """Return the seconds to the first sentence that one call in twenty exceeds."""
        moments = poisson(RATE, seed=1)
        moment = next(moments)
        while moment < SECONDS:
            commands = []
            while self.in_progress < self.window:
                commands.append(self.segment())
            while moment <= self.crank.now:
                name = f"call{len(self.called)}"
                self.called[name] = moment
                commands.append(submit(name, "y" * 20, max_tokens=24, ignore_eos=True))
                moment = next(moments)
            self.step(commands)
        return percentile(list(self.waited.values()), 95)

    def segment(self):
        self.segments += 1
        self.in_progress += 1
        return submit(
            f"{self.segments}", "x" * 60, max_tokens=40, ignore_eos=True, group=self.group
        )

    def step(self, commands) -> None:
        batches = self.crank.runner.batches
        before = len(batches)
        self.crank.step(*commands)
        tokens = sum(map(sum, batches[before:]))
        self.crank.now += (STEP_MS + TOKEN_MS * tokens) / 1_000
        for output in self.crank.newest:
            if output.request_id not in self.called:
                self.in_progress -= output.is_last
            elif output.texts:
                waited = self.crank.now - self.called[output.request_id]
                self.waited.setdefault(output.request_id, waited)


def test_a_document_makes_single_calls_wait_for_the_larger_steps_alone():
    """At most half as long again as in steps as large, with free seats for all.

    First come, first served, they wait for all segments that have begun.
    """
    with_room = Scene(seats=64, window=30, group="document").p95()
    fair = Scene(seats=32, window=96, group="document").p95()
    first_come = Scene(seats=32, window=96, group="").p95()
    assert fair <= 1.5 * with_room
    assert first_come > 3 * with_room


def test_a_document_that_gives_way_makes_single_calls_wait_twice_as_long_as_alone_at_most():
    """And goes on beside them at half its pace or more."""
    alone = Scene(seats=32, window=0, group="document").p95()
    free = Scene(seats=32, window=96, group="document")
    free.p95()
    giving = Scene(seats=32, window=96, group="document", slowdown=1.5)
    assert giving.p95() <= 2 * alone
    assert giving.segments - giving.in_progress >= 0.5 * (free.segments - free.in_progress)
