"""A whole server around a scripted runner, on a free loopback port. Loop thread."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from hocket.server.app import App
from hocket.server.catalogue import ModelDescription
from hocket.server.engine.batch import ModelLimits
from hocket.server.lifecycle import ServerState
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.settings import Settings
from hocket.server.startup import Report
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.testing.scripted_runner import ScriptedRunner
from hocket.server.text.tokenizer import ChatMessage
from hocket.server.translation.config import TranslatorConfig
from hocket.server.translation.loading import TranslatorSpec
from hocket.server.translation.protocol import Translator

MODEL = "scripted"


class RoleTemplate:
    """Writes a conversation down as role tokens and texts."""

    def encode(
        self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool
    ) -> tuple[int, ...]:
        """Turn a conversation into tokens."""
        token_ids: list[int] = []
        for message in messages:
            is_answer = message.role == "assistant"
            token_ids.append(ByteTokenizer.ASSISTANT if is_answer else ByteTokenizer.USER)
            token_ids += message.content.encode()
        if add_generation_prompt:
            token_ids.append(ByteTokenizer.ASSISTANT)
        return tuple(token_ids)


@dataclass(frozen=True, slots=True)
class ScriptedModel:
    """A scripted runner as something that was loaded."""

    runner: ScriptedRunner = field(default_factory=ScriptedRunner)
    tokenizer: ByteTokenizer = field(default_factory=ByteTokenizer)
    chat_template: RoleTemplate | None = field(default_factory=RoleTemplate)

    @property
    def description(self) -> ModelDescription:
        """What it is."""
        return ModelDescription(name=MODEL, architecture="script", dtype="int8", parameters=0)

    @property
    def limits(self) -> ModelLimits:
        """The runner's own."""
        return self.runner.limits


def loopback_settings(**sections: Mapping[str, object]) -> Settings:
    """Return settings for a free loopback port, without metrics and without a drain delay.

    Each argument changes a section: `admission={"max_waiting": 0}`.
    """
    settings = Settings()
    changes: dict[str, dict[str, object]] = {
        "listener": {"address": "127.0.0.1:0"},
        "metrics": {"enabled": False},
        "drain": {"delay_seconds": 0.0, "grace_seconds": 3.0},
    }
    for name, values in sections.items():
        changes.setdefault(name, {}).update(values)
    return replace(
        settings,
        **{name: replace(getattr(settings, name), **values) for name, values in changes.items()},
    )


@asynccontextmanager
async def serving(
    model: ScriptedModel | None = None,
    settings: Settings | None = None,
    translators: Mapping[str, Translator] = MappingProxyType({}),
) -> AsyncIterator[App]:
    """Run a server until the block ends, then drain it; it must leave with exit code 0.

    Args:
        model: What it serves.
        settings: How; on a free loopback port if none are given.
        translators: By name, served beside the model.
    """
    loaded = model or ScriptedModel()

    def load(_source: ModelSourceConfig, _runner: RunnerConfig, _report: Report) -> ScriptedModel:
        return loaded

    def load_translator(spec: TranslatorSpec) -> Translator:
        return translators[spec.name]

    settings = settings or loopback_settings()
    if translators:
        settings = replace(settings, translator=TranslatorConfig(translators=tuple(translators)))
    app = App(settings, load=load, load_translator=load_translator)
    running = asyncio.create_task(app.run())
    try:
        await app.lifecycle.wait_for(ServerState.SERVING, ServerState.STOPPED, ServerState.FAILED)
        if app.lifecycle.is_serving:
            yield app
    finally:
        app.leave(in_hurry=True)
        code = await running
    if code:
        raise AssertionError(f"the server left with exit code {code}")
