"""What a model is asked for each section of a text, and the writer of them. Loop thread.

All prompts of a text begin with its task and outline, which are computed once. What was written
before comes behind that, as much of it as the context holds.
"""

import math
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

from hocket.server.catalogue import ServedModel
from hocket.server.document.generating import written_live
from hocket.server.document.job import Job, JobUsage, Place, Written, WrittenPiece
from hocket.server.document.outline import (
    OutlineQuestion,
    Section,
    YesNo,
    fall_back,
    parse_outline,
    question_of_independence,
)
from hocket.server.document.prompts import Prompt
from hocket.server.document.voice import Manner, Question, RunText, Voice, WritingOptions
from hocket.server.engine.commands import FinishReason
from hocket.server.engine.sampling import SamplingParams
from hocket.server.errors import QueueTimeout
from hocket.server.text.pieces import Granularity

_DRAFTING: Final = Place(-1)  # no section stands there
_SLACK_CHARS: Final = 16
_MOST_COMPARED: Final = 8  # about
_FIRST_WORD: Final = re.compile(r"\A\S*\s")
_LAST_WORD: Final = re.compile(r"\s\S*\Z")


def tell(task: str, sections: Sequence[Section]) -> str:
    """Return what every prompt of a text begins with."""
    points = "\n".join(f"{number}. {each.title}" for number, each in enumerate(sections, start=1))
    return f"{task}\n\nOutline:\n{points}"


