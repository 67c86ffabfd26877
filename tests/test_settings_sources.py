"""Sources of settings: what is set is what counts, and nothing is ignored."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Le

from hocket.server.settings_sources import (
    Assignment,
    compose,
    read_environment,
    read_sets,
    read_toml,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loom:
    """A section for these tests."""

    max_num_seqs: Annotated[int, Ge(1), Le(64)] = 32
    patience_seconds: Annotated[float, Ge(0)] | None = None
    style: Literal["plain", "twill"] = "plain"
    is_fast: bool = False
    colours: tuple[str, ...] = ()
    widths: tuple[Annotated[int, Ge(0)], ...] = ()

    def __post_init__(self) -> None:
        if self.is_fast and self.max_num_seqs > 50:
            raise ValueError("is_fast allows at most 50 max_num_seqs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Another one."""

    model_dir: str = ""
    cache_dir: str = ""


SCHEMA = {"loom": Loom, "model": Model}


def toml(tmp_path: Path, text: str):
    path = tmp_path / "hocket.toml"
    path.write_text(text)
    return read_toml(path, SCHEMA)


def section(reading, name="loom"):
    """Return a section made of a reading without problems."""
    assert reading.problems == ()
    composition = compose(reading.assignments, SCHEMA)
    assert composition.problems == ()
    return composition.sections[name]


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("9", "max_num_seqs", 9),
        ("2.5", "patience_seconds", 2.5),
        ("3", "patience_seconds", 3.0),
        ("none", "patience_seconds", None),
        ("twill", "style", "twill"),
        ("true", "is_fast", True),
        ("0", "is_fast", False),
        ("red, blue", "colours", ("red", "blue")),
        ('["red, or so", "blue"]', "colours", ("red, or so", "blue")),
        ("", "colours", ()),
        ("1,2", "widths", (1, 2)),
        ("[1, 2]", "widths", (1, 2)),
    ],
)
def test_text_is_read_as_the_keys_type(text, key, expected):
    """The environment and `--set` understand the same text in the same way."""
    by_set = read_sets([f"loom.{key}={text}"], SCHEMA)
    by_variable = read_environment({f"HOCKET_LOOM__{key.upper()}": text}, SCHEMA)
    assert expected == getattr(section(by_set), key)
    assert expected == getattr(section(by_variable), key)


@pytest.mark.parametrize(
    ("line", "key", "expected"),
    [
        ("max_num_seqs = 9", "max_num_seqs", 9),
        ("patience_seconds = 3", "patience_seconds", 3.0),
        ('colours = ["a", "b"]', "colours", ("a", "b")),
        ("is_fast = true", "is_fast", True),
    ],
)
def test_toml_is_read_with_its_own_types(tmp_path, line, key, expected):
    """A TOML value is taken as what it is."""
    assert expected == getattr(section(toml(tmp_path, f"[loom]\n{line}\n")), key)


@pytest.mark.parametrize(
    "line",
    [
        'max_num_seqs = "9"', "max_num_seqs = true", "max_num_seqs = 9.5", "max_num_seqs = 0",
        "max_num_seqs = 65", "patience_seconds = nan", "patience_seconds = inf",
        "patience_seconds = 1979-05-27", "is_fast = 1", 'is_fast = "true"', "colours = 'red'",
        "colours = [1]", "widths = [-1]", 'style = "knit"', "max_num_seqs = [1]",
        "max_num_seqs = {a = 1}",
    ],
)  # fmt: skip
def test_toml_of_another_type_or_out_of_range_is_refused(tmp_path, line):
    """Nothing is guessed: the problem names the file and the key."""
    reading = toml(tmp_path, f"[loom]\n{line}\n")
    (problem,) = compose(reading.assignments, SCHEMA).problems
    assert problem.startswith(f"{tmp_path}/hocket.toml: loom.{line.split()[0]} is ")


@pytest.mark.parametrize(
    "text", ["x", "1e9999", "nan", "65", "0", "", " ", "1.5", "0x10", "[1", "true"]
)
def test_text_that_is_no_number_in_range_is_refused(text):
    """The problem names the variable and the key."""
    reading = read_environment({"HOCKET_LOOM__MAX_NUM_SEQS": text}, SCHEMA)
    (problem,) = compose(reading.assignments, SCHEMA).problems
    assert problem.startswith("HOCKET_LOOM__MAX_NUM_SEQS: loom.max_num_seqs is ")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("HOCKET_LOOM__MAX_NUM_SEQ", '"max_num_seqs"'),
        ("HOCKET_LOM__MAX_NUM_SEQS", '"loom"'),
        ("HOCKET_MODELDIR", '"HOCKET_MODEL_DIR"'),
        ("HOCKET_LOOM_STYLE", '"HOCKET_LOOM__STYLE"'),
        ("HOCKET_loom__style", '"HOCKET_LOOM__STYLE"'),
    ],
)
def test_a_misspelt_variable_is_refused_with_a_hint(name, hint):
    """Every variable with our prefix must be one that we know."""
    reading = read_environment({name: "1", "PATH": "/bin", "hocket_loom__x": "1"}, SCHEMA)
    (problem,) = reading.problems
    assert problem.startswith(f"{name}: unknown ")
    assert f"did you mean {hint}?" in problem


