"""A writer over a translator that is no language model: one sentence after the other. Loop thread.

Such translators take one sentence at a time and damage what they do not understand. So a segment is
cut into sentences, protected spans are left out, and the parts between them are translated one by
one; what no word is in, and white space around sentences, stays as it is. All segments of a window
ask at once, which keeps every thread of a translator, or every seat of an engine, busy.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from hocket.server.catalogue import ServedTranslator
from hocket.server.document.cutter import Cutter
from hocket.server.document.job import Job, JobUsage, Place, Written, WrittenPiece
from hocket.server.document.voice import RunText, WritingOptions
from hocket.server.engine.commands import FinishReason, Timings
from hocket.server.text.pieces import SentenceOptions
from hocket.server.text.segments import Segment
from hocket.server.text.sentences import SentenceSplitter
from hocket.server.translation.protocol import Pair, Translation, TranslationRequest

_LONG_CHARS = 4_096  # that take the loop too long to be cut on it
# What goes with a protected span before it rather than with the words after it.
_GLUE: Final = re.compile(r"[\s,;:.!?)\]}\u2013\u2014\u2026\u3001\u3002\uff0c]+")
# What makes a line an item, a heading or a quotation, and is no part of its first sentence.
_MARK: Final = re.compile(r"\s*(?:[-*+#>\u2022\u2013\u2014]+|\d+[.)])\s+")

Unit = tuple[str, bool]  # text, and whether it is to be translated


class TranslatingWriter:
    """Translates the segments of one document."""

    def __init__(
        self,
        translator: ServedTranslator,
        pairs: Sequence[Pair],
        options: WritingOptions,
        *,
        run_text: RunText,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it.

        Args:
            translator: Does the work.
            pairs: Source and target of each variant.
            options: How texts come back; what is said of tokens has no meaning.
            run_text: Runs a function on a text thread.
            clock: Seconds of a monotonic clock.
        """
        self._translator = translator
        self._pairs = pairs
        self._options = options
        self._run_text = run_text
        self._clock = clock
        self._works: dict[Place, asyncio.Future[Translation]] = {}
        self._cancelled: set[Place] = set()

    async def write(self, job: Job) -> AsyncGenerator[WrittenPiece | Written]:
        """Yield the pieces of a job, sentence by sentence, then how it ended; see `Writer.write`.

        Raises:
            HocketError: The translator failed, or all were cut off.
        """
        units = await self._units(job.segment)
        cutter = Cutter(self._options.granularity, self._options.sentences)
        telling = _Telling(self._clock)
        reason = FinishReason.END_OF_TEXT
        for text, is_prose in units:
            shown = text
            if is_prose:
                translation = await self._ask(job.place, text)
                if translation is None:
                    reason = FinishReason.CANCELLED
                    break
                telling.note(translation)
                shown = translation.text.strip()
            for piece in telling.shown(cutter.push(shown)):
                yield piece
        for piece in telling.shown(cutter.finish()):
            yield piece
        self._cancelled.discard(job.place)
        yield telling.written(reason, _protection(job.segment, units))

    def cancel_nowait(self, job: Job) -> None:
        """Let a job's text go after the sentences that have come; see `Writer.cancel_nowait`."""
        self._cancelled.add(job.place)
        if work := self._works.get(job.place):
            work.cancel()

    def key(self, job: Job) -> bytes:
        """Return what tells a job's text from all that may be different."""
        description, options = self._translator.description, self._options
        parts = (
            (description.name, description.digest),
            self._pairs[job.place.variant],
            (job.segment.text, job.segment.protected),
            (options.granularity, options.sentences),
        )
        return hashlib.blake2b(repr(parts).encode(errors="surrogatepass"), digest_size=32).digest()

    async def _units(self, segment: Segment) -> Sequence[Unit]:
        most = self._translator.interpreter.facts.max_chars
        sentences = self._options.sentences
        if len(segment.text) <= _LONG_CHARS:
            return units_of(segment, sentences, max_chars=most)
        return await self._run_text(lambda: units_of(segment, sentences, max_chars=most))

    async def _ask(self, place: Place, text: str) -> Translation | None:
        """Return a sentence translated; None if the job is cancelled."""
        if place in self._cancelled:
            return None
        request = TranslationRequest(
            text=" ".join(text.split()),  # a line break has no meaning inside a sentence
            pair=self._pairs[place.variant],
            request_id=self._options.request_id,
            owner=self._options.owner,
            priority=self._options.priority,
            deadline=self._options.deadline,
        )
        work = asyncio.ensure_future(self._translator.interpreter.translate(request))
        self._works[place] = work
        try:
            return await work
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if place not in self._cancelled or (task is not None and task.cancelling()):
                raise  # not the job ends, but its document
            return None
        finally:
            del self._works[place]
            work.cancel()


