"""The `tokenizers` library behind our Tokenizer protocol. Any thread, several at once.

The backend is set up once and never changed afterwards. Special tokens are found here and not in
the backend, so that one backend serves both readings of a text: with and without them.

Two alphabets of pieces are known: GPT-2's, where each of 256 characters stands for a byte, and
SentencePiece's, where U+2581 stands for a space and `<0xAB>` for a byte.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import Any, Protocol

import tokenizers

from hocket.server.errors import InvalidRequest, StartupError
from hocket.server.text.literals import any_of
from hocket.server.text.tokenizer import Encoding

_SPACE = "\u2581"
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """Return GPT-2's characters for bytes: printable Latin-1 as it is, others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + index): byte for index, byte in enumerate(others)
    }


_BYTE_ALPHABET = _byte_alphabet()


class _Part(Protocol):
    """A part of a backend, such as its decoder."""

    def __getstate__(self) -> bytes:
        """Return it as JSON."""
        ...


def _components(part: _Part | None, key: str) -> list[dict[str, Any]]:
    """Return a backend's part as its JSON describes it, a sequence taken apart."""
    if part is None:
        return []
    state = json.loads(part.__getstate__())
    return state.get(key, [state]) if state["type"] == "Sequence" else [state]


def _bytes_of_gpt2_piece(piece: str) -> bytes:
    try:
        return bytes(_BYTE_ALPHABET[character] for character in piece)
    except KeyError:
        return piece.encode()


def _bytes_of_metaspace_piece(piece: str) -> bytes:
    return piece.replace(_SPACE, " ").encode()


def _bytes_of_fallback_piece(piece: str) -> bytes:
    match = _BYTE_PIECE.fullmatch(piece)
    return bytes((int(match[1], 16),)) if match else _bytes_of_metaspace_piece(piece)


