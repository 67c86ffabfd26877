"""What readers see as one character is never cut, however it is made and however it arrives."""

import itertools
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.text.assembly import TextAssembly
from hocket.server.text.graphemes import is_boundary, last_boundary
from hocket.server.text.pieces import Granularity, PieceKind, SentenceMode, SentenceOptions
from hocket.server.text.sentences import PARAGRAPH_FACTOR, SentenceSplitter, split_text
from hocket.server.text.stopping import StopStrings
from text.joined import CHARACTERS, SOUP, joined_texts

OPTIONS = st.builds(
    SentenceOptions,
    language=st.sampled_from(["en", "ja", "hi", "th"]),
    mode=st.sampled_from(SentenceMode),
    min_chars=st.sampled_from([0, 0, 5]),
    max_chars=st.sampled_from([40, 41, 47, 500]),
)
EDGES = st.lists(st.integers(0, 2_000), max_size=30)


def parts_of(text: str, edges: list[int]) -> list[str]:
    bounds = [0, *sorted(edge % (len(text) + 1) for edge in edges), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(bounds)]


def cuts_of(pieces) -> list[int]:
    """Where one piece ends and the next begins, in code points."""
    return list(itertools.accumulate(len(piece.text) for piece in pieces))[:-1]


@given(joined_texts(), OPTIONS, st.booleans())
@example(("```\nx\n```\n \u0301", frozenset({11})), SentenceOptions(), False)
@example(("🇩🇪" * 41, frozenset(range(1, 82, 2))), SentenceOptions(max_chars=41), False)
@example(("\u1100가" * 30, frozenset(range(1, 60, 2))), SentenceOptions(max_chars=40), False)
def test_no_piece_ends_inside_a_character(made, options, paragraphs):
    text, inside = made
    pieces = split_text(text, options, paragraphs=paragraphs)
    assert set() == inside & set(cuts_of(pieces))


@given(st.lists(CHARACTERS, min_size=20, max_size=40), st.sampled_from([40, 41, 47]))
def test_soft_cuts_fall_between_characters(characters, max_chars):
    """Also where there is nothing else to cut at."""
    characters = [character for character in characters if not character.isspace()]
    text = "".join(characters)
    whole = {0, *itertools.accumulate(map(len, characters))}
    assert whole >= set(cuts_of(split_text(text, SentenceOptions(max_chars=max_chars))))


@given(joined_texts().map(lambda made: made[0]) | SOUP, EDGES, OPTIONS, st.booleans())
def test_pieces_are_exact_and_do_not_depend_on_chunks(text, edges, options, paragraphs):
    """Chunks may well part a character, or fill a piece with one that is longer than it."""
    whole = split_text(text, options, paragraphs=paragraphs)
    assert text == "".join(piece.text for piece in whole)
    assert [0, *(piece.end_byte for piece in whole)][:-1] == [piece.start_byte for piece in whole]
    for parts in (parts_of(text, edges), list(text)):
        splitter = SentenceSplitter(options, paragraphs=paragraphs)
        pushed = [piece for part in parts for piece in splitter.push(part)]
        assert whole == pushed + splitter.finish()


@given(joined_texts().map(lambda made: made[0]) | SOUP, OPTIONS, st.booleans())
def test_what_is_held_is_bounded_and_what_was_sent_stays(text, options, paragraphs):
    capacity = options.max_chars * (PARAGRAPH_FACTOR if paragraphs else 1)
    splitter, sent = SentenceSplitter(options, paragraphs=paragraphs), []
    whole = split_text(text, options, paragraphs=paragraphs)
    for character in text:
        sent += splitter.push(character)
        assert splitter.held_chars < capacity
        assert whole[: len(sent)] == sent


@given(joined_texts().map(lambda made: made[0]), st.sampled_from([40, 47, 500]))
def test_tokens_of_single_bytes_make_the_same_pieces(text, max_chars):
    """Detokenizer and splitter together: not even tokens that part a code point change a cut."""
    options = SentenceOptions(max_chars=max_chars)
    assembly = TextAssembly(
        ByteTokenizer(), stops=StopStrings(), granularity=Granularity.SENTENCE, sentences=options
    )
    assembled = [piece for byte in text.encode() for piece in assembly.push(byte)]
    assert split_text(text, options) == [item.piece for item in assembled + assembly.finish()]


@pytest.mark.parametrize("joined", ["\u0301", "👩\u200d", "\u1100", "क\u094d"])
@pytest.mark.parametrize("paragraphs", [False, True])
def test_a_character_without_end_is_cut_where_the_piece_is_full(joined, paragraphs):
    """The bound holds even then; what follows is cut between characters again."""
    capacity = 40 * (PARAGRAPH_FACTOR if paragraphs else 1)
    text = ("a" + joined * capacity)[: capacity * 2] + "x. Yes"
    pieces = split_text(text, SentenceOptions(max_chars=40), paragraphs=paragraphs)
    assert capacity - 1 == len(pieces[0].text) or pieces[0].text == "a"
    assert all(len(piece.text) <= capacity for piece in pieces)
    assert text == "".join(piece.text for piece in pieces)


@given(st.lists(CHARACTERS, min_size=2, max_size=6))
def test_boundaries_lie_between_characters_and_nowhere_else(characters):
    text = "".join(characters)
    ends = set(itertools.accumulate(map(len, characters))) - {len(text)}
    assert ends == {at for at in range(1, len(text)) if is_boundary(text, at)}


@given(SOUP.filter(lambda text: len(text) > 2))
def test_the_last_boundary_is_the_last(text):
    end = len(text)
    found = [at for at in range(1, end) if is_boundary(text, at)]
    without = end - 2 if text.endswith("\r\n") else end - 1
    assert (found[-1] if found else without) == last_boundary(text, 0, end)


@given(
    st.one_of(SOUP, joined_texts().map(lambda made: made[0]), st.text(max_size=8)).filter(
        lambda text: not any(unicodedata.category(character) in {"Cn", "Cs"} for character in text)
    )
)
def test_there_is_no_boundary_that_the_standard_does_not_know(text):
    """Another implementation of UAX #29 agrees. Ours may keep more together, never less."""
    regex = pytest.importorskip("regex")
    ends = {found.end() for found in regex.finditer(r"\X", text)}
    assert ends >= {at for at in range(1, len(text)) if is_boundary(text, at)}


@pytest.mark.slow
def test_every_code_point_joins_as_the_standard_says():
    """Before and after one of each kind; ideographs and the like are all alike."""
    regex = pytest.importorskip("regex")
    alike = ("CJK ", "HANGUL SYLLABLE", "TANGUT", "EGYPTIAN", "ANATOLIAN", "CUNEIFORM", "YI ")
    characters = [
        character
        for character in map(chr, range(0xF0000))
        if not unicodedata.name(character, "CJK ").startswith(alike)
    ]
    first = regex.compile(r"\X")
    parted = [
        text
        for around in ("क\u094d", "👩\u200d", "🇩", "\u1100", "가")
        for character in characters
        for text, at in ((around + character, len(around)), (character + around, len(character)))
        if is_boundary(text, at) and first.match(text).end() > at
    ]
    assert not parted


def test_a_mark_takes_the_space_that_it_stands_on():
    """Although white space belongs to the piece before it, here behind a block of code."""
    pieces = split_text("```\nx\n```\n \u0301y. Yes.", SentenceOptions())
    found = [(piece.text, piece.kind) for piece in pieces[:2]]
    assert found == [("```\nx\n```\n", PieceKind.CODE), (" \u0301y. ", PieceKind.SENTENCE)]
