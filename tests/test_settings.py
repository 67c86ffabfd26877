"""Settings: every key, from every source, within its bounds, and known by where it came from."""

import dataclasses
import itertools
import math
import re
import tomllib
import typing
from pathlib import Path

import pytest

from hocket.server.errors import StartupError
from hocket.server.settings import EffectiveSettings, Settings, read_settings, schema
from settings_keys import KEYS, Key, value_of

SOURCES = ("toml", "variable", "set")
NUMBERS = [key for key in KEYS if key.is_number]
every_key = pytest.mark.parametrize("key", KEYS, ids=str)
every_number = pytest.mark.parametrize("key", NUMBERS, ids=str)
every_source = pytest.mark.parametrize("source", SOURCES)


def read(source: str, key: Key, text: str, tmp_path: Path) -> EffectiveSettings:
    """Read settings of which one is set, in one source; `text` as TOML has it."""
    if source == "toml":
        path = tmp_path / "hocket.toml"
        path.write_text(f"[{key.section}]\n{key.name} = {text}\n")
        return read_settings(config_path=path, environment={})
    plain = str(tomllib.loads(f"value = {text}")["value"]) if text[0] in "\"'" else text
    if source == "variable":
        return read_settings(environment={key.variable: plain})
    return read_settings(sets=[f"{key}={plain}"], environment={})


def named(source: str, key: Key, tmp_path: Path) -> str:
    """Return how a source is named."""
    names = {"toml": f"{tmp_path}/hocket.toml", "variable": key.variable, "set": f"--set {key}"}
    return names[source]


def refusal(source: str, key: Key, text: str, tmp_path: Path) -> str:
    """Return the one line that a value is refused with."""
    with pytest.raises(StartupError) as caught:
        read(source, key, text, tmp_path)
    assert caught.value.exit_code == 2
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{named(source, key, tmp_path)}: {key} is ")
    return line


@every_key
def test_every_key_has_a_closed_type(key):
    """A number has a lowest and a highest value; everything else is text, a choice or a list."""
    if key.is_number:
        assert key.low <= key.default <= key.high
        assert key.kind is float or key.low % key.step == key.high % key.step == 0
    else:
        assert key.kind in {str, bool, tuple, typing.Literal}


# What one key may be depends on another, which stands at its default here.
TOGETHER = {("engine.max_num_seqs", 1024), ("engine.max_step_tokens", 1)}


@every_source
@every_number
def test_the_bounds_of_a_number_belong_to_it(key, source, tmp_path):
    """The lowest and the highest value are taken, and are known by their source."""
    for value in (key.low, key.high):
        if (str(key), value) in TOGETHER:
            with pytest.raises(StartupError) as caught:
                read(source, key, repr(value), tmp_path)
            line = str(caught.value)
            assert {"max_num_seqs", "max_step_tokens"} <= set(re.findall(r"\w+", line))
            continue
        effective = read(source, key, repr(value), tmp_path)
        assert value == value_of(effective, key)
        assert effective.sources == {str(key): named(source, key, tmp_path)}


@every_source
@every_number
def test_what_lies_beyond_a_bound_is_refused_with_the_bound(key, source, tmp_path):
    """One step further is too far; the line names the key, the value and the limit."""
    beyond = (
        (key.low - key.step, key.high + key.step)
        if key.kind is int
        else (math.nextafter(key.low, -math.inf), math.nextafter(key.high, math.inf))
    )
    for value, bound in zip(beyond, (key.low, key.high), strict=True):
        line = refusal(source, key, repr(value), tmp_path)
        assert repr(value) in line
        assert line.endswith(f" {bound}")


@every_source
@pytest.mark.parametrize("key", [key for key in NUMBERS if key.step > 1], ids=str)
def test_what_is_no_multiple_is_refused(key, source, tmp_path):
    """Between two multiples nothing is taken, and nothing is rounded."""
    line = refusal(source, key, str(key.low + 1), tmp_path)
    assert line.endswith(f"multiple of {key.step}")


@every_source
@every_number
def test_what_is_no_finite_number_is_refused(key, source, tmp_path):
    """Neither NaN nor an infinity passes a bound by comparing with nothing."""
    for text in ("nan", "inf", "-inf"):
        refusal(source, key, text, tmp_path)


WRONG_TEXTS = {
    int: ("", "x", "1.5", "0x10", "1 2", "9" * 5_000),
    float: ("", "x", "1,5", "1 2", "1e999"),
    bool: ("", "maybe", "2"),
    typing.Literal: ("", "nonsense", "AUTO"),
    tuple: ("[1]", "[true]"),
    str: (),
}
WRONG_TOML = {
    int: ('"9"', "true", "9.5", "[9]", "{a = 9}", "1979-05-27"),
    float: ('"9"', "true", "[9.0]", "12:00:00"),
    bool: ('"true"', "1", "0.0"),
    typing.Literal: ('"nonsense"', "1", "true"),
    tuple: ('"a,b"', "[1]", "{a = 1}"),
    str: ("9", "true", '["a"]'),
}


@every_key
def test_a_value_of_another_type_is_refused_wherever_it_stands(key, tmp_path):
    """Nothing is guessed, and the line stays one that can be read."""
    for text in WRONG_TEXTS[key.kind]:
        for source in ("variable", "set"):
            assert len(refusal(source, key, f"'{text}'", tmp_path)) < 300
    for text in WRONG_TOML[key.kind]:
        assert len(refusal("toml", key, text, tmp_path)) < 300


