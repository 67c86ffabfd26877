"""From settings to an engine that has written its first tokens, of one worker or several.

Loop thread.
"""

import asyncio
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from hocket.server.catalogue import ModelDescription
from hocket.server.engine.batch import ModelLimits, ModelRunner
from hocket.server.engine.commands import Submit
from hocket.server.engine.core import EngineCore
from hocket.server.engine.driver import EngineDriver
from hocket.server.engine.ensemble import Ensemble
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.errors import HocketError, StartupError
from hocket.server.executors import Executors
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.model.shares import share_of
from hocket.server.observe.watchdog import WatchedCore
from hocket.server.settings import Settings
from hocket.server.text.tokenizer import ChatTemplate, Tokenizer

_log = structlog.get_logger(__name__)

_WARM_UP_TEXT = "Once upon a time"
_SPINS = "2000"  # some microseconds
_SETBACK_SECONDS = 60.0
_WARM_UP_TOKENS = 2  # the first comes of a prefill, the second of a decode

Report = Callable[[str, float | None], None]


class SharedRunner(ModelRunner, Protocol):
    """A runner whose weights others may share."""

    def sibling(self) -> ModelRunner:
        """Return a runner over the same weights, with a cache of its own; on its own thread."""
        ...


class Loaded(Protocol):
    """A model that was loaded; see `model.loading.LoadedModel`."""

    @property
    def runner(self) -> SharedRunner:
        """Computes."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""

    @property
    def chat_template(self) -> ChatTemplate | None:
        """How it writes conversations down; None if it knows none."""

    @property
    def description(self) -> ModelDescription:
        """What it is."""

    @property
    def limits(self) -> ModelLimits:
        """The bounds it sets."""


Load = Callable[[ModelSourceConfig, RunnerConfig, Report], Loaded]
Driver = EngineDriver | Ensemble


def prepare_torch() -> None:
    """Set what the libraries of torch read once, when they are loaded; before its first import."""
    # Its threads otherwise spin for milliseconds after each product, on cores that the loop and the
    # callers want.
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # noqa: TID251 - set for a library, not read
    # Large tensors then lie in huge pages, where the system allows it.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # noqa: TID251 - the same


def load_with_torch(source: ModelSourceConfig, runner: RunnerConfig, report: Report) -> Loaded:
    """Load a model by `model.loading`, importing torch only now."""
    report("loading torch", None)
    prepare_torch()
    from hocket.server.model.loading import load_model  # noqa: PLC0415 - torch takes seconds

    return load_model(source, runner, report)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """A model with all that drives it.

    Attributes:
        loaded: The model.
        driver: What requests are handed to; nobody drives it yet.
        cores: What it steps, one for each worker.
    """

    loaded: Loaded
    driver: Driver
    cores: tuple[WatchedCore, ...]


async def build_engine(
    settings: Settings,
    load: Load,
    executors: Executors,
    *,
    report: Report,
    observe_step: Callable[[float], None],
    clock: Callable[[], float],
) -> BuiltEngine:
    """Load a model and make its engine, each worker's part on the thread of that worker.

    Raises:
        StartupError: The model is absent, broken or not supported, or there is too little memory.
    """
    engine = settings.engine
    share = share_of(settings.runner, engine.workers)
    first, *others = executors.engines
    loop = asyncio.get_running_loop()
    loaded = await loop.run_in_executor(first, load, settings.model, share, report)
    runners: list[ModelRunner] = [loaded.runner]
    runners += [await loop.run_in_executor(each, loaded.runner.sibling) for each in others]
    cores = tuple(
        WatchedCore(
            EngineCore(
                runner,
                loaded.tokenizer,
                engine,
                clock,
                on_fault=_log_fault,
                on_setback=Setbacks(clock),
            ),
            observe_step=observe_step,
            clock=clock,
        )
        for runner in runners
    )
    mailbox_bytes, is_overlapped = engine.mailbox_kib * 1024, engine.delivery == "overlapped"
    driver: Driver
    if others:
        driver = Ensemble(
            cores, executors.engines, mailbox_bytes=mailbox_bytes, is_overlapped=is_overlapped
        )
    else:
        driver = EngineDriver(
            cores[0], first, mailbox_bytes=mailbox_bytes, is_overlapped=is_overlapped
        )
    return BuiltEngine(loaded=loaded, driver=driver, cores=cores)


async def warm_up(engine: BuiltEngine, clock: Callable[[], float]) -> None:
    """Let each worker write a few tokens: one request for each goes to one each.

    Raises:
        StartupError: One cannot.
    """
    loaded = engine.loaded
    encoding = loaded.tokenizer.encode(_WARM_UP_TEXT, add_special=True, parse_special=False)
    most = max(1, loaded.limits.max_context_tokens - _WARM_UP_TOKENS)
    generations = [
        engine.driver.submit_nowait(
            Submit(
                request_id=f"warm-up-{number}",
                prompt_token_ids=encoding.token_ids[:most],
                sampling=SamplingParams(),
                stopping=StoppingParams(max_tokens=_WARM_UP_TOKENS, ignore_eos=True),
                arrived=clock(),
            )
        )
        for number in range(len(engine.cores))
    ]
    name = loaded.description.name
    try:
        for generation in generations:
            written = 0
            async for output in generation:
                written += output.finished.completion_tokens if output.finished else 0
            if not written:
                raise StartupError(f"{name} wrote nothing when it was tried out")
    except HocketError as error:
        cause = ", ".join(error.metadata.values())
        raise StartupError(
            f"{name} cannot write: {error.message}" + (f" ({cause})" if cause else "")
        ) from error
    finally:
        for generation in generations:
            generation.close_nowait()  # who leaves meanwhile does not wait for the tokens


def _log_fault(error: Exception) -> None:
    """Log what may have cost one sequence its life. Engine thread."""
    _log.error("a fault in the engine", exc_info=error)


class Setbacks:
    """Logs what cost nobody anything but time: once a minute at most. Engine thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next = -math.inf
        self._untold = 0

    def __call__(self, error: Exception) -> None:
        """Log an exception, or count it for the next time."""
        now = self._clock()
        if now < self._next:
            self._untold += 1
            return
        _log.warning("a copy of the cache failed", error=repr(error), others=self._untold)
        self._next, self._untold = now + _SETBACK_SECONDS, 0
