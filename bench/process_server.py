"""A server whose engine computes in a process of its own; for `topologies.py`, not for use.

    python -m bench.process_server [the arguments of `hocket.server`]

The core is stepped over a pipe: each step's commands go out and its outputs come back, pickled.
Everything else is the server as it is, in this process, whose interpreter the engine then leaves
alone. An error of the engine ends its process, and with it this one.
"""

import functools
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import hocket.server.app
import hocket.server.startup
from hocket.server.__main__ import serve
from hocket.server.catalogue import ModelDescription
from hocket.server.engine.batch import ModelLimits
from hocket.server.engine.commands import Command, StepOutputs
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.core import EngineCore
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.startup import Report, load_with_torch
from hocket.server.text.tokenizer import ChatTemplate, Tokenizer


@dataclass(frozen=True, kw_only=True)
class RemoteModel:
    """A model in another process, as something that was loaded; the tokenizer is here as well."""

    runner: Connection
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    description: ModelDescription
    limits: ModelLimits


class ProcessCore:
    """The near end of an engine in another process."""

    def __init__(
        self, far: Connection, _tokenizer: object, config: EngineConfig, *_: object, **__: object
    ) -> None:
        self._far = far
        far.send(config)

    def step(self, commands: Sequence[Command]) -> StepOutputs:
        """Let the other process step; the thread waits without the interpreter's lock."""
        self._far.send(commands)
        outputs: StepOutputs = self._far.recv()
        return outputs


def _engine(near: Connection, source: ModelSourceConfig, config: RunnerConfig) -> None:
    """Run an engine until the near end is closed."""
    import time  # noqa: PLC0415 - the clock of this process is that of the machine

    loaded = load_with_torch(source, config, lambda _stage, _done: None)
    near.send((loaded.description, loaded.limits))
    core = EngineCore(loaded.runner, loaded.tokenizer, near.recv(), time.monotonic)
    while True:
        try:
            commands = near.recv()
        except EOFError:
            return
        near.send(core.step(commands))


def load_remote(source: ModelSourceConfig, config: RunnerConfig, _report: Report) -> RemoteModel:
    """Start the other process and wait for its model."""
    from hocket.server.model.gguf_checkpoint import GgufCheckpoint  # noqa: PLC0415 - brings torch
    from hocket.server.model.registry import cache_folder, resolve  # noqa: PLC0415 - the same
    from hocket.server.model.vocabulary import (  # noqa: PLC0415 - the same
        chat_template,
        tokenizer_from_gguf,
    )

    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=_engine, args=(there, source, config), daemon=True).start()
    there.close()
    files = resolve(source, lambda _stage, _done: None)
    metadata = GgufCheckpoint(files.path).metadata
    kept = cache_folder(source) / f"{files.name}.tokenizer.json"
    tokenizer = tokenizer_from_gguf(metadata, cache_file=kept)
    description, limits = here.recv()
    return RemoteModel(
        runner=here,
        tokenizer=tokenizer,
        chat_template=chat_template(metadata, tokenizer),
        description=description,
        limits=limits,
    )


def main() -> int:
    """Serve, with the engine elsewhere."""
    hocket.server.startup.EngineCore = ProcessCore  # type: ignore[assignment,attr-defined]
    hocket.server.app.App = functools.partial(hocket.server.app.App, load=load_remote)  # type: ignore[assignment,misc,arg-type]
    return serve(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
