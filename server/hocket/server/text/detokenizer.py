"""Tokens to text, one at a time, never half a character. Owned by one sequence; engine thread."""

import codecs

from hocket.server.text.tokenizer import Tokenizer

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Decodes a sequence's bytes as they come.

    What it returns joins to the decoding of all bytes at once: U+FFFD stands where bytes make no
    character, and nowhere else. A character is returned with the token that completes it.

    Attributes:
        token_start: Where in the text the character begins that holds the first byte of the
            last token, in UTF-8 bytes; for a token without bytes, where the text ended.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.token_start = 0
        self._tokenizer = tokenizer
        self._decoder = _Utf8Decoder(errors="replace")
        self._text_bytes = 0

    @property
    def is_inside_character(self) -> bool:
        """Whether bytes of an unfinished character are held."""
        return bool(self._decoder.getstate()[0])

    def push(self, token_id: int) -> str:
        """Return the characters that a token completes; often one word, sometimes nothing."""
        token = self._tokenizer.token_bytes(token_id)
        self.token_start = self._text_bytes
        text = ""
        if token and self.is_inside_character:
            # The first byte goes on with the held character, or it proves that one broken and
            # begins the next. Either way it lies in the last of what came out and what is held.
            text, token = self._decoder.decode(token[:1]), token[1:]
            characters = text + self._decoder.getstate()[0].decode("utf-8", errors="replace")
            self.token_start += len(characters[:-1].encode())
        text += self._decoder.decode(token)
        self._text_bytes += len(text.encode())
        return text

    def finish(self) -> str:
        """Return what bytes of an unfinished character become: U+FFFD or nothing."""
        text = self._decoder.decode(b"", final=True)
        self._text_bytes += len(text.encode())
        return text
