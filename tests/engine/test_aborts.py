"""Whatever a request is doing, the step that is told to end it is the first one without it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.test_core import Crank, submit
from hocket.server.engine.batch import Batch, StepResult
from hocket.server.engine.commands import Abort, FinishReason
from hocket.server.testing.scripted_runner import ScriptedRunner, echo

REASONS = [FinishReason.CANCELLED, FinishReason.ABORTED]


class Listed(ScriptedRunner):
    """Writes down whose tokens each batch held, as the first letters of their prompts."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.steps: list[set[str]] = []
        self._letters: dict[int, str] = {}

    def execute(self, batch: Batch) -> StepResult:
        for piece in batch.slices:
            if piece.start == 0:
                self._letters[piece.sequence_id] = chr(piece.token_ids[0])
        self.steps.append({self._letters[piece.sequence_id] for piece in batch.slices})
        return super().execute(batch)


def abort(name: str, reason: FinishReason = FinishReason.CANCELLED) -> Abort:
    return Abort(request_id=name, reason=reason)


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize(
    ("prompt", "steps", "written"), [("vvvv", 0, 0), ("v" * 90, 3, 0), ("v", 5, 5)]
)
def test_its_seat_is_taken_in_the_same_step(prompt, steps, written, reason):
    """While it is queued, while its prompt is computed, and while it is written."""
    runner = Listed()
    crank = Crank(runner, max_num_seqs=2, max_step_tokens=8)
    crank.step(submit("o", "o", ignore_eos=True, max_tokens=200))
    crank.step(submit("v", prompt, ignore_eos=True), submit("w", "w"), *[abort("v")][steps:])
    for _ in range(steps - 1):
        crank.step()
    if steps:
        assert runner.steps[-1] == {"o", "v"}
        crank.step(abort("v", reason))
    assert runner.steps[-1] == {"o", "w"}
    (completion,) = crank.last("v").finished.completions
    assert completion.finish_reason is (reason if steps else FinishReason.CANCELLED)
    assert completion.completion_tokens == written
    crank.run(abort("o"))
    assert crank.text("w").encode() == echo(b"w")
    assert crank.is_at_rest()


@pytest.mark.parametrize("saved", [0, 64])
def test_one_that_was_put_aside_never_comes_back(saved):
    runner = Listed(num_blocks=8, num_saved_blocks=saved)
    crank = Crank(runner)
    crank.step(submit("a", "aaaaaa"), submit("v", "vvvvvv"))
    while not crank.statistics.preemptions:
        crank.step()
    assert crank.statistics.waiting_sequences == 1
    known = len(runner.steps)
    crank.run(abort("v"))
    assert "v" not in set().union(*runner.steps[known:])
    assert crank.text("a").encode() == echo(b"aaaaaa")
    assert echo(b"vvvvvv").startswith(crank.text("v").encode())
    assert crank.is_at_rest()


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    aborted_at=st.lists(st.integers(0, 60), min_size=6, max_size=6),
    seats=st.integers(1, 4),
    step_tokens=st.integers(1, 16),
    blocks=st.integers(12, 40),
)
def test_nobody_is_computed_after_the_abort(lengths, aborted_at, seats, step_tokens, blocks):
    """In any company, with and without room."""
    runner = Listed(num_blocks=blocks, num_saved_blocks=6)
    crank = Crank(
        runner,
        max_num_seqs=seats,
        max_step_tokens=max(step_tokens, seats),
    )
    names = "abcdef"[: len(lengths)]
    crank.step(*(submit(name, name * length) for name, length in zip(names, lengths, strict=True)))
    gone: set[str] = set()
    for step in range(61):
        now = {name for name, at in zip(names, aborted_at, strict=False) if at == step}
        known = len(runner.steps)
        crank.step(*(abort(name) for name in now))
        gone |= now
        assert not gone & set().union(*runner.steps[known:])
    crank.run()
    assert all(crank.last(name).finished for name in names)
    assert crank.is_at_rest()
