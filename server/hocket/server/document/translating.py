"""A writer over a translator that is no language model: one sentence at a time, on text threads.

Loop thread. Such translators damage what they do not understand, so protected spans are taken out
and the parts between them are translated one by one. They also cut off what is long without a
word, so a long part goes through them in pieces.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Protocol

from hocket.server.document.job import Job, Place, Written, WrittenPiece
from hocket.server.engine.commands import FinishReason, Timings
from hocket.server.errors import GenerationFailed, InvalidRequest
from hocket.server.text.pieces import PieceKind, SentenceOptions
from hocket.server.text.segments import Segment
from hocket.server.text.sentences import SentenceSplitter

_MOST_CHARS = 400  # that a translator is given at once

# English names beside the codes, for what translators are made for.
_NAMES = {
    "arabic": "ar", "chinese": "zh", "dutch": "nl", "english": "en", "french": "fr",
    "german": "de", "hindi": "hi", "italian": "it", "japanese": "ja", "korean": "ko",
    "polish": "pl", "portuguese": "pt", "russian": "ru", "spanish": "es", "turkish": "tr",
    "ukrainian": "uk",
}  # fmt: skip


class Translator(Protocol):
    """Translates sentences between some languages."""

    @property
    def name(self) -> str:
        """The name that it is asked for by, as if it were a model."""
        ...

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """Pairs of source and target that it knows, as ISO 639-1 codes."""
        ...

    def translate(self, text: str, source: str, target: str) -> str:
        """Return a sentence in another language. Any thread, several at once.

        Raises:
            Exception: It cannot.
        """
        ...


def code_of(language: str) -> str:
    """Return the ISO 639-1 code of a language given by code, tag or English name, if it is known.

    What is not known comes back in small letters.
    """
    name = language.strip().lower()
    return _NAMES.get(name) or name.partition("-")[0]


def directions(
    translator: Translator, source: str, targets: Sequence[str], *, text_language: str
) -> tuple[tuple[str, str], ...]:
    """Return the pairs of codes to translate by, one for each target.

    Args:
        translator: That is to know them.
        source: Of the text, as the caller names it; empty for `text_language`.
        targets: As the caller names them.
        text_language: The language that sentences are cut by.

    Raises:
        InvalidRequest: It does not know a pair.
    """
    begin = code_of(source or text_language)
    found = tuple((begin, code_of(target)) for target in targets)
    for index, pair in enumerate(found):
        if pair not in translator.pairs:
            known = ", ".join(f"{a} to {b}" for a, b in sorted(translator.pairs))
            raise InvalidRequest.of(
                f"start.translate.target_languages[{index}]", f"{translator.name} knows {known}"
            )
    return found


class TranslatingWriter:
    """Translates the segments of one document."""

    def __init__(
        self,
        translator: Translator,
        pairs: Sequence[tuple[str, str]],
        run: Callable[[Callable[[], str]], Awaitable[str]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make one.

        Args:
            translator: Does the work.
            pairs: Source and target of each variant, as `directions` gives them.
            run: Runs a function on another thread.
            clock: Seconds of a monotonic clock.
        """
        self._translator = translator
        self._pairs = pairs
        self._run = run
        self._clock = clock
        self._cancelled: set[Place] = set()

    async def write(self, job: Job) -> AsyncGenerator[WrittenPiece | Written]:
        """Yield the translation as one piece; see `Writer.write`.

        Raises:
            GenerationFailed: The translator failed.
            Overloaded: Too many wait for a thread.
        """
        begun = self._clock()
        source, target = self._pairs[job.place.variant]
        parts = _parts(job.segment)
        text = await self._run(lambda: self._translate(parts, source, target))
        if job.place in self._cancelled:
            yield Written(finish_reason=FinishReason.CANCELLED)
            return
        if text:
            yield WrittenPiece(text, PieceKind.SENTENCE)
        total = self._clock() - begun
        yield Written(
            finish_reason=FinishReason.END_OF_TEXT,
            timings=Timings(
                queue=0.0, prefill=0.0, first_token=None, first_text=total, total=total
            ),
            protection="split" if job.segment.protected else "",
        )

    def cancel_nowait(self, job: Job) -> None:
        """Let a job's text go; the translation of a sentence cannot be interrupted."""
        self._cancelled.add(job.place)

    def _translate(self, parts: Sequence[tuple[str, bool]], source: str, target: str) -> str:
        """Return the parts joined, those that are to be translated in the other language."""
        try:
            return "".join(
                self._translated(text, source, target) if is_prose else text
                for text, is_prose in parts
            )
        except Exception as error:
            raise GenerationFailed("translator") from error

    def _translated(self, text: str, source: str, target: str) -> str:
        written = []
        for sentence in _sentences(text):
            core = sentence.strip()
            if not any(character.isalnum() for character in core):
                written.append(sentence)
                continue
            begin = sentence.index(core)
            done = self._translator.translate(core, source, target).strip()
            written.append(f"{sentence[:begin]}{done}{sentence[begin + len(core) :]}")
        return "".join(written)


def _parts(segment: Segment) -> list[tuple[str, bool]]:
    """Return protected spans and what stands between them, in order; true for what is prose."""
    parts, begin = [], 0
    for first, last in segment.protected:
        parts += [(segment.text[begin:first], True), (segment.text[first:last], False)]
        begin = last
    parts.append((segment.text[begin:], True))
    return [part for part in parts if part[0]]


def _sentences(text: str) -> list[str]:
    if len(text) <= _MOST_CHARS:
        return [text]
    splitter = SentenceSplitter(SentenceOptions(max_chars=_MOST_CHARS))
    return [piece.text for piece in (*splitter.push(text), *splitter.finish())]