class HuggingFaceTokenizer:
    """A tokenizer of the `tokenizers` library.

    Ranges of tokens tile the text: each begins where the one before it ends. They may cut a
    character where the tokens do. Where the backend rewrites a text before it cuts it, such as
    from two code points into one, ranges follow the backend's whole characters instead.

    Some vocabularies put a space in front of a text. `decode` takes it back; `token_bytes` keeps
    it, since the tokens of a model's answer go on from a prompt.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        bos_token_id: int | None,
        end_token_ids: frozenset[int],
        add_bos: bool,
    ) -> None:
        """Take over a backend, which nobody else may use from now on.

        Raises:
            StartupError: The backend's alphabet is neither GPT-2's nor SentencePiece's, or a
                token that was named is not in its vocabulary.
        """
        self._backend = backend
        self._bos_token_id = bos_token_id
        self._end_token_ids = end_token_ids
        self._add_bos = add_bos and bos_token_id is not None
        backend.encode_special_tokens = True
        backend.no_padding()
        backend.no_truncation()
        self._puts_space_first = _take_over_first_space(backend)
        self._drops_first_space = _drops_first_space(backend)
        pieces: dict[str, int] = backend.get_vocab(with_added_tokens=True)
        texts = {token_id: piece for piece, token_id in pieces.items()}
        added: Mapping[int, Any] = backend.get_added_tokens_decoder()
        named = end_token_ids | ({bos_token_id} if bos_token_id is not None else set())
        if not named <= texts.keys():
            raise StartupError(
                f"the tokenizer has no tokens with the ids {sorted(named - texts.keys())}"
            )
        special = {token_id for token_id, token in added.items() if token.special} | named
        self._special_texts = {token_id: texts[token_id] for token_id in special}
        self._special_ids = MappingProxyType(
            {text: token_id for token_id, text in self._special_texts.items() if text}
        )
        self._special_pattern = re.compile(f"({any_of(self._special_ids)})")
        self._swallows_before = {i for i, token in added.items() if token.special and token.lstrip}
        self._swallows_after = {i for i, token in added.items() if token.special and token.rstrip}
        bytes_of = _byte_reader(backend)
        self._bytes = [b""] * (max(texts, default=-1) + 1)
        for token_id, piece in texts.items():
            if token_id not in special:
                self._bytes[token_id] = piece.encode() if token_id in added else bytes_of(piece)

    @property
    def vocabulary_size(self) -> int:
        """One more than the highest token id."""
        return len(self._bytes)

    @property
    def bos_token_id(self) -> int | None:
        """The begin-of-text token, if the model has one."""
        return self._bos_token_id

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The tokens with which the model ends a text."""
        return self._end_token_ids

    @property
    def special_token_texts(self) -> Mapping[str, int]:
        """How special tokens are written."""
        return self._special_ids

    def encode(
        self, text: str, *, add_special: bool, parse_special: bool, offsets: bool = False
    ) -> Encoding:
        """Turn text into tokens.

        Raises:
            InvalidRequest: The backend cannot encode this text. A panic in its compiled code
                counts: the text is what it fell over, and other texts still work.
        """
        parts: list[str | int] = [text]
        if parse_special:
            parts = [
                self._special_ids.get(part, part) if index % 2 else part
                for index, part in enumerate(self._special_pattern.split(text))
            ]
        tokens: list[int] = []
        ranges: list[tuple[int, int]] = []
        if add_special and self._add_bos and self._bos_token_id is not None:
            tokens.append(self._bos_token_id)
            ranges.append((0, 0))
        self._encode_parts(parts, tokens, ranges if offsets else None)
        return Encoding(tuple(tokens), tuple(ranges) if offsets else ())

    def encode_parts(self, parts: Sequence[str | int]) -> tuple[int, ...]:
        """Turn ordinary texts and special tokens into the tokens of one text.

        Raises:
            InvalidRequest: As for `encode`.
        """
        token_ids: list[int] = []
        self._encode_parts(parts, token_ids, None)
        return tuple(token_ids)

    def token_bytes(self, token_id: int) -> bytes:
        """Return what a token adds to a text: `b""` for special and unknown ids."""
        return self._bytes[token_id] if 0 <= token_id < len(self._bytes) else b""

    def token_text(self, token_id: int) -> str:
        """Return a token as text; bytes that make no character are written `<0xC3>`."""
        special = self._special_texts.get(token_id)
        if special is not None:
            return special
        token = self.token_bytes(token_id)
        try:
            return token.decode()
        except UnicodeDecodeError:
            return "".join(f"<0x{byte:02X}>" for byte in token)

    def decode(self, token_ids: Sequence[int], *, keep_special: bool = False) -> str:
        """Turn the tokens of a whole text into that text."""
        parts = [
            self._special_texts[token_id].encode()
            if keep_special and token_id in self._special_texts
            else self.token_bytes(token_id)
            for token_id in token_ids
        ]
        joined = b"".join(parts)
        if self._drops_first_space and joined.startswith(b" "):
            joined = joined[1:]
        return joined.decode("utf-8", errors="replace")

    def _encode_parts(
        self,
        parts: Sequence[str | int],
        token_ids: list[int],
        ranges: list[tuple[int, int]] | None,
    ) -> None:
        position = 0
        for index, (text, special_id) in enumerate(self._segments(parts)):
            end = position + len(text.encode(errors="replace"))
            if special_id is not None:
                token_ids.append(special_id)
                if ranges is not None:
                    ranges.append((position, end))
            else:
                for part, encoding in self._encode_ordinary(text, is_first=not index):
                    token_ids.extend(encoding.ids)
                    if ranges is not None:
                        tiles = self._tiles(part, encoding)
                        ranges.extend((position + a, position + b) for a, b in tiles)
                        position += len(part.encode())
            position = end

    def _segments(self, parts: Sequence[str | int]) -> list[tuple[str, int | None]]:
        """Pair each part's text with its special token, which takes the space it swallows."""
        texts = [self._special_texts[part] if isinstance(part, int) else part for part in parts]
        for index, part in enumerate(parts):
            if part in self._swallows_after and index + 1 < len(parts):
                rest = texts[index + 1].lstrip()
                texts[index] += texts[index + 1].removesuffix(rest)
                texts[index + 1] = rest
            if part in self._swallows_before and index:
                rest = texts[index - 1].rstrip()
                texts[index] = texts[index - 1].removeprefix(rest) + texts[index]
                texts[index - 1] = rest
        return [
            (text, part if isinstance(part, int) else None)
            for text, part in zip(texts, parts, strict=True)
        ]

    def _encode_ordinary(
        self, text: str, *, is_first: bool
    ) -> list[tuple[str, tokenizers.Encoding]]:
        """Encode a text so that no special token comes out, in several parts if it must be."""
        if not text:
            return []
        puts_space = is_first and self._puts_space_first and text[0] not in {" ", _SPACE}
        encoding = self._ask_backend(f" {text}" if puts_space else text)
        found = self._special_texts.keys() & encoding.ids
        if not found:
            return [(text, encoding)]
        # Some vocabulary builds a special token's text out of ordinary pieces: cut inside it. One
        # that stands for a single character, such as "unknown", is all there is for that.
        spans = (
            (max(start - puts_space, 0), end - puts_space)
            for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if token_id in found
        )
        cuts: list[int] = []
        for start, end in spans:
            if end - start <= 1:
                raise _cannot_encode()
            cuts.append(start + 1)
        return [
            piece
            for start, end in pairwise([0, *cuts, len(text)])
            for piece in self._encode_ordinary(text[start:end], is_first=is_first and not start)
        ]

    def _ask_backend(self, text: str) -> tokenizers.Encoding:
        try:
            return self._backend.encode(text, add_special_tokens=False)
        except BaseException as error:
            if is_backend_fault(error):
                raise _cannot_encode() from error
            raise

    def _tiles(self, text: str, encoding: tokenizers.Encoding) -> list[tuple[int, int]]:
        """Return where tokens lie in the text, in bytes, one range beginning where another ends."""
        whole = text.encode()
        tokens = [self.token_bytes(token_id) for token_id in encoding.ids]
        joined = b"".join(tokens)
        if joined.endswith(whole) and len(joined) - len(whole) <= 1:
            added = len(joined) - len(whole)
            ends = [max(end - added, 0) for end in accumulate(map(len, tokens))]
        else:
            starts = [0, *accumulate(len(character.encode()) for character in text)]
            last = len(starts) - 1
            ends = list(accumulate((starts[min(end, last)] for _, end in encoding.offsets), max))
            if ends:
                ends[-1] = len(whole)
        return list(pairwise([0, *ends]))


