"""Languages by name and by code, and the ways between them."""

import pytest

from hocket.server.translation.languages import code_of, in_words, sources_of

PAIRS = {("es", "en"), ("pt", "en"), ("en", "pt")}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Portuguese", "pt"),
        ("pt-BR", "pt"),
        ("pt_BR", "pt"),
        (" EN ", "en"),
        ("Klingon", "klingon"),
        ("", ""),
    ],
)
def test_languages_by_name_and_by_code(name, code):
    assert code_of(name) == code


def test_the_ways_into_a_language():
    assert sources_of(PAIRS, "English") == ("es", "pt")
    assert sources_of(PAIRS, "pt-BR") == ("en",)
    assert sources_of(PAIRS, "de") == ()
    assert in_words(PAIRS) == "en to pt, es to en, pt to en"
