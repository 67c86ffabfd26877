"""Tokens become text without half a character and without loss."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.text.detokenizer import Detokenizer


class ChunkTokenizer(ByteTokenizer):
    """A tokenizer whose tokens are the byte strings it is given."""

    def __init__(self, chunks: list[bytes]) -> None:
        super().__init__()
        self._chunks = chunks

    def token_bytes(self, token_id: int) -> bytes:
        return self._chunks[token_id]


# Bytes that start, continue and break characters of every length.
EDGES = [0x41, 0x7F, 0x80, 0x9F, 0xA0, 0xBF, 0xC0, 0xC3, 0xE0, 0xE2, 0xED, 0xEF, 0xF0, 0xF4, 0xF5]
BROKEN = st.lists(st.sampled_from(EDGES), max_size=24).map(bytes)
WHOLE = st.text(max_size=12).map(str.encode)


@st.composite
def chunked(draw: st.DrawFn) -> list[bytes]:
    whole = b"".join(draw(st.lists(BROKEN | WHOLE, max_size=4)))
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    edges = [0, *cuts, len(whole)]
    return [whole[a:b] for a, b in pairwise(edges)]


@given(chunked())
def test_parts_join_to_the_decoding_of_the_whole(chunks: list[bytes]) -> None:
    """Wherever tokens cut the bytes, the text is that of all bytes decoded at once."""
    detokenizer = Detokenizer(ChunkTokenizer(chunks))
    parts = [detokenizer.push(index) for index in range(len(chunks))]
    expected = b"".join(chunks).decode("utf-8", errors="replace")
    assert expected == "".join(parts) + detokenizer.finish()


@given(chunked())
def test_a_character_comes_with_the_token_that_completes_it(chunks: list[bytes]) -> None:
    """Nothing but an unfinished character is held: whole characters are never delayed."""
    detokenizer = Detokenizer(ChunkTokenizer(chunks))
    seen, shown = b"", ""
    for index, chunk in enumerate(chunks):
        seen += chunk
        shown += detokenizer.push(index)
        # A byte that can belong to no character proves that the ones before it are final.
        assert shown == (seen + b"\xff").decode("utf-8", errors="replace")[: len(shown)]
        assert len(seen.decode("utf-8", errors="ignore")) <= len(shown)


def _characters(whole: bytes) -> list[tuple[int, int]]:
    """Where each character of the decoding begins: in the bytes, and in the decoded text."""
    found, at, text_at = [], 0, 0
    while at < len(whole):
        for size in range(1, 5):
            part = whole[at : at + size]
            try:
                part.decode()
                break
            except UnicodeDecodeError as error:
                if error.reason != "unexpected end of data" or at + size >= len(whole):
                    # The longest beginning of a character becomes one U+FFFD.
                    part = part[: error.end]
                    break
        found.append((at, text_at))
        at += len(part)
        text_at += len(part.decode("utf-8", errors="replace").encode())
    return found


@given(chunked())
def test_a_token_starts_where_the_character_of_its_first_byte_starts(chunks: list[bytes]) -> None:
    """Also when that byte proves the character before it broken."""
    characters = _characters(b"".join(chunks))
    detokenizer = Detokenizer(ChunkTokenizer(chunks))
    at = 0
    for index, chunk in enumerate(chunks):
        detokenizer.push(index)
        if chunk:
            expected = max(text_at for byte_at, text_at in characters if byte_at <= at)
            assert expected == detokenizer.token_start
        at += len(chunk)


def test_special_tokens_make_no_text() -> None:
    """An end token in the middle of a character does not break it."""
    detokenizer = Detokenizer(ByteTokenizer())
    first, second = "é".encode()
    parts = [detokenizer.push(token_id) for token_id in (first, ByteTokenizer.END, second)]
    assert parts == ["", "", "é"]
