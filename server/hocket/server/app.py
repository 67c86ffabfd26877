"""The composition root: builds the rooms, brings them up, and sees them out. Loop thread.

    listen ▸ load ▸ warm up ▸ serve ▸ drain ▸ stop

The listener comes first, so that health can be asked from the first moment; it says NOT_SERVING
until the model has written a real token. A failure on the way, or of the engine later, is told by
health, by the status of every call in progress, and by the exit code.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from hocket.server.admission import Admission
from hocket.server.catalogue import Catalogue, Served, ServedModel
from hocket.server.drain import Departure
from hocket.server.engine.statistics import EngineStatistics
from hocket.server.errors import Draining, EngineFailed, StartupError
from hocket.server.executors import Executors
from hocket.server.lifecycle import Lifecycle, ServerState
from hocket.server.observe.exporter import MetricsExporter
from hocket.server.observe.looplag import watch_lag
from hocket.server.observe.metrics import Metrics
from hocket.server.observe.watchdog import Watchdog, WatchedCore
from hocket.server.progress import Progress
from hocket.server.rpc.porch import build_listener
from hocket.server.settings import Settings
from hocket.server.startup import Driver, Load, build_engine, load_with_torch, warm_up
from hocket.server.translation.loading import load_translator, parse_specs
from hocket.server.translators import LoadTranslator, Translators

_log = structlog.get_logger(__name__)

_LAST_WORDS_SECONDS = 2.0  # for failed calls to hear why, before the process leaves
_END_SECONDS = 1.0  # for threads that have nothing to do to end, where nobody waits for a step
_STOP_SECONDS = 10.0  # for the last step and the threads to end


class StalledEngine(Exception):
    """A step of the engine does not end."""


class App:
    """A server, from its settings to its exit code."""

    def __init__(
        self,
        settings: Settings,
        *,
        load: Load = load_with_torch,
        load_translator: LoadTranslator = load_translator,
        progress: Progress | None = None,
        ready_file: Path | None = None,
        on_warm: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Build what needs no model.

        Args:
            settings: What to serve, and how.
            load: Loads the model; called once, on the engine's thread.
            load_translator: Loads a translator; called for each, on a thread of theirs.
            progress: Told how far starting has come.
            ready_file: Written once the server serves: the bound addresses and the process's id.
            on_warm: Called once all is loaded and warm, before the server says that it serves.
            clock: Seconds of a monotonic clock.

        Raises:
            StartupError: A translator is badly named, or a file of keys cannot be read.
        """
        self._settings = settings
        self._load = load
        self._progress = progress or Progress()
        self._ready_file = ready_file
        self._on_warm = on_warm
        self._clock = clock
        self._began = clock()
        self._failure: Exception | None = None
        self._failed = asyncio.Event()
        self._driver: Driver | None = None
        self._driving: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self.address = ""
        self.metrics_address = ""
        self.lifecycle = Lifecycle()
        self.departure = Departure(settings.drain)
        self.catalogue = Catalogue()
        self._executors = Executors(settings.executors, engine_workers=settings.engine.workers)
        self._admission = Admission(settings.admission, clock)
        self._metrics = Metrics(
            settings.metrics,
            engine=self.statistics,
            state=lambda: self.lifecycle.state,
            gauges=self._gauges,
        )
        self._translators = Translators(
            parse_specs(settings.translator.translators),
            load_translator,
            self._executors,
            observe=self._metrics.observe_translation,
            clock=clock,
        )
        self._listener = build_listener(
            settings.listener,
            settings.access,
            settings.document,
            settings.process,
            settings.resume,
            lifecycle=self.lifecycle,
            catalogue=self.catalogue,
            admission=self._admission,
            executors=self._executors,
            leave=self.leave,
            observers=(self._metrics,),
            clock=clock,
        )

    def statistics(self) -> EngineStatistics:
        """Return the engine's newest snapshot; an empty one before there is an engine."""
        return self._driver.statistics() if self._driver else EngineStatistics()

    def leave(self, *, in_hurry: bool = False) -> float:
        """Ask the server to drain and leave; return the seconds until new work is refused."""
        return self.departure.wish(in_hurry=in_hurry)

    async def run(self) -> int:
        """Serve until asked to leave or until the engine fails; return the exit code.

        Raises:
            StartupError: The server could not start.
        """
        try:
            self._tell_ready({})  # what an earlier process left is no longer so
            self.address = await self._listener.start()
            async with self._scraped(), asyncio.TaskGroup() as group:
                starting = group.create_task(
                    self._or_fail(lambda: self._bring_up(group)), name="hocket-start"
                )
                await self.departure.wait_wished()
                starting.cancel()  # if it has not ended, nobody waits for this model any more
                await self._see_out()
                await self._stop_engine()
        except StartupError as error:  # nothing runs yet
            self._fail(error)
        finally:
            await self._listener.stop(0)
            patience = _STOP_SECONDS if self._failure is None else _END_SECONDS
            if await self._executors.close(patience):
                self._translators.close()
            else:
                _log.warning("a thread is still busy and is left behind")
        if isinstance(self._failure, StartupError):
            raise self._failure
        return 1 if self._failure else 0

    async def _or_fail(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do a piece of work; what goes wrong ends the server."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - told, and turned into the exit code
            self._fail(error)

    async def _bring_up(self, group: asyncio.TaskGroup) -> None:
        """Load a model and translators, let the model write a token, and serve them."""
        self.lifecycle.enter(ServerState.LOADING)
        translators = await self._translators.load(self._progress.report)
        engine = await build_engine(
            self._settings,
            self._load,
            self._executors,
            report=self._progress.report,
            observe_step=self._metrics.observe_step,
            clock=self._clock,
        )
        loaded, self._driver = engine.loaded, engine.driver
        self._driving = group.create_task(self._or_fail(engine.driver.run), name="hocket-driver")
        self._watching = group.create_task(
            self._or_fail(lambda: self._watch(engine.cores)), name="hocket-watchdog"
        )
        self.lifecycle.enter(ServerState.WARMING)
        self._progress.report("warming up", None)
        await warm_up(engine, self._clock)
        self._on_warm()
        model = ServedModel(
            description=loaded.description,
            limits=loaded.limits,
            tokenizer=loaded.tokenizer,
            chat_template=loaded.chat_template,
            engine=engine.driver,
        )
        self._serve(model, *translators)
        self.lifecycle.enter(ServerState.SERVING)
        self._announce(model, *translators)

    def _serve(self, *models: Served) -> None:
        """Put all that is loaded into the catalogue, the default first.

        Raises:
            StartupError: Two have the same name.
        """
        try:
            for model in models:
                self.catalogue.add(model)
        except ValueError as error:
            raise StartupError(f"{error}; give the translator another: NAME=KIND") from error

    async def _watch(self, cores: Sequence[WatchedCore]) -> None:
        await Watchdog(self._settings.watchdog, *cores, clock=self._clock).wait_stalled()
        self._fail(StalledEngine("an engine step does not end"))

    async def _see_out(self) -> None:
        """Let calls end: in their own time if all is well, soon if the engine is gone."""
        async with asyncio.TaskGroup() as group:
            failing = group.create_task(self._failed.wait())
            if self._failure is None:
                draining = group.create_task(
                    self.departure.drain(self.lifecycle, self._listener, abort_all=self._abort_all)
                )
                await asyncio.wait({draining, failing}, return_when=asyncio.FIRST_COMPLETED)
            failing.cancel()
            if self._failure is None:
                self.lifecycle.enter(ServerState.STOPPED)
            await self._listener.stop(_LAST_WORDS_SECONDS)  # cuts the grace of a drain short

    def _fail(self, error: Exception) -> None:
        """Note why the server cannot go on and let everyone know. The first reason counts."""
        if self._failure is not None:
            return
        self._failure = error
        self._failed.set()
        if not isinstance(error, StartupError):
            _log.critical("the engine failed", exc_info=error)
        if self.lifecycle.state is not ServerState.STOPPED:  # then every call has ended well
            self.lifecycle.enter(ServerState.FAILED)
        self._abandon_engine()
        self._translators.cut_all_nowait(EngineFailed)
        self.departure.wish(in_hurry=True)

    async def _stop_engine(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._driver is None or self._driving is None:
            return
        self._driver.stop()
        if not (await asyncio.wait({self._driving}, timeout=_STOP_SECONDS))[0]:
            _log.error("the engine did not stop in time")
            self._abandon_engine()

    def _abandon_engine(self) -> None:
        """End the driver, and with it all calls, without waiting for the step in progress."""
        if self._driver is not None:
            self._driver.abandon()

    def _abort_all(self) -> int:
        count = self._driver.cut_all_nowait(Draining) if self._driver else 0
        return count + self._translators.cut_all_nowait(Draining)

    def _gauges(self) -> dict[str, tuple[str, float]]:
        door = self._admission.statistics()
        return {
            "requests_in_progress": ("Places that requests hold.", door.in_progress),
            "connections_in_use": ("Connections that hold a place.", door.connections),
            "leave_rate": ("Places given back in a second, lately.", door.leave_rate),
            "text_waiting": ("Texts that wait for a thread.", self._executors.text_waiting),
            "translator_waiting": (
                "Sentences that wait for a translator.",
                self._executors.translator_waiting,
            ),
        }

    @contextlib.asynccontextmanager
    async def _scraped(self) -> AsyncIterator[None]:
        """Answer scrapes for as long as the block runs."""
        if not self._settings.metrics.enabled:
            yield
            return
        exporter = MetricsExporter(self._metrics.render, address=self._settings.metrics.address)
        self.metrics_address = exporter.start()
        lag = asyncio.create_task(watch_lag(self._metrics.observe_lag), name="hocket-lag")
        try:
            yield
        finally:
            lag.cancel()
            exporter.close()

    def _announce(self, *served: Served) -> None:
        """Tell that the server serves: people, the log, and whoever waits for the ready file.

        Args:
            served: What it serves, the default first.

        Raises:
            StartupError: The ready file cannot be written.
        """
        seconds = self._clock() - self._began
        model, *others = (each.description for each in served)
        names = ", ".join((model.name, *(other.name for other in others)))
        line = f"Serving {names} on {self.address} after {seconds:.1f} s. Ctrl-C drains it."
        if not self._progress.announce(line):
            _log.info(
                "serving",
                model=model.name,
                dtype=model.dtype,
                parameters=model.parameters,
                others=[other.name for other in others],
                address=self.address,
                metrics_address=self.metrics_address,
                seconds=round(seconds, 3),
            )
        bound = {"address": self.address, "metrics_address": self.metrics_address}
        self._tell_ready({**bound, "pid": os.getpid()})

    def _tell_ready(self, document: dict[str, object]) -> None:
        """Put the ready file in place as a whole, or remove it if there is nothing to tell.

        Raises:
            StartupError: It cannot be written or removed.
        """
        file = self._ready_file
        if file is None:
            return
        draft = file.parent / f".{file.name}.{os.getpid()}"
        try:
            if document:
                draft.write_text(json.dumps(document) + "\n", encoding="utf-8")
                draft.replace(file)
            else:
                file.unlink(missing_ok=True)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise StartupError(f"cannot write {file}: {error.strerror}") from error
