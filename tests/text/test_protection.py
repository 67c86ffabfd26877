"""What is kept comes back as it was, or it is said that it did not."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hocket.server.text.protection import Protection, between, is_kept, mask, merge
from text.documents import DOCUMENTS, VERBATIM, spent

# Texts full of what masks are made of.
TEXTS = st.one_of(
    DOCUMENTS,
    st.text("[]⟦⟧<>x0123 aé字\n", max_size=60),
    st.lists(st.sampled_from(["[[", "[[x", "[[xx0]]", "[[0]]", "⟦0⟧", "⟦", "<<0>>", "a ", "]]"]))
    .map("".join),
)  # fmt: skip


@st.composite
def spanned(draw: st.DrawFn) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return a text and spans of it, in order and apart from each other."""
    text = draw(TEXTS)
    edges = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return text, merge(zip(edges[::2], edges[1::2], strict=False))


@settings(max_examples=400, deadline=None)
@given(spanned=spanned())
@example(("[[x⟦<<", ((0, 1),)))
@example(("[x[0]]", ((1, 2),)))
@example(("00]]", ((0, 1),)))
@example(("xx]][⟧>>", ((0, 1), (5, 6))))
def test_unmasking_undoes_masking(spanned):
    text, spans = spanned
    masked = mask(text, spans)
    assert masked.unmask(masked.text) == text
    opening, closing = masked.brackets
    assert opening not in text
    assert closing not in text
    for number in range(len(spans)):
        found = f"{opening}{number}{closing}"
        assert masked.text.count(found) == 1
        # One lost, one doubled, one that never was.
        assert masked.unmask(masked.text.replace(found, "")) is None
        assert masked.unmask(f"{masked.text} {found}") is None
        assert masked.unmask(masked.text.replace(found, f"{opening}{len(spans)}{closing}")) is None
        assert masked.unmask(masked.text.replace(found, opening)) is None
        # One that a model wrote in its own way.
        spaced = masked.text.replace(found, f"{opening} {number} {closing}")
        assert masked.unmask(spaced) == text
    assert masked.unmask(f"{masked.text}{opening}{len(spans)}{closing}") is None


@given(spanned=spanned())
def test_the_parts_between_join_to_the_text(spanned):
    text, spans = spanned
    parts, after = mask(text, spans).parts()
    assert "".join(part.before + part.text for part in parts) + after == text
    for part in parts:
        assert part.text == part.text.strip()
        assert not is_kept(part.text, ())
    assert (not parts) == is_kept(text, spans)
    # Each kept character stands outside of what is worked on.
    position, worked = 0, set()
    for part in parts:
        position += len(part.before)
        worked |= set(range(position, position + len(part.text)))
        position += len(part.text)
    assert worked.isdisjoint(index for span in spans for index in range(*span))


def test_masks_that_change_places_take_what_they_stand_for_along():
    masked = mask("See {a} and {b}.", [(4, 7), (12, 15)])
    assert masked.text == "See ⟦0⟧ and ⟦1⟧."
    assert masked.unmask("Siehe ⟦1⟧ und ⟦0⟧.") == "Siehe {b} und {a}."
    assert masked.unmask("راجع ⟦٠⟧ و⟦١⟧.") == "راجع {a} و{b}."
    assert masked.unmask("⟦Siehe⟧ ⟦0⟧ ⟦1⟧") == "⟦Siehe⟧ {a} {b}"
    parts, after = masked.parts()
    assert [(part.before, part.text) for part in parts] == [("", "See"), (" {a} ", "and")]
    assert after == " {b}."


@given(spans=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8))
def test_merged_spans_cover_the_same_and_stand_apart(spans):
    merged = merge(spans)
    covered = {index for start, end in spans for index in range(start, end)}
    assert {index for span in merged for index in range(*span)} == covered
    assert all(end < start for (_, end), (start, _) in pairwise(merged))
    assert len(between("x" * 30, merged)) == len(merged) + 1


def kept(text: str, protection: Protection | None = None) -> list[str]:
    """Return what is kept of a text."""
    return [text[start:end] for start, end in (protection or Protection()).find(text)]


