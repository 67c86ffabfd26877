"""A document to segments and the gaps between them. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of a document that is worked on by itself.

    Attributes:
        index: Position in the document, from 0.
        gap: What stands between the segment before and this one.
        text: The segment; neither begins nor ends with white space.
        start_byte: Where it begins in the source, in UTF-8 bytes.
        protected: Ranges of `text`, in characters, that are kept; in order, apart from each other.
    """

    index: int
    gap: str
    text: str
    start_byte: int
    protected: tuple[tuple[int, int], ...] = ()

    @property
    def end_byte(self) -> int:
        """Where it ends in the source, in UTF-8 bytes."""
        return self.start_byte + len(self.text.encode())
