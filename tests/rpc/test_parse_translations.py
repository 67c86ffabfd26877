"""What may be asked of a translator: its own directions, and nothing that it could not obey."""

from typing import Any

import pytest

from hocket.server.catalogue import ModelDescription, ServedTranslator
from hocket.server.errors import InvalidRequest
from hocket.server.rpc.parse_documents import CheckedTransform, check_transform
from hocket.server.translation.protocol import TranslatorFacts
from hocket.v1 import document_pb2

PAIRS = frozenset({("en", "pt"), ("pt", "en"), ("es", "en")})


class Silent:
    """An interpreter that nobody asks."""

    facts = TranslatorFacts(pairs=PAIRS, max_chars=400, architecture="x", dtype="y")


def check(targets=("pt",), source: str = "", **fields: Any) -> CheckedTransform:
    interpreter: Any = Silent()
    description = ModelDescription(name="silent", architecture="x", dtype="y", parameters=0)
    if not fields.keys() & {"instruction", "template", "rewrite", "summarize", "classify"}:
        fields["translate"] = {"target_languages": targets, "source_language": source}
    return check_transform(
        document_pb2.TransformStart(**fields),
        ServedTranslator(description=description, interpreter=interpreter),
        arrived=100.0,
        remaining=None,
        max_window=32,
    )


def refused(*args: Any, **fields: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        check(*args, **fields)
    return {each.field: each.description for each in caught.value.violations}


@pytest.mark.parametrize(
    ("targets", "source", "language", "pairs", "cut_by"),
    [
        (["pt"], "", None, [("en", "pt")], "en"),
        (["Portuguese", "pt-BR"], "English", None, [("en", "pt")] * 2, "en"),
        (["en"], "pt-BR", None, [("pt", "en")], "pt"),
        (["en"], "", "es", [("es", "en")], "es"),
        (["en"], "es", "pt", [("es", "en")], "pt"),
    ],
)
def test_directions(targets, source, language, pairs, cut_by):
    """The source is named, or the language of the text is, or there is one way alone."""
    checked = check(targets, source, sentences={"language": language})
    assert list(checked.pairs) == pairs
    assert checked.sentences.language == cut_by


def test_a_direction_that_does_not_exist_is_refused_with_those_that_do():
    (found,) = refused(["pt", "German"]).items()
    assert found[0] == "start.translate.target_languages[1]"
    assert "en to pt, es to en, pt to en" in found[1]
    assert list(refused(["en"], "en")) == ["start.translate.target_languages[0]"]
    assert list(refused(["pt"], sentences={"language": "de"})) == [
        "start.translate.target_languages[0]"
    ]


def test_where_there_are_several_ways_one_must_be_named():
    (found,) = refused(["en"]).items()
    assert found[0] == "start.translate.source_language"
    assert "es, pt" in found[1]


@pytest.mark.parametrize(
    "fields",
    [
        {"instruction": "Do it."},
        {"template": "{segment}"},
        {"rewrite": {}},
        {"summarize": {}},
        {"classify": {"labels": ["a", "b"]}},
    ],
)
def test_it_only_translates(fields):
    (name,) = fields
    (found,) = refused(**fields).items()
    assert found[0] == f"start.{name}"
    assert "silent, a translator" in found[1]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"sampling": {"temperature": 0.5}}, "sampling.temperature"),
        ({"sampling": {"top_k": 3}}, "sampling.top_k"),
        ({"sampling": {"logit_bias": {1: 2.0}}}, "sampling.logit_bias"),
        ({"stopping": {"max_tokens": 9}}, "stopping.max_tokens"),
        ({"stopping": {"stop": ["."]}}, "stopping.stop"),
        ({"stopping": {"ignore_eos": True}}, "stopping.ignore_eos"),
        ({"context_segments": 1}, "context_segments"),
    ],
)
def test_what_it_could_not_obey_is_refused(fields, path):
    assert list(refused(**fields)) == [f"start.{path}"]


def test_what_changes_nothing_is_taken():
    checked = check(sampling={"temperature": 0, "seed": 7}, stopping={}, priority=3)
    assert checked.writing.sampling.seed == 7


def test_all_that_is_wrong_is_told_at_once():
    assert set(refused(["de"], window=0, stopping={"max_tokens": 1})) == {
        "start.translate.target_languages[0]",
        "start.window",
        "start.stopping.max_tokens",
    }


def test_no_task_is_one_violation():
    assert list(refused(translate=None, instruction=None)) == ["start.task"]
