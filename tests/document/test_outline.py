"""What models draft is read as an outline, whatever it looks like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.document.outline import (
    OutlineQuestion,
    Section,
    YesNo,
    fall_back,
    parse_outline,
)
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.testing.serving import ScriptedModel

TITLES = ["What bees are", "Honey", "Bees and people"]


def titles(text, most=8):
    return [section.title for section in parse_outline(text, most=most)]


@pytest.mark.parametrize(
    "marks",
    [
        ("1. ", "2. ", "3. "),
        ("1) ", "2) ", "3) "),
        ("(1) ", "(2) ", "(3) "),
        ("1. ", "1. ", "1. "),
        ("I. ", "II. ", "III. "),
        ("a) ", "b) ", "c) "),
        ("- ", "- ", "- "),
        ("* ", "• ", "– "),
        ("## ", "## ", "## "),
        ("1: ", "3: ", "9: "),
        ("  1. ", "  2. ", "  10. "),
        ("1. Section 1: ", "2. Section 2: ", "3. Section 3: "),
    ],
)
@pytest.mark.parametrize(
    "dress", ["{}", "**{}**", "**{}:**", '"{}"', "{}.", "{}:", "__{}__"], ids=range(7)
)
def test_numbers_bullets_bold_and_colons_are_no_part_of_a_title(marks, dress):
    lines = [mark + dress.format(title) for mark, title in zip(marks, TITLES, strict=True)]
    assert titles("\n".join(lines)) == TITLES
    assert titles("Sure! Here is an outline:\n\n" + "\n\n".join(lines) + "\n\nEnjoy it.") == TITLES


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("1. Honey: how it is made\n2. Wax", (Section("Honey", "how it is made"), Section("Wax"))),
        ("1. **Honey** - how it is made", (Section("Honey", "how it is made"),)),
        ("**1. Honey**\nIt is sweet.", (Section("Honey"),)),
        (
            "1. Honey\n   - What it is\n   - **Colour**\n2. Wax\n- Candles",
            (Section("Honey", "What it is\nColour"), Section("Wax", "Candles")),
        ),
        ("- Honey\n  - Sweet\n- Wax", (Section("Honey", "Sweet"), Section("Wax"))),
        ("# Bees\n- One\n- Two", (Section("Bees", "One\nTwo"),)),
        ("1. Honey\n2. honey\n3. Wax", (Section("Honey"), Section("Wax"))),
        ("1. Re-use of co-operatives\n2. 3.5 million", None),
    ],
)
def test_what_belongs_to_a_point_is_its_instruction(text, sections):
    found = parse_outline(text, most=8)
    if sections is None:
        assert [each.title for each in found] == ["Re-use of co-operatives", "3.5 million"]
    else:
        assert found == sections


def test_short_lines_without_marks_are_points_and_a_text_is_not():
    assert titles("\n".join(TITLES)) == TITLES
    assert titles("Bees are insects. They make honey.\nThey live in hives.") == []
    assert titles("Bees") == []
    assert titles("") == []


def test_no_more_points_are_read_than_were_asked_for():
    assert titles("\n".join(f"{n}. Point {n}" for n in range(40)), most=5) == [
        f"Point {n}" for n in range(5)
    ]


@given(st.text(st.sampled_from("1a.-*# \n:\u2013)(IV\"'_")))
def test_any_text_is_read_to_sections_with_different_titles(text):
    found = titles(text)
    assert len({title.casefold() for title in found}) == len(found) <= 8
    assert all(title.strip() == title for title in found)
    assert "" not in found


@given(st.text(min_size=1).filter(str.strip))
def test_a_task_is_a_section_where_no_outline_is(task):
    (section,) = fall_back(task)
    assert 1 <= len(section.title) <= 120
    assert section.title in task


def test_the_question_shows_an_example_and_the_bound():
    question = OutlineQuestion("Write about ants.", 5)
    for model in (ScriptedModel(), ScriptedModel(chat_template=None)):
        text = ByteTokenizer().decode(question.encode(model, reserved=0))
        assert text.index("1. What cats are") < text.index("Write about ants.")
        assert "at most 5 short titles" in text
    assert question.stops_for(ScriptedModel()) == ()
    assert question.stops_for(ScriptedModel(chat_template=None)) == ("\n\n",)


def test_yes_and_no_are_told_apart_by_their_first_tokens():
    """A space begins either, and is out."""
    words = YesNo.of(ByteTokenizer())
    assert words.yes == {ord("y"), ord("Y")}
    assert words.no == {ord("n"), ord("N")}
    assert {token for token, _ in words.logit_bias} == words.yes | words.no
