"""The translators of a server, from their loading until nobody asks them any more. Loop thread."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from hocket.server.catalogue import ModelDescription, ServedTranslator
from hocket.server.errors import HocketError
from hocket.server.executors import Executors
from hocket.server.translation.loading import TranslatorSpec
from hocket.server.translation.protocol import Translator
from hocket.server.translation.threads import ThreadedInterpreter

_log = structlog.get_logger(__name__)

LoadTranslator = Callable[[TranslatorSpec], Translator]
Report = Callable[[str, float | None], None]


class Translators:
    """Loads translators, each once, and lets go of them."""

    def __init__(
        self,
        specs: Sequence[TranslatorSpec],
        load: LoadTranslator,
        executors: Executors,
        *,
        observe: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it; nothing is loaded yet.

        Args:
            specs: What is served.
            load: Loads one; called on a translator thread.
            executors: Where they work.
            observe: Told on its thread of the seconds that each sentence took.
            clock: Seconds of a monotonic clock.
        """
        self._specs = specs
        self._load = load
        self._executors = executors
        self._observe = observe
        self._clock = clock
        self._translators: list[Translator] = []
        self._served: list[ServedTranslator] = []

    async def load(self, report: Report) -> tuple[ServedTranslator, ...]:
        """Load all of them, one after the other.

        Raises:
            StartupError: One is not known, not installed or broken.
        """
        for spec in self._specs:
            report(f"loading the translator {spec.name}", None)
            translator = await self._executors.run_translator(partial(self._load, spec))
            self._translators.append(translator)
            self._served.append(self._serve(spec.name, translator))
        return tuple(self._served)

    def cut_all_nowait(self, error_of: Callable[[], HocketError]) -> int:
        """Fail all sentences in progress, and all that come later; return how many there were."""
        return sum(each.interpreter.cut_all_nowait(error_of) for each in self._served)

    def close(self) -> None:
        """Let go of all of them; their threads have ended."""
        while self._translators:
            try:
                self._translators.pop().close()
            except Exception as error:  # noqa: BLE001 - others are closed all the same
                _log_fault(error)

    def _serve(self, name: str, translator: Translator) -> ServedTranslator:
        facts = translator.facts
        return ServedTranslator(
            description=ModelDescription(
                name=name,
                architecture=facts.architecture,
                dtype=facts.dtype,
                parameters=facts.parameters,
                license=facts.license,
                digest=facts.digest,
            ),
            interpreter=ThreadedInterpreter(
                translator,
                self._executors.run_translator,
                on_fault=_log_fault,
                observe=self._observe,
                clock=self._clock,
            ),
        )


def _log_fault(error: Exception) -> None:
    _log.error("a fault in a translator", exc_info=error)
