"""Drafts change nothing but the number of steps."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.drafting_runner import DraftingRunner
from engine.test_core import Crank, submit
from hocket.server.engine.blocks import BlockPool
from hocket.server.engine.commands import Abort, FinishReason
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.request import Request
from hocket.server.engine.sampling import SamplingParams
from hocket.server.engine.sequence import Sequence
from hocket.server.engine.speculation import Speculation
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.testing.scripted_runner import ScriptedRunner

ROUND = "abcde. abcde. "


def outcome(crank: Crank, names: list[str]) -> list[object]:
    """Return all that readers see, but for the time and the cutting."""
    found: list[object] = []
    for name in names:
        last = crank.last(name)
        found.append(last.finished.completions)
        for choice in range(len(last.finished.completions)):
            texts = [
                text
                for output in crank.outputs[name]
                for text in output.texts
                if text.choice_index == choice
            ]
            logprobs = [told for text in texts for told in text.logprobs]
            found.append((crank.text(name, choice), crank.tokens(name, choice), logprobs))
    return found


asked = st.fixed_dictionaries(
    {
        "prompt": st.text("abcde. ", min_size=1, max_size=30),
        "max_tokens": st.integers(1, 90),
        "min_tokens": st.integers(0, 30),
        "stop": st.sampled_from([(), ("e.",), ("zz", "abcde. a"), ("dd",)]),
        "stop_token_ids": st.sampled_from([frozenset(), frozenset(b"z"), frozenset(b".")]),
        "ignore_eos": st.booleans(),
        "choices": st.integers(1, 2),
        "sampling": st.builds(
            SamplingParams,
            seed=st.integers(0, 3),
            logprobs=st.sampled_from([None, 0, 2]),
            repetition_penalty=st.sampled_from([1.0, 1.0, 1.3]),
        ),
    }
)


@settings(max_examples=100, deadline=None)
@given(
    requests=st.lists(asked, min_size=1, max_size=5),
    arrivals=st.lists(st.integers(0, 12), min_size=5, max_size=5),
    up_to=st.integers(1, 6),
    room=st.integers(0, 20),
    seqs=st.integers(1, 6),
    blocks=st.integers(16, 60),
    saved=st.sampled_from([0, 3, 40]),
    straying=st.integers(2, 40),
    chunks=st.sampled_from([0, 4, 64]),
    chunk_tokens=st.sampled_from([1, 2, 4, 8]),
)
def test_what_readers_see_is_the_same(
    requests, arrivals, up_to, room, seqs, blocks, saved, straying, chunks, chunk_tokens
):
    """For any requests in any company, in caches of any size; and no step is overfull."""
    names = [str(index) for index in range(len(requests))]
    seen, statistics, budget = [], [], seqs + room
    for speculate_up_to in (0, up_to):
        runner = DraftingRunner(
            num_blocks=blocks,
            num_saved_blocks=saved,
            straying=straying,
            num_prefix_chunks=chunks if speculate_up_to else 0,
            prefix_chunk_tokens=chunk_tokens,
        )
        crank = Crank(
            runner,
            max_num_seqs=seqs,
            max_step_tokens=budget,
            speculate_up_to=speculate_up_to,
        )
        for step in range(13):
            crank.step(
                *(
                    submit(name, **fields)
                    for name, fields, at in zip(names, requests, arrivals, strict=False)
                    if at == step
                )
            )
        while crank.has_work:
            crank.step()
        seen.append(outcome(crank, names))
        statistics.append(crank.statistics)
        assert crank.is_at_rest()
        assert all(sum(batch) <= budget for batch in runner.batches)
    assert seen[0] == seen[1]
    without, with_drafts = statistics
    assert without.draft_tokens == without.accepted_tokens == 0
    assert with_drafts.accepted_tokens <= with_drafts.draft_tokens
    if without.preemptions == with_drafts.preemptions == 0:
        assert with_drafts.decode_tokens == without.decode_tokens


def test_what_was_drafted_is_kept_for_the_next_turn():
    """Right drafts complete chunks like any other tokens."""
    runner = DraftingRunner(straying=1 << 40, num_prefix_chunks=64, prefix_chunk_tokens=4)
    crank = Crank(runner, speculate_up_to=4)
    crank.run(submit("a", ROUND, max_tokens=40))
    assert crank.statistics.accepted_tokens > 20
    turn = ROUND + crank.text("a")
    crank.run(submit("b", turn + "?", max_tokens=1))
    told = crank.last("b").finished.cached_tokens
    assert told == (len(turn) - 1) // 4 * 4  # the last token was never read back


def test_a_text_that_repeats_takes_few_steps():
    steps = {}
    for up_to in (0, 4):
        crank = Crank(DraftingRunner(straying=1 << 40), speculate_up_to=up_to)
        crank.run(submit("a", ROUND, max_tokens=90))
        steps[up_to] = crank.statistics.steps
        completion = crank.last("a").finished.completions[0]
        assert completion.completion_tokens == 90
    assert steps[0] == 90
    assert steps[4] < 20
    statistics = crank.statistics
    assert statistics.draft_tokens >= statistics.accepted_tokens == 90 - steps[4]


@pytest.mark.parametrize(("count", "speculates"), [(1, True), (3, True), (4, False)])
def test_drafts_are_for_few_sequences(count, speculates):
    crank = Crank(DraftingRunner(), speculate_up_to=3)
    crank.run(*(submit(str(at), ROUND, ignore_eos=True, max_tokens=40) for at in range(count)))
    beside = [drafted for drafted in crank.runner.drafted if len(drafted) == count]
    assert any(any(drafted) for drafted in beside) is speculates


def test_nobody_speculates_while_a_prompt_is_read():
    crank = Crank(
        DraftingRunner(),
        max_step_tokens=32,
        max_num_seqs=4,
        speculate_up_to=4,
    )
    crank.step(submit("a", ROUND, ignore_eos=True))
    for _ in range(5):
        crank.step()
    assert any(map(any, crank.runner.drafted))
    before = len(crank.runner.batches)
    crank.step(submit("b", "x" * 200))
    while crank.core._scheduler.running[-1].num_written == 0:
        crank.step()
    assert len(crank.runner.batches) - before > 5
    assert not any(map(any, crank.runner.drafted[before:]))


def test_who_is_put_aside_holds_no_index():
    """Else there could be as many as sequences, and no bound of their memory would hold."""
    crank = Crank(DraftingRunner(num_blocks=16, num_saved_blocks=16), speculate_up_to=3)
    scheduler = crank.core._scheduler
    crank.step(*(submit(str(at), ROUND, ignore_eos=True, max_tokens=90) for at in range(3)))
    most = 0
    while crank.has_work:
        most = max(most, sum(s.drafts.is_indexed for s in scheduler.running))
        assert not any(s.drafts.is_indexed for s in scheduler.seats.waiting)
        crank.step()
    assert crank.statistics.preemptions > 0
    assert most == 3


def test_where_rows_are_not_exact_nobody_speculates():
    crank = Crank(ScriptedRunner(lambda _: b"abcabcabcabcabcabcabcabc"), speculate_up_to=4)
    crank.run(submit("a"))
    assert crank.statistics.draft_tokens == 0


def sequence_of(tokens: int) -> Sequence:
    asked = submit("a", (ROUND * 20)[:tokens])
    (sequence,) = Request.of(asked, ByteTokenizer(), sequence_ids=iter([0]), rank=0).sequences
    sequence.num_computed, sequence.prompt_length = tokens - 1, tokens - 1
    return sequence


@given(known=st.integers(20, 60), free=st.integers(0, 3), running=st.integers(1, 3))
def test_drafts_leave_each_sequence_a_free_block(known, free, running):
    """Where there are not so many, drafts fill what a sequence has, and take nothing."""
    sequence = sequence_of(known)
    held = -(-known // 8)
    limits = ScriptedRunner(num_blocks=held + free, is_slicing_exact=True).limits
    pool = BlockPool(held + free)
    pool.extend(sequence.table, held)
    speculation = Speculation(limits, EngineConfig(speculate_up_to=4), pool)
    for _ in range(6):
        chosen = speculation.choose([sequence] * running, [sequence], 96.0)
        drafts = chosen.get(sequence, ())
        assert known + len(drafts) <= 8 * len(sequence.table)
        assert len(sequence.table) == held or pool.free >= running
        if free > running:
            assert drafts
        if drafts:
            sequence.drafts.note(len(drafts), len(drafts))


@pytest.mark.parametrize(
    ("step_ms", "token_ms", "running", "count"),
    [
        (9.0, 1.0, 1, 6),  # a row costs a tenth, and 0.7 ** 6 > 0.1
        (90.0, 10.0, 1, 6),
        (9.0, 1.0, 3, 3),  # a quarter of what it costs to bring a token
        (1.0, 1.0, 1, 1),
        (99.0, 0.1, 1, 8),  # all that there ever are
        (9.0, 0.0, 1, 7),  # not known
        (9.0, 0.0, 2, 5),
    ],
)
def test_drafts_are_as_many_as_are_worth_what_a_row_was_measured_to_cost(
    step_ms, token_ms, running, count
):
    sequence = sequence_of(40)
    limits = ScriptedRunner(is_slicing_exact=True, step_ms=step_ms, token_ms=token_ms).limits
    pool = BlockPool(limits.num_blocks)
    pool.extend(sequence.table, 8)
    speculation = Speculation(limits, EngineConfig(speculate_up_to=4), pool)
    chosen = speculation.choose([sequence] * running, [sequence], 96.0)
    assert len(chosen[sequence]) == count


def test_a_fault_that_a_draft_brings_is_nobodys_failure():
    """`RAI` is followed by the prompt's `SE` in the draft, though the text is another one."""
    runner = ScriptedRunner(lambda _: b"RAIN and RAIN and RAIN.", is_slicing_exact=True)
    crank = Crank(runner, speculate_up_to=4)
    crank.run(submit("a", "AISE"), submit("b", "AISE"))
    assert crank.faults
    assert [crank.text(name) for name in "ab"] == ["RAIN and RAIN and RAIN."] * 2
    assert crank.is_at_rest()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_history_of_commands_returns_to_rest(data):
    """And what was handed out is the beginning of what would have been written."""
    crank = Crank(
        DraftingRunner(num_blocks=24, num_saved_blocks=6),
        max_num_seqs=3,
        max_step_tokens=16,
        speculate_up_to=3,
    )
    prompts: dict[str, str] = {}
    for _ in range(data.draw(st.integers(1, 40))):
        match data.draw(st.sampled_from(["submit", "abort", "wait", "step", "step"])):
            case "submit":
                name = str(len(prompts))
                prompts[name] = data.draw(st.sampled_from(["a", ROUND, "RAISE", "NAN", "c" * 60]))
                deadline = data.draw(st.sampled_from([None, crank.now + 3]))
                crank.step(submit(name, prompts[name], deadline=deadline, max_tokens=50))
            case "abort" if prompts:
                name = data.draw(st.sampled_from(sorted(prompts)))
                crank.step(Abort(request_id=name, reason=FinishReason.ABORTED))
            case "wait":
                crank.now += 1
            case _:
                crank.step()
    crank.run()
    assert crank.is_at_rest()
    for name, prompt in prompts.items():
        assert whole(prompt)[: len(crank.tokens(name))] == crank.tokens(name)


@cache
def whole(prompt: str) -> list[int]:
    crank = Crank(DraftingRunner(), speculate_up_to=0)
    crank.run(submit("a", prompt, max_tokens=50))
    return crank.tokens("a")
