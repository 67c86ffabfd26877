"""A text whose beginning its reader has: what is left of it. Pure; any thread.

A lost stream is written again from its known tokens, so that detokenizer, stop strings and splitter
come to the state they were in. The pieces that come out meanwhile, and those that were decided by
tokens the reader never saw, are the ones that it has.
"""

from dataclasses import dataclass

from hocket.server.text.assembly import AssembledPiece
from hocket.server.text.pieces import Piece


@dataclass(frozen=True, slots=True)
class Received:
    """How much of a text its reader has.

    Attributes:
        tokens: How many of its tokens.
        text_bytes: How much of its text, in UTF-8 bytes; a character ends there.
    """

    tokens: int = 0
    text_bytes: int = 0

    def rest_of(self, assembled: AssembledPiece) -> AssembledPiece | None:
        """Return what the reader has not got of a piece; None if it has all of it.

        Where the text goes on as it did before, a piece is either had or not. Where a model does
        not repeat itself bit for bit, it may not: then the rest of a piece is a piece.
        """
        piece = assembled.piece
        end_token = assembled.first_token + assembled.token_count
        if piece.start_byte >= self.text_bytes and assembled.first_token >= self.tokens:
            return assembled
        if piece.end_byte <= self.text_bytes and end_token <= self.tokens:
            return None
        begin = min(max(piece.start_byte, self.text_bytes), piece.end_byte)
        text = piece.text.encode()[begin - piece.start_byte :].decode(errors="ignore")
        first_token = max(assembled.first_token, self.tokens)
        # A token without text may be credited to a piece that is had: its text ends where that did.
        end = max(piece.end_byte, self.text_bytes)
        return AssembledPiece(
            Piece(text, end - len(text.encode()), end, piece.kind),
            first_token,
            max(0, end_token - first_token),
        )
