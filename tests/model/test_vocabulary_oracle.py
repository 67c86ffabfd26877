"""The default model's tokenizer agrees with `transformers`, which reads the same file."""

from pathlib import Path

import gguf
import pytest
from tokenizers import pre_tokenizers

from hocket.server.model.vocabulary import chat_template, tokenizer_from_gguf
from hocket.server.text.tokenizer import ChatMessage
from model.test_gguf_tokenizer import LANGUAGES

pytestmark = [pytest.mark.weights, pytest.mark.slow]


@pytest.fixture(scope="module")
def metadata(smollm2_path: Path) -> dict[str, object]:
    reader = gguf.GGUFReader(smollm2_path)
    return {
        key: value.contents() for key, value in reader.fields.items() if key.startswith("tokenizer")
    }


@pytest.fixture(scope="module")
def oracle(smollm2_path: Path) -> object:
    from transformers import AutoTokenizer  # noqa: PLC0415 - seconds to import

    oracle = AutoTokenizer.from_pretrained(str(smollm2_path.parent), gguf_file=smollm2_path.name)
    # From a GGUF file `transformers` takes no heed of the pre-tokenizer's name, and builds GPT-2's.
    # "smollm" divides before and after every digit, which shows in digits beyond ASCII.
    digits = pre_tokenizers.Digits(individual_digits=True)
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    oracle.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, by_bytes])
    return oracle


@pytest.mark.parametrize("text", LANGUAGES.values(), ids=LANGUAGES)
def test_ids_and_text_equal_transformers(
    metadata: dict[str, object], oracle: object, text: str
) -> None:
    """In every script, in code, emoji and digits."""
    tokenizer = tokenizer_from_gguf(metadata)
    encoding = tokenizer.encode(text, add_special=True, parse_special=False, offsets=True)
    assert oracle.encode(text) == list(encoding.token_ids)
    assert text == tokenizer.decode(encoding.token_ids)
    whole = text.encode()
    assert [tokenizer.token_bytes(token_id) for token_id in encoding.token_ids] == [
        whole[start:end] for start, end in encoding.byte_ranges
    ]


def test_every_token_has_the_library_s_bytes(metadata: dict[str, object], oracle: object) -> None:
    """Each token of the vocabulary alone decodes as in `transformers`."""
    tokenizer = tokenizer_from_gguf(metadata)
    special = set(tokenizer.special_token_texts.values())
    ordinary = [
        token_id for token_id in range(tokenizer.vocabulary_size) if token_id not in special
    ]
    assert set(oracle.all_special_ids) <= special
    assert [oracle.decode([token_id]) for token_id in ordinary] == [
        tokenizer.decode([token_id]) for token_id in ordinary
    ]


def test_conversations_equal_transformers(metadata: dict[str, object], oracle: object) -> None:
    """The template in the file, default system prompt included, gives the same tokens."""
    turns = [("user", "What is 7 times 8?"), ("assistant", "56."), ("user", " Danke 🙂\n")]
    expected = oracle.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns],
        add_generation_prompt=True,
        return_dict=False,
    )
    chat = chat_template(metadata, tokenizer_from_gguf(metadata))
    conversation = [ChatMessage(role=role, content=content) for role, content in turns]
    assert expected == list(chat.encode(conversation, add_generation_prompt=True))


def test_callers_cannot_end_their_turn(metadata: dict[str, object]) -> None:
    """Every special token's text, as a message, adds no special token."""
    tokenizer = tokenizer_from_gguf(metadata)
    special = set(tokenizer.special_token_texts.values())
    chat = chat_template(metadata, tokenizer)

    def count(content: str) -> int:
        conversation = [ChatMessage(role="user", content=content)]
        token_ids = chat.encode(conversation, add_generation_prompt=True)
        return sum(token_id in special for token_id in token_ids)

    assert {count("plain")} == {count(text) for text in tokenizer.special_token_texts}
