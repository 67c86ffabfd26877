"""An interpreter of a translator that blocks: one sentence a thread. Loop thread.

A sentence that is computed cannot be interrupted; who leaves does not wait for it, and its thread
takes the next one when it is done.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from hocket.server.errors import GenerationFailed, HocketError
from hocket.server.translation.protocol import (
    Translation,
    TranslationRequest,
    Translator,
    TranslatorFacts,
)

Run = Callable[[Callable[[], Translation]], Awaitable[Translation]]


def _nothing(_: Any) -> None:  # noqa: ANN401 - whatever there is to tell
    return


class ThreadedInterpreter:
    """Translates sentences on threads, in the order of their arrival."""

    def __init__(
        self,
        translator: Translator,
        run: Run,
        *,
        on_fault: Callable[[Exception], None] = _nothing,
        observe: Callable[[float], None] = _nothing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it.

        Args:
            translator: Does the work.
            run: Runs a function on a thread, as soon as one is free.
            on_fault: Told of what the translator raised; must not raise.
            observe: Told on its thread of the seconds that each sentence took, without its wait.
            clock: Seconds of a monotonic clock.
        """
        self._translator = translator
        self._run = run
        self._on_fault = on_fault
        self._observe = observe
        self._clock = clock
        self._works: set[asyncio.Future[Translation]] = set()
        self._error_of: Callable[[], HocketError] | None = None

    @property
    def facts(self) -> TranslatorFacts:
        """See `Interpreter`."""
        return self._translator.facts

    async def translate(self, request: TranslationRequest) -> Translation:
        """Return a sentence in another language; see `Interpreter.translate`.

        Raises:
            GenerationFailed: The translator failed.
            HocketError: All were cut off.
        """
        self._check_open()
        work = asyncio.ensure_future(self._run(partial(self._work, request, self._clock())))
        self._works.add(work)
        try:
            return await work
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():  # our caller is not leaving
                self._check_open()
            raise
        except Exception as error:
            self._on_fault(error)
            raise GenerationFailed("translator") from error
        finally:
            self._works.discard(work)
            work.cancel()

    def cut_all_nowait(self, error_of: Callable[[], HocketError]) -> int:
        """Fail all sentences, now and later; see `Interpreter.cut_all_nowait`."""
        self._error_of = error_of
        count = len(self._works)
        for work in tuple(self._works):
            work.cancel()
        return count

    def _check_open(self) -> None:
        if self._error_of is not None:
            raise self._error_of()

    def _work(self, request: TranslationRequest, arrived: float) -> Translation:
        """Translate a sentence. Translator thread."""
        begun = self._clock()
        text = self._translator.translate(request.text, *request.pair)
        self._observe(self._clock() - begun)
        return Translation(text=text, queue=begun - arrived)
