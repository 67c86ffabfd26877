"""`hocket models`: lists, refuses terms that were not accepted, checks and removes."""

import json

import pytest

from hocket.server.model.config import ModelSourceConfig
from hocket.server.model.registry import NAMED_MODELS
from hocket.server.models_command import models


@pytest.fixture
def source(tmp_path) -> ModelSourceConfig:
    return ModelSourceConfig(cache_dir=str(tmp_path))


def test_the_list_shows_the_licences(source, capsys):
    assert models(["list"], source=source) == 0
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows.keys() == NAMED_MODELS.keys()
    assert rows["smollm2"]["license"] == "Apache-2.0"
    assert "Gemma Terms of Use" in rows["gemma3-270m"]["license_note"]


def test_terms_must_be_accepted_before_a_pull(source, capsys, tmp_path):
    assert models(["pull", "gemma3-270m"], source=source) == 1
    assert "--accept-license" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.gguf"))


def test_a_wrong_file_is_told_and_removed(source, capsys, tmp_path):
    file = tmp_path / "gemma3-270m.gguf"
    file.write_bytes(b"not what was pinned")
    assert models(["path", "gemma3-270m"], source=source) == 0
    assert capsys.readouterr().out.strip() == str(file)
    assert models(["verify", "gemma3-270m"], source=source) == 1
    assert "not the file that was pinned" in capsys.readouterr().err
    assert models(["remove", "gemma3-270m"], source=source) == 0
    assert not file.exists()
    assert models(["path", "gemma3-270m"], source=source) == 1
    assert "hocket models pull" in capsys.readouterr().err
