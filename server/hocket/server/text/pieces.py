"""Pieces of text and the options that shape them: what the study hands out. Any thread."""

from dataclasses import dataclass
from enum import Enum


class Granularity(Enum):
    """In which pieces a text is handed out."""

    TOKEN = "token"  # noqa: S105 - the name of a granularity
    SENTENCE = "sentence"
    PARAGRAPH = "paragraph"
    FULL = "full"


class SentenceMode(Enum):
    """How early a sentence end is believed."""

    EAGER = "eager"
    CAREFUL = "careful"


class QuotePolicy(Enum):
    """What happens to sentences inside a quotation."""

    SPLIT = "split"
    HOLD = "hold"


class PieceKind(Enum):
    """What kind of piece a text was cut into.

    `DELTA` is text as tokens made it, without a claim about sentences.
    """

    DELTA = "delta"
    SENTENCE = "sentence"
    PARAGRAPH_END = "paragraph_end"
    LIST_ITEM = "list_item"
    CODE = "code"
    SOFT = "soft"
    TAIL = "tail"


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceOptions:
    """How text is cut into sentences.

    Attributes:
        language: ISO 639-1 code.
        mode: How early an end is believed.
        quotes: What happens to sentences inside a quotation.
        min_chars: Shorter sentences join the next one; 0 to 200 code points.
        max_chars: A sentence without an end is cut softly here; 40 to 2,000 code points.
    """

    language: str = "en"
    mode: SentenceMode = SentenceMode.EAGER
    quotes: QuotePolicy = QuotePolicy.SPLIT
    min_chars: int = 0
    max_chars: int = 500


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of text that is final.

    Attributes:
        text: Whole characters; the pieces of a text join to it.
        start_byte: Where it begins in the text, in UTF-8 bytes.
        end_byte: Where it ends; the next piece begins here.
        kind: What it is.
    """

    text: str
    start_byte: int
    end_byte: int
    kind: PieceKind
