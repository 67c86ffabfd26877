"""A library's tokenizer keeps our protocol's promises."""

import json
from collections.abc import Callable

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from hocket.server.errors import InvalidRequest, StartupError
from hocket.server.text.huggingface import HuggingFaceTokenizer

CORPUS = [
    "All human beings are born free and equal in dignity and rights.",
    "Всі люди народжуються вільними. Tous les êtres humains naissent libres.",
    "人人生而自由，在尊严和权利上一律平等。 मनुष्यों को गौरव 🙂🙂 12 345",
    "They are endowed with reason and conscience <|end|> <s> end|> im_start",
]
SPECIAL = ["<|end|>", "<s>", "<|end", "<|pad|>"]


def byte_level(normalizer: normalizers.Normalizer | None = None) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return backend


def metaspace(scheme: str = "first") -> tokenizers.Tokenizer:
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    learned = tokenizers.Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    learned.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    pieces = [*SPECIAL, *byte_pieces]
    pieces += [piece for piece in sorted(learned.get_vocab()) if piece not in pieces]
    merges = json.loads(learned.to_str())["model"]["merges"]
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=[tuple(merge) for merge in merges],
            byte_fallback=True,
        )
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    parts = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    if scheme != "never":
        parts.append(decoders.Strip(" ", 1, 0))
    backend.decoder = decoders.Sequence(parts)
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in SPECIAL])
    return backend


def adapt(backend: tokenizers.Tokenizer, **options: object) -> HuggingFaceTokenizer:
    end_token_id = backend.token_to_id("<|end|>")
    return HuggingFaceTokenizer(
        **{
            "backend": backend,
            "bos_token_id": backend.token_to_id("<s>"),
            "end_token_ids": frozenset({end_token_id}),
            "add_bos": False,
            **options,
        }
    )


BUILDERS: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    "byte_level": byte_level,
    "normalised": lambda: byte_level(normalizers.NFC()),
    "metaspace_first": metaspace,
    "metaspace_always": lambda: metaspace("always"),
    "metaspace_never": lambda: metaspace("never"),
}
TOKENIZERS = {name: adapt(build()) for name, build in BUILDERS.items()}
BACKENDS = {name: build() for name, build in BUILDERS.items()}
EXACT = [name for name in BUILDERS if name != "normalised"]
FRAGMENTS = [
    *SPECIAL,
    "<|",
    "end|>",
    "|>",
    "<",
    "s>",
    "<think>",
    " ",
    "é",
    "e\u0301",
    "🙂",
    "\n",
    "<0x41>",
]
TEXT = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=6), max_size=8).map("".join)


@pytest.mark.parametrize("name", EXACT)
@given(text=TEXT)
def test_a_text_comes_back(name: str, text: str) -> None:
    """Ordinary text of any script survives encoding and decoding, byte for byte."""
    text = text.replace("\u2581", "")
    if name in {"metaspace_always", "metaspace_first"} and text.startswith(" "):
        return  # here the alphabet itself cannot tell one leading space from none
    tokenizer = TOKENIZERS[name]
    encoding = tokenizer.encode(text, add_special=False, parse_special=False)
    assert text == tokenizer.decode(encoding.token_ids)


@pytest.mark.parametrize("name", BUILDERS)
@given(text=TEXT)
def test_ordinary_text_never_becomes_a_special_token(name: str, text: str) -> None:
    """Without `parse_special` no special id comes out, whatever is written."""
    tokenizer = TOKENIZERS[name]
    token_ids = tokenizer.encode(text, add_special=False, parse_special=False).token_ids
    assert not set(token_ids) & set(tokenizer.special_token_texts.values())


@pytest.mark.parametrize("name", BUILDERS)
@given(text=TEXT)
def test_special_tokens_are_read_as_the_library_reads_them(name: str, text: str) -> None:
    """With `parse_special` the ids are those of the library's own encoding."""
    expected = BACKENDS[name].encode(text, add_special_tokens=False).ids
    encoding = TOKENIZERS[name].encode(text, add_special=False, parse_special=True)
    assert expected == list(encoding.token_ids)


@pytest.mark.parametrize("name", BUILDERS)
@given(text=TEXT, parse_special=st.booleans())
def test_ranges_tile_the_text(name: str, text: str, parse_special: bool) -> None:
    """Each range begins where the one before it ends, and together they are the text."""
    encoding = TOKENIZERS[name].encode(
        text, add_special=False, parse_special=parse_special, offsets=True
    )
    assert len(encoding.token_ids) == len(encoding.byte_ranges)
    end = 0
    for start, next_end in encoding.byte_ranges:
        assert start == end <= next_end
        end = next_end
    assert end == (len(text.encode()) if encoding.token_ids else 0)


