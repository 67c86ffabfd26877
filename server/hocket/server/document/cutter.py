"""Text that is checked before it is shown, to the pieces that a reader asked for. Pure."""

from hocket.server.document.job import WrittenPiece
from hocket.server.document.trim import Trim
from hocket.server.text.pieces import Granularity, Piece, PieceKind, SentenceOptions
from hocket.server.text.sentences import SentenceSplitter


class Cutter:
    """Cuts one text, white space around it aside."""

    def __init__(self, granularity: Granularity, sentences: SentenceOptions) -> None:
        self._splitter = None
        if granularity is not Granularity.TOKEN:
            self._splitter = SentenceSplitter(sentences)
        self._trim = Trim()

    def push(self, text: str) -> list[WrittenPiece]:
        """Return the pieces that more text completes."""
        if self._splitter is None:
            return self._shown(text, PieceKind.DELTA)
        return self._cut(self._splitter.push(text))

    def finish(self) -> list[WrittenPiece]:
        """Return what is left."""
        return [] if self._splitter is None else self._cut(self._splitter.finish())

    def _cut(self, pieces: list[Piece]) -> list[WrittenPiece]:
        return [shown for piece in pieces for shown in self._shown(piece.text, piece.kind)]

    def _shown(self, text: str, kind: PieceKind) -> list[WrittenPiece]:
        shown = self._trim.push(text)
        return [WrittenPiece(shown, kind)] if shown else []