def test_a_choice_is_refused_with_what_there_is_to_choose(tmp_path):
    """The line lists every value that would have been taken."""
    for key in KEYS:
        if key.kind is typing.Literal:
            line = refusal("set", key, "nonsense", tmp_path)
            assert all(f"'{choice}'" in line for choice in typing.get_args(key.hint))


@every_key
def test_a_misspelt_key_is_refused_with_the_nearest_name(key, tmp_path):
    """In whichever source it stands."""
    wrong = dataclasses.replace(key, name=f"{key.name}x")
    for source in SOURCES:
        with pytest.raises(StartupError) as caught:
            read(source, wrong, "1", tmp_path)
        assert caught.value.exit_code == 2
        assert str(caught.value) == (
            f'{named(source, wrong, tmp_path)}: unknown key "{wrong.name}" in section'
            f' "{key.section}"; did you mean "{key.name}"?'
        )


@pytest.mark.parametrize("section", schema())
def test_a_misspelt_section_is_refused_with_the_nearest_name(section, tmp_path):
    """In whichever source it stands."""
    for source in SOURCES:
        with pytest.raises(StartupError) as caught:
            read(source, Key(f"{section}x", "key", int, 1), "1", tmp_path)
        assert str(caught.value).endswith(
            f'unknown section "{section}x"; did you mean "{section}"?'
        )


LADDER = ("toml", "short", "variable", "set", "flag")


@pytest.mark.parametrize(
    "present", [set(some) for size in range(6) for some in itertools.combinations(LADDER, size)]
)
def test_the_strongest_source_wins_and_is_named(present, tmp_path):
    """Defaults < TOML < short variable < variable < --set < flag, whichever of them there are."""
    path = tmp_path / "hocket.toml"
    path.write_text('[model]\nmodel_dir = "toml"\n' if "toml" in present else "")
    variables = {"short": "HOCKET_MODEL_DIR", "variable": "HOCKET_MODEL__MODEL_DIR"}
    effective = read_settings(
        config_path=path,
        sets=["model.model_dir=earlier", "model.model_dir=set"] if "set" in present else (),
        flags={"--dir": ("model.model_dir", "flag")} if "flag" in present else None,
        environment={name: value for value, name in variables.items() if value in present},
    )
    strongest = max(present, key=LADDER.index, default="")
    names = {"toml": str(path), "set": "--set model.model_dir", "flag": "--dir", **variables}
    assert strongest == effective.settings.model.model_dir
    assert effective.sources == ({"model.model_dir": names[strongest]} if present else {})


def test_the_desktops_cache_folder_is_the_weakest_source(tmp_path):
    """It moves the default; anything that is set by name counts for more."""
    desktop = {"XDG_CACHE_HOME": "/caches"}
    effective = read_settings(environment=desktop)
    assert effective.settings.model.cache_dir == "/caches/hocket"
    assert effective.sources == {"model.cache_dir": "XDG_CACHE_HOME"}
    path = tmp_path / "hocket.toml"
    path.write_text('[model]\ncache_dir = "mine"\n')
    by_file = read_settings(config_path=path, environment=desktop)
    assert by_file.settings.model.cache_dir == "mine"
    for relative in ("", "caches", "./caches"):
        assert Settings() == read_settings(environment={"XDG_CACHE_HOME": relative}).settings


def test_the_environment_is_the_process_own_unless_another_is_given(monkeypatch):
    monkeypatch.setenv("HOCKET_ENGINE__MAX_NUM_SEQS", "7")
    assert read_settings().settings.engine.max_num_seqs == 7
    assert read_settings(environment={}).settings == Settings()


def test_all_problems_of_all_sources_are_told_at_once(tmp_path):
    """One run shows everything there is to mend, each on its line."""
    path = tmp_path / "hocket.toml"
    path.write_text("[engine]\nmax_num_seqs = 0\nnonsense = 1\n")
    with pytest.raises(StartupError) as caught:
        read_settings(
            config_path=path,
            sets=["log.level=loud", "nothing"],
            flags={"--address": ("listener.max_message_kib", "1")},
            environment={"HOCKET_NONSENSE": "1", "HOCKET_DRAIN__DELAY_SECONDS": "-1"},
        )
    lines = str(caught.value).splitlines()
    assert len(lines) == 7
    assert len({line.partition(":")[0] for line in lines}) == 6


@pytest.mark.parametrize(
    "text", ["x = " + "9" * 5_000, "x = " + "[" * 100_000, "[engine]\nmax_num_seqs = 1\n[engine]"]
)
def test_a_hostile_file_is_one_line(text, tmp_path):
    """Numbers too long, arrays too deep and tables that stand twice are no TOML to us."""
    path = tmp_path / "hocket.toml"
    path.write_text(text)
    with pytest.raises(StartupError, match=r"^\S+/hocket\.toml: is no TOML: [^\n]+$"):
        read_settings(config_path=path, environment={})


@pytest.mark.parametrize("text", ["[", "[1", "['a']\nmore = 1", "[" * 100_000, f"[{'9' * 5_000}]"])
def test_a_list_that_is_none_is_refused(text):
    """Nothing of it is taken, and nothing behind it is passed over."""
    with pytest.raises(StartupError, match=r"^--set model\.accept_licenses: .* is no list: "):
        read_settings(sets=[f"model.accept_licenses={text}"], environment={})
