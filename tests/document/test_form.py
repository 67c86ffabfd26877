"""A template says what stands where, or is refused in words that help."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.document.form import Form
from hocket.server.errors import InvalidRequest

FILLING = {"segment": "S{context}", "context": "C", "language": "English"}


def test_names_are_filled_in_and_doubled_braces_are_braces():
    form = Form.parse("{{{segment}}} {context}{language} {{segment}}", field="start.template")
    assert form.fill(**FILLING) == "{S{context}} CEnglish {segment}"


@given(st.text(), st.text(), st.text())
def test_all_text_around_the_segment_stays(before, after, segment):
    """Once its braces are doubled."""
    doubled = [text.replace("{", "{{").replace("}", "}}") for text in (before, after)]
    form = Form.parse("{segment}".join(doubled), field="start.template")
    assert form.fill(segment=segment, context="", language="") == before + segment + after


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{segment} {", "single brace at character 10"),
        ("} {segment}", "single brace at character 0"),
        ("{segment} {text}", "unknown name 'text' at character 10"),
        ("{segment} {}", "unknown name ''"),
        ("{ segment }", "unknown name ' segment '"),
        ("{segment} {" + "x" * 500 + "}", "x" * 32 + "'"),
        ("{context}", "must hold {segment}"),
        ("{{segment}}", "must hold {segment}"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_refused(source, told):
    with pytest.raises(InvalidRequest) as refused:
        Form.parse(source, field="start.template")
    assert refused.value.violations[0].field == "start.template"
    assert told in refused.value.violations[0].description
