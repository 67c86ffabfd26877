"""A tokenizer built of GGUF metadata encodes as the one it was written from."""

import re
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from hocket.server.model import gguf_tokenizer
from hocket.server.model.vocabulary import tokenizer_from_gguf

LANGUAGES = {
    "ar": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια.",
    "en": "All human beings are born free and equal in dignity and rights.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "he": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है।",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos.",
    "ru": "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "zh": "人人生而自由，在尊严和权利上一律平等。",
    "code": "def f(x: int) -> str:\n\treturn f'{x!r}'  # ok\n\n\nif f(1):\n    main(f'{2}')",
    "emoji": "🙂🏳️‍🌈👨‍👩‍👧‍👦 e\u0301 \u200b\ufeff",
    "digits": "1 12 123 1234567890 3.14159 2024-05-06 ½ ٣٤ 1,000",
    "spaces": "  a   b\t\tc \r\n\r\n d\u00a0e\u3000f  ",
    "contractions": "I'll they've WE'RE it's don't 'tis",
}

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def byte_level_metadata(pre: str = "smollm", **changes: object) -> dict[str, object]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        "Ġ t",
        "h e",
        "Ġt he",
        "i n",
        "Ġ a",
        "1 2",
        "12 3",
        "l l",
        "' ll",
        "A B",
        "ĊĊ Ċ",
        "Ċ Ċ",
    ]
    merges.sort(key=lambda merge: merge == "ĊĊ Ċ")
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [
        *specials,
        *alphabet,
        *(merge.replace(" ", "") for merge in merges),
        "<think>",
        "[PAD]",
    ]
    types = [CONTROL] * 3 + [NORMAL] * (len(tokens) - 5) + [USER_DEFINED, UNUSED]
    metadata = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": types,
        "merges": merges,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **changes,
    }
    whole = {f"tokenizer.ggml.{key}": value for key, value in metadata.items() if value is not None}
    return {**whole, "tokenizer.chat_template": CHATML}


# Pieces of a SentencePiece vocabulary with scores as its trainer gives them: a joined piece has
# a rank, and halves that make it up have better ones.
JOINED = [
    "\u2581a",
    "ab",
    "\u2581ab",
    "aba",
    "ba",
    "abab",
    "bb",
    "\u2581\u2581",
    "bab",
    "abb",
    "\u2581b",
]


def sentencepiece_metadata(
    ranks: list[float] | None = None, **changes: object
) -> dict[str, object]:
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, "\n\n", *JOINED, "a", "b", "\u2581", "<end_of_turn>"]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, USER_DEFINED]
    types += [NORMAL] * (len(JOINED) + 3) + [CONTROL]
    ranks = ranks or [-float(index) for index in range(len(JOINED))]
    values = [0.0] * 260 + ranks + [-100.0, -101.0, -102.0, 0.0]
    metadata = {
        "model": "llama",
        "tokens": tokens,
        "token_type": types,
        "scores": values,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "add_space_prefix": False,
        **changes,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in metadata.items() if value is not None}


def ids_of(tokenizer: object, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special=False, parse_special=False).token_ids)


def pieces_of(metadata: dict[str, object], text: str) -> list[str]:
    tokens = metadata["tokenizer.ggml.tokens"]
    return [tokens[index] for index in ids_of(tokenizer_from_gguf(metadata), text)]


def joined_by_score(metadata: dict[str, object], text: str) -> list[str]:
    """SentencePiece as its paper says: join the neighbours whose piece scores best, again."""
    scores = dict(
        zip(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"], strict=True)
    )
    pieces = list(text.replace(" ", "\u2581"))
    while True:
        pairs = [
            (-scores[left + right], at)
            for at, (left, right) in enumerate(pairwise(pieces))
            if left + right in scores
        ]
        if not pairs:
            return pieces
        _, at = min(pairs)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]


