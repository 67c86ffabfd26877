"""Keyword arguments become a request, or an error before anything is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.client import GenerationOptions, Message, SentenceOptions
from hocket.client._requests import build_generate_request


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0, 2, width=32),
            "top_k": st.integers(0, 100),
            "top_p": st.floats(0, 1, width=32),
            "min_p": st.floats(0, 1, width=32),
            "seed": st.integers(0, 2**64 - 1),
            "repetition_penalty": st.floats(0, 2, width=32),
            "presence_penalty": st.floats(-2, 2, width=32),
            "frequency_penalty": st.floats(-2, 2, width=32),
        },
    )
)
def test_sampling_is_set_exactly_where_given(options) -> None:
    """Zero differs from unset."""
    sampling = build_generate_request("x", options).sampling
    assert {field.name: value for field, value in sampling.ListFields()} == options


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "max_tokens": st.integers(0, 2**32 - 1),
            "min_tokens": st.integers(0, 2**32 - 1),
            "ignore_eos": st.booleans(),
            "stop_token_ids": st.lists(st.integers(0, 2**32 - 1), min_size=1),
            "stop": st.lists(st.text(), min_size=1),
        },
    )
)
def test_stopping_is_set_exactly_where_given(options) -> None:
    """Ranges are the server's business."""
    stopping = build_generate_request("x", options).stopping
    fields = {field.name: value for field, value in stopping.ListFields()}
    assert {key: list(v) if key.startswith("stop") else v for key, v in fields.items()} == options


def test_none_is_unset() -> None:
    """An option of None is as if it were absent, for every option but the input."""
    names = GenerationOptions.__annotations__.keys()
    assert build_generate_request("x", dict.fromkeys(names)) == build_generate_request("x", {})


@pytest.mark.parametrize(
    "options",
    [{}, {"messages": [], "token_ids": [1]}],
    ids=["none", "two"],
)
def test_there_is_exactly_one_input(options) -> None:
    """None or two are refused."""
    with pytest.raises(TypeError, match="exactly one"):
        build_generate_request(None, options)


def test_an_unknown_option_is_refused() -> None:
    """A misspelt one is not dropped in silence."""
    with pytest.raises(TypeError, match="temprature"):
        build_generate_request("x", {"temprature": 1})


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"seed": -1}, ValueError),
        ({"granularity": "word"}, ValueError),
        ({"time_budget": float("nan")}, ValueError),
        ({"temperature": "hot"}, TypeError),
    ],
)
def test_what_cannot_be_sent_is_refused(options, error) -> None:
    """By the kind of error that Python programmers expect."""
    with pytest.raises(error):
        build_generate_request("x", options)


def test_messages_may_be_mappings_or_values() -> None:
    """Both forms give the same conversation; other keys are refused."""
    mapping = {"role": "user", "content": "Hi"}
    value = Message(role="user", content="Hi")
    assert build_generate_request(None, {"messages": [mapping]}) == build_generate_request(
        None, {"messages": [value]}
    )
    with pytest.raises(TypeError, match="role and content"):
        build_generate_request(None, {"messages": [{"role": "user", "text": "Hi"}]})


def test_sentence_options_take_plain_words() -> None:
    """`careful` is as good as `SentenceMode.CAREFUL`."""
    request = build_generate_request(
        "x", {"sentences": SentenceOptions(language="ja", mode="careful", max_chars=80)}
    )
    sentences = request.output.sentences
    assert (sentences.language, sentences.mode, sentences.max_chars) == ("ja", 2, 80)
    assert not sentences.HasField("min_chars")
