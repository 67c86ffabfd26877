"""What others computed is copied, not computed again; no text ever shows it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.test_core import Crank, submit
from engine.test_isolation import Leaky
from hocket.server.engine import scheduler
from hocket.server.engine.commands import Abort, FinishReason
from hocket.server.engine.prefix_index import PrefixIndex
from hocket.server.engine.sampling import SamplingParams
from hocket.server.errors import GenerationFailed
from hocket.server.testing.scripted_runner import ScriptedRunner, echo

PROMPT = "a prompt that many share"  # six chunks of four tokens


def cached(crank: Crank, name: str) -> int:
    """What a request is told of it: the same at its start and at its end."""
    started, finished = crank.outputs[name][0].started, crank.last(name).finished
    assert started.cached_tokens == finished.cached_tokens
    return started.cached_tokens


def computed(crank: Crank) -> int:
    return sum(map(sum, crank.runner.batches))


@settings(max_examples=150, deadline=None)
@given(
    prompts=st.lists(
        st.tuples(st.sampled_from(["", "aaaabbbb", "aaaabbbbccc"]), st.text("ab", max_size=20)),
        min_size=1,
        max_size=8,
    ),
    arrivals=st.lists(st.integers(0, 40), min_size=8, max_size=8),
    choices=st.integers(1, 3),
    step_tokens=st.integers(3, 40),
    blocks=st.integers(16, 60),
    saved=st.sampled_from([0, 3]),
    chunks=st.sampled_from([0, 1, 5, 64]),
    chunk_tokens=st.sampled_from([1, 2, 4, 8]),
    copy_cost=st.sampled_from([scheduler.COPY_COST, 1.0, 3.0]),
    is_exact=st.booleans(),
)
def test_no_text_depends_on_what_is_kept(
    prompts,
    arrivals,
    choices,
    step_tokens,
    blocks,
    saved,
    chunks,
    chunk_tokens,
    copy_cost,
    is_exact,
):
    """Whether the store is off, tiny or large, whoever came before, preempted or not.

    And however many steps a copy is divided over.
    """
    runner = ScriptedRunner(
        num_blocks=blocks,
        num_saved_blocks=saved,
        num_prefix_chunks=chunks,
        prefix_chunk_tokens=chunk_tokens,
        is_slicing_exact=is_exact,
    )
    crank = Crank(runner, max_num_seqs=3, max_step_tokens=step_tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "COPY_COST", copy_cost)
        check_that_no_text_depends_on_it(crank, prompts, arrivals, choices)
    assert crank.statistics.prefix_chunks_used <= crank.statistics.prefix_chunks_total == chunks


def check_that_no_text_depends_on_it(crank, prompts, arrivals, choices) -> None:
    texts = {str(index): f"{start}{end}x" for index, (start, end) in enumerate(prompts)}
    for step in range(41):
        arriving = [name for name in texts if arrivals[int(name)] == step]
        crank.step(*(submit(name, texts[name], choices=choices) for name in arriving))
    while crank.has_work:
        crank.step()
    for name, text in texts.items():
        for choice in range(choices):
            assert crank.text(name, choice).encode() == echo(text.encode())
        assert 0 <= cached(crank, name) < len(text)
    assert crank.is_at_rest()
    statistics = crank.statistics
    assert statistics.prefix_hit_tokens <= statistics.prefix_queried_tokens
    assert not crank.faults


def test_a_second_request_computes_only_what_is_new():
    crank = Crank()
    crank.run(submit("first", PROMPT))
    before = computed(crank)
    crank.run(submit("second", PROMPT + "!", max_tokens=1))
    assert (cached(crank, "first"), cached(crank, "second")) == (0, 24)
    assert computed(crank) - before == 1
    assert crank.statistics.prefix_hit_tokens == 24
    assert crank.statistics.prefix_queried_tokens == 2 * len(PROMPT) + 1


def test_a_token_is_left_to_compute():
    """The very same prompt, even if all of it is whole chunks."""
    crank = Crank()
    crank.run(submit("first", PROMPT), submit("second", PROMPT, deadline=None))
    crank.run(submit("third", PROMPT))
    assert cached(crank, "third") == len(PROMPT) - 4
    assert crank.text("third").encode() == echo(PROMPT.encode())


def test_a_burst_finds_what_its_first_has_computed_so_far():
    """While the prompt of the first is still in the making."""
    crank = Crank(max_num_seqs=8, max_step_tokens=8)
    crank.run(submit("first", PROMPT * 4), submit("second", PROMPT * 4))
    assert cached(crank, "second") > 0


def test_choices_that_start_later_find_the_prompt():
    crank = Crank(max_num_seqs=1)
    crank.run(submit("a", PROMPT, choices=4, max_tokens=2))
    assert crank.statistics.prefix_hit_tokens == 3 * (len(PROMPT) - 4)
    assert cached(crank, "a") == 0


@pytest.mark.parametrize("is_exact", [False, True])
def test_an_answer_is_a_prefix_too_where_it_is_the_same_to_the_bit(is_exact):
    """As it is in the next turn of a conversation."""
    crank = Crank(ScriptedRunner(num_prefix_chunks=64, is_slicing_exact=is_exact))
    crank.run(submit("first", PROMPT, max_tokens=16))
    answer = crank.text("first")
    crank.run(submit("second", PROMPT + answer + " And?"))
    # Of the answer's last token nothing was computed.
    assert cached(crank, "second") == len(PROMPT) + (12 if is_exact else 0)


@pytest.mark.parametrize("is_exact", [False, True])
def test_what_was_put_aside_finds_its_own_again(is_exact):
    """Its prompt, and what it wrote where that is the same to the bit."""
    runner = ScriptedRunner(
        num_blocks=14, num_saved_blocks=0, num_prefix_chunks=64, is_slicing_exact=is_exact
    )
    crank = Crank(runner)
    names = [f"n{index}" for index in range(6)]
    crank.run(*(submit(name, name * 8) for name in names))
    without = Crank(ScriptedRunner(num_blocks=14, num_saved_blocks=0, num_prefix_chunks=0))
    without.run(*(submit(name, name * 8) for name in names))
    assert crank.statistics.preemptions > 0
    assert crank.statistics.prefix_hit_tokens > 0
    assert computed(crank) < computed(without)
    for name in names:
        assert crank.text(name) == without.text(name)
        assert cached(crank, name) == 0


def test_who_asks_for_the_prompts_logprobs_gets_all_of_them():
    """It computes the whole prompt, and others find it."""
    crank = Crank()
    asked = SamplingParams(prompt_logprobs=0)
    for name in ("first", "second"):
        crank.run(submit(name, PROMPT, sampling=asked))
        assert cached(crank, name) == 0
        assert len(crank.last(name).finished.prompt_logprobs) == len(PROMPT) - 1
    assert crank.statistics.prefix_queried_tokens == 0
    crank.run(submit("third", PROMPT))
    assert cached(crank, "third") > 0


@pytest.mark.parametrize("poison", ["NAN", "RAISE"])
def test_of_what_failed_nothing_is_kept(poison):
    """And a good prompt that begins alike is none the worse for it."""
    crank = Crank()
    crank.run(submit("bad", PROMPT + poison), submit("good", PROMPT))
    assert isinstance(crank.last("bad").failure, GenerationFailed)
    assert crank.text("good").encode() == echo(PROMPT.encode())
    crank.run(submit("again", PROMPT + poison))
    assert isinstance(crank.last("again").failure, GenerationFailed)
    alone = Crank()
    alone.run(submit("bad", poison + PROMPT))
    assert alone.statistics.prefix_chunks_used == 0


def test_a_request_that_is_cancelled_leaves_what_it_computed():
    crank = Crank(max_step_tokens=8, max_num_seqs=8)
    crank.step(submit("a", PROMPT))
    crank.step(Abort(request_id="a", reason=FinishReason.CANCELLED))
    crank.run(submit("b", PROMPT))
    assert cached(crank, "b") == 8


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("name", ["keep_chunks", "load_chunks"])
def test_a_copy_that_fails_costs_time_and_no_text(name, is_done):
    crank = Crank(Leaky(name, is_done=is_done))
    names = [f"n{index}" for index in range(6)]
    for one in names:
        crank.run(submit(one, PROMPT + one))
        assert crank.text(one).encode() == echo((PROMPT + one).encode())
        assert cached(crank, one) == 0
    assert crank.runner.raised == len(crank.faults) > 0
    assert crank.is_at_rest()


def test_what_is_used_stays():
    """A prompt that comes again and again outlives any number of others."""
    crank = Crank(ScriptedRunner(num_prefix_chunks=24))
    crank.run(submit("shared", PROMPT, max_tokens=1))
    for number in range(20):
        crank.run(submit(f"other{number}", f"{number:02}" * 8, max_tokens=8))
        crank.run(submit(f"user{number}", PROMPT + "!", max_tokens=1))
        assert cached(crank, f"user{number}") == len(PROMPT)


def test_no_token_is_kept_twice():
    """Where more is computed than there is room for, copies are no more than tokens."""

    class Counting(ScriptedRunner):
        kept = 0

        def keep_chunks(self, chunks) -> None:
            self.kept += len(chunks.slots) * self.limits.prefix_chunk_tokens
            super().keep_chunks(chunks)

    crank = Crank(Counting(num_prefix_chunks=9))
    crank.run(*(submit(f"{number:02}", f"{number:02}" * 8) for number in range(16)))
    assert 0 < crank.runner.kept <= computed(crank)


def test_callers_of_different_names_share_nothing():
    """Else each could ask of a text whether the other had sent it."""
    crank = Crank()
    for name, owner in [("a1", "a"), ("b1", "b"), ("a2", "a"), ("nobody", "")]:
        crank.run(submit(name, PROMPT, owner=owner))
    assert [cached(crank, name) for name in ("a1", "b1", "a2", "nobody")] == [0, 0, 20, 0]


def test_copies_are_part_of_what_a_step_may_do():
    """Newcomers whose prompts are known come in one after the other while streams are written."""
    runner = ScriptedRunner(
        num_blocks=4_096,
        num_prefix_chunks=1_024,
        step_ms=2.0,
        token_ms=1.0,
        max_context_tokens=4_096,
    )
    crank = Crank(runner, max_num_seqs=32, max_step_tokens=512, max_step_ms=20.0)
    prompt = "p" * 2_000
    crank.run(submit("first", prompt, max_tokens=1))
    crank.step(*(submit(f"s{number}", "a", max_tokens=99) for number in range(16)))
    crank.step()
    before = crank.statistics.prefix_hit_tokens
    crank.step(*(submit(f"n{number}", prompt, max_tokens=1) for number in range(16)))
    first = crank.statistics.prefix_hit_tokens - before
    assert 0 < first < 16 * 1_900
    crank.run()
    assert crank.statistics.prefix_hit_tokens - before >= 16 * 1_900


def test_who_waits_for_blocks_costs_no_comparison_in_each_step(monkeypatch):
    """A known prompt that has no room is compared once, however long it waits."""
    compared = 0
    key = PrefixIndex._key

    def counted(*args) -> bytes:
        nonlocal compared
        compared += 1
        return key(*args)

    crank = Crank(ScriptedRunner(num_blocks=16, num_prefix_chunks=64))
    known = "k" * 80
    crank.run(submit("known", known, max_tokens=1))
    crank.step(submit("stream", "s" * 56, max_tokens=60))
    monkeypatch.setattr(PrefixIndex, "_key", counted)
    crank.step(submit("waits", known, max_tokens=1))
    assert compared >= 80 // 4 - 1
    compared, steps = 0, 0
    while "waits" not in crank.outputs and steps < 20:
        crank.step()
        steps += 1
    assert steps == 20
    assert compared == 0  # the prompt of the stream is kept, and what it writes is not
    crank.run()
    assert cached(crank, "waits") == 76


class Copying(ScriptedRunner):
    """Tells of each copy how many tokens it had."""

    def __init__(self, **limits) -> None:
        super().__init__(num_blocks=4_096, num_prefix_chunks=1_024, **limits)
        self.copied: list[int] = []

    def load_chunks(self, chunks) -> None:
        self.copied.append(len(chunks.slots) * self.limits.prefix_chunk_tokens)
        super().load_chunks(chunks)


def test_a_copy_larger_than_a_step_is_divided():
    """Streams go on meanwhile, with steps as long as others; the text is the same."""
    runner = Copying(step_ms=2.0, token_ms=1.0)
    crank = Crank(runner, max_num_seqs=8, max_step_tokens=512, max_step_ms=20.0)
    prompt = "p" * 2_000
    crank.run(submit("known", prompt, max_tokens=1))
    crank.step(*(submit(f"s{number}", "a", max_tokens=99) for number in range(4)))
    crank.step()
    streams = tuple(crank.core._scheduler.running)
    crank.step(submit("new", prompt))
    steps = 1
    while "new" not in crank.outputs:
        assert all(stream.num_written == 2 + steps for stream in streams)
        crank.step()
        steps += 1
    # Twenty milliseconds are 18 tokens; 4 of them are the streams', and each is worth 32 copies.
    assert max(runner.copied) <= 14 * 32
    assert steps == len(runner.copied) == 5
    crank.run()
    assert sum(runner.copied) == cached(crank, "new")
    assert echo(prompt.encode()).startswith(crank.text("new").encode())


def test_what_is_forgotten_in_the_midst_of_a_copy_is_computed():
    runner = Copying()
    crank = Crank(runner, max_num_seqs=1, max_step_tokens=2)
    prompt = "p" * 400
    crank.run(submit("known", prompt, max_tokens=1))
    crank.step(submit("new", prompt))
    crank.step()
    assert sum(runner.copied) == 128
    index = crank.core._scheduler.prefixes.index
    index.drop(index.find(tuple(prompt.encode()), 400)[40:])
    crank.run()
    assert sum(runner.copied) == cached(crank, "new") == 160
    assert crank.text("new").encode() == echo(prompt.encode())
