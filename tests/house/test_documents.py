"""The documents name only what exists, and all that `hocket serve` takes."""

import dataclasses
import re
from pathlib import Path

import pytest

from hocket.server.__main__ import _parser
from hocket.server.settings import schema
from hocket.server.settings_sources import ENVIRONMENT_ALIASES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("proto/**/*.proto")]
)
KEYS = {
    f"{section}.{field.name}"
    for section, cls in schema().items()
    for field in dataclasses.fields(cls)
}
SETTING = re.compile(rf"`(?:--set )?((?:{'|'.join(schema())})\.(?!py\b)\w+)\b(?!/)")
VARIABLE = re.compile(r"`(HOCKET_[A-Z0-9_]+)\b")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_a_document_names_only_settings_that_exist(path: Path) -> None:
    """By section and key, or by variable."""
    text = path.read_text()
    variables = {f"HOCKET_{key.replace('.', '__')}".upper() for key in KEYS}
    variables |= {*ENVIRONMENT_ALIASES, "HOCKET_SECTION__KEY", "HOCKET_"}
    assert set(SETTING.findall(text)) - KEYS == set()
    assert set(VARIABLE.findall(text)) - variables == set()


def test_the_search_finds_settings() -> None:
    """One that finds nothing would agree with everything."""
    assert SETTING.findall("`drain.delay_seconds` and `log.content`, `admission.py`") == [
        "drain.delay_seconds",
        "log.content",
    ]
    named = {key for path in DOCUMENTS for key in SETTING.findall(path.read_text())}
    assert {"listener.allow_insecure", "drain.grace_seconds"} <= named


def test_every_flag_is_described() -> None:
    """docs/configuration.md knows all that the command takes."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    flags = {flag for action in _parser()._actions for flag in action.option_strings}
    assert [flag for flag in sorted(flags - {"-h", "--help"}) if flag not in text] == []


def test_no_sentence_is_said_twice_in_a_row() -> None:
    """Two sources that are joined may say the same."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert re.findall(r"(?:^|\. )([A-Z][^.|`]*\.) \1", text) == []
