"""What a request costs while it waits, runs, and is not read: bounded, and told as it is."""

import gc
import random
import string
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from engine.test_core import Crank, submit
from hocket.server.engine.commands import Logprobs, TextOutput
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.drafts import INDEX_BYTES, Drafts
from hocket.server.engine.mailbox import logprobs_weight, weight
from hocket.server.engine.sampling import SamplingParams
from hocket.server.text.pieces import Granularity, Piece, PieceKind
from hocket.server.text.stopping import StopStrings

KIB = 1_024
RANDOM = random.Random(1)


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Give a function that returns the bytes allocated since, and still held."""
    tracemalloc.start()
    begin = tracemalloc.get_traced_memory()[0]
    try:
        yield lambda: tracemalloc.get_traced_memory()[0] - begin
    finally:
        tracemalloc.stop()


def largest_stops() -> tuple[str, ...]:
    return tuple("".join(RANDOM.choices(string.ascii_letters, k=256)) for _ in range(16))


@pytest.mark.parametrize("choices", [1, 16])
def test_a_request_that_waits_is_small(choices):
    """With a long prompt, the largest stop strings, and as many choices as there may be."""
    crank = Crank(max_num_seqs=1)
    crank.step(submit("runs"))
    asked = [submit(f"w{i}", "x" * 4_000, choices=choices, stop=largest_stops()) for i in range(8)]
    with traced() as held:
        crank.step(*asked)
        assert held() / len(asked) < (500 + 2 * choices) * KIB


def test_choices_that_run_share_their_stop_strings():
    """They were made ready before, once; each choice has but a text of its own."""
    stops = StopStrings(largest_stops())
    crank = Crank()
    asked = submit("a", choices=16, stops=stops)
    with traced() as held:
        crank.step(asked)
        assert held() < 16 * 8 * KIB
    assert len(crank.core._scheduler.running) == 16


def a_piece(tokens: int, tops: int | None) -> TextOutput:
    text = "".join(RANDOM.choices(string.ascii_letters, k=5 * tokens))
    return TextOutput(
        0,
        Piece(text, 1_000, 1_000 + len(text), PieceKind.DELTA),
        tuple(RANDOM.randrange(1_000, 49_000) for _ in range(tokens)),
        () if tops is None else told(tokens, tops),
    )


def told(positions: int, tops: int) -> tuple[Logprobs, ...]:
    return tuple(
        Logprobs(
            -RANDOM.random(),
            tuple((RANDOM.randrange(1_000, 49_000), -RANDOM.random()) for _ in range(tops)),
        )
        for _ in range(positions)
    )


@pytest.mark.parametrize("tokens", [1, 30, 1_000])
@pytest.mark.parametrize("tops", [None, 0, 20])
def test_a_mailbox_weighs_what_it_holds(tokens, tops):
    """Within a factor of two, for pieces of any kind."""
    count = max(1, 2_000 // tokens)
    with traced() as held:
        pieces = [a_piece(tokens, tops) for _ in range(count)]
        real = held()
    assert 1 / 2 < sum(map(weight, pieces)) / real < 2


@pytest.mark.parametrize("tops", [0, 20])
def test_what_is_told_of_a_prompt_weighs_what_it_takes(tops):
    with traced() as held:
        found = told(1_000, tops)
        real = held()
    assert 1 / 2 < logprobs_weight(found) / real < 2


def test_log_probabilities_that_were_handed_out_are_not_kept():
    crank = Crank()
    asked = SamplingParams(logprobs=20)
    crank.step(submit("a", sampling=asked, granularity=Granularity.TOKEN))
    (sequence,) = crank.core._scheduler.running
    while crank.has_work:
        assert len(sequence.logprobs) == 0
        crank.step()
    told = [text for output in crank.outputs["a"] for text in output.texts]
    assert sum(len(text.token_ids) for text in told) > 30
    assert all(len(text.token_ids) == len(text.logprobs) for text in told)


@pytest.mark.parametrize("tokens", [2_048, 8_448, 17_000])
def test_an_index_of_drafts_takes_what_the_settings_say(tokens):
    """Of a text in which nothing comes twice, just after its tables grew, and forgotten again."""
    text = [RANDOM.randrange(1 << 30) for _ in range(tokens)]
    drafts = Drafts()
    gc.collect()  # gives back the tuples that the interpreter keeps for later
    with traced() as held:
        for end in range(256, tokens + 256, 256):
            drafts.propose(text[:end], 8, 0.1)
        assert 300 < held() / tokens < INDEX_BYTES
        assert str(INDEX_BYTES) in (EngineConfig.__doc__ or "")
        drafts.forget()
        gc.collect()
        assert held() < 64 * KIB
