"""Which of some labels a text gets: what the model answers, or else what is likeliest. Loop thread.

The answer is always one of the labels. A small model often answers with something else; then every
label is put behind the prompt, and the one that it finds likeliest there is taken. That computes
the prompt once for each label, since log probabilities of a prompt are not copied.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hocket.server.catalogue import ServedModel
from hocket.server.document.voice import Manner, Question, Voice
from hocket.server.engine.commands import Finished, FinishReason, Logprobs
from hocket.server.engine.protocol import Generation
from hocket.server.engine.sampling import SamplingParams
from hocket.server.text.pieces import Granularity

_EDGES: Final = re.compile(r"^[\W_]+|[\W_]+$")
_SPACE: Final = re.compile(r"\s+")
_CUT_OFF: Final = (FinishReason.CANCELLED, FinishReason.ABORTED, FinishReason.TIME_BUDGET)
_MORE_TOKENS: Final = 8  # beside the label, for what a model says before or behind it
_SIDE_BY_SIDE: Final = 16
_TOP: Final = 20


def match_label(answer: str, labels: Sequence[str]) -> int | None:
    """Return the label that an answer is or begins with, whatever its case and punctuation.

    Of labels that begin alike the longest is meant. None if it begins with no label.
    """
    for normal in (str.strip, _folded, _plain):
        said = normal(answer)
        found: tuple[int, int] | None = None
        for index, label in enumerate(labels):
            wanted = normal(label)
            is_begin = bool(wanted) and said.startswith(wanted)
            if not is_begin or said[len(wanted) :][:1].isalnum():
                continue
            if found is None or len(wanted) > found[0]:
                found = len(wanted), index
        if found is not None:
            return found[1]
    return None


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A question with a label behind it, as if it had been answered so."""

    question: Question
    label: str

    def encode(self, model: ServedModel, *, reserved: int) -> tuple[int, ...]:
        """Return the tokens of both. Text thread."""
        return (*self.question.encode(model, reserved=reserved), *self.tokens(model))

    def tokens(self, model: ServedModel) -> tuple[int, ...]:
        """Return the tokens of the label alone."""
        text = self.label if model.chat_template is not None else f" {self.label}"
        return model.tokenizer.encode(text, add_special=False, parse_special=False).token_ids

    def stops_for(self, _model: ServedModel) -> tuple[str, ...]:
        """Return none: nothing is written."""
        return ()


async def choose_label(
    voice: Voice, question: Question, labels: Sequence[str], model: ServedModel
) -> int | FinishReason:
    """Return which label a text gets, or why that was not found out.

    Args:
        voice: Asks.
        question: Ends where the answer begins.
        labels: To choose from.
        model: Who answers.

    Raises:
        HocketError: A request failed.
    """
    longest = max(len(label.encode()) for label in labels)
    manner = Manner(
        granularity=Granularity.FULL,
        sampling=SamplingParams(),
        max_tokens=longest + _MORE_TOKENS,
        has_own_end=True,
    )
    answer, completion = await voice.listen(question, manner)
    if completion.finish_reason in _CUT_OFF:
        return completion.finish_reason
    matched = match_label(answer, labels)
    return await _likeliest(voice, question, labels, model) if matched is None else matched


async def _likeliest(
    voice: Voice, question: Question, labels: Sequence[str], model: ServedModel
) -> int | FinishReason:
    """Return the label with the highest log probability, the first of equals."""
    manner = Manner(
        granularity=Granularity.FULL,
        sampling=SamplingParams(logprobs=_TOP, prompt_logprobs=0),
        max_tokens=1,
        has_own_end=True,
    )
    scores: list[float] = []
    for start in range(0, len(labels), _SIDE_BY_SIDE):
        asked = [_Labelled(question, label) for label in labels[start : start + _SIDE_BY_SIDE]]
        begun = [await voice.begin(each, manner) for each in asked]
        for each, generation in zip(asked, begun, strict=True):
            finished, after = await _heard(voice, generation)
            reason = finished.completions[0].finish_reason
            if reason in _CUT_OFF:
                return reason
            told = finished.prompt_logprobs[-len(each.tokens(model)) :]
            score = sum(logprobs.logprob for logprobs in told)
            if model.chat_template is not None:
                # So that no label wins for being the beginning of another.
                score += end_logprob(after.top, model.tokenizer.end_token_ids)
            scores.append(score)
    return scores.index(max(scores))


async def _heard(voice: Voice, generation: Generation) -> tuple[Finished, Logprobs]:
    """Read a request to its end; return that, and what was likely behind its prompt."""
    after, finished = Logprobs(0.0), None
    async for output in voice.read(generation):
        for text in output.texts:
            after = text.logprobs[0] if text.logprobs else after
        finished = output.finished
    if finished is None:
        raise AssertionError("a request ended without an end. This is a bug.")
    return finished, after


def end_logprob(top: Sequence[tuple[int, float]], end_token_ids: frozenset[int]) -> float:
    """Return the log probability that a text ends, as far as the likeliest tokens tell it.

    Where no end is among them, it is no likelier than the last of them.
    """
    ends = [logprob for token_id, logprob in top if token_id in end_token_ids]
    if ends:
        best = max(ends)
        return best + math.log(sum(math.exp(each - best) for each in ends))
    return min((logprob for _, logprob in top), default=0.0)


def _folded(text: str) -> str:
    return _SPACE.sub(" ", text.strip().casefold())


def _plain(text: str) -> str:
    return _EDGES.sub("", _folded(text))
