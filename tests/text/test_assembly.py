"""Tokens become pieces; nothing is lost, and every token is accounted for once."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.text.assembly import AssembledPiece, TextAssembly
from hocket.server.text.pieces import Granularity, PieceKind, SentenceOptions
from hocket.server.text.stopping import StopStrings
from text.test_stopping import first_stop

SILENT = None


class WordTokenizer(ByteTokenizer):
    """A tokenizer whose tokens are texts, or parts of their bytes."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        super().__init__()
        self._chunks = chunks

    def token_bytes(self, token_id: int) -> bytes:
        return self._chunks[token_id]


PROSE = st.text("ab .!?\n\u3002é🙂\u0301STOP", max_size=40).map(str.encode)
BROKEN = st.binary(max_size=4)
STOPS = st.lists(st.sampled_from(["STOP", "\n\n", "b a", "🙂", "TO"]), max_size=3).map(tuple)


@st.composite
def token_chunks(draw: st.DrawFn) -> list[bytes | None]:
    whole = b"".join(draw(st.lists(PROSE | BROKEN, max_size=3)))
    edges = [0, *sorted(draw(st.lists(st.integers(0, len(whole)), max_size=20))), len(whole)]
    chunks: list[bytes | None] = [whole[a:b] for a, b in pairwise(edges) if a < b]
    for at in draw(st.lists(st.integers(0, len(chunks)), max_size=3)):
        chunks.insert(at, SILENT)
    return chunks


def assembly_of(
    chunks: Sequence[bytes | None], granularity: Granularity, stops: tuple[str, ...] = ()
) -> TextAssembly:
    return TextAssembly(
        WordTokenizer([chunk or b"" for chunk in chunks]),
        stops=StopStrings(stops),
        granularity=granularity,
        sentences=SentenceOptions(),
    )


def assemble(
    chunks: Sequence[bytes | None], granularity: Granularity, stops: tuple[str, ...] = ()
) -> tuple[TextAssembly, list[list[AssembledPiece]]]:
    """Push tokens as the engine does: until a stop string is found, then finish."""
    assembly = assembly_of(chunks, granularity, stops)
    pushes = []
    for index, chunk in enumerate(chunks):
        pushes.append(assembly.push_silent() if chunk is SILENT else assembly.push(index))
        if assembly.stop_string is not None:
            break
    return assembly, [*pushes, assembly.finish()]


@given(token_chunks(), st.sampled_from(Granularity), STOPS)
def test_pieces_join_to_the_text_before_the_first_stop(
    chunks: list[bytes | None], granularity: Granularity, stops: tuple[str, ...]
) -> None:
    """In every granularity: the decoding of all tokens at once, cut before the first stop."""
    assembly, pushes = assemble(chunks, granularity, stops)
    whole = b"".join(filter(None, chunks)).decode("utf-8", errors="replace")
    stop = first_stop(whole, stops)
    expected = whole if stop is None else whole[: stop[0]]
    pieces = [assembled.piece for push in pushes for assembled in push]
    assert expected == "".join(piece.text for piece in pieces)
    assert (stop and stop[1]) == assembly.stop_string
    assert len(expected.encode()) == assembly.text_bytes


@given(token_chunks(), st.sampled_from(Granularity), STOPS)
def test_offsets_and_tokens_have_no_gaps(
    chunks: list[bytes | None], granularity: Granularity, stops: tuple[str, ...]
) -> None:
    """Pieces tile the text, their tokens tile the tokens, and only the last may be empty."""
    assembly, pushes = assemble(chunks, granularity, stops)
    assembled = [piece for push in pushes for piece in push]
    end_byte, next_token = 0, 0
    for piece in assembled:
        assert (end_byte, next_token) == (piece.piece.start_byte, piece.first_token)
        assert piece.piece.end_byte - end_byte == len(piece.piece.text.encode())
        end_byte, next_token = piece.piece.end_byte, next_token + piece.token_count
    assert len(pushes) - 1 == assembly.token_count == next_token
    assert all(piece.piece.text for piece in assembled[:-1])