@pytest.mark.parametrize("name", ["byte_level", "metaspace_never"])
@given(text=TEXT)
def test_ranges_hold_what_tokens_write(name: str, text: str) -> None:
    """Where nothing is normalised, a range is the bytes of its token."""
    text = text.replace("\u2581", "")
    tokenizer = TOKENIZERS[name]
    encoding = tokenizer.encode(text, add_special=False, parse_special=True, offsets=True)
    for token_id, (start, end) in zip(encoding.token_ids, encoding.byte_ranges, strict=True):
        written = tokenizer.token_bytes(token_id) or tokenizer.token_text(token_id).encode()
        assert text.encode()[start:end] == written


@pytest.mark.parametrize("name", BUILDERS)
@given(text=TEXT)
def test_decoding_equals_the_library(name: str, text: str) -> None:
    """The library's own ids decode as in the library."""
    token_ids = BACKENDS[name].encode(text, add_special_tokens=False).ids
    expected = BACKENDS[name].decode(token_ids, skip_special_tokens=True)
    assert expected == TOKENIZERS[name].decode(token_ids)


def test_special_tokens_write_nothing_unless_asked_for() -> None:
    """They have no bytes; `keep_special` and `token_text` show how they are written."""
    tokenizer = TOKENIZERS["byte_level"]
    token_ids = tokenizer.encode("a<|end|>b", add_special=False, parse_special=True).token_ids
    assert [tokenizer.token_text(token_id) for token_id in token_ids] == ["a", "<|end|>", "b"]
    assert (
        tokenizer.decode(token_ids),
        tokenizer.decode(token_ids, keep_special=True),
    ) == ("ab", "a<|end|>b")
    assert [tokenizer.token_bytes(token_id) for token_id in token_ids] == [b"a", b"", b"b"]
    assert (
        tokenizer.token_bytes(-1), tokenizer.token_bytes(10**6), tokenizer.token_text(10**6),
    ) == (b"", b"", "")  # fmt: skip


def test_half_a_character_is_written_as_its_bytes() -> None:
    """A token of loose bytes has a readable text."""
    tokenizer = TOKENIZERS["byte_level"]
    texts = {tokenizer.token_text(token_id) for token_id in range(tokenizer.vocabulary_size)}
    assert {"<0xC3>", "a", " "} <= texts


def test_the_begin_token_is_added_on_request() -> None:
    """It comes first, covers nothing, and only where the model wants it."""
    tokenizer = adapt(byte_level(), add_bos=True)
    encoding = tokenizer.encode("ab", add_special=True, parse_special=False, offsets=True)
    assert tokenizer.bos_token_id == encoding.token_ids[0]
    assert list(encoding.byte_ranges) == [(0, 0), (0, 1), (1, 2)]
    plain = TOKENIZERS["byte_level"].encode("ab", add_special=True, parse_special=False)
    assert encoding.token_ids[1:] == plain.token_ids


@given(st.lists(st.sampled_from(SPECIAL) | st.text("ab é", min_size=1, max_size=5), max_size=6))
def test_parts_are_one_text(parts: list[str]) -> None:
    """Texts and special tokens in parts give what the library gives for the whole."""
    joined, was_text = [], False
    for part in parts:
        if part not in SPECIAL and was_text:
            joined[-1] += part
        else:
            joined.append(part)
        was_text = part not in SPECIAL
    for name, tokenizer in TOKENIZERS.items():
        ids = tokenizer.special_token_texts
        expected = BACKENDS[name].encode("".join(joined), add_special_tokens=False).ids
        if joined[:1] and joined[0] in SPECIAL and name == "metaspace_first":
            # The library tells the first text by its offset, and so do parts.
            assert joined[0] in ids
        assert expected == list(tokenizer.encode_parts([ids.get(part, part) for part in joined]))


def test_a_special_token_swallows_the_space_beside_it() -> None:
    """Tokens declared with `lstrip` and `rstrip` take white space, in ids and in ranges."""
    backend, library = byte_level(), byte_level()
    for each in (backend, library):
        each.add_special_tokens([AddedToken("<m>", lstrip=True, rstrip=True, normalized=False)])
    encoding = adapt(backend).encode(
        "a  <m> \nb", add_special=False, parse_special=True, offsets=True
    )
    assert library.encode("a  <m> \nb").ids == list(encoding.token_ids)
    assert list(encoding.byte_ranges) == [(0, 1), (1, 8), (8, 9)]


