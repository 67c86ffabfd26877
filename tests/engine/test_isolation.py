"""What cannot be computed fails alone; only what is not the sequences' fault ends the engine."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.test_core import Crank, submit
from hocket.server.engine.batch import Batch, SliceResult, StepResult
from hocket.server.engine.isolation import MOST_BARREN
from hocket.server.errors import GenerationFailed
from hocket.server.testing.scripted_runner import Broken, ScriptedRunner, echo

LATE = "x" * 20 + "RAISE"  # with chunks of 16, poisonous in its second


class Faulty(ScriptedRunner):
    """Raises in the calls whose numbers are drawn, and otherwise computes."""

    def __init__(self, faults=(), **kwargs) -> None:
        super().__init__(**kwargs)
        self.faults = faults
        self.calls = 0

    def execute(self, batch: Batch) -> StepResult:
        self.calls += 1
        if self.calls in self.faults:
            raise MemoryError
        return super().execute(batch)


def failed(crank: Crank, name: str) -> bool:
    failure = crank.last(name).failure
    assert failure is None or isinstance(failure, GenerationFailed)
    return failure is not None


def still_writes(crank: Crank) -> bool:
    crank.run(submit("after"))
    return crank.text("after").encode() == echo(b"hello") and crank.is_at_rest()


@pytest.mark.parametrize(("word", "cause"), [("RAISE", "fault"), ("NAN", "non_finite")])
def test_one_bad_sequence_fails_alone(word, cause):
    crank = Crank()
    crank.step(submit("good0"), submit("good1", "other"))
    crank.step()
    crank.run(submit("bad", word), submit("good2", "third"))
    failure = crank.last("bad").failure
    assert isinstance(failure, GenerationFailed)
    assert failure.metadata["cause"] == cause
    for name, prompt in [("good0", "hello"), ("good1", "other"), ("good2", "third")]:
        assert crank.text(name).encode() == echo(prompt.encode())
    assert crank.is_at_rest()
    assert bool(crank.faults) == (word == "RAISE")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([("a", LATE), ("b", LATE)], []),  # both joined earlier
        ([("a", LATE)], [("b", "RAISE")]),  # one of them did
        ([], [("a", "RAISE"), ("b", "RAISE")]),  # none did
        ([("a", LATE), ("b", "NAN")], [("c", "NAN")]),
    ],
)
def test_any_number_of_bad_sequences_fail_alone_at_once(first, second):
    """On an idle server, where nobody else can witness that the model is well."""
    crank = Crank(max_step_tokens=16)
    crank.step(*(submit(name, prompt) for name, prompt in first))
    crank.run(*(submit(name, prompt) for name, prompt in second))
    assert all(failed(crank, name) for name, _ in first + second)
    assert still_writes(crank)


@pytest.mark.parametrize("choices", [1, 2, 16])
@pytest.mark.parametrize("word", ["RAISE", "NAN"])
def test_choices_that_turn_bad_in_the_same_step_fail_alone(word, choices):
    """All of them have written before, so none is a suspect."""
    runner = ScriptedRunner(lambda p: b"abcd" + word.encode() if p == b"bad" else echo(p))
    crank = Crank(runner)
    crank.run(submit("bad", "bad", choices=choices))
    assert failed(crank, "bad")
    assert still_writes(crank)


@pytest.mark.parametrize("word", ["RAISE", "NAN"])
@pytest.mark.parametrize("blocks", [1, 6, 1_024])
def test_bad_requests_in_a_row_end_nothing(word, blocks):
    """However many, and even where they leave no block for a canary."""
    crank = Crank(ScriptedRunner(block_size=64, num_blocks=blocks))
    for index in range(20 * MOST_BARREN):
        crank.run(submit(f"bad{index}", word + "x" * 50, choices=1 + index % 3))
        assert failed(crank, f"bad{index}")
    assert still_writes(crank)


def test_those_that_never_got_a_token_are_suspected_first():
    """An old prompt that is bad in a late chunk is found before the streams are parted."""
    crank = Crank(max_step_tokens=16)
    crank.step(*(submit(f"good{index}") for index in range(3)))
    crank.step()
    crank.step(submit("late", LATE))
    known = len(crank.runner.batches)
    crank.step()
    # The others together, then the suspect alone: nobody else is computed alone.
    assert crank.runner.batches[known:] == [(1, 1, 1, 12), (1, 1, 1), (12,)]
    crank.run()
    assert failed(crank, "late")


def test_a_broken_model_is_not_blamed_on_its_requests():
    """Sequences that were well, and a canary that is not: nobody is told that it was to blame."""
    broken = False

    def gate():
        if broken:
            raise OSError("gone")

    crank = Crank(ScriptedRunner(gate=gate))
    crank.step(submit("a"), submit("b"))
    broken = True
    with pytest.raises(OSError, match="gone"):
        crank.step()
    assert not any(output.is_last for name in "ab" for output in crank.outputs[name])


@pytest.mark.parametrize("blocks", [1, 1_024])
def test_a_model_that_computes_nothing_at_all_is_broken_in_the_end(blocks):
    """Newcomers fail meanwhile, as often as a canary may."""

    def gate():
        raise Broken

    crank = Crank(ScriptedRunner(gate=gate, num_blocks=blocks))
    for index in range(MOST_BARREN - 1):
        crank.run(submit(f"bad{index}"))
        assert failed(crank, f"bad{index}")
    with pytest.raises(Broken):
        crank.run(submit("last"))


class Mute(ScriptedRunner):
    """Computes, and brings no number."""

    def execute(self, batch: Batch) -> StepResult:
        return StepResult(
            tuple(SliceResult(sequence_id=s.sequence_id, failure="mute") for s in batch.slices)
        )


def test_a_model_that_brings_nothing_but_failures_is_broken_in_the_end():
    crank = Crank(Mute())
    for index in range(MOST_BARREN - 1):
        crank.run(submit(f"bad{index}"))
        assert failed(crank, f"bad{index}")
    with pytest.raises(RuntimeError, match="nothing but failures"):
        crank.run(submit("last"))


@settings(max_examples=200, deadline=None)
@given(
    faults=st.sets(st.integers(1, 120), max_size=40),
    prompts=st.lists(st.sampled_from(["a", "bb", "RAISE", LATE, "c" * 40]), min_size=1, max_size=6),
    blocks=st.sampled_from([18, 60]),
)
def test_faults_that_pass_change_no_text(faults, prompts, blocks):
    """Any pattern of faults: the engine goes on, or fails as a whole; texts are right or absent.

    It fails as a whole only after so many faults in a row as no single call explains.
    """
    runner = Faulty(faults, num_blocks=blocks, num_saved_blocks=4)
    crank = Crank(runner, max_num_seqs=4, max_step_tokens=16)
    try:
        crank.run(*(submit(str(index), prompt) for index, prompt in enumerate(prompts)))
    except MemoryError:
        assert any(set(range(at, at + MOST_BARREN)) <= faults for at in faults)
        return
    for index, prompt in enumerate(prompts):
        if not failed(crank, str(index)):
            assert crank.text(str(index)).encode() == echo(prompt.encode())
    runner.faults = ()
    assert still_writes(crank)


@settings(deadline=None)
@given(data=st.data())
def test_a_fault_that_passes_costs_no_stream_its_life(data):
    """While nobody is bad, single faults are made up for within their step."""
    gaps = data.draw(st.lists(st.integers(3, 9), max_size=12))
    faults, at = set(), 2
    for gap in gaps:
        faults.add(at)
        at += gap
    crank = Crank(Faulty(faults))
    crank.step(*(submit(str(index)) for index in range(4)))
    crank.run()
    assert all(crank.text(str(index)).encode() == echo(b"hello") for index in range(4))


@pytest.mark.parametrize("length", [1, 3, 4])
def test_a_stream_outlives_a_model_that_is_ill_for_a_moment(length):
    """One fault alone, or such as meet the canary too, are nobody's own."""
    crank = Crank(Faulty())
    crank.step(submit("a"))
    crank.step()
    crank.runner.faults = range(crank.runner.calls + 1, crank.runner.calls + 1 + length)
    crank.run()
    assert crank.text("a").encode() == echo(b"hello")
    crank.step(submit("b"))
    crank.runner.faults = range(crank.runner.calls + 1, crank.runner.calls + 3 + MOST_BARREN)
    with pytest.raises(MemoryError):
        crank.step()


