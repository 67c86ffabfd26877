"""From protobuf to the engine's types: counted before it is read, and all that is wrong at once."""

import dataclasses
import gc
from types import FunctionType, ModuleType
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.engine.commands import Submit
from hocket.server.errors import InvalidRequest, Reason
from hocket.server.rpc.parse import Checked, check
from hocket.v1 import generation_pb2
from rpc.repeated import TOO_MANY, Counted, fill, repeated_fields
from rpc.served import served_model

MEBIBYTE = 1_048_576
CONTEXT = 4_096


def checked(request: Any, *, most: int = 4 * MEBIBYTE, **kwargs: Any) -> Checked:
    model = served_model(max_context_tokens=CONTEXT)
    return check(request, model, arrived=0.0, remaining=None, max_message_bytes=most, **kwargs)


def violations(work: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        work()
    return {item.field: item.description for item in caught.value.violations}


FIELDS = list(repeated_fields(generation_pb2.GenerateRequest.DESCRIPTOR))


def test_the_walk_finds_the_repeated_fields():
    """Those of today; a later one is found by itself."""
    names = {".".join(path) for path in FIELDS}
    assert names >= {
        "chat.messages", "tokens.token_ids", "sampling.logit_bias", "stopping.stop",
        "stopping.stop_token_ids",
    }  # fmt: skip


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_a_repeated_field_is_counted_before_it_is_read(path):
    """One that has too many values is refused without a look at any of them."""
    request = generation_pb2.GenerateRequest(prompt="hi")
    fill(request, path, TOO_MANY)
    counted = Counted(request)
    assert ".".join(path) in violations(lambda: checked(counted))
    assert counted.looks == [0]


def test_all_that_is_wrong_is_told_at_once():
    """Whatever the field, a prompt that is too long included, which gives the whole its reason."""
    request = generation_pb2.GenerateRequest(prompt="x" * 64 * (CONTEXT + 1), request_id="a b")
    request.output.n = 0
    request.output.logprobs = 21
    request.sampling.temperature = 99
    request.stopping.stop.append("")
    request.time_budget.SetInParent()
    with pytest.raises(InvalidRequest) as caught:
        checked(request)
    assert {item.field for item in caught.value.violations} == {
        "request_id", "prompt", "output.n", "output.logprobs", "sampling.temperature",
        "stopping.stop[0]", "time_budget",
    }  # fmt: skip
    assert caught.value.reason is Reason.PROMPT_TOO_LONG
    assert caught.value.metadata["max_prompt_tokens"] == str(CONTEXT - 1)


@pytest.mark.parametrize(
    ("seconds", "nanos", "field"),
    [
        (0, 1, None),
        (315_576_000_000, 0, None),
        (0, 999_999_999, None),
        (0, 0, "time_budget"),
        (-1, 0, "time_budget"),
        (400_000_000_000, 0, "time_budget"),
        (-1, 2_000_000_000, "time_budget.nanos"),
        (1, -1, "time_budget.nanos"),
        (1, 1_000_000_000, "time_budget.nanos"),
    ],
)
def test_a_time_budget_is_a_duration_above_nothing(seconds, nanos, field):
    """As protobuf defines durations; the refusal names both ends."""
    request = generation_pb2.GenerateRequest(prompt="hi")
    request.time_budget.seconds, request.time_budget.nanos = seconds, nanos
    if field is None:
        assert checked(request).deadline == pytest.approx(seconds + nanos * 1e-9)
    else:
        found = violations(lambda: checked(request))
        assert list(found) == [field]
        assert ("315576000000" if field == "time_budget" else "999999999") in found[field]


def submitted(request: generation_pb2.GenerateRequest) -> Submit:
    return checked(request).encode()


@given(prompt=st.integers(1, CONTEXT - 1), least=st.integers(0, CONTEXT - 1))
def test_min_tokens_is_never_cut(prompt, least):
    """Where `max_tokens` is not set it makes room for them; the context alone may come first."""
    request = generation_pb2.GenerateRequest(prompt="x" * prompt)
    request.stopping.min_tokens = least
    stopping = submitted(request).stopping
    assert (stopping.min_tokens, stopping.max_tokens) == (
        least,
        max(least, min(512, CONTEXT - prompt)),
    )


@given(prompt=st.integers(1, CONTEXT - 1), most=st.integers(1, CONTEXT - 1))
def test_max_tokens_holds_where_it_is_set(prompt, most):
    """Even past the context, which ends the text and says so."""
    request = generation_pb2.GenerateRequest(prompt="x" * prompt)
    request.stopping.max_tokens = most
    assert submitted(request).stopping.max_tokens == most


def held_messages(value: object) -> list[Message]:
    """Return the messages that a value keeps alive."""
    found, seen, queue = [], set(), [value]
    while queue:
        item = queue.pop()
        if id(item) in seen or isinstance(item, type | ModuleType):
            continue
        seen.add(id(item))
        found += [item] if isinstance(item, Message) else []
        # Of a function what it closes over, not the module around it.
        parts = (item.__closure__,) if isinstance(item, FunctionType) else gc.get_referents(item)
        queue += parts
    return found


@pytest.mark.parametrize("kind", ["prompt", "chat", "tokens"])
def test_nothing_of_the_message_is_kept(kind):
    """What was checked is a copy, so that the message can go before the prompt is tokenised."""
    request = generation_pb2.GenerateRequest(request_id="a")
    if kind == "prompt":
        request.prompt = "hi"
    elif kind == "chat":
        request.chat.messages.add(role="user", content="hi")
    else:
        request.tokens.token_ids.extend([1, 2])
    request.sampling.logit_bias[1] = 1.0
    request.stopping.stop.append("!")
    request.output.sentences.language = "de"
    assert held_messages([request]) != []
    assert held_messages(checked(request)) == []


def test_a_token_that_the_model_cannot_read_is_refused():
    """Some tokenizers know tokens that their model has no embedding for."""
    model = served_model(max_context_tokens=CONTEXT)
    small = dataclasses.replace(
        model, limits=dataclasses.replace(model.limits, vocabulary_size=ord("z"))
    )
    request = generation_pb2.GenerateRequest(prompt="fizz")
    work = check(request, small, arrived=0.0, remaining=None, max_message_bytes=MEBIBYTE)
    assert violations(work.encode) == {
        "prompt": f"holds the token {ord('z')}, which the model cannot read"
    }
