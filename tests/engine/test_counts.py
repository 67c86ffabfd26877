"""The counts of a sequence are those of its tokens, however they came."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hocket.server.engine.counts import TokenCounts
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.engine.sequence import Sequence
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.text.assembly import TextAssembly
from hocket.server.text.pieces import Granularity, SentenceOptions


class Watched(list):
    """Tokens that note which of them are read."""

    def __init__(self, *tokens: int) -> None:
        super().__init__(tokens)
        self.read: list[int] = []

    def __getitem__(self, position):
        if isinstance(position, int):
            self.read.append(position)
        return super().__getitem__(position)


def sequence(tokens: list[int], prompt_length: int, **sampling) -> Sequence:
    return Sequence(
        sequence_id=1,
        request_id="a",
        choice_index=0,
        rank=0,
        group="a",
        seed=0,
        sampling=SamplingParams(**sampling),
        stopping=StoppingParams(max_tokens=100),
        barred_token_ids=(),
        token_ids=tokens,
        prompt_length=prompt_length,
        assembly=TextAssembly(
            ByteTokenizer(), stops=(), granularity=Granularity.TOKEN, sentences=SentenceOptions()
        ),
    )


@given(
    tokens=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    prompt_length=st.integers(0, 40),
    ends=st.lists(st.integers(0, 40)),
)
def test_counts_are_those_of_the_tokens(tokens, prompt_length, ends):
    """In whatever parts they came."""
    counts = TokenCounts()
    for end in sorted(ends):
        counts.catch_up(tokens[:end], prompt_length)
    counts.catch_up(tokens, prompt_length)
    assert list(dict.fromkeys(tokens)) == list(counts.known_ids)
    written = dict(zip(counts.written_ids, counts.written_times, strict=True))
    assert Counter(tokens[prompt_length:]) == written


def test_a_step_reads_what_is_new():
    """Not the whole history."""
    tokens = Watched(*range(100))
    counts = TokenCounts()
    counts.catch_up(tokens, 90)
    tokens.append(7)
    tokens.read.clear()
    counts.catch_up(tokens, 90)
    assert tokens.read == [100]


def test_a_request_carries_counts_where_penalties_ask_for_them():
    """After a preemption, too: what is computed again is not counted again."""
    penalised = sequence([1, 2, 2], 2, frequency_penalty=0.5)
    for num_computed in (2, 0):
        penalised.num_computed = num_computed
        counts = penalised.slice(3 - num_computed).samples[0].counts
        assert list(counts.known_ids) == [1, 2]
        assert (list(counts.written_ids), list(counts.written_times)) == ([2], [1])
    penalised.token_ids.append(2)
    penalised.num_computed = 3
    assert list(penalised.slice(1).samples[0].counts.written_times) == [2]


def test_a_request_without_penalties_counts_nothing():
    """Its history may be long."""
    plain = sequence(Watched(1, 2, 3), 2)
    assert plain.slice(3).samples[0].counts is None
    assert plain.token_ids.read == []
