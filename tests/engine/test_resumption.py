"""A stream that is lost and gone on with is the stream that was never lost."""

from dataclasses import replace
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.lost_streams import ChunkTokenizer, Had, HashingRunner
from engine.test_core import Crank, submit
from hocket.server.engine import core
from hocket.server.engine.commands import Abort, Finished, FinishReason, Submit, TextOutput
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.core import EngineCore
from hocket.server.engine.resumption import Received
from hocket.server.engine.sampling import SamplingParams
from hocket.server.errors import GenerationFailed, QueueTimeout
from hocket.server.testing.scripted_runner import ScriptedRunner
from hocket.server.text.assembly import AssembledPiece
from hocket.server.text.pieces import Granularity, Piece, PieceKind

IN_PIECES = (Granularity.TOKEN, Granularity.SENTENCE, Granularity.PARAGRAPH)


def hashing_crank(**config) -> Crank:
    crank = Crank(HashingRunner(num_prefix_chunks=16), **config)
    crank.core = EngineCore(
        crank.runner,
        ChunkTokenizer(),
        EngineConfig(**({"max_num_seqs": 8} | config)),
        lambda: crank.now,
        on_fault=crank.faults.append,
    )
    return crank


def texts_of(crank: Crank, name: str) -> list[TextOutput]:
    return [text for output in crank.outputs[name] for text in output.texts]


def told(finished: Finished) -> tuple[object, ...]:
    """Return what `Finished` says that does not hang on time and cache."""
    return finished.completions, finished.prompt_tokens, finished.completion_tokens


asked = st.builds(
    submit,
    st.just("whole"),
    st.text("abc. ", min_size=1, max_size=12),
    max_tokens=st.integers(1, 40),
    min_tokens=st.integers(0, 20),
    stop=st.sampled_from([(), ("STOP",), ("3.5", "TOP"), ("\n\n", "said?")]),
    stop_token_ids=st.sampled_from([frozenset(), frozenset({4})]),
    ignore_eos=st.booleans(),
    granularity=st.sampled_from(IN_PIECES),
    sampling=st.builds(
        SamplingParams,
        seed=st.integers(0, 1_000),
        temperature=st.sampled_from([0.0, 1.0]),
        repetition_penalty=st.sampled_from([1.0, 1.3]),
    ),
)


@settings(max_examples=40, deadline=None)
@given(
    request=asked, step_tokens=st.integers(2, 40), part=st.sampled_from([1, 3, 256]), data=st.data()
)
def test_what_was_had_and_what_comes_is_the_whole(request: Submit, step_tokens, part, data):
    """For every place where a stream may break, and again where what goes on breaks."""
    with mock.patch.object(core, "_REPLAYED_TOKENS", part):
        check_every_cut(request, step_tokens, data)


def check_every_cut(request: Submit, step_tokens: int, data: st.DataObject) -> None:
    config = {"max_step_tokens": step_tokens, "max_num_seqs": min(8, step_tokens)}
    crank = hashing_crank(**config)
    crank.run(request)
    whole, end = texts_of(crank, "whole"), crank.last("whole").finished
    for cut in range(len(whole) + 1):
        crank = hashing_crank(**config)
        had = Had().and_then(whole[:cut])
        crank.run(had.resume(request, "on"))
        assert whole[:cut] + texts_of(crank, "on") == whole
        assert told(crank.last("on").finished) == told(end)
        assert crank.outputs["on"][0].started is not None
        again = data.draw(st.integers(0, len(whole) - cut))
        had = had.and_then(whole[cut : cut + again])
        crank.run(had.resume(request, "further"))
        assert whole[: cut + again] + texts_of(crank, "further") == whole
        assert told(crank.last("further").finished) == told(end)
        assert crank.is_at_rest()


@settings(max_examples=40, deadline=None)
@given(request=asked, steps=st.integers(0, 60))
def test_a_text_that_is_cut_goes_on_elsewhere(request: Submit, steps):
    """Nothing is said in its stead that only its end would have decided."""
    request = replace(request, is_resumable=True)
    crank = hashing_crank()
    crank.run(request)
    whole, end = texts_of(crank, "whole"), crank.last("whole").finished
    crank = hashing_crank()
    crank.step(replace(request, request_id="cut"))
    for _ in range(steps):
        crank.step()
    crank.step(Abort(request_id="cut", reason=FinishReason.ABORTED, is_cut=True))
    had = texts_of(crank, "cut")
    assert had == whole[: len(had)]
    crank.run(Had().and_then(had).resume(request, "on"))
    assert had + texts_of(crank, "on") == whole
    assert told(crank.last("on").finished) == told(end)


def test_a_text_that_had_ended_ends_at_once():
    """Nothing is computed; how it ended is told."""
    for fields in ({}, {"max_tokens": 9}, {"stop": ("that",)}):
        crank = Crank()
        crank.run(submit("whole", **fields))
        had = Had().and_then(texts_of(crank, "whole"))
        batches = len(crank.runner.batches)
        crank.step(had.resume(submit("whole", **fields), "on"))
        (output,) = crank.outputs["on"]
        assert len(crank.runner.batches) == batches
        assert output.started is not None
        assert output.texts == ()
        assert told(output.finished) == told(crank.last("whole").finished)
        assert crank.is_at_rest()


def test_a_long_text_is_written_again_beside_running_streams():
    """A bounded number of tokens a step, while the others get theirs."""
    crank = Crank()
    lost = submit("on", max_tokens=1_000, granularity=Granularity.TOKEN)
    known = tuple(b"x" * 600)
    crank.step(submit("stream", granularity=Granularity.TOKEN))
    before = len(crank.tokens("stream"))
    crank.step(Had(known, 600).resume(lost, "on"))
    crank.step()
    assert crank.statistics.waiting_sequences == 1
    assert [sum(batch) for batch in crank.runner.batches[-2:]] == [1, 1]
    crank.step()
    assert sum(crank.runner.batches[-1]) > 1
    assert len(crank.tokens("stream")) == before + 3
    crank.run()
    assert crank.last("on").finished.completion_tokens > 600
    assert crank.is_at_rest()


