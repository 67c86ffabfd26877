"""A writer on a language model: each segment is a request, or a few, of its own. Loop thread.

    no protected spans    written live
    nothing to work on    as it is, where the task is ours: models make something up
    protected spans       masked, written, unmasked; where a mask was lost, the parts between them
    labels                written and matched, or else the likeliest

White space around what the model writes is dropped, so that gaps stay as they were.
"""

import hashlib
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from hocket.server.catalogue import ServedModel
from hocket.server.document.cutter import Cutter
from hocket.server.document.job import Job, Place, Written, WrittenPiece
from hocket.server.document.labels import choose_label
from hocket.server.document.prompts import Prompt, Prompts
from hocket.server.document.tasks import Classify, Rewrite, Summarize, Translate
from hocket.server.document.trim import Trim
from hocket.server.document.voice import (
    Manner,
    Question,
    RunText,
    Voice,
    WritingOptions,
    place_seed,
)
from hocket.server.engine.commands import Completion, FinishReason
from hocket.server.errors import QueueTimeout
from hocket.server.text.pieces import Granularity, PieceKind
from hocket.server.text.protection import Part, is_kept, mask

_CUT_OFF: Final = (FinishReason.CANCELLED, FinishReason.ABORTED, FinishReason.TIME_BUDGET)

_GLUE: Final = re.compile(r"[\s,;:.!?)\]}\u2013\u2014\u2026\u3001\u3002\uff0c]+")
# Where the text of a part ends by these, that of its segment does.
_ENDED: Final = (*_CUT_OFF, FinishReason.STOP_STRING, FinishReason.STOP_TOKEN)

Items = AsyncGenerator[WrittenPiece | Written]


