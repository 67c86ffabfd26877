"""Prompts of a load."""

import json
from pathlib import Path

import pytest
from bench.prompts import fresh, from_file, of_length, questions, take
from hypothesis import given
from hypothesis import strategies as st

from hocket.client import Message


@given(st.lists(st.integers(0, 9), min_size=1), st.integers(0, 100))
def test_a_length_is_kept_exactly(tokens: list[int], length: int) -> None:
    found = of_length(tokens, length)
    assert len(found) == length
    assert found == [tokens[number % len(tokens)] for number in range(length)]


def test_fresh_prompts_differ_from_their_first_words_on() -> None:
    """No cache of prefixes serves one with another's tokens."""
    texts = fresh()
    found = take(texts, 64) + take(texts, 64)
    assert len({text.split()[0] for text in found}) == 128
    assert questions(64) == found[:64]


def test_a_file_holds_a_prompt_in_each_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    turn = {"role": "user", "content": "Hi"}
    lines = [
        "Hello",
        {"prompt": "Bye", "max_tokens": 3},
        {"token_ids": [1, 2]},
        {"messages": [turn]},
    ]
    file.write_text("\n\n".join(json.dumps(line) for line in lines) + "\n")
    found = from_file(file)
    assert [prompt.text for prompt in found] == ["Hello", "Bye", None, None]
    assert [dict(prompt.options) for prompt in found] == [
        {},
        {"max_tokens": 3},
        {"token_ids": [1, 2]},
        {"messages": [Message(role="user", content="Hi")]},
    ]


@pytest.mark.parametrize(("text", "told"), [('{"text": 1}', "line 1 has"), ("\n", "no prompt")])
def test_what_is_no_prompt_is_told(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=told):
        from_file(file)
