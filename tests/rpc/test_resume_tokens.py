"""Tokens that nobody but the server can make, good for one request, model, caller and time."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.catalogue import ModelDescription
from hocket.server.errors import InvalidRequest, Reason, StartupError
from hocket.server.rpc.resume_tokens import Bond, ResumeConfig, ResumeTokens
from hocket.server.testing.serving import ScriptedModel
from hocket.v1 import generation_pb2

KEY = bytes(range(32))
MODEL = ScriptedModel().description


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock) -> ResumeTokens:
    return ResumeTokens(KEY, max_age_seconds=60, now=clock)


def request(**fields) -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(**({"prompt": "hi"} | fields))


def bond(
    asked: generation_pb2.GenerateRequest | None = None,
    model: ModelDescription = MODEL,
    caller: str = "",
) -> Bond:
    return Bond.of(asked or request(), model, caller)


def refusal(tokens: ResumeTokens, token: bytes, wanted: Bond) -> str:
    with pytest.raises(InvalidRequest) as caught:
        tokens.open(token, wanted)
    (violation,) = caught.value.violations
    assert (violation.field, caught.value.reason) == ("resume.token", Reason.FIELD_INVALID)
    return violation.description


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_a_token_brings_its_seed_back(tokens, seed):
    assert tokens.open(tokens.issue(bond(), seed=seed), bond()) == seed


def test_servers_that_share_a_key_know_each_others_tokens(tokens, tmp_path):
    """And the white space around a key is none of it."""
    path = tmp_path / "key"
    path.write_text("5e" * 32 + "\n")
    first, second = (ResumeTokens.from_config(ResumeConfig(key_file=str(path))) for _ in range(2))
    token = first.issue(bond(), seed=3)
    assert second.open(token, bond()) == 3
    assert "as `Started` gave it" in refusal(tokens, token, bond())
    alone = ResumeTokens.from_config(ResumeConfig())
    assert "as `Started` gave it" in refusal(alone, token, bond())


@given(at=st.integers(0, 96), bit=st.integers(0, 7), cut=st.integers(0, 97))
def test_no_other_bytes_are_a_token(at, bit, cut):
    """A bit turned, an end cut off, nothing at all."""
    tokens = ResumeTokens(KEY, max_age_seconds=60)
    token = tokens.issue(bond(), seed=3)
    assert len(token) == 97
    turned = bytearray(token)
    turned[at] ^= 1 << bit
    for wrong in (bytes(turned), token[:cut] if cut < 97 else token + b"x"):
        assert "as `Started` gave it" in refusal(tokens, wrong, bond())


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (bond(request(prompt="ho")), "another request"),
        (bond(request(sampling={"temperature": 0.5})), "another request"),
        (bond(request(output={"granularity": 1})), "another request"),
        (bond(model=dataclasses.replace(MODEL, name="other")), "another model"),
        (bond(model=dataclasses.replace(MODEL, digest="00")), "another model"),
        (bond(caller="mallory"), "another credential"),
    ],
)
def test_a_token_is_good_for_what_it_was_given_for(tokens, other, text):
    assert text in refusal(tokens, tokens.issue(bond(), seed=3), other)


def test_what_says_nothing_of_the_text_may_differ(tokens):
    other = request(
        request_id="another", priority=3, time_budget={"seconds": 3}, resume={"token": b"x"}
    )
    assert tokens.open(tokens.issue(bond(), seed=3), bond(other)) == 3
    assert other.resume.token == b"x"


def test_a_token_is_good_for_a_while(tokens, clock):
    token = tokens.issue(bond(), seed=3)
    clock.now += 60
    assert tokens.open(token, bond()) == 3
    clock.now += 1
    assert "too old" in refusal(tokens, token, bond())


def test_a_key_that_is_none_stops_the_start(tmp_path):
    short = tmp_path / "short"
    short.write_bytes(b"x" * 31 + b"\n\n")
    for path, text in ((short, "fewer than 32 bytes"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(StartupError, match=text):
            ResumeTokens.from_config(ResumeConfig(key_file=str(path)))
