"""All settings, and where each came from: the only reader of the environment and of TOML.

Every room declares the settings it wants as a frozen dataclass; here they become sections. From
weakest to strongest: defaults, the TOML file, the environment (`HOCKET_ENGINE__MAX_NUM_SEQS`),
`--set engine.max_num_seqs=9`, flags. A key that nobody knows is refused wherever it stands. Main
thread, before the loop runs.
"""

import dataclasses
import json
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hocket.server.admission import AdmissionConfig
from hocket.server.document.config import DocumentConfig
from hocket.server.drain import DrainConfig
from hocket.server.engine.config import EngineConfig
from hocket.server.errors import StartupError
from hocket.server.executors import ExecutorConfig
from hocket.server.log import LogConfig
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.observe.metrics import MetricsConfig
from hocket.server.observe.watchdog import WatchdogConfig
from hocket.server.rpc.access import AccessConfig
from hocket.server.rpc.listener import ListenerConfig
from hocket.server.rpc.parse_process import ProcessConfig
from hocket.server.rpc.resume_tokens import ResumeConfig
from hocket.server.settings_sources import (
    Assignment,
    Schema,
    compose,
    read_environment,
    read_sets,
    read_toml,
)
from hocket.server.translation.config import TranslatorConfig

_USAGE = 2  # the exit code of a command that was not understood


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a server, one section for each room.

    Attributes:
        model: Which model is served.
        runner: How it is computed.
        engine: How sequences share it.
        admission: How much may be in progress.
        executors: Threads beside the loop's.
        listener: Where and how to listen.
        access: Who may call.
        document: How documents are worked through.
        translator: Which translators are served beside the model.
        process: How corpus jobs run.
        resume: How lost streams are gone on with.
        log: What is logged.
        metrics: What can be scraped.
        drain: How the server leaves.
        watchdog: When it gives itself up.
    """

    model: ModelSourceConfig = field(default_factory=ModelSourceConfig)
    runner: RunnerConfig = field(default_factory=RunnerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    admission: AdmissionConfig = field(default_factory=AdmissionConfig)
    executors: ExecutorConfig = field(default_factory=ExecutorConfig)
    listener: ListenerConfig = field(default_factory=ListenerConfig)
    access: AccessConfig = field(default_factory=AccessConfig)
    document: DocumentConfig = field(default_factory=DocumentConfig)
    translator: TranslatorConfig = field(default_factory=TranslatorConfig)
    process: ProcessConfig = field(default_factory=ProcessConfig)
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    log: LogConfig = field(default_factory=LogConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    drain: DrainConfig = field(default_factory=DrainConfig)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)


@dataclass(frozen=True, slots=True)
class EffectiveSettings:
    """Settings, and for each `section.key` that was set, where."""

    settings: Settings
    sources: Mapping[str, str]


def schema() -> Schema:
    """Return the sections by name, in the order of `Settings`."""
    hints = typing.get_type_hints(Settings)
    return {each.name: hints[each.name] for each in dataclasses.fields(Settings)}


def read_settings(
    *,
    config_path: Path | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, tuple[str, str]] | None = None,
    environment: Mapping[str, str] | None = None,
) -> EffectiveSettings:
    """Read all sources and lay them over each other.

    Args:
        config_path: The TOML file; None for none.
        sets: The values of `--set`, in order.
        flags: Text of flags that stand for one key: flag to `section.key` and text.
        environment: Variables; None for the process's own.

    Raises:
        StartupError: Something is misspelt or out of range; names every such thing.
    """
    variables = os.environ if environment is None else environment  # noqa: TID251 - the one place
    sections = schema()
    readings = [read_environment(variables, sections), read_sets(sets, sections)]
    if config_path is not None:
        readings.insert(0, read_toml(config_path, sections))
    assignments = [*_user_folders(variables)]
    for reading in readings:
        assignments += reading.assignments
    for flag, (name, text) in (flags or {}).items():
        section, _, key = name.partition(".")
        assignments.append(
            Assignment(section=section, key=key, value=text, is_text=True, source=flag)
        )
    composition = compose(assignments, sections)
    problems = [problem for reading in readings for problem in reading.problems]
    problems += composition.problems
    if problems:
        raise StartupError("\n".join(problems), exit_code=_USAGE)
    return EffectiveSettings(Settings(**composition.sections), composition.sources)


def _user_folders(variables: Mapping[str, str]) -> list[Assignment]:
    """Follow where the desktop's convention puts caches, if the user moved them."""
    root = variables.get("XDG_CACHE_HOME", "")
    if not Path(root).is_absolute():  # the convention asks to ignore anything else
        return []
    folder = str(Path(root) / "hocket")
    return [
        Assignment(
            section="model", key="cache_dir", value=folder, is_text=True, source="XDG_CACHE_HOME"
        )
    ]


def render_toml(effective: EffectiveSettings) -> str:
    """Write all settings as TOML, each with a comment that names its source.

    What it returns, read as a configuration file, gives the same settings.
    """
    lines: list[str] = []
    for section in schema():
        lines += [*([""] if lines else []), f"[{section}]"]
        config = getattr(effective.settings, section)
        for each in dataclasses.fields(config):
            source = effective.sources.get(f"{section}.{each.name}", "default")
            value = getattr(config, each.name)
            line = f"# {each.name} =" if value is None else f"{each.name} = {_toml(value)}"
            lines.append(f"{line}  # {_toml(source)[1:-1]}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:  # noqa: ANN401 - whatever a room declares
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            # A JSON string is a TOML string but for one character.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case tuple():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case _:
            raise TypeError(f"a setting holds a {type(value).__name__}. This is a bug.")