class _Telling:
    """What there is to tell of a job when it ends."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begun = clock()
        self._queue: float | None = None
        self._first_text: float | None = None
        self._usage = JobUsage()

    def note(self, translation: Translation) -> None:
        """Take note of a sentence."""
        self._queue = translation.queue if self._queue is None else self._queue
        self._usage += JobUsage(
            prompt_tokens=translation.prompt_tokens,
            completion_tokens=translation.completion_tokens,
        )

    def shown(self, pieces: list[WrittenPiece]) -> list[WrittenPiece]:
        """Take note that pieces are handed out; return them."""
        if pieces and self._first_text is None:
            self._first_text = self._clock() - self._begun
        return pieces

    def written(self, reason: FinishReason, protection: str) -> Written:
        """Return how the job ended."""
        timings = Timings(
            queue=self._queue or 0.0,
            prefill=0.0,
            first_token=None,
            first_text=self._first_text,
            total=self._clock() - self._begun,
        )
        return Written(
            finish_reason=reason, usage=self._usage, timings=timings, protection=protection
        )


def units_of(segment: Segment, sentences: SentenceOptions, *, max_chars: int) -> list[Unit]:
    """Return what a segment is translated by, which joins to its text. Any thread; pure.

    Args:
        segment: The source.
        sentences: How it is cut into sentences.
        max_chars: The longest that a translator takes.
    """
    sentences = replace(sentences, max_chars=min(max_chars, sentences.max_chars))
    units: list[Unit] = []
    begin = 0
    for first, last in (*segment.protected, (len(segment.text), len(segment.text))):
        part = segment.text[begin:first]
        glue = _GLUE.match(part) if begin else None
        body = part[glue.end() :] if glue else part
        units += [(part[: len(part) - len(body)], False)]
        for sentence in _sentences(body, sentences):
            units += _trimmed(sentence)
        units += [(segment.text[first:last], False)]
        begin = last
    return [unit for unit in units if unit[0]]


def _sentences(text: str, options: SentenceOptions) -> Iterator[str]:
    splitter = SentenceSplitter(options)
    for piece in (*splitter.push(text), *splitter.finish()):
        yield from _cut(piece.text, options.max_chars)


def _cut(text: str, most: int) -> Iterator[str]:
    """Yield a text in parts that are not too long, cut behind spaces where there are any."""
    begin = 0
    while len(text) - begin > most:
        end = text.rfind(" ", begin, begin + most) + 1
        end = end if end > begin else begin + most
        yield text[begin:end]
        begin = end
    yield text[begin:]


def _trimmed(sentence: str) -> Iterator[Unit]:
    core = sentence.strip()
    if not any(character.isalnum() for character in core):
        yield sentence, False
        return
    mark = _MARK.match(sentence)
    begin = mark.end() if mark else sentence.index(core)
    core = sentence[begin:].rstrip()
    yield sentence[:begin], False
    yield core, any(character.isalnum() for character in core)
    yield sentence[begin + len(core) :], False


def _protection(segment: Segment, units: Sequence[Unit]) -> str:
    if not segment.protected:
        return ""
    return "split" if any(is_prose for _, is_prose in units) else "kept"
