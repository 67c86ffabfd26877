"""A tokenizer whose tokens are bytes: for tests that need no vocabulary. Any thread."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from hocket.server.text.tokenizer import Encoding

_SPECIAL: Mapping[str, int] = MappingProxyType(
    {
        "<|end|>": 256,
        "<|user|>": 257,
        "<|assistant|>": 258,
        "<|begin|>": 259,
    }
)
_SPECIAL_TEXT = re.compile("|".join(map(re.escape, _SPECIAL)))


class ByteTokenizer:
    """One token for each byte of UTF-8, and four special tokens.

    Attributes:
        END: With which a text ends.
        USER: Opens a user's turn.
        ASSISTANT: Opens the assistant's turn.
        BEGIN: With which a text begins, if the tokenizer was made with `add_bos`.
    """

    END = 256
    USER = 257
    ASSISTANT = 258
    BEGIN = 259

    def __init__(self, *, add_bos: bool = False) -> None:
        self._add_bos = add_bos
        self._texts = {token_id: text for text, token_id in _SPECIAL.items()}

    @property
    def vocabulary_size(self) -> int:
        """256 bytes and 4 special tokens."""
        return 260

    @property
    def end_token_ids(self) -> frozenset[int]:
        """`END` alone."""
        return frozenset({self.END})

    @property
    def special_token_texts(self) -> Mapping[str, int]:
        """How special tokens are written."""
        return _SPECIAL

    def encode(
        self, text: str, *, add_special: bool, parse_special: bool, offsets: bool = False
    ) -> Encoding:
        """Turn text into its bytes."""
        token_ids: list[int] = []
        ranges: list[tuple[int, int]] = []
        if add_special and self._add_bos:
            token_ids.append(self.BEGIN)
            ranges.append((0, 0))
        position = 0

        def add_bytes(part: bytes) -> None:
            nonlocal position
            token_ids.extend(part)
            ranges.extend((position + i, position + i + 1) for i in range(len(part)))
            position += len(part)

        start = 0
        for match in _SPECIAL_TEXT.finditer(text) if parse_special else ():
            add_bytes(text[start : match.start()].encode())
            token_ids.append(_SPECIAL[match.group()])
            end = position + len(match.group())
            ranges.append((position, end))
            position, start = end, match.end()
        add_bytes(text[start:].encode())
        return Encoding(tuple(token_ids), tuple(ranges) if offsets else ())

    def token_bytes(self, token_id: int) -> bytes:
        """Return the byte that a token is; special and unknown ids add nothing."""
        return bytes((token_id,)) if 0 <= token_id < self.END else b""

    def encode_parts(self, parts: Sequence[str | int]) -> tuple[int, ...]:
        """Turn ordinary texts and special tokens into tokens."""
        return tuple(
            token_id
            for part in parts
            for token_id in ((part,) if isinstance(part, int) else part.encode())
        )

    def token_text(self, token_id: int) -> str:
        """Return a token as text: `A`, `<0xC3>`, `<|end|>`."""
        if token_id in self._texts:
            return self._texts[token_id]
        if not 0 <= token_id < self.END:
            return ""
        return chr(token_id) if token_id < 0x80 else f"<0x{token_id:02X}>"  # noqa: PLR2004 - ASCII

    def decode(self, token_ids: Sequence[int], *, keep_special: bool = False) -> str:
        """Turn tokens into text; bytes that make no character stand as U+FFFD."""
        parts = (
            self._texts[token_id].encode()
            if keep_special and token_id in self._texts
            else self.token_bytes(token_id)
            for token_id in token_ids
        )
        return b"".join(parts).decode("utf-8", errors="replace")