@given(token_chunks(), st.sampled_from(Granularity))
def test_a_token_is_credited_to_the_piece_of_its_first_byte(
    chunks: list[bytes | None], granularity: Granularity
) -> None:
    """For well-formed text that is easy to say: where the token's first character lies."""
    text = b"".join(filter(None, chunks)).decode("utf-8", errors="ignore")
    characters = [character.encode() for character in text]
    _, pushes = assemble(characters, granularity)
    starts = [len("".join(text[:index]).encode()) for index in range(len(text))]
    for assembled in (piece for push in pushes for piece in push):
        piece = assembled.piece
        expected = [
            i for i, start in enumerate(starts) if piece.start_byte <= start < piece.end_byte
        ]
        first = assembled.first_token
        assert expected == list(range(first, first + assembled.token_count))


@given(token_chunks(), STOPS)
def test_tokens_come_out_as_they_go_in(chunks: list[bytes | None], stops: tuple[str, ...]) -> None:
    """In granularity TOKEN a push gives one piece or none, and all of them are deltas."""
    _, pushes = assemble(chunks, Granularity.TOKEN, stops)
    assert all(len(push) <= 1 for push in pushes)
    assert {PieceKind.DELTA} >= {piece.piece.kind for push in pushes for piece in push}


@given(token_chunks(), STOPS)
def test_full_text_comes_at_the_end_in_one_piece(
    chunks: list[bytes | None], stops: tuple[str, ...]
) -> None:
    """In granularity FULL everything is in one delta, if there was any token at all."""
    _, (*pushes, last) = assemble(chunks, Granularity.FULL, stops)
    assert not any(pushes)
    assert ([PieceKind.DELTA] if chunks else []) == [piece.piece.kind for piece in last]


@pytest.mark.parametrize(
    ("granularity", "kind"),
    [
        (Granularity.TOKEN, PieceKind.DELTA),
        (Granularity.FULL, PieceKind.DELTA),
        (Granularity.SENTENCE, PieceKind.TAIL),
        (Granularity.PARAGRAPH, PieceKind.TAIL),
    ],
)
def test_tokens_without_any_text_are_counted_in_an_empty_piece(
    granularity: Granularity, kind: PieceKind
) -> None:
    """A sequence of nothing but an end token still accounts for it."""
    _, pushes = assemble([SILENT], granularity)
    (only,) = pushes[-1]
    assert ("", kind, 0, 1) == (
        only.piece.text, only.piece.kind, only.first_token, only.token_count,
    )  # fmt: skip


def test_an_end_token_belongs_to_the_last_sentence() -> None:
    """It makes no empty piece after a sentence that was still held."""
    words = [b"The first one ends. ", b"The second", b" ends.", SILENT]
    _, pushes = assemble(words, Granularity.SENTENCE)
    pieces = [(piece.piece.text, piece.token_count) for push in pushes for piece in push]
    expected = [("The first one ends. ", 1), ("The second ends.", 3)]
    assert expected == pieces


def test_a_token_inside_a_character_belongs_to_that_character() -> None:
    """Both bytes of a character and a silent token between them are credited together."""
    _, pushes = assemble([b"a", b"\xc3", SILENT, b"\xa9", b"b"], Granularity.TOKEN)
    pieces = [(piece.piece.text, piece.token_count) for push in pushes for piece in push]
    assert pieces == [("a", 1), ("é", 3), ("b", 1)]


def test_a_finished_text_is_closed() -> None:
    """Finishing twice gives nothing more; pushing afterwards is a bug of the caller."""
    assembly = assembly_of([b"a"], Granularity.TOKEN)
    assembly.push(0)
    assert [] == assembly.finish() == assembly.finish()
    with pytest.raises(RuntimeError):
        assembly.push(0)
    with pytest.raises(RuntimeError):
        assembly.push_silent()
