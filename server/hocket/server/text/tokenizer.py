"""What hocket asks of a tokenizer. Pure functions; any thread, several at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Encoding:
    """The tokens of a text.

    Attributes:
        token_ids: In order.
        byte_ranges: For each token, where it begins and ends in the text, in UTF-8 bytes;
            empty ranges for tokens that were added. Empty when offsets were not asked for.
    """

    token_ids: tuple[int, ...]
    byte_ranges: tuple[tuple[int, int], ...] = ()


class Tokenizer(Protocol):
    """A model's tokenizer."""

    @property
    def vocabulary_size(self) -> int:
        """Token ids are below it. May be less than the rows of the model's embedding."""
        ...

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The tokens with which the model ends a text; may be empty."""
        ...

    def encode(
        self, text: str, *, add_special: bool, parse_special: bool, offsets: bool = False
    ) -> Encoding:
        """Turn text into tokens.

        Args:
            text: Any text without lone surrogates.
            add_special: Put the begin-of-text token in front, where the model has one.
            parse_special: Read special-token texts as those tokens; otherwise they are
                ordinary text and no special token can come of them.
            offsets: Fill `byte_ranges`.
        """
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Return what a token adds to a text: `b""` for special and unknown ids.

        Joined over a sequence and decoded as UTF-8 with replacement, these bytes are the
        text of the sequence.
        """
        ...

    def token_text(self, token_id: int) -> str:
        """Return how a token is written, special tokens included: `<|im_end|>`."""
        ...

    def decode(self, token_ids: Sequence[int], *, keep_special: bool = False) -> str:
        """Turn tokens into text; bytes that make no character stand as U+FFFD."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """One turn of a conversation."""

    role: str
    content: str


class ChatTemplate(Protocol):
    """A model's own way to write a conversation down."""

    def encode(
        self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool
    ) -> tuple[int, ...]:
        """Turn a conversation into tokens; special-token texts in messages stay ordinary text.

        Raises:
            InvalidRequest: The template refuses the conversation, such as for its roles.
        """
        ...
