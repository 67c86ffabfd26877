"""Settings as they are shown: printed with their sources, listed in the documents, and frozen."""

import dataclasses
import re
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.settings import EffectiveSettings, Settings, read_settings, render_toml, schema
from settings_keys import KEYS, value_of


def _possible(values: dict[str, Any]) -> dict[str, Any]:
    """Return values with what must not be less than another key's raised to that."""
    steps, seqs = "engine.max_step_tokens", "engine.max_num_seqs"
    return values | {steps: max(values[steps], values[seqs])}


ALL_SETTINGS = (
    st.fixed_dictionaries({str(key): key.values() for key in KEYS})
    .map(_possible)
    .map(
        lambda values: Settings(
            **{
                section: cls(
                    **{key.name: values[str(key)] for key in KEYS if key.section == section}
                )
                for section, cls in schema().items()
            }
        )
    )
)


@given(ALL_SETTINGS, st.dictionaries(st.sampled_from([str(key) for key in KEYS]), st.text()))
def test_what_is_printed_gives_the_same_settings(tmp_path_factory, settings, sources):
    """`--print-config` writes a file that means what is in effect, whatever the sources' names."""
    path = tmp_path_factory.getbasetemp() / "printed.toml"
    printed = render_toml(EffectiveSettings(settings, sources))
    path.write_bytes(printed.encode(errors="backslashreplace"))
    assert settings == read_settings(config_path=path, environment={}).settings


def test_every_printed_value_says_where_it_came_from(tmp_path):
    """One line for each key, in order, with the source behind it; `default` for the others."""
    path = tmp_path / "hocket.toml"
    path.write_text("[engine]\nmax_num_seqs = 3\n")
    effective = read_settings(
        config_path=path,
        sets=["drain.grace_seconds=9"],
        flags={"--model": ("model.model", "gpt2")},
        environment={"HOCKET_LOG__LEVEL": "error"},
    )
    told = {
        "engine.max_num_seqs": f"3  # {path}",
        "drain.grace_seconds": "9.0  # --set drain.grace_seconds",
        "model.model": '"gpt2"  # --model',
        "log.level": '"error"  # HOCKET_LOG__LEVEL',
    }
    section, lines = "", {}
    for line in filter(None, render_toml(effective).splitlines()):
        if line.startswith("["):
            section = line.strip("[]")
        else:
            name, _, rest = line.partition(" = ")
            lines[f"{section}.{name}"] = rest
    assert [str(key) for key in KEYS] == list(lines)
    assert told == {name: rest for name, rest in lines.items() if not rest.endswith("  # default")}


@pytest.mark.parametrize("cls", [Settings, *schema().values()], ids=lambda cls: cls.__name__)
def test_settings_are_frozen(cls):
    """No room can change what another was given, by name, by position or by a new attribute."""
    config = cls()
    name = dataclasses.fields(cls)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, getattr(config, name))
    with pytest.raises((AttributeError, TypeError)):
        config.nonsense = 1
    with pytest.raises(TypeError):
        cls(getattr(config, name))
    assert isinstance(hash(config), int)
    assert not any(base is not object for base in cls.__bases__)


def documented() -> dict[str, list[str]]:
    """Return the cells of docs/configuration.md by `section.key`."""
    rows: dict[str, list[str]] = {}
    section = ""
    for line in (Path(__file__).parents[1] / "docs/configuration.md").read_text().splitlines():
        if heading := re.fullmatch(r"## `\[(\w+)\]`", line):
            section = heading[1]
        elif row := re.match(r"\| `(\w+)` \| (.*) \|$", line):
            rows[f"{section}.{row[1]}"] = [cell.strip() for cell in row[2].split(" | ")]
    return rows


def test_the_documents_list_every_key_and_no_other():
    assert [str(key) for key in KEYS] == list(documented())


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_what_is_documented_is_so(key):
    """Range, default and variable are what the code has: the default, set by hand, is it."""
    _, limits, default, variable, meaning = documented()[str(key)]
    assert variable == f"`{key.variable}`"
    assert meaning.endswith(".")
    written = default.strip("`").replace("empty", "")
    assert key.default == value_of(read_settings(environment={key.variable: written}), key)
    numbers = [float(number) for number in re.findall(r"[\d.]+", limits)]
    expected = [key.low, key.high] if key.is_number else []
    assert expected + ([key.step] if key.step > 1 else []) == numbers


def test_a_bug_in_a_room_is_told():
    """What a room may declare is closed; another type is no setting."""
    odd = types.SimpleNamespace(settings=Settings(), sources={})
    object.__setattr__(odd.settings, "log", dataclasses.replace(Settings().log, level={}))
    with pytest.raises(TypeError, match="This is a bug"):
        render_toml(odd)
