"""How far a lost stream had come: every state of a stream is let in, and what never was is not."""

import dataclasses

import pytest
from hypothesis import given, settings

from engine.lost_streams import ChunkTokenizer, Had
from engine.test_core import submit
from engine.test_resumption import asked, hashing_crank, texts_of
from hocket.server.catalogue import ServedModel
from hocket.server.engine.commands import Submit
from hocket.server.engine.endings import Bounds
from hocket.server.errors import InvalidRequest
from hocket.server.rpc.limits import Violations
from hocket.server.rpc.parse import Checked, check
from hocket.server.rpc.resume import LostStream, check_received
from hocket.server.text.assembly import TextAssembly
from hocket.server.text.pieces import Granularity
from hocket.server.text.stopping import StopStrings
from hocket.v1 import generation_pb2
from rpc.served import served_model


def found(request: Submit, had: Had, *, sentences: int | None = None) -> dict[str, str]:
    """Return what is wrong with what a reader says it has."""
    tokenizer, violations = ChunkTokenizer(), Violations()
    is_counted = request.granularity is not Granularity.TOKEN
    lost = LostStream(
        token=b"",
        token_ids=had.token_ids,
        text_bytes=had.text_bytes,
        sentences=had.pieces * is_counted if sentences is None else sentences,
    )
    stopping = request.stopping
    bounds = Bounds(stopping=stopping, end_token_ids=tokenizer.end_token_ids, room=4_000)
    assembly = TextAssembly(
        tokenizer,
        stops=StopStrings(stopping.stop),
        granularity=request.granularity,
        sentences=request.sentences,
    )
    check_received(lost, bounds, assembly, violations)
    return {item.field: item.description for item in violations.found}


@settings(max_examples=40, deadline=None)
@given(request=asked)
def test_every_state_of_a_stream_is_let_in(request):
    """And none with a token, a byte or a sentence too many, as far as its tokens can tell."""
    crank = hashing_crank()
    crank.run(request)
    texts = texts_of(crank, "whole")
    whole = Had().and_then(texts)
    for cut in range(len(texts) + 1):
        had = Had().and_then(texts[:cut])
        assert found(request, had) == {}
        after = dataclasses.replace(had, text_bytes=whole.text_bytes + 4)
        assert set(found(request, after)) == {"resume.received_bytes"}
        if had.token_ids:
            nothing = dataclasses.replace(had, text_bytes=0)
            assert "resume.received_bytes" in found(request, nothing) or not had.text_bytes
        if request.granularity is Granularity.TOKEN:
            assert set(found(request, had, sentences=1)) == {"resume.received_sentences"}
    beyond = dataclasses.replace(whole, token_ids=(*whole.token_ids, 0))
    (field,) = found(request, beyond)
    assert field in {"resume.token_ids", f"resume.token_ids[{len(whole.token_ids)}]"}
    assert set(found(request, whole, sentences=whole.pieces + 1)) == {"resume.received_sentences"}


@pytest.mark.parametrize(
    ("had", "field"),
    [
        (Had((), 1, 0), "resume.received_bytes"),
        (Had((0,), 0, 0), "resume.received_bytes"),  # a token without its text
        (Had((0,), 5, 1), "resume.received_bytes"),
        (Had((0, 1), 4, 1), "resume.received_bytes"),
        (Had((7, 8), 2, 1), "resume.received_bytes"),  # half a character
        (Had((7,), 2, 1), "resume.received_bytes"),
        (Had((5,), 5, 2), "resume.received_sentences"),
        (Had((0, 1, 2), 11, 0), "resume.received_sentences"),
        (Had((0, 1, 2), 11, 99), "resume.received_sentences"),
        (Had((1, 256, 1), 2, 1), "resume.token_ids[2]"),
        (Had((1,) * 9, 18, 1), "resume.token_ids"),
    ],
)
def test_what_never_was_is_not_let_in(had, field):
    request = submit("whole", max_tokens=8, granularity=Granularity.SENTENCE)
    assert list(found(request, had)) == [field]


def checked(model: ServedModel | None = None, **fields) -> Checked:
    request = generation_pb2.GenerateRequest(**({"prompt": "hi"} | fields))
    return check(
        request, model or served_model(), arrived=0, remaining=None, max_message_bytes=1 << 20
    )


def refused(**fields) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        checked(**fields).encode()
    return [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize(
    "output", [{"n": 2}, {"logprobs": 0}, {"prompt_logprobs": 0}, {"granularity": 4}]
)
def test_some_streams_cannot_be_gone_on_with(output):
    assert checked(output=output).bond is None
    assert refused(output=output, resume={}) == ["resume"]


def test_streams_with_penalties_can():
    assert checked(sampling={"repetition_penalty": 1.3}).bond is not None


def test_token_ids_are_those_of_the_model():
    assert refused(resume={"token_ids": [1, 260, 261]}) == ["resume.token_ids[1]"]


def test_fields_are_held_against_the_text():
    """By a text thread, before anything is computed."""
    output = {"granularity": 1}
    resume = {"token_ids": list(b"You"), "received_bytes": 4}
    assert refused(output=output, resume=resume) == ["resume.received_bytes"]
    stopping = {"max_tokens": 2}
    assert refused(stopping=stopping, resume=resume) == ["resume.token_ids"]
    submit = checked(output=output, resume=resume | {"received_bytes": 3}).with_seed(9).encode()
    assert (submit.resumed_token_ids, submit.received_bytes) == (tuple(b"You"), 3)
    assert submit.sampling.seed == 9


def test_a_stream_of_which_nothing_came_begins_again():
    submit = checked(resume={}).encode()
    assert (submit.resumed_token_ids, submit.received_bytes) == ((), 0)