def test_variables_of_others_can_be_named():
    """Variables that belong to another program of ours are left alone."""
    reading = read_environment({"HOCKET_OTHER": "1"}, SCHEMA, ignored=frozenset({"HOCKET_OTHER"}))
    assert (reading.assignments, reading.problems) == ((), ())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("loom.styl=plain", 'unknown key "styl" in section "loom"; did you mean "style"?'),
        ("lom.style=plain", 'unknown section "lom"; did you mean "loom"?'),
        ("zzz.style=plain", 'unknown section "zzz"'),
        ("style=plain", "must be section.key=value"),
        ("loom.style", "must be section.key=value"),
        ("", "must be section.key=value"),
    ],
)
def test_a_misspelt_set_is_refused(text, told):
    """The problem repeats what was written and helps to mend it."""
    (problem,) = read_sets([text], SCHEMA).problems
    assert problem.startswith("--set")
    assert problem.endswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[loom]\nstyl = 1\n", 'unknown key "styl" in section "loom"; did you mean "style"?'),
        ("[lom]\nstyle = 1\n", 'unknown section "lom"; did you mean "loom"?'),
        ("loom = 3\n", "loom must be a table: [loom]"),
        ("style = 3\n", 'unknown section "style"'),
    ],
)
def test_a_misspelt_file_is_refused(tmp_path, text, told):
    """Keys of a file are known keys of known sections."""
    (problem,) = toml(tmp_path, text).problems
    assert problem == f"{tmp_path}/hocket.toml: {told}"


def test_a_file_that_is_none_is_a_problem(tmp_path):
    """An absent, broken or binary file is told in one line."""
    absent = read_toml(tmp_path / "none.toml", SCHEMA).problems
    assert (f"{tmp_path}/none.toml: cannot be read: No such file or directory",) == absent
    (broken,) = toml(tmp_path, "[loom\n").problems
    assert "is no TOML" in broken
    (tmp_path / "hocket.toml").write_bytes(b"\xff\xfe")
    (binary,) = read_toml(tmp_path / "hocket.toml", SCHEMA).problems
    assert "is no TOML" in binary


def test_the_last_assignment_wins_and_is_the_source():
    """What counts is the strongest source, and that one is named."""
    assignments = [
        Assignment(section="loom", key="max_num_seqs", value=value, is_text=False, source=source)
        for value, source in ((1, "file"), (2, "variable"), (3, "flag"))
    ]
    composition = compose(assignments, SCHEMA)
    assert composition.sections["loom"].max_num_seqs == 3
    assert composition.sources == {"loom.max_num_seqs": "flag"}


def test_a_weaker_value_is_not_a_problem_once_overruled():
    """Only values that count are checked."""
    reading = read_sets(["loom.max_num_seqs=999", "loom.max_num_seqs=9"], SCHEMA)
    assert section(reading).max_num_seqs == 9


def test_a_full_variable_beats_its_alias():
    """The alias is only shorter, not stronger."""
    variables = {"HOCKET_MODEL__MODEL_DIR": "/long", "HOCKET_MODEL_DIR": "/short"}
    assert section(read_environment(variables, SCHEMA), "model").model_dir == "/long"


def test_laws_between_keys_are_problems_of_their_section():
    """What a section refuses as a whole is told like everything else, with its sources."""
    reading = read_sets(["loom.is_fast=yes", "loom.max_num_seqs=51"], SCHEMA)
    (problem,) = compose(reading.assignments, SCHEMA).problems
    assert (
        problem == "--set loom.is_fast, --set loom.max_num_seqs: loom:"
        " is_fast allows at most 50 max_num_seqs"
    )


def test_all_problems_are_told_at_once():
    """One run shows everything there is to mend."""
    reading = read_sets(["loom.max_num_seqs=0", "loom.style=knit", "loom.is_fast=7"], SCHEMA)
    assert len(compose(reading.assignments, SCHEMA).problems) == 3