def test_a_special_token_made_of_ordinary_pieces_is_cut_open() -> None:
    """A vocabulary whose merges spell a special token still cannot be talked into it."""
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={"<": 0, "e": 1, "<e": 2, ">": 3, "<e>": 4},
                   merges=[("<", "e"), ("<e", ">")])
    )  # fmt: skip
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse()])
    tokenizer = HuggingFaceTokenizer(
        backend, bos_token_id=None, end_token_ids=frozenset({4}), add_bos=False
    )
    encoding = tokenizer.encode("e<e><e>", add_special=False, parse_special=False, offsets=True)
    assert tokenizer.decode(encoding.token_ids) == "e<e><e>"
    assert 4 not in encoding.token_ids
    assert (encoding.byte_ranges[0][0], encoding.byte_ranges[-1][1]) == (0, 7)
    parsed = tokenizer.encode("e<e>", add_special=False, parse_special=True)
    assert parsed.token_ids == (1, 4)


class Counting:
    """A backend that counts how often it is asked."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        self.calls = 0

    def encode(self, text: str, **options: object) -> tokenizers.Encoding:
        self.calls += 1
        return self._backend.encode(text, **options)


@pytest.mark.parametrize("fuse_unk", [True, False])
@pytest.mark.parametrize("unknown", ["\u4e2d", "\u4e2d\u6587", "a\u4e2da\u6587"])
def test_an_unknown_character_is_told_at_once(fuse_unk: bool, unknown: str) -> None:
    """Without bytes to fall back on, a text that has no tokens costs a few looks at it."""
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={"<unk>": 0, "a": 1}, merges=[], unk_token="<unk>", fuse_unk=fuse_unk)
    )
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse()])
    backend.add_special_tokens(["<unk>"])
    tokenizer = HuggingFaceTokenizer(
        backend, bos_token_id=None, end_token_ids=frozenset(), add_bos=False
    )
    tokenizer._backend = counting = Counting(backend)
    with pytest.raises(InvalidRequest, match="cannot encode"):
        tokenizer.encode("a" * 1000 + unknown, add_special=False, parse_special=False)
    assert counting.calls <= 3
    assert tokenizer.encode("aa", add_special=False, parse_special=True).token_ids == (1, 1)


class PanicException(BaseException):  # the name that compiled code raises under
    """What a panic in compiled code arrives as."""


@pytest.mark.parametrize("error", [PanicException("index out of bounds"), ValueError("no")])
def test_a_panic_is_the_fault_of_the_text(error: BaseException) -> None:
    """Whatever the backend falls over is an invalid request, without the backend's words."""
    tokenizer = adapt(byte_level())

    class Broken:
        def encode(self, text: str, *, add_special_tokens: bool) -> None:
            raise error

    tokenizer._backend = Broken()
    with pytest.raises(InvalidRequest) as caught:
        tokenizer.encode("text", add_special=False, parse_special=False)
    assert "bounds" not in caught.value.message
    assert caught.value.violations[0].field == "text"


def test_leaving_is_never_swallowed() -> None:
    """Interrupts and exits pass through."""
    tokenizer = adapt(byte_level())

    class Interrupted:
        def encode(self, text: str, *, add_special_tokens: bool) -> None:
            raise KeyboardInterrupt

    tokenizer._backend = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        tokenizer.encode("text", add_special=False, parse_special=False)


def test_a_lone_surrogate_is_an_invalid_request() -> None:
    """It is no Unicode text."""
    with pytest.raises(InvalidRequest):
        TOKENIZERS["byte_level"].encode("\ud800", add_special=False, parse_special=True)


@pytest.mark.parametrize("options", [{"end_token_ids": frozenset({9999})}, {"bos_token_id": -1}])
def test_named_tokens_must_exist(options: dict[str, object]) -> None:
    """An end token outside the vocabulary would never end a text."""
    with pytest.raises(StartupError):
        adapt(byte_level(), **options)


def test_an_unknown_alphabet_is_refused() -> None:
    """Without bytes, tokens cannot be streamed as exact text."""
    backend = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    with pytest.raises(StartupError, match="not supported"):
        HuggingFaceTokenizer(backend, bos_token_id=None, end_token_ids=frozenset(), add_bos=False)
