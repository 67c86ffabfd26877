"""What is measured when a model is loaded: the cost of a step, and the best number of threads."""

import pytest

from hocket.server.model.config import RunnerConfig
from hocket.server.model.runner import TorchRunner
from hocket.server.model.tuning import choose_threads, step_cost
from numerics.tiny_models import StateDictCheckpoint, make_model


class Machine:
    """A machine on which time passes only when something is computed."""

    def __init__(self, seconds) -> None:
        self.now, self.threads, self._seconds = 0.0, 0, seconds
        self.hiccups = iter(())

    def clock(self) -> float:
        return self.now

    def set_threads(self, count: int) -> None:
        self.threads = count

    def compute(self, rows: int) -> None:
        self.now += self._seconds(rows, self.threads) + next(self.hiccups, 0.0)

    def draw(self, streams: int) -> None:
        """Compute as many rows, and take half as long again for each."""
        self.compute(streams)
        self.now += 0.5 * (self._seconds(streams, self.threads) - self._seconds(0, self.threads))


def test_the_cost_of_a_step_is_a_line_through_its_fastest_tries():
    machine = Machine(lambda rows, _: 0.004 + 0.0005 * rows)
    machine.hiccups = iter((0.1, 0.0, 0.3, 0.2, 0.1, 0.0, 0.2, 0.0, 0.1))
    cost = step_cost(machine.compute, machine.draw, machine.clock)
    assert cost.step_ms == pytest.approx(4.0)
    assert cost.token_ms == pytest.approx(0.5)
    assert cost.stream_ms == pytest.approx(0.75)


def test_rows_never_cost_less_than_nothing():
    machine = Machine(lambda rows, _: 0.01 - 0.0001 * rows)
    cost = step_cost(machine.compute, machine.compute, machine.clock)
    assert cost.step_ms == pytest.approx(9.9)
    assert (cost.token_ms, cost.stream_ms) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("overhead", "best"),
    [(0.0, 64), (0.0001, 64), (0.01, 8), (10.0, 4)],
)
def test_as_many_threads_compute_as_make_a_step_faster(overhead, best):
    """Work is shared, and each thread costs something: for small models soon more than it does."""
    machine = Machine(lambda _, threads: 1.0 / threads + overhead * threads)
    found = choose_threads(64, machine.set_threads, machine.compute, machine.clock)
    assert found == machine.threads
    times = {n: 1.0 / n + overhead * n for n in (4, 8, 16, 32, 64)}
    assert times[found] <= min(times.values()) / 0.95
    assert found == best


@pytest.mark.parametrize("most", [1, 2, 4, 7])
def test_few_threads_all_compute_without_a_trial(most):
    """Whatever else uses the machine at this moment."""
    machine = Machine(lambda _, threads: float(threads))
    assert choose_threads(most, machine.set_threads, machine.compute, machine.clock) == most
    assert (machine.threads, machine.now) == (most, 0.0)


@pytest.mark.torch
def test_a_runner_that_is_tuned_knows_its_cost_and_computes_as_before():
    config = RunnerConfig(dtype="float32", kv_cache_mib=4, num_threads=1, block_size_tokens=16)
    runner = TorchRunner(StateDictCheckpoint(make_model("llama")), config)
    assert runner.limits.token_ms == 0.0
    assert runner.tune() == 1
    assert runner.limits.stream_ms >= runner.limits.token_ms >= 0.0
    assert runner.limits.step_ms > 0.0
    assert not runner._cache.memory.any()
    assert runner.sibling().limits == runner.limits
