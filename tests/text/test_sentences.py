"""The laws of the splitter over any text and any chunking, and its rules by example."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hocket.server.text.languages import resolve_language
from hocket.server.text.pieces import (
    Piece,
    PieceKind,
    QuotePolicy,
    SentenceMode,
    SentenceOptions,
)
from hocket.server.text.sentences import PARAGRAPH_FACTOR, SentenceSplitter, split_text

GOLDEN = json.loads((Path(__file__).parent / "data/english_golden_rules.json").read_text())

FRAGMENTS = [
    *"aAzZ019 .!?…,;:\n\r\t\"'()[]{}`~#|-*>•«»“”„–_@/<=",
    "\r\n", "\n\n", ". ", "! ", "? ", ". . . ", "...", ". . . . ", "```", "```py\n",
    "\n```\n", "\n```x` ", "~~~",
    "Mr. ", "U.S. ", "a.m. ", "etc. ", "I. ", "p. 5", "At 5 ", "1. ", " 2. ", "1.) ",
    " 2.) ", "\n- ",
    "\n* ", "\n12) ", "\n# ", "\n| a |", "`x. y` ", '<a href="x. Y">', "https://a.b/?c=1. ", "[1] ",
    "word ", "Word ", "The ", "longer words here ", "。", "！", "」", "「", "と", "って",
    "日本", "中文",
    "।", "हिन्दी ", "؟", "۔", "عربي ", "ไทย", "é", "e\u0301", "\u0301", "\ufe0f", "\u200d",
    "👩\u200d🚀",
    "👍🏽", "🇩🇪", "한국", "\u1100\u1161\u11a8", "\u2028", "\u2029", "\u00a0", "\u3000",
]  # fmt: skip
TEXTS = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=4)), max_size=60).map(
    "".join
)
OPTIONS = st.builds(
    SentenceOptions,
    language=st.sampled_from(["en", "de", "el", "ja", "cs", "hi"]),
    mode=st.sampled_from(SentenceMode),
    quotes=st.sampled_from(QuotePolicy),
    min_chars=st.sampled_from([0, 0, 5, 40]),
    max_chars=st.sampled_from([40, 41, 60, 500]),
)


def stream(text: str, cuts: list[int], options: SentenceOptions, **kwargs) -> list[Piece]:
    splitter = SentenceSplitter(options, **kwargs)
    bounds = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    pieces = [
        piece
        for start, end in itertools.pairwise(bounds)
        for piece in splitter.push(text[start:end])
    ]
    return pieces + splitter.finish()


def texts(text: str, **kwargs) -> list[str]:
    return [piece.text for piece in split_text(text, SentenceOptions(**kwargs))]


@settings(max_examples=400, deadline=None)
@given(
    text=TEXTS,
    cuts=st.lists(st.integers(0, 4000), max_size=40),
    options=OPTIONS,
    paragraphs=st.booleans(),
)
def test_pieces_are_exact_monotone_and_do_not_depend_on_chunks(text, cuts, options, paragraphs):
    text = text.encode("utf-8", "ignore").decode()
    whole = split_text(text, options, paragraphs=paragraphs)
    assert "".join(piece.text for piece in whole) == text
    end = 0
    for piece in whole:
        assert piece.text
        assert piece.start_byte == end
        end = piece.end_byte
        assert end - piece.start_byte == len(piece.text.encode())
    assert end == len(text.encode())
    assert stream(text, cuts, options, paragraphs=paragraphs) == whole
    assert stream(text, list(range(len(text))), options, paragraphs=paragraphs) == whole


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, options=OPTIONS, paragraphs=st.booleans())
def test_no_character_waits_for_more_than_max_chars(text, options, paragraphs):
    text = text.encode("utf-8", "ignore").decode()
    splitter = SentenceSplitter(options, paragraphs=paragraphs)
    capacity = options.max_chars * (PARAGRAPH_FACTOR if paragraphs else 1)
    for character in text:
        pieces = splitter.push(character)
        assert splitter.held_chars < capacity
        assert all(len(piece.text) <= capacity for piece in pieces)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, more=TEXTS, options=OPTIONS)
def test_what_was_handed_out_stays_however_the_text_goes_on(text, more, options):
    text, more = (part.encode("utf-8", "ignore").decode() for part in (text, more))
    early = SentenceSplitter(options).push(text)
    assert split_text(text + more, options)[: len(early)] == early


@pytest.mark.parametrize("mode", SentenceMode)
def test_at_least_44_golden_rules_hold_while_streaming(mode):
    options = SentenceOptions(mode=mode)
    passed = [
        [piece.text.strip() for piece in stream(rule["text"], list(range(400)), options)]
        == rule["sentences"]
        for rule in GOLDEN
    ]
    assert len(passed) == 48
    assert sum(passed) >= 44


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("zh", ["今天天气很好。", "我们去公园吧！", "你呢？"]),
        ("ja", ["今日は晴れです。", "散歩しましょう！", "「そうだね」と彼は言った。"]),
        ("ja", ["「行こう。」と彼は言った。", "雨だ。"]),
        ("hi", ["यह एक वाक्य है। ", "यह दूसरा है। ", "क्या यह तीसरा है?"]),
        ("ar", ["كيف حالك؟ ", "أنا بخير. ", "شكرا."]),
        ("de", ["Am 3. Oktober feiern wir. ", "Dr. Müller kam z.B. um 5 Uhr. ", "Gut!"]),
        ("fr", ["M. Dupont est là. ", "Il parle à Mme. Martin. ", "Oui ?"]),
        ("es", ["¿Cómo está el Sr. López? ", "¡Bien! ", "Vive en EE.UU. desde 1990."]),
        ("it", ["Il Dott. Rossi arriva. ", "Ciao!"]),
        ("pt", ["O Sr. Silva chegou. ", "Tudo bem?"]),
        ("ru", ["Это г. Москва. ", "Он родился в 1990 г. в Туле. ", "Да!"]),
        ("el", ["Τι κάνεις; ", "Είμαι καλά."]),
        ("nl", ["Dhr. Jansen kwam. ", "Het is goed."]),
        ("en", ["Wow\u203c\ufe0f ", "Next one\u2757 And more."]),
        ("my", ["ဟုတ်ကဲ့။", "ကောင်းပါတယ်။"]),
        ("am", ["ሰላም።", "እንዴት ነህ?"]),
    ],
)
def test_languages(language, sentences):
    assert texts("".join(sentences), language=language) == sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["Here is a list:\n", "- one\n", "- two\n", "- three\n\n", "After it."],
        ["# A heading\n", "Text under it. ", "More."],
        ["| a | b |\n", "| 1 | 2 |\n", "Done."],
        ["1. First. ", "Still the first.\n", "2. Second.\n", "10. Tenth."],
        ["Look:\n", "```py\nx = 1. \n\nIf y? Z!\n```\n\n", "So it is."],
        ["~~~\na. B. C! D\n~~~\n", "End."],
        ["```a. B``` is code. ", "Like this:\n", "```` ``` ```` too. ", "So it is."],
        ["~~~ `a`\nx. Y\n~~~\n", "End."],
        ["Call `a. B` now. ", "Then `c! D` too."],
        ['See <a title="One. Two">it</a> now. ', "Next."],
        ["Go to https://a.b/c.html?d=1! ", "Now."],
        ["It was good.[1] ", "It was bad.[12] ", "End."],
        ['He said "Go." ', '"Why?" ', "Nobody knew."],
        ["**Bold one.** ", "_Emphatic two!_ ", "Three."],
        ["Great! ", "😀 Really."],
        ["Version 3.14 is out. ", "It costs $1.05. ", "Fine."],
        ["First line\nsecond line. ", "Third."],
        ["  Leading space. ", "Next."],
        ["Paragraph without an end\n\n", "Next one."],
    ],
)
def test_structure_is_kept(sentences):
    assert texts("".join(sentences)) == sentences


NOTES = [
    ["It was good.[1] ", "It was bad.[12] ", "End."],
    ["One.[1][2] ", "Two![3] ", "Three?[123] ", "Four."],
    ["He said “Go.”[4] ", "Then he went.[5]\n\n", "End."],
    ["See the list.[a] End."],
    ["一。[1]", "二。[2]", "三。"],
    ["Not a note.[1234] End."],
    ["Never closed.[12 End."],
    ["At the end.[1]"],
]


@pytest.mark.parametrize("sentences", NOTES)
def test_the_numbers_of_notes_belong_to_the_sentence_before(sentences):
    """However they come, `[1]` closes a sentence like a quotation mark."""
    text = "".join(sentences)
    for cuts in ([], range(len(text))):
        pieces = stream(text, list(cuts), SentenceOptions())
        assert [piece.text for piece in pieces] == sentences


@pytest.mark.parametrize("paragraphs", [False, True])
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("```\nx\n```", PieceKind.CODE),
        ("```\nx\n```\n", PieceKind.CODE),
        ("```\nx\n```  \n\n ", PieceKind.CODE),
        ("~~~~\nx\n~~~~~", PieceKind.CODE),
        ("```\nx\n  ```", PieceKind.CODE),
        ("```\nx\n``", PieceKind.TAIL),
        ("~~~~\nx\n~~~", PieceKind.TAIL),
        ("```\nx", PieceKind.TAIL),
        ("```x. Y\nz", PieceKind.TAIL),
        ("```x. Y", PieceKind.TAIL),
        ("```x```", PieceKind.TAIL),
        ("```", PieceKind.TAIL),
    ],
)
def test_a_block_of_code_at_the_end_is_code_if_it_is_closed(text, kind, paragraphs):
    """The end of the text ends the line that closes a block."""
    for cuts in ([], range(len(text))):
        (piece,) = stream(text, list(cuts), SentenceOptions(), paragraphs=paragraphs)
        assert (piece.text, piece.kind) == (text, kind)


def test_kinds():
    text = "One. Two.\n\n- a\n- b\n\n```\nx\n```\nEnd"
    kinds = [piece.kind for piece in split_text(text, SentenceOptions())]
    assert kinds == [
        PieceKind.SENTENCE,
        PieceKind.PARAGRAPH_END,
        PieceKind.LIST_ITEM,
        PieceKind.PARAGRAPH_END,
        PieceKind.CODE,
        PieceKind.TAIL,
    ]


def test_paragraphs_keep_sentences_together():
    text = "One. Two.\nThree.\n\nFour.\n```\na\n\nb\n```\nFive."
    pieces = split_text(text, SentenceOptions(), paragraphs=True)
    expected = ["One. Two.\nThree.\n\n", "Four.\n", "```\na\n\nb\n```\n", "Five."]
    assert [piece.text for piece in pieces] == expected


def test_a_line_that_goes_on_with_backticks_opens_no_block():
    """It is inline code (CommonMark 4.5), and paragraphs are no longer than elsewhere."""
    text = "One.\n```a``` is code.\n\nTwo `b`.\n```c``\nd\n\n```e\n\nf\n```\n"
    expected = ["One.\n```a``` is code.\n\n", "Two `b`.\n```c``\nd\n\n", "```e\n\nf\n```\n"]
    for cuts in ([], range(len(text))):
        pieces = stream(text, list(cuts), SentenceOptions(), paragraphs=True)
        assert [piece.text for piece in pieces] == expected
        assert [piece.kind for piece in pieces][2] is PieceKind.CODE


def test_held_quotations_stay_whole_up_to_a_bound():
    text = "She said: “One. Two. Three.” Then she left. End."
    assert texts(text)[:2] == ["She said: “One. ", "Two. "]
    held = texts(text, quotes=QuotePolicy.HOLD)
    assert held == ["She said: “One. Two. Three.” ", "Then she left. ", "End."]
    endless = "“" + "One two three. " * 60
    assert max(map(len, texts(endless, quotes=QuotePolicy.HOLD))) <= 266


def test_short_sentences_join_the_next():
    assert texts("Yes. No. Maybe so. End.", min_chars=10) == ["Yes. No. Maybe so. ", "End."]


def test_a_soft_cut_prefers_a_clause_then_a_space_then_a_character():
    words = "word " * 20
    assert texts(words[:60] + "word, " + words, max_chars=80)[0].endswith("word, ")
    assert texts("abcdefghi " * 10, max_chars=45)[0] == "abcdefghi " * 4
    assert [len(piece) for piece in texts("x" * 100, max_chars=40)] == [39, 39, 22]
    family = "👩\u200d👩\u200d👧\u200d👦"
    assert all(piece.startswith("👩") for piece in texts(family * 20, max_chars=40))


def test_an_eager_cut_waits_for_one_character_only():
    """The sentence goes out as soon as the next one begins."""
    splitter = SentenceSplitter(SentenceOptions())
    assert splitter.push("This is the first one. ") == []
    assert [piece.text for piece in splitter.push("A")] == ["This is the first one. "]


@pytest.mark.parametrize(
    ("tag", "code"), [("en", "en"), ("pt-BR", "pt"), ("ZH_hans", "zh"), ("iw", "he")]
)
def test_language_tags_resolve(tag, code):
    assert resolve_language(tag) == code


@pytest.mark.parametrize("tag", ["", "xx", "english", "e", "日"])
def test_unknown_languages_are_refused(tag):
    with pytest.raises(ValueError, match="639-1"):
        resolve_language(tag)