def _byte_reader(backend: tokenizers.Tokenizer) -> Callable[[str], bytes]:
    decoders = _components(backend.decoder, "decoders")
    kinds = {component["type"] for component in decoders}
    if "ByteLevel" in kinds:
        return _bytes_of_gpt2_piece
    if "Metaspace" in kinds or any(
        component["type"] == "Replace" and component["pattern"] == {"String": _SPACE}
        for component in decoders
    ):
        return _bytes_of_fallback_piece if "ByteFallback" in kinds else _bytes_of_metaspace_piece
    raise StartupError("this kind of tokenizer is not supported: it has no byte alphabet")


def _drops_first_space(backend: tokenizers.Tokenizer) -> bool:
    return any(
        (component["type"] == "Strip" and component["content"] == " " and component["start"] > 0)
        or (component["type"] == "Metaspace" and component["prepend_scheme"] != "never")
        for component in _components(backend.decoder, "decoders")
    )


def _take_over_first_space(backend: tokenizers.Tokenizer) -> bool:
    """Stop the backend from putting a space before a text; tell whether it did.

    The backend would put it before each text that it sees, ours are parts of one.
    """
    pre_tokenizer = backend.pre_tokenizer
    if (
        not isinstance(pre_tokenizer, tokenizers.pre_tokenizers.Metaspace)
        or pre_tokenizer.prepend_scheme != "first"
    ):
        return False
    pre_tokenizer.prepend_scheme = "never"
    return True


def is_backend_fault(error: BaseException) -> bool:
    """Tell whether the backend raised this: a panic in compiled code is no `Exception`."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _cannot_encode() -> InvalidRequest:
    return InvalidRequest.of("text", "the model's tokenizer cannot encode this text")
