"""From a sequence's tokens to the pieces its reader sees: one object per sequence.

Runs inside the step that produced a token, so that whatever ends a sequence is decided there.
Engine thread.
"""

from collections import deque
from dataclasses import dataclass

from hocket.server.text.detokenizer import Detokenizer
from hocket.server.text.pieces import Granularity, Piece, PieceKind, SentenceOptions
from hocket.server.text.sentences import SentenceSplitter
from hocket.server.text.stopping import StopMatcher, StopStrings
from hocket.server.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class AssembledPiece:
    """A piece and the tokens that are credited to it.

    Attributes:
        piece: The text.
        first_token: Index of its first token among the sequence's written tokens.
        token_count: How many; 0 if all its text is of a token that began in an earlier piece.
    """

    piece: Piece
    first_token: int
    token_count: int


class _DeltaCutter:
    """Makes text into deltas: each part as it comes, or all of it at the end."""

    def __init__(self, *, is_held: bool) -> None:
        self._is_held = is_held
        self._held: list[str] = []
        self._end_byte = 0

    def push(self, text: str) -> list[Piece]:
        """Return a delta, or hold the text."""
        if self._is_held:
            self._held.append(text)
            return []
        return self._delta(text)

    def finish(self) -> list[Piece]:
        """Return what was held as one delta."""
        return self._delta("".join(self._held))

    def _delta(self, text: str) -> list[Piece]:
        if not text:
            return []
        start_byte, self._end_byte = self._end_byte, self._end_byte + len(text.encode())
        return [Piece(text, start_byte, self._end_byte, PieceKind.DELTA)]


class TextAssembly:
    """Turns tokens into pieces: detokenizer, then stop strings, then sentences.

    The pieces join to the text shown, which is the decoding of all tokens cut before the first
    stop string, whatever the granularity. A token is credited to the piece that holds its first
    byte; a token without text to the piece in progress; what is left at the end to the last piece,
    which may be empty for that purpose.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stops: StopStrings,
        granularity: Granularity,
        sentences: SentenceOptions,
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._stop_matcher = StopMatcher(stops)
        self._cutter: _DeltaCutter | SentenceSplitter
        if granularity in {Granularity.TOKEN, Granularity.FULL}:
            self._cutter = _DeltaCutter(is_held=granularity is Granularity.FULL)
            self._last_kind = PieceKind.DELTA
        else:
            self._cutter = SentenceSplitter(
                sentences, paragraphs=granularity is Granularity.PARAGRAPH
            )
            self._last_kind = PieceKind.TAIL
        self._token_count = 0
        self._decoded_bytes = 0
        self._text_bytes = 0
        self._starts: deque[int] = deque()  # where tokens not yet credited begin, ascending
        self._last_start = 0
        self._is_finished = False

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the text; `finish` may still find one."""
        return self._stop_matcher.matched

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes in the pieces handed out so far."""
        return self._text_bytes

    @property
    def token_count(self) -> int:
        """Tokens pushed so far, silent ones included."""
        return self._token_count

    @property
    def last_start(self) -> int:
        """Where the last token begins: a piece that ends behind it is credited with all tokens."""
        return self._last_start

    def push(self, token_id: int) -> list[AssembledPiece]:
        """Return the pieces that an ordinary token completes."""
        self._check_open()
        text = self._detokenizer.push(token_id)
        self._decoded_bytes += len(text.encode())
        return self._take(text, start=self._detokenizer.token_start)

    def push_silent(self) -> list[AssembledPiece]:
        """Count a token that is never shown, such as the one that ends the text."""
        self._check_open()
        return self._take("", start=self._decoded_bytes)

    def finish(self) -> list[AssembledPiece]:
        """Return everything that was held; afterwards nothing can be pushed."""
        if self._is_finished:
            return []
        self._is_finished = True
        shown = self._stop_matcher.push(self._detokenizer.finish()) + self._stop_matcher.finish()
        pieces = (self._cutter.push(shown) if shown else []) + self._cutter.finish()
        if not pieces and self._starts:
            pieces = [Piece("", self._text_bytes, self._text_bytes, self._last_kind)]
        return self._credit(pieces, is_last=True)

    def _take(self, text: str, *, start: int) -> list[AssembledPiece]:
        if not text and start == self._decoded_bytes and not self._detokenizer.is_inside_character:
            # No text of its own: it belongs with the character before it.
            start -= 1
        self._last_start = max(self._last_start, start)
        self._starts.append(self._last_start)
        self._token_count += 1
        shown = self._stop_matcher.push(text)
        return self._credit(self._cutter.push(shown)) if shown else []

    def _credit(self, pieces: list[Piece], *, is_last: bool = False) -> list[AssembledPiece]:
        assembled: list[AssembledPiece] = []
        for index, piece in enumerate(pieces):
            first_token = self._token_count - len(self._starts)
            if is_last and index == len(pieces) - 1:
                self._starts.clear()
            while self._starts and self._starts[0] < piece.end_byte:
                self._starts.popleft()
            taken = self._token_count - len(self._starts) - first_token
            assembled.append(AssembledPiece(piece, first_token, taken))
            self._text_bytes = piece.end_byte
        return assembled

    def _check_open(self) -> None:
        if self._is_finished:
            raise RuntimeError("a finished text was pushed to. This is a bug.")
