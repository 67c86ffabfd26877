"""Nobody starves: neither streams nor prompts, and no priority."""

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.test_core import Crank, submit
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.pace import Pace
from hocket.server.engine.plan import Plan
from hocket.server.engine.request import Request
from hocket.server.engine.scheduler import PRIORITY_STEPS, Scheduler
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.testing.scripted_runner import ScriptedRunner


def test_a_step_too_small_for_its_sequences_is_refused():
    """Both keys are named, since either may be changed."""
    with pytest.raises(ValueError, match=r"max_step_tokens is 2, .* max_num_seqs, which is 4"):
        EngineConfig(max_step_tokens=2, max_num_seqs=4)
    assert EngineConfig(max_step_tokens=4, max_num_seqs=4).max_step_tokens == 4


@settings(deadline=None)
@given(
    prompts=st.lists(st.integers(1, 60), min_size=1, max_size=9),
    seqs=st.integers(1, 6),
    room=st.integers(0, 3),
)
def test_in_every_step_all_streams_and_a_prompt_go_on(prompts, seqs, room):
    """However small the step is beside the batch."""
    crank = Crank(max_num_seqs=seqs, max_step_tokens=seqs + room)
    crank.step(*(submit(str(at), "x" * length) for at, length in enumerate(prompts)))
    while crank.has_work:
        running = tuple(crank.core._scheduler.running)
        streams = {s: s.num_written for s in running if s.is_decoding}
        prefills = {s: s.num_computed for s in running if not s.is_decoding}
        crank.step()
        assert all(s.num_written == written + 1 for s, written in streams.items())
        assert not prefills or any(s.num_computed > done for s, done in prefills.items())


@pytest.mark.parametrize("difference", [1, 2])
def test_waiting_makes_up_for_priority(difference):
    """A request is overtaken only by those that come so many steps later as its priority costs.

    One seat, and in every step another request that is preferred: more than can be written.
    """
    crank = Crank(max_num_seqs=1)
    crank.step(submit("first"))
    crank.step(submit("patient", priority=difference, max_tokens=1))
    arrived = {}
    for step in count(1):
        if "patient" in crank.outputs:
            break
        assert step < 10_000
        arrived[str(step)] = step
        crank.step(submit(str(step), max_tokens=2))
    overtook = [arrived[name] for name in crank.outputs if name in arrived]
    assert max(overtook) == len(overtook) == PRIORITY_STEPS * difference - 1


def test_a_step_that_passes_leaves_the_order_of_equals():
    crank = Crank(max_num_seqs=1)
    for name in "abcd":
        crank.step(submit(name, max_tokens=3))
    crank.run()
    assert list(crank.outputs) == list("abcd")


def sequence_of(scheduler: Scheduler, at: int, *, blocks: int, computed: int, known: int):
    """Return a sequence that runs, with so many tokens computed of those known."""
    asked = submit(str(at), "x" * 7)
    request = Request.of(asked, ByteTokenizer(), sequence_ids=iter((at,)), rank=0)
    (sequence,) = request.sequences
    sequence.token_ids = [0] * known
    scheduler.add(sequence)
    scheduler._start(sequence)
    assert scheduler.pool.extend(sequence.table, blocks)
    sequence.num_computed = computed
    return sequence


def test_the_tokens_of_one_that_is_put_aside_go_to_the_others():
    config = EngineConfig(max_num_seqs=4, max_step_tokens=4)
    scheduler = Scheduler(ScriptedRunner(block_size=8, num_blocks=5), config)
    stream = sequence_of(scheduler, 0, blocks=1, computed=7, known=8)
    grows = sequence_of(scheduler, 1, blocks=1, computed=8, known=10)  # needs a block
    prompt = sequence_of(scheduler, 2, blocks=1, computed=0, known=7)
    victim = sequence_of(scheduler, 3, blocks=2, computed=9, known=10)
    work = {item.sequence: item.count for item in scheduler.schedule()}
    assert victim not in work
    assert work == {stream: 1, grows: 2, prompt: 1}


@given(
    budget=st.integers(1, 300),
    start=st.integers(0, 5_000),
    key_cost=st.sampled_from([0.0, 1e-5, 8e-4, 0.3]),
)
def test_a_prompt_takes_as_many_tokens_as_a_step_affords(budget, start, key_cost):
    """All that fit, one more would not; and one at least, however far it looks back."""
    fitting = Plan(float(budget), key_cost)._fitting(start, float(budget))

    def cost(tokens: int) -> float:
        return tokens + key_cost * tokens * (start + tokens / 2)

    assert fitting >= 1
    assert fitting == 1 or cost(fitting) <= budget * (1 + 1e-9)
    assert cost(fitting + 1) > budget * (1 - 1e-9)


@pytest.mark.parametrize(("streams", "prompts", "budget"), [(3, 3, 16), (3, 4, 64), (0, 1, 64)])
def test_a_step_is_larger_while_most_wait_for_their_first_token(streams, prompts, budget):
    """A few streams wait a little for many prompts; many streams do not wait for a few prompts."""
    runner = ScriptedRunner(step_ms=4.0, token_ms=1.0)
    crank = Crank(runner, max_num_seqs=8, max_step_tokens=64, max_step_ms=20.0)
    crank.step(*(submit(f"s{number}", "a", max_tokens=99) for number in range(streams)))
    crank.step(*(submit(f"p{number}", "b" * 200) for number in range(prompts)))
    assert sum(crank.runner.batches[-1]) == budget


@given(
    step_ms=st.floats(0, 50),
    token_ms=st.floats(0.01, 5),
    max_step_ms=st.floats(1, 200),
    streams=st.integers(1, 32),
)
def test_prompts_lengthen_a_step_of_streams_by_a_bound(step_ms, token_ms, max_step_ms, streams):
    """To what is set, or twice as long as without them; and no stream goes without its token."""
    limits = replace(ScriptedRunner().limits, step_ms=step_ms, token_ms=token_ms)
    config = EngineConfig(max_num_seqs=32, max_step_tokens=512, max_step_ms=max_step_ms)
    tokens = Pace(limits, config).budget(streams=streams, is_rush=False)
    takes, alone = step_ms + token_ms * tokens, step_ms + token_ms * streams
    assert 32 <= tokens <= 512
    assert tokens == 32 or takes <= max(max_step_ms, 2 * alone) * (1 + 1e-9)
    assert tokens == 512 or takes + token_ms > max(max_step_ms, 2 * alone) * (1 - 1e-9)


def test_where_the_cost_is_not_known_tokens_alone_bound_a_step():
    config = EngineConfig(max_num_seqs=4, max_step_tokens=77)
    assert Pace(ScriptedRunner().limits, config).budget(streams=4, is_rush=False) == 77
    known = ScriptedRunner(step_ms=1.0, token_ms=1.0).limits
    unbounded = EngineConfig(max_num_seqs=4, max_step_tokens=77, max_step_ms=0.0)
    assert Pace(known, unbounded).budget(streams=4, is_rush=False) == 77
    assert Pace(known, config).budget(streams=4, is_rush=False) == 29
    assert Pace(known, config).budget(streams=4, is_rush=True) == 77
