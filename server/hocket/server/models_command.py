"""`hocket models`: which models there are, what their weights' licences say, where they lie.

Main thread of a command line; needs neither torch nor the network unless it pulls.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace

from hocket.server.errors import StartupError
from hocket.server.model.config import ModelSourceConfig
from hocket.server.model.pull import pull
from hocket.server.model.registry import (
    NAMED_MODELS,
    ModelFiles,
    NamedModel,
    Place,
    cache_folder,
    file_digest,
    find,
)
from hocket.server.progress import Progress

_FAILED = 1


def models(argv: Sequence[str], *, source: ModelSourceConfig | None = None) -> int:
    """Run `hocket models` with these arguments and return its exit code.

    Args:
        argv: What follows `hocket models`.
        source: Where weights are kept; read from the settings if not given.
    """
    arguments = _parser().parse_args(argv)
    try:
        if source is None:
            source = _source_from_settings()
        match arguments.command:
            case "pull":
                return _pull(arguments.name, source, accept=arguments.accept_license)
            case "path":
                return _path(arguments.name, source)
            case "verify":
                return _verify(arguments.name, source)
            case "remove":
                return _remove(arguments.name, source)
            case _:
                return _list(source, as_json=arguments.json or not sys.stdout.isatty())
    except StartupError as error:
        sys.stderr.write(f"hocket models: {error}\n")
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hocket models", description="The models that can be asked for by name."
    )
    parser.add_argument("--json", action="store_true", help="list as JSON lines")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("list", help="list them, with the licences of their weights")
    for name, words in (
        ("pull", "fetch the weights into the cache folder"),
        ("path", "print where the weights are"),
        ("verify", "read the weights and check their digest"),
        ("remove", "delete the weights from the cache folder"),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("name", choices=sorted(NAMED_MODELS), metavar="NAME")
        if name == "pull":
            command.add_argument(
                "--accept-license", action="store_true", help="accept the terms of the weights"
            )
    return parser


def _source_from_settings() -> ModelSourceConfig:
    from hocket.server.settings import read_settings  # noqa: PLC0415 - the command line alone

    return read_settings(config_path=None, sets=(), flags={}).settings.model


def _list(source: ModelSourceConfig, *, as_json: bool) -> int:
    for model in NAMED_MODELS.values():
        found = find(model, source)
        if as_json:
            sys.stdout.write(json.dumps(_record(model, found)) + "\n")
            continue
        place = f"{found.place.value}: {found.path}" if found else "not here; pull it"
        sys.stdout.write(f"{model.name:14}{model.title}\n")
        sys.stdout.write(f"{'':14}licence of the weights: {model.license}\n")
        if model.license_note:
            sys.stdout.write(f"{'':14}{model.license_note}\n")
        sys.stdout.write(f"{'':14}{place}\n")
    return 0


def _record(model: NamedModel, found: ModelFiles | None) -> dict[str, object]:
    return {
        "name": model.name,
        "title": model.title,
        "license": model.license,
        "license_note": model.license_note,
        "num_bytes": model.num_bytes,
        "sha256": model.digest,
        "place": found.place.value if found else None,
        "path": str(found.path) if found else None,
    }


def _pull(name: str, source: ModelSourceConfig, *, accept: bool) -> int:
    model = NAMED_MODELS[name]
    found = find(model, source)
    if found is not None:
        sys.stdout.write(f"{found.path}\n")
        return 0
    if model.license_note:
        sys.stderr.write(f"{model.license_note}\n")
    if accept:
        source = replace(source, accept_licenses=(*source.accept_licenses, name))
    progress = Progress(sys.stderr)
    try:
        path = pull(model, source, report=progress.report)
    finally:
        progress.close()
    sys.stdout.write(f"{path}\n")
    return 0


def _present(name: str, source: ModelSourceConfig) -> ModelFiles:
    found = find(NAMED_MODELS[name], source)
    if found is None:
        raise StartupError(f"{name} is absent; get it with: hocket models pull {name}")
    return found


def _path(name: str, source: ModelSourceConfig) -> int:
    sys.stdout.write(f"{_present(name, source).path}\n")
    return 0


def _verify(name: str, source: ModelSourceConfig) -> int:
    found = _present(name, source)
    if found.path.is_dir():
        raise StartupError(f"{found.path} is a folder; only files have a pinned digest")
    try:
        digest = file_digest(found.path)
    except OSError as error:
        raise StartupError(f"{found.path} cannot be read: {error.strerror}") from error
    if digest != NAMED_MODELS[name].digest:
        sys.stderr.write(f"{found.path} is not the file that was pinned\n")
        return _FAILED
    sys.stdout.write(f"{found.path} is as pinned\n")
    return 0


def _remove(name: str, source: ModelSourceConfig) -> int:
    path = cache_folder(source) / NAMED_MODELS[name].file_name
    found = find(NAMED_MODELS[name], source)
    if found is not None and found.place is not Place.CACHED and not path.is_file():
        raise StartupError(f"{found.path} is not in the cache folder and is left alone")
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StartupError(f"{path} cannot be deleted: {error.strerror}") from error
    return 0