class GeneratingWriter:
    """Writes the segments of one document."""

    def __init__(
        self,
        model: ServedModel,
        prompts: Prompts,
        options: WritingOptions,
        *,
        run_text: RunText,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it.

        Args:
            model: Who writes.
            prompts: What it is asked.
            options: How it writes.
            run_text: Runs a function on a text thread.
            clock: The clock that the engine reads deadlines by.
        """
        self._model = model
        self._prompts = prompts
        self._options = options
        self._run_text = run_text
        self._clock = clock
        self._voices: dict[Place, Voice] = {}

    async def write(self, job: Job) -> Items:
        """Yield the pieces of a job, then how it ended; see `Writer.write`.

        Raises:
            HocketError: Its prompt is refused, or a request of it failed.
        """
        voice = Voice(
            self._model, self._options, job.place, run_text=self._run_text, clock=self._clock
        )
        self._voices[job.place] = voice
        try:
            async with aclosing(self._items(job, voice)) as items:
                async for item in items:
                    yield item
        except QueueTimeout:  # the rest did not begin in time; what came of it is all there is
            yield voice.written(FinishReason.TIME_BUDGET)
        finally:
            voice.close_nowait()
            del self._voices[job.place]

    def cancel_nowait(self, job: Job) -> None:
        """Ask that a job in progress end now; see `Writer.cancel_nowait`."""
        if voice := self._voices.get(job.place):
            voice.cancel_nowait()

    def key(self, job: Job) -> bytes | None:
        """Return what tells a job's text from all that may be different; None if any may come.

        Two jobs with the same key come out the same, whatever documents they are of. Only what came
        to its own end may be kept under it: not what was cancelled or ran out of time.
        """
        options, sampling = self._options, self._options.sampling
        is_choice = isinstance(self._prompts.task, Classify)
        if sampling.is_greedy or is_choice:
            sampling = replace(sampling, seed=0)
        elif options.is_seed_given:
            sampling = replace(sampling, seed=place_seed(sampling.seed, job.place))
        else:
            return None
        description, stopping = self._model.description, options.stopping
        prompt = self._prompt(job, job.segment.text)
        is_chat = self._model.chat_template is not None
        parts = (
            (description.name, description.digest, options.owner),
            ("chat", prompt.content) if is_chat else ("plain", prompt.plain),
            self._protected(job),
            self._prompts.task.labels if isinstance(self._prompts.task, Classify) else (),
            sampling,
            replace(stopping, stop_token_ids=frozenset()),
            sorted(stopping.stop_token_ids),
            options.has_max_tokens,
            options.granularity,
            options.sentences,
        )
        return hashlib.blake2b(repr(parts).encode(errors="surrogatepass"), digest_size=32).digest()

    def _items(self, job: Job, voice: Voice) -> Items:
        if isinstance(self._prompts.task, Classify):
            return self._choose(job, voice, self._prompts.task.labels)
        if self._protected(job) or self._has_nothing(job):
            return self._write_masked(job, voice)
        prompt = self._prompt(job, job.segment.text)
        return written_live(voice, prompt, self._model, self._options)

    async def _write_masked(self, job: Job, voice: Voice) -> Items:
        masked = mask(job.segment.text, self._protected(job))
        parts, after = masked.parts()
        cutter = Cutter(self._options.granularity, self._options.sentences)
        if not parts:
            for piece in (*cutter.push(after), *cutter.finish()):
                yield piece
            yield voice.written(FinishReason.END_OF_TEXT, "kept" if masked.spans else "")
            return
        prompt = self._prompt(job, masked.text)
        manner = Manner(granularity=Granularity.TOKEN, sampling=voice.sampling)
        answer, completion = await voice.listen(prompt, manner)
        reason = self._reason(completion, prompt)
        kept = masked.unmask(answer)
        if kept is not None:
            voice.show()
            for piece in (*cutter.push(kept), *cutter.finish()):
                yield piece
            yield voice.written(reason, "kept")
        elif reason in _CUT_OFF:
            yield voice.written(reason)  # what there is of it still has masks in it
        else:
            voice.hide()
            try:
                async with aclosing(self._write_parts(job, voice, parts, after, cutter)) as items:
                    async for item in items:
                        yield item
            except QueueTimeout:  # of one of them; what those before it came to is final
                for piece in cutter.finish():
                    yield piece
                yield voice.written(FinishReason.TIME_BUDGET, "split")

    async def _write_parts(
        self, job: Job, voice: Voice, parts: Sequence[Part], after: str, cutter: Cutter
    ) -> Items:
        """Write the parts between protected spans, one after the other, within one `max_tokens`."""
        left = self._options.stopping.max_tokens if self._options.has_max_tokens else None
        ended = FinishReason.END_OF_TEXT  # all parts came to their own end
        for part in parts:
            for piece in cutter.push(part.before):
                yield piece
            if left == 0:  # the spans come all the same
                ended = FinishReason.MAX_TOKENS
                continue
            glue = _GLUE.match(part.text)  # models drop a comma at the beginning
            begin = glue.end() if glue else 0
            for piece in cutter.push(part.text[:begin]):
                yield piece
            trim, prompt = Trim(), self._prompt(job, part.text[begin:])
            manner = Manner(granularity=Granularity.TOKEN, sampling=voice.sampling, max_tokens=left)
            async with aclosing(voice.ask(prompt, manner)) as outputs:
                async for output in outputs:
                    for text in output.texts:
                        for piece in cutter.push(trim.push(text.piece.text)):
                            yield piece
                    if output.finished is not None:
                        completion = output.finished.completions[0]
                        reason = self._reason(completion, prompt)
                        ended = ended if reason is FinishReason.END_OF_TEXT else reason
                        left = None if left is None else left - completion.completion_tokens
            if ended in _ENDED:
                break
        else:
            for piece in cutter.push(after):
                yield piece
        for piece in cutter.finish():
            yield piece
        yield voice.written(ended, "split")

    async def _choose(self, job: Job, voice: Voice, labels: Sequence[str]) -> Items:
        prompt = self._prompt(job, job.segment.text)
        chosen = await choose_label(voice, prompt, labels, self._model)
        if isinstance(chosen, FinishReason):
            yield voice.written(chosen)
            return
        voice.show()
        is_token = self._options.granularity is Granularity.TOKEN
        yield WrittenPiece(labels[chosen], PieceKind.DELTA if is_token else PieceKind.TAIL)
        yield voice.written(FinishReason.END_OF_TEXT)

    def _protected(self, job: Job) -> tuple[tuple[int, int], ...]:
        """Return the spans to keep: none where the text itself is not to come back."""
        if isinstance(self._prompts.task, Classify | Summarize):
            return ()
        return job.segment.protected

    def _has_nothing(self, job: Job) -> bool:
        """Return whether there is nothing to translate, say in other words, or shorten."""
        is_ours = isinstance(self._prompts.task, Translate | Rewrite | Summarize)
        return is_ours and is_kept(job.segment.text, ())

    def _prompt(self, job: Job, text: str) -> Prompt:
        return self._prompts.prompt(text, variant=job.place.variant, context=job.context)

    def _reason(self, completion: Completion, prompt: Prompt) -> FinishReason:
        return _reason(completion, prompt, self._model, self._options)


async def written_live(
    voice: Voice, question: Question, model: ServedModel, options: WritingOptions
) -> Items:
    """Yield what a model answers as it writes it, then how it ended.

    Raises:
        HocketError: The question is refused, or the request failed.
    """
    trim, completion = Trim(), None
    async with aclosing(voice.ask(question)) as outputs:
        async for output in outputs:
            for text in output.texts:
                if shown := trim.push(text.piece.text):
                    yield WrittenPiece(shown, text.piece.kind)
            if output.finished is not None:
                completion = output.finished.completions[0]
    if completion is None:
        raise AssertionError("a request ended without an end. This is a bug.")
    yield voice.written(_reason(completion, question, model, options))


def _reason(
    completion: Completion, question: Question, model: ServedModel, options: WritingOptions
) -> FinishReason:
    """Return why a text ended; a stop string of the question's own is its natural end."""
    own = set(question.stops_for(model)) - set(options.stopping.stop)
    if completion.stop_string in own:
        return FinishReason.END_OF_TEXT
    return completion.finish_reason
