"""The runner without a model shows what a real one would: stale blocks, and what is no number."""

import pytest

from hocket.server.engine.batch import Batch, SampleRequest, SequenceSlice
from hocket.server.engine.sampling import SamplingParams
from hocket.server.testing.scripted_runner import Broken, ScriptedRunner

STALE = "holds another's token"


def slice_of(text: bytes, blocks: list[int], *, owner: int = 0, start: int = 0) -> SequenceSlice:
    return SequenceSlice(
        sequence_id=owner,
        token_ids=list(text),
        start=start,
        prompt_length=start + len(text),
        block_table=blocks,
    )


def compute(runner: ScriptedRunner, *slices: SequenceSlice) -> list[str | None]:
    return [result.failure for result in runner.execute(Batch(slices)).results]


@pytest.fixture
def runner() -> ScriptedRunner:
    """With the eight tokens of sequence 0 in block 2."""
    runner = ScriptedRunner(block_size=8, num_blocks=6)
    assert compute(runner, slice_of(b"abcdefgh", [2])) == [None]
    return runner


@pytest.mark.parametrize(
    "wrong",
    [
        slice_of(b"i", [2, 3], owner=1, start=8),  # another's block
        slice_of(b"i", [3, 2], start=8),  # a block that was never written
        slice_of(b"i", [4, 2, 3], start=16),  # the right block at the wrong place
        slice_of(b"i", [2], owner=1, start=3),  # and in the middle of one
    ],
)
def test_what_was_left_by_others_is_not_read(runner, wrong):
    with pytest.raises(AssertionError, match=STALE):
        compute(runner, wrong)


def test_a_move_leaves_its_source_as_it_was(runner):
    """Both hold the tokens then, as in a real cache: whoever forgets the move is not found out."""
    runner.move_blocks([(2, 0)])
    assert compute(runner, slice_of(b"i", [0, 1], start=8)) == [None]
    assert compute(runner, slice_of(b"i", [2, 3], start=8)) == [None]
    with pytest.raises(AssertionError, match=STALE):
        compute(runner, slice_of(b"i", [2, 3], owner=1, start=8))


def test_a_copy_is_of_its_own_time(runner):
    runner.save_blocks(0, [2])
    assert compute(runner, slice_of(b"another", [2], owner=1)) == [None]
    runner.load_blocks(0, [5])
    assert compute(runner, slice_of(b"i", [5, 4], start=8)) == [None]


def test_what_is_no_number_spoils_its_block_until_it_is_cleared(runner):
    """It is cleared where it was met; what was moved away before is somebody else's trouble."""
    clear = runner._clear
    runner._clear = lambda *_: None
    assert compute(runner, slice_of(b"NAN", [0], owner=1)) == ["non_finite"]
    runner._clear = clear
    assert compute(runner, slice_of(b"i", [0], owner=2)) == ["non_finite"]
    assert compute(runner, slice_of(b"i", [0], owner=2)) == [None]


def test_a_batch_that_raises_leaves_nothing_but_numbers(runner):
    with pytest.raises(Broken):
        compute(runner, slice_of(b"NAN", [0], owner=1), slice_of(b"RAISE", [1], owner=2))
    assert compute(runner, slice_of(b"i", [0], owner=3)) == [None]


def drafted(known: bytes, drafts: bytes) -> SequenceSlice:
    """Return a sequence of the prompt `x` that knows these tokens and computes drafts beside."""
    samples = tuple(
        SampleRequest(
            params=SamplingParams(), seed=0, position=1 + len(known) + at, prompt_length=1
        )
        for at in range(len(drafts) + 1)
    )
    return SequenceSlice(
        sequence_id=0,
        token_ids=b"x" + known + drafts,
        start=0,
        prompt_length=1,
        block_table=[0, 1],
        samples=samples,
    )


@pytest.mark.parametrize(
    ("drafts", "drawn"),
    [(b"", b"c"), (b"c", b"cd"), (b"cdef", b"cdefg"), (b"cdxf", b"cde"), (b"xdef", b"c")],
)
def test_tokens_are_drawn_as_far_as_drafts_are_right(drafts, drawn):
    runner = ScriptedRunner(lambda _: b"abcdefgh", block_size=8, num_blocks=6)
    (result,) = runner.execute(Batch((drafted(b"ab", drafts),))).results
    assert bytes(token.token_id for token in result.tokens) == drawn


def test_a_draft_that_is_no_number_fails_nobody():
    runner = ScriptedRunner(lambda _: b"NABC", block_size=8, num_blocks=6)
    (result,) = runner.execute(Batch((drafted(b"NA", b"N"),))).results
    assert bytes(token.token_id for token in result.tokens) == b"B"
    assert compute(runner, slice_of(b"i", [0], owner=2)) == [None]