@pytest.mark.parametrize("verbatim", VERBATIM)
@pytest.mark.parametrize(
    "around",
    ["{}", "{} ", "See {} now.", "Siehe ({}).", "见 {}。", "«{}»", "Да: {}!\n", "👍🏽 {}, x"],
)
def test_what_is_verbatim_is_kept_and_nothing_else(verbatim, around):
    text = around.replace("{}", verbatim)
    verbatim = verbatim.removeprefix("mailto:")
    assert kept(text) == [verbatim]
    assert kept(text, Protection(finds_kinds=False)) == []


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $6.", "From $5–$6 it is.", "Pay US$5, not A$6.", r"An \$escaped\$ one.",
        "100% sure, 50% off, 5%.", "a < b and c > d", "x <3 y", "AT&T; R&D", "me @ home", "@name",
        "A {set of things} in braces", "Wait... what://", "an `unclosed one", "`two\n\nlines`",
        "\\(no end", "$ 5 $", "[text] (note)", "word-" * 10, "e.g. this", "一個〈題目〉",
    ],
)  # fmt: skip
def test_prose_is_not_kept(text):
    assert kept(text) == []


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("Go to https://a.b/c. Then https://d.e/f, (https://g.h) and https://i.j/k_(l)!",
         ["https://a.b/c", "https://d.e/f", "https://g.h", "https://i.j/k_(l)"]),
        ("请看https://a.b/c。然后（https://d.e）", ["https://a.b/c", "https://d.e"]),
        ("Статья https://ru.wikipedia.org/wiki/Москва.", ["https://ru.wikipedia.org/wiki/Москва"]),
        ("A [link](docs/a.md) and [one](<b c> 'x').", ["docs/a.md", "<b c>"]),
        ("**https://a.b/c**", ["https://a.b/c"]),
        ("Mail a@b.cd, or 给e@f.gh。", ["a@b.cd", "e@f.gh"]),
        ("<b>Bold</b> and <i>not</i>", ["<b>", "</b>", "<i>", "</i>"]),
        ("<b><i>Both</i></b>", ["<b><i>", "</i></b>"]),
        ("<pre>x < y</pre> <tt>a <b>B</b></tt>", ["<pre>x < y</pre>", "<tt>a <b>B</b></tt>"]),
        ("`a` and ``b ` c`` and ```d```", ["`a`", "``b ` c``", "```d```"]),
        ("Run:\n```sh\nrm x. Y\n```\nDone.", ["```sh\nrm x. Y\n```"]),
        ("Run:\n~~~\nrm x", ["~~~\nrm x"]),
        ("{a}{b} {c}", ["{a}{b}", "{c}"]),
        ("Since $x$ and $y_1 + z$, \\[a\\] holds", ["$x$", "$y_1 + z$", "\\[a\\]"]),
        ("%s of %d (%5.2f%%) in %(n)s", ["%s", "%d", "%5.2f", "%(n)s"]),
        ('<a href="https://a.b/{c}">', ['<a href="https://a.b/{c}">']),
        ("data:image/png;base64," + "iVBORw0KGgo" * 9 + "= x", ["iVBORw0KGgo" * 9 + "="]),
    ],
)  # fmt: skip
def test_kinds_beside_each_other(text, spans):
    assert kept(text) == spans


@pytest.mark.parametrize(
    ("terms", "text", "spans"),
    [
        (["AI"], "AI said: PAID AIs, AI-made, (AI).", ["AI", "AI", "AI"]),
        (["AI"], "这是AI的", ["AI"]),
        (["東京"], "東京都は東京です", ["東京", "東京"]),
        (["서울"], "서울은 크다", ["서울"]),
        (["New York", "New"], "New Yorker, New York", ["New", "New York"]),
        (["New York", "York City"], "New York City", ["New York City"]),
        (["AI", "AI東"], "AI東京", ["AI東"]),
        (["C++", ".NET"], "C++ and .NET, not C or NET", ["C++", ".NET"]),
        (["कम"], "कम कमी", ["कम"]),
        (["cafe"], "cafe cafe\u0301", ["cafe"]),
        (["❤"], "❤ ❤\ufe0f", ["❤"]),
        (["a.*b"], "a.*b axxb", ["a.*b"]),
        (["", "x"], "x y", ["x"]),
    ],
)
def test_terms(terms, text, spans):
    assert kept(text, Protection(finds_kinds=False, terms=terms)) == spans


@given(
    before=st.text("aé字👍 ", max_size=20), text=st.text("aé字👍 ", max_size=20),
    ranges=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), max_size=5),
)  # fmt: skip
def test_ranges_keep_every_character_that_they_touch(before, text, ranges):
    start_byte = len(before.encode())
    spans = Protection(finds_kinds=False, ranges=ranges).find(text, start_byte)
    covered = {index for span in spans for index in range(*span)}
    bytes_of, position = [], start_byte
    for character in text:
        size = len(character.encode())
        bytes_of.append(set(range(position, position + size)))
        position += size
    asked = {byte for start, end in ranges for byte in range(start, end)}
    assert covered == {index for index, own in enumerate(bytes_of) if own & asked}


HOSTILE = [
    "`a", "`" * 9 + "a", "` `` ``` ", "$a", "$a b ", "$$", "\\(", "\\[a", "\\begin{align}", "<a ",
    "<!--", "<code>", "<code></pre>", "{", "{{", "{%", "{a:", "%(", "%5", "a@", "a.", "http://",
    "http://a(", "http://,", "www.a(", "](", "](a", "&a", "x", "```\n", "~~~~\nx\n~~~\n", "```x",
    "[[x", "\n", " ", "a" * 60 + ".", "AI", "A",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_character_costs_the_same_in_a_text_of_any_length(unit):
    """Ten times the text takes about ten times the time, whoever wrote it."""
    protection = Protection(terms=["AI" * 128, "A" * 256])
    small, large = ("[[⟦<<" + (unit * size)[:size] for size in (10_000, 100_000))

    def work(text: str) -> None:
        mask(text, protection.find(text)).unmask(text)

    assert spent(work, large) < 25 * spent(work, small) + 0.01