@dataclass(frozen=True, slots=True)
class SectionQuestion:
    """Asks for a section, or for what joins them.

    Attributes:
        told: The task and the outline.
        titles: Of the sections before, in order.
        texts: Of the same.
        asked: What is to be written now.
        is_join: Whether all texts count alike; otherwise the newest count most.
    """

    told: str
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    asked: str
    is_join: bool = False

    def encode(self, model: ServedModel, *, reserved: int) -> tuple[int, ...]:
        """Return its tokens, with as much of the texts before as fits. Text thread."""
        most = max(1, model.limits.max_context_tokens - 1 - reserved)
        keep = sum(map(len, self.texts))
        while True:
            content = self.content(keep)
            token_ids = Prompt(content, f"{content}\n\n").encode(model)
            excess = len(token_ids) - most
            if excess <= 0 or keep == 0:
                return token_ids
            chars = math.ceil(excess * len(content) / len(token_ids))
            keep = max(0, keep - chars - _SLACK_CHARS)

    def stops_for(self, _model: ServedModel) -> tuple[str, ...]:
        """Return none: a section may have any form."""
        return ()

    def content(self, keep: int) -> str:
        """Return what is said with so many characters of the texts before."""
        texts = _evenly(self.texts, keep) if self.is_join else _newest(self.texts, keep)
        before = [
            f"{title}\n{text}" for title, text in zip(self.titles, texts, strict=True) if text
        ]
        return "\n\n".join((self.told, *before, self.asked))


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Tokens that are put to the model as they are."""

    token_ids: tuple[int, ...]

    def encode(self, _model: ServedModel, *, reserved: int) -> tuple[int, ...]:
        del reserved
        return self.token_ids

    def stops_for(self, _model: ServedModel) -> tuple[str, ...]:
        return ()


class SectionWriter:
    """Drafts and judges the outline of one text, and writes its sections.

    A job's segment has the title for its text, and its context holds the texts before it.
    """

    def __init__(
        self,
        model: ServedModel,
        options: WritingOptions,
        *,
        task: str,
        join: str = "",
        run_text: RunText,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it.

        Args:
            model: Who writes.
            options: How it writes.
            task: What the text is about.
            join: Asks for what comes after the last section.
            run_text: Runs a function on a text thread.
            clock: The clock that the engine reads deadlines by.
        """
        self._model = model
        self._options = replace(options, field="start.task")
        self._task = task
        self._join = join
        self._run_text = run_text
        self._clock = clock
        self._sections: tuple[Section, ...] = ()
        self._told = task
        self._is_cut_short = False
        self._voices: dict[Place, Voice] = {}

    def settle(self, sections: Sequence[Section]) -> None:
        """Learn of the outline, before anything is written."""
        self._sections = tuple(sections)
        self._told = tell(self._task, sections)

    async def draft(self, max_sections: int) -> tuple[tuple[Section, ...], JobUsage]:
        """Return the sections that the model proposes, at least one, and what that took.

        What cannot be read as an outline is one section about the whole task.

        Raises:
            HocketError: The task is refused, or the request failed.
        """
        question = OutlineQuestion(self._task, max_sections)
        text, _, usage = await self._ask_first(question, question.max_tokens)
        return parse_outline(text, most=max_sections) or fall_back(self._task), usage

    async def judge(self) -> tuple[bool, JobUsage]:
        """Ask the model whether the sections can be written each by itself, and what that took.

        It may answer by one token, which begins `yes` or `no`: whichever it finds likelier. `yes`
        means that they are written in parallel. What a small model says here is hardly better than
        chance. The question begins as the sections' prompts do, so that it costs little more than
        its own words.

        Raises:
            HocketError: The request failed.
        """
        words = YesNo.of(self._model.tokenizer)
        content = question_of_independence(self._told)
        question = Prompt(content, f"{content}\n\nAnswer:")
        _, said, usage = await self._ask_first(question, 1, logit_bias=words.logit_bias)
        return bool(said & words.yes), usage

    async def prime(self) -> JobUsage:
        """Compute what the prompts of all sections begin with, alone, so that all may copy it.

        Returns what that took; nothing where there is nothing to share.

        Raises:
            HocketError: The request failed.
        """
        limits = self._model.limits
        if len(self._sections) < 2 or not limits.num_prefix_chunks:  # noqa: PLR2004 - to share
            return JobUsage()
        shared = await self._run_text(self._shared)
        if len(shared) < limits.prefix_chunk_tokens:
            return JobUsage()
        _, _, usage = await self._ask_first(_Tokens(shared), 1)
        return usage

    async def write(self, job: Job) -> AsyncGenerator[WrittenPiece | Written]:
        """Yield the pieces of a section, then how it ended; see `Writer.write`.

        Raises:
            HocketError: Its prompt is refused, or its request failed.
        """
        with self._speaking(job.place) as voice:
            question = self._question(job.place.segment, job.context)
            try:
                items = written_live(voice, question, self._model, self._options)
                async with aclosing(items):
                    async for item in items:
                        yield item
            except QueueTimeout:
                yield voice.written(FinishReason.TIME_BUDGET)

    def cancel_nowait(self, job: Job) -> None:
        """Ask that a job in progress end now; see `Writer.cancel_nowait`."""
        if voice := self._voices.get(job.place):
            voice.cancel_nowait()

    def cancel_drafting_nowait(self) -> None:
        """End what is asked before the first section, with what there is of it. Repeatable."""
        self._is_cut_short = True
        if voice := self._voices.get(_DRAFTING):
            voice.cancel_nowait()

    async def _ask_first(
        self, question: Question, max_tokens: int, logit_bias: tuple[tuple[int, float], ...] = ()
    ) -> tuple[str, frozenset[int], JobUsage]:
        """Return the likeliest answer, its tokens, and what it took, before any section.

        Where there is no time left, or it was ended, the answer is what there is.
        """
        manner = Manner(
            granularity=Granularity.TOKEN,
            sampling=SamplingParams(logit_bias=logit_bias),
            max_tokens=max_tokens,
            has_own_end=True,
        )
        texts: list[str] = []
        token_ids: set[int] = set()
        with self._speaking(_DRAFTING) as voice:
            with suppress(QueueTimeout):
                async with aclosing(voice.ask(question, manner)) as outputs:
                    async for output in outputs:
                        texts += (text.piece.text for text in output.texts)
                        token_ids.update(*(text.token_ids for text in output.texts))
            return "".join(texts), frozenset(token_ids), voice.usage

    @contextmanager
    def _speaking(self, place: Place) -> Iterator[Voice]:
        """Hold a voice that can be cancelled by its place, and close it."""
        voice = Voice(self._model, self._options, place, run_text=self._run_text, clock=self._clock)
        self._voices[place] = voice
        if place == _DRAFTING and self._is_cut_short:
            voice.cancel_nowait()
        try:
            yield voice
        finally:
            del self._voices[place]
            voice.close_nowait()

    def _question(self, index: int, before: Sequence[str]) -> Question:
        titles = tuple(section.title for section in self._sections)
        if index >= len(self._sections):
            return SectionQuestion(self._told, titles, tuple(before), self._join, is_join=True)
        section = self._sections[index]
        asked = f'Write the section "{section.title}" only.'
        if section.instruction:
            asked = f"{asked}\n{section.instruction}"
        return SectionQuestion(self._told, titles[: len(before)], tuple(before), asked)

    def _shared(self) -> tuple[int, ...]:
        """Return the tokens that the prompts of all sections begin with. Text thread.

        A few of them are looked at: a thousand long ones would hold the thread for long, and a
        token too many is copied by fewer, no more.
        """
        step = max(1, len(self._sections) // _MOST_COMPARED)
        first, *others = (
            self._question(index, ()).encode(self._model, reserved=0)
            for index in range(0, len(self._sections), step)
        )
        count = min(map(len, (first, *others))) - 1  # of each prompt one token is computed
        for other in others:
            pairs = zip(first[:count], other[:count], strict=True)
            count = next((at for at, (one, two) in enumerate(pairs) if one != two), count)
        return first[:count]


def _newest(texts: Sequence[str], keep: int) -> list[str]:
    """Return the last so many characters of some texts, from a word on; what is gone is empty."""
    kept: list[str] = []
    for text in reversed(texts):
        shown = text if len(text) <= keep else _end(text, keep)
        keep = max(0, keep - len(text))
        kept.append(shown)
    return kept[::-1]


def _evenly(texts: Sequence[str], keep: int) -> list[str]:
    """Return the beginnings of some texts, so many characters in all; short ones stay whole."""
    if sum(map(len, texts)) <= keep:
        return list(texts)
    share, left = 0, keep
    for rank, size in enumerate(sorted(map(len, texts))):
        share = left // (len(texts) - rank)
        if size > share:
            break
        left -= size
    return [text if len(text) <= share else _begin(text, share) for text in texts]


def _begin(text: str, size: int) -> str:
    """Return at most so many characters of a longer text, up to a whole word if it has spaces."""
    shown = text[:size]
    return shown if text[size].isspace() else _LAST_WORD.sub("", shown) or shown


def _end(text: str, size: int) -> str:
    """Return at most so many of the last characters of a longer text, cut in the same way."""
    begin = len(text) - size
    shown = text[begin:]
    return shown if text[begin - 1].isspace() else _FIRST_WORD.sub("", shown) or shown