class Leaky(ScriptedRunner):
    """Cannot keep copies, or cannot bring them back: before it did anything, or after."""

    def __init__(self, name: str, *, is_done: bool) -> None:
        super().__init__(num_blocks=14, num_saved_blocks=64, num_prefix_chunks=64)
        self.raised = 0
        work = getattr(self, name)

        def raising(*arguments) -> None:
            self.raised += 1
            if is_done:
                work(*arguments)
            raise MemoryError

        setattr(self, name, raising)


@pytest.mark.parametrize(
    ("name", "is_done"), [("save_blocks", False), ("load_blocks", False), ("load_blocks", True)]
)
def test_without_a_copy_it_is_computed_again(name, is_done):
    """A fault in saving or loading costs time, and no text."""
    runner = Leaky(name, is_done=is_done)
    crank = Crank(runner)
    names = [f"n{index}" for index in range(6)]
    crank.run(*(submit(name, name * 4) for name in names))
    assert runner.raised == len(crank.faults) > 0
    assert [crank.text(name).encode() for name in names] == [
        echo((name * 4).encode()) for name in names
    ]
    assert crank.is_at_rest()


def test_a_move_that_fails_is_everybodys_end():
    """What was lost belongs to others than the one that ended, so that none can be isolated."""
    crank = Crank(Leaky("move_blocks", is_done=False))
    with pytest.raises(MemoryError):
        crank.run(submit("short", "x", max_tokens=2), submit("long", "y"))


@pytest.mark.parametrize(
    "slip",
    [
        submit("slip", ""),
        submit("slip", "x" * 5_000),
        submit("slip", choices=0),
        submit("slip", stop=("",)),
    ],
)
def test_a_slip_at_the_wall_costs_one_request(slip):
    crank = Crank()
    crank.step(submit("good"))
    crank.run(slip)
    assert failed(crank, "slip")
    assert len(crank.faults) == 1
    assert crank.text("good").encode() == echo(b"hello")
    assert still_writes(crank)


def test_two_requests_of_one_name_cost_that_name():
    """They have one reader, who is told once; nobody else notices."""
    crank = Crank()
    crank.step(submit("good"), submit("twice"))
    crank.run(submit("twice"))
    assert failed(crank, "twice")
    assert len(crank.faults) == 1
    assert crank.text("good").encode() == echo(b"hello")
    assert still_writes(crank)