@given(st.text("ab ", max_size=16), st.permutations(range(len(JOINED))))
def test_scores_join_pieces_as_sentencepiece_does(text: str, ranks: list[int]) -> None:
    """Merges derived from any scores encode as joining by best score does."""
    metadata = sentencepiece_metadata([-float(rank) for rank in ranks])
    assert joined_by_score(metadata, text) == pieces_of(metadata, text)


@pytest.mark.parametrize("adds_space", [True, False])
@pytest.mark.parametrize("text", LANGUAGES.values(), ids=LANGUAGES)
def test_characters_outside_the_vocabulary_become_bytes(text: str, adds_space: bool) -> None:
    """A SentencePiece vocabulary with bytes writes any text and reads it back.

    Only where a space is put before texts, one is put after user-defined tokens as well.
    """
    if adds_space:
        text = re.sub("\n+", "\n", text)
    tokenizer = tokenizer_from_gguf(sentencepiece_metadata(add_space_prefix=adds_space))
    assert text == tokenizer.decode(ids_of(tokenizer, text))


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("smollm", " the 123", ["Ġthe", "Ġ", "1", "2", "3"]),
        ("gpt-2", "123 1", ["123", "Ġ", "1"]),
        ("default", "123", ["123"]),
        ("qwen2", "123'll", ["1", "2", "3", "'ll"]),
        ("llama-bpe", "1231\n\n\n", ["123", "1", "ĊĊĊ"]),
        ("tekken", "12ABin", ["1", "2", "AB", "in"]),
        ("qwen2", "A\u030a", ["Ã", "ħ"]),
    ],
)
def test_each_pre_tokenizer_divides_its_way(pre: str, text: str, pieces: list[str]) -> None:
    """Digits, contractions, line ends and case divide as the model was trained."""
    assert pieces == pieces_of(byte_level_metadata(pre), text)


def test_kinds_of_tokens_are_kept() -> None:
    """Control tokens are special; user-defined ones are ordinary text that is never divided."""
    metadata = byte_level_metadata()
    tokenizer = tokenizer_from_gguf(metadata)
    assert {"<|endoftext|>", "<|im_start|>", "<|im_end|>"} == set(tokenizer.special_token_texts)
    assert pieces_of(metadata, "<think>") == ["<think>"]
    think = ids_of(tokenizer, "<think>")[0]
    assert tokenizer.token_bytes(think) == b"<think>"
    assert len(metadata["tokenizer.ggml.tokens"]) == tokenizer.vocabulary_size


def test_a_kept_tokenizer_is_the_same_and_is_not_built_again(tmp_path: Path) -> None:
    """The second load reads the file; other metadata or a broken file build it anew."""
    cache_file = tmp_path / "cache" / "tokenizer"
    metadata = sentencepiece_metadata()
    text = "abab  ba é"
    first = ids_of(tokenizer_from_gguf(metadata, cache_file=cache_file), text)
    assert [cache_file] == list(cache_file.parent.iterdir())
    with mock.patch.object(gguf_tokenizer, "_build", side_effect=AssertionError):
        assert first == ids_of(tokenizer_from_gguf(metadata, cache_file=cache_file), text)
    other = sentencepiece_metadata([float(index) for index in range(len(JOINED))])
    with_cache = tokenizer_from_gguf(other, cache_file=cache_file)
    assert ids_of(tokenizer_from_gguf(other), text) == ids_of(with_cache, text)
    cache_file.write_bytes(b"\xff\xfe")
    assert first == ids_of(tokenizer_from_gguf(metadata, cache_file=cache_file), text)
    kept = cache_file.read_text().replace('"BPE"', '"???"')
    cache_file.write_text(kept)
    assert first == ids_of(tokenizer_from_gguf(metadata, cache_file=cache_file), text)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    """The cache is a convenience."""
    (tmp_path / "file").write_text("not a folder")
    tokenizer = tokenizer_from_gguf(
        sentencepiece_metadata(), cache_file=tmp_path / "file" / "tokenizer"
    )
    assert tokenizer.decode(ids_of(tokenizer, "ab")) == "ab"
