"""A document to segments and the gaps between them, while it is still coming.

Gaps and segments join to the document byte for byte, and do not depend on the parts it came in:
both hold for the splitter's pieces, and what is made of them here looks at nothing else.

One object per document; not shared between threads.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from hocket.server.text.paragraphs import Block, split_blocks
from hocket.server.text.pieces import Piece, PieceKind, SentenceOptions
from hocket.server.text.protection import Protection, is_kept
from hocket.server.text.sentences import SentenceSplitter

_LINE_END: Final = re.compile(r"[\n\r\u2028\u2029][ \t]*\Z")


class Segmentation(Enum):
    """What a segment is."""

    SENTENCES = "sentences"
    PARAGRAPHS = "paragraphs"
    GIVEN = "given"


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


class Segmenter:
    """Cuts one document into segments: sentences, paragraphs, or what its caller gives.

    Segments have something to work on: what holds no letter and no digit that is not kept becomes
    part of a gap, and so do blocks of code, unless protection leaves code alone. Given segments
    are all there, even empty. It holds the open piece and the open gap.

    Args:
        segmentation: What a segment is.
        options: How sentences are cut; of paragraphs, how long they may become.
        protection: What is kept.
    """

    def __init__(
        self,
        segmentation: Segmentation,
        options: SentenceOptions | None = None,
        protection: Protection | None = None,
    ) -> None:
        self._is_given = segmentation is Segmentation.GIVEN
        self._cuts_blocks = segmentation is Segmentation.PARAGRAPHS
        self._protection = protection or Protection()
        self._splitter = SentenceSplitter(
            options or SentenceOptions(), paragraphs=self._cuts_blocks
        )
        self._gap: list[str] = []
        self._end_byte = 0  # of segments and gaps
        self._block = Block.NONE
        self._begins_line = True
        self._source_bytes = 0
        self._count = 0

    @property
    def source_bytes(self) -> int:
        """Length of what came so far, in UTF-8 bytes."""
        return self._source_bytes

    @property
    def count(self) -> int:
        """Segments so far."""
        return self._count

    def push(self, text: str) -> list[Segment]:
        """Return the segments that are decided by more text.

        Raises:
            ValueError: Segments are given.
        """
        if self._is_given:
            raise ValueError("segments are given, not found")
        self._source_bytes += len(text.encode())
        return self._segments(self._splitter.push(text))

    def push_given(self, text: str, gap: str) -> Segment:
        """Return the next segment as the caller cut it, with what stands before it.

        White space at its edges goes to the gaps.

        Raises:
            ValueError: Segments are found.
        """
        if not self._is_given:
            raise ValueError("segments are found, not given")
        self._source_bytes += len(gap.encode()) + len(text.encode())
        self._keep(gap)
        visible = text.lstrip()
        self._keep(text[: len(text) - len(visible)])
        core = visible.rstrip()
        segment = self._make(core, self._protection.find(core, self._end_byte))
        self._keep(visible[len(core) :])
        return segment

    def finish(self) -> tuple[list[Segment], str]:
        """Return the last segments, and what stands behind them, now that no more comes."""
        segments = self._segments(self._splitter.finish())
        gap = "".join(self._gap)
        self._gap.clear()
        return segments, gap

    def _segments(self, pieces: list[Piece]) -> list[Segment]:
        segments: list[Segment] = []
        for piece in pieces:
            is_code = piece.kind is PieceKind.CODE or (
                piece.kind is PieceKind.TAIL and self._splitter.is_in_code
            )
            if is_code and self._protection.finds_kinds:
                self._block = Block.NONE
                self._keep(piece.text)
            else:
                texts = [piece.text] if is_code else self._blocks(piece)
                segments += filter(None, map(self._segment, texts))
            self._begins_line = bool(_LINE_END.search(piece.text))
        return segments

    def _blocks(self, piece: Piece) -> list[str]:
        """Return the list items, headings, rows and paragraphs of a piece."""
        if not self._cuts_blocks:
            return [piece.text]
        texts, block = split_blocks(piece.text, self._block, begins_line=self._begins_line)
        self._block = block if piece.kind is PieceKind.SOFT else Block.NONE
        return texts

    def _segment(self, text: str) -> Segment | None:
        """Return the segment in a text, without the white space around it; None if it is a gap."""
        visible = text.lstrip()
        core = visible.rstrip()
        lead = text[: len(text) - len(visible)]
        spans = self._protection.find(core, self._end_byte + len(lead.encode())) if core else ()
        if is_kept(core, spans):
            self._keep(text)
            return None
        self._keep(lead)
        segment = self._make(core, spans)
        self._keep(visible[len(core) :])
        return segment

    def _make(self, text: str, spans: tuple[tuple[int, int], ...]) -> Segment:
        segment = Segment(
            index=self._count,
            gap="".join(self._gap),
            text=text,
            start_byte=self._end_byte,
            protected=spans,
        )
        self._gap.clear()
        self._count += 1
        self._end_byte = segment.end_byte
        return segment

    def _keep(self, text: str) -> None:
        """Add to the open gap."""
        if text:
            self._gap.append(text)
            self._end_byte += len(text.encode())