def test_one_that_is_written_again_can_be_ended():
    """Its reader is told of all that it had, and of nothing twice."""
    crank = Crank()
    lost = submit("on", max_tokens=1_000, granularity=Granularity.TOKEN)
    crank.step(Had(tuple(b"x" * 600), 600).resume(lost, "on"))
    crank.step(Abort(request_id="on", reason=FinishReason.ABORTED))
    (completion,) = crank.last("on").finished.completions
    assert (completion.completion_tokens, completion.text_bytes) == (600, 600)
    assert crank.text("on") == ""
    crank.run()
    assert not crank.has_work
    assert crank.is_at_rest()


def test_what_is_known_of_the_rest_waits_for_its_turn():
    """A token that ends several sentences: those not had come behind `Started`, and once."""
    request = submit("on", granularity=Granularity.SENTENCE, max_tokens=3)
    request = Had((5,), len(" Go. ")).resume(request, "on")  # of " Go. Yes. No"
    crank = hashing_crank(max_num_seqs=1)
    crank.step(submit("first", max_tokens=20))
    crank.step(request)
    assert "on" not in crank.outputs
    crank.run()
    assert crank.outputs["on"][0].started is not None
    first = texts_of(crank, "on")[0]
    assert (first.piece.text, first.piece.start_byte, first.token_ids) == ("Yes. ", 5, ())


@pytest.mark.parametrize("reason", [FinishReason.CANCELLED, FinishReason.TIME_BUDGET])
def test_one_that_waits_can_be_ended(reason):
    """With what its tokens hold beyond what its reader has."""
    crank = Crank(max_num_seqs=1)
    whole = submit("on", granularity=Granularity.SENTENCE)
    crank.step(submit("first"), Had(tuple(b"You said"), 4).resume(whole, "on"))
    crank.step(Abort(request_id="on", reason=reason))
    (output,) = crank.outputs["on"]
    (completion,) = output.finished.completions
    assert (completion.finish_reason, completion.completion_tokens) == (reason, 8)
    assert [text.piece for text in output.texts] == [Piece("said", 4, 8, PieceKind.TAIL)]
    crank.run()
    assert crank.is_at_rest()


def test_one_that_expires_while_it_waits_never_starts():
    crank = Crank(max_num_seqs=1)
    late = submit("on", deadline=1.0, granularity=Granularity.TOKEN)
    crank.step(submit("first"), Had(tuple(b"You"), 1).resume(late, "on"))
    crank.now = 2.0
    crank.step()
    (output,) = crank.outputs["on"]
    assert isinstance(output.failure, QueueTimeout)
    assert output.texts == ()
    crank.run()
    assert crank.is_at_rest()


def test_one_that_cannot_be_computed_is_the_first_suspect():
    """It never got a token here, so that nobody else is tried in its place."""
    crank = Crank()
    crank.step(submit("well"))
    crank.run(Had(tuple(b"RAISE"), 5).resume(submit("on", granularity=Granularity.TOKEN), "on"))
    assert isinstance(crank.last("on").failure, GenerationFailed)
    assert crank.last("well").finished is not None
    assert crank.is_at_rest()


def test_a_text_that_goes_on_behind_its_end_fails_alone():
    """The porch lets none through: the slip would be ours."""
    crank = Crank()
    crank.run(submit("well"), Had(tuple(b"You s"), 5).resume(submit("on", max_tokens=3), "on"))
    assert isinstance(crank.last("on").failure, GenerationFailed)
    assert crank.last("well").finished is not None
    assert crank.is_at_rest()


def test_cached_tokens_stay_below_the_prompts():
    """Also where the cache knows what was written behind it."""
    crank = Crank(ScriptedRunner(num_prefix_chunks=64, is_slicing_exact=True))
    crank.run(submit("whole", "hello"))
    had = Had().and_then(texts_of(crank, "whole")[:2])
    crank.run(had.resume(submit("whole", "hello"), "on"))
    assert crank.outputs["on"][0].started.cached_tokens == 4
    assert crank.last("on").finished.cached_tokens == 4


@given(
    begin=st.integers(0, 6), text=st.text("aé🙂", max_size=4), first=st.integers(0, 5),
    count=st.integers(0, 4), tokens=st.integers(0, 9), at=st.integers(0, 9),
)  # fmt: skip
def test_the_rest_of_a_piece_goes_on_where_the_reader_is(begin, text, first, count, tokens, at):
    """Whatever a text does that is not what it was: no byte and no token is sent twice."""
    ends = [begin + len(text[:n].encode()) for n in range(len(text) + 1)]
    places = [*range(begin), *ends, ends[-1] + 1]
    received = Received(tokens, places[at % len(places)])
    piece = Piece(text, begin, ends[-1], PieceKind.SENTENCE)
    rest = received.rest_of(AssembledPiece(piece, first, count))
    wanted_tokens = [token for token in range(first, first + count) if token >= tokens]
    wanted = text.encode()[max(0, received.text_bytes - begin) :].decode()
    if rest is None:
        assert (wanted, wanted_tokens) == ("", [])
        return
    assert rest.piece.text == wanted
    assert rest.piece.end_byte - rest.piece.start_byte == len(wanted.encode())
    assert rest.piece.start_byte == max(begin, received.text_bytes)
    assert list(range(rest.first_token, rest.first_token + rest.token_count)) == wanted_tokens
