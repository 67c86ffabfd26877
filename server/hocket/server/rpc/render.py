"""From the engine's outputs to protobuf events. Loop thread.

Log probabilities come by the thousands: they are rendered in parts, and others get their turn
between these.
"""

import asyncio
from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from hocket.server.engine.commands import (
    Completion,
    Finished,
    FinishReason,
    Logprobs,
    RequestOutput,
    TextOutput,
)
from hocket.server.rpc.weights import token_bytes
from hocket.server.text.pieces import PieceKind
from hocket.server.text.tokenizer import Tokenizer
from hocket.v1 import generation_pb2, options_pb2

Event = (
    generation_pb2.Started
    | generation_pb2.Delta
    | generation_pb2.Sentence
    | generation_pb2.Finished
)

PIECE_KINDS = {
    PieceKind.SENTENCE: options_pb2.PIECE_KIND_SENTENCE,
    PieceKind.PARAGRAPH_END: options_pb2.PIECE_KIND_PARAGRAPH_END,
    PieceKind.LIST_ITEM: options_pb2.PIECE_KIND_LIST_ITEM,
    PieceKind.CODE: options_pb2.PIECE_KIND_CODE,
    PieceKind.SOFT: options_pb2.PIECE_KIND_SOFT,
    PieceKind.TAIL: options_pb2.PIECE_KIND_TAIL,
}
FINISH_REASONS = {
    FinishReason.END_OF_TEXT: options_pb2.FINISH_REASON_END_OF_TEXT,
    FinishReason.MAX_TOKENS: options_pb2.FINISH_REASON_MAX_TOKENS,
    FinishReason.CONTEXT_FULL: options_pb2.FINISH_REASON_CONTEXT_FULL,
    FinishReason.STOP_STRING: options_pb2.FINISH_REASON_STOP_STRING,
    FinishReason.STOP_TOKEN: options_pb2.FINISH_REASON_STOP_TOKEN,
    FinishReason.CANCELLED: options_pb2.FINISH_REASON_CANCELLED,
    FinishReason.ABORTED: options_pb2.FINISH_REASON_ABORTED,
    FinishReason.TIME_BUDGET: options_pb2.FINISH_REASON_TIME_BUDGET,
}

_PART = 1_024  # log probabilities, a few milliseconds' work


def duration(seconds: float) -> Duration:
    """Return a span of time as protobuf, to the nanosecond."""
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


class EventRenderer:
    """Renders the outputs of one request; counts its sentences as it goes."""

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        model: str,
        seed: int,
        request_id: str = "",
        resume_token: bytes = b"",
        sentences: int = 0,
    ) -> None:
        """Begin a stream.

        Args:
            tokenizer: The model's.
            model: Its name.
            seed: The seed that repeats the text.
            request_id: The id of the request.
            resume_token: By which the stream can be gone on with; empty where it cannot.
            sentences: How many its caller has from a stream that was lost.
        """
        self._tokenizer = tokenizer
        self._request_id = request_id
        self._model = model
        self._seed = seed
        self._resume_token = resume_token
        self._sentences = {0: sentences}

    @property
    def sentences(self) -> int:
        """Sentences of all choices so far, with those that the caller had before."""
        return sum(self._sentences.values())

    async def events(self, output: RequestOutput) -> list[Event]:
        """Return the events of one output, in order."""
        events: list[Event] = []
        if output.started is not None:
            started = generation_pb2.Started(
                prompt_tokens=output.started.prompt_tokens,
                cached_tokens=output.started.cached_tokens,
                seed=self._seed,
                model=self._model,
                request_id=self._request_id,
                resume_token=self._resume_token,
            )
            events.append(started)
        for text in output.texts:
            is_delta = text.piece.kind is PieceKind.DELTA
            events.append(await (self._delta(text) if is_delta else self._sentence(text)))
        if output.finished is not None:
            events.append(await self._finished(output.finished))
        return events

    async def _delta(self, text: TextOutput) -> generation_pb2.Delta:
        return generation_pb2.Delta(
            choice_index=text.choice_index,
            text=text.piece.text,
            start_byte=text.piece.start_byte,
            token_ids=text.token_ids,
            logprobs=await self._all_logprobs(text.logprobs),
        )

    async def _sentence(self, text: TextOutput) -> generation_pb2.Sentence:
        index = self._sentences.get(text.choice_index, 0)
        self._sentences[text.choice_index] = index + 1
        return generation_pb2.Sentence(
            choice_index=text.choice_index,
            index=index,
            text=text.piece.text,
            start_byte=text.piece.start_byte,
            end_byte=text.piece.end_byte,
            kind=PIECE_KINDS[text.piece.kind],
            token_ids=text.token_ids,
            logprobs=await self._all_logprobs(text.logprobs),
        )

    async def _all_logprobs(
        self, positions: Sequence[Logprobs]
    ) -> list[generation_pb2.TokenLogprobs]:
        rendered: list[generation_pb2.TokenLogprobs] = []
        count = 0
        for position in positions:
            rendered.append(self._logprobs(position))
            count += 1 + len(position.top)
            if count >= _PART:
                count = 0
                await asyncio.sleep(0)
        return rendered

    def _logprobs(self, logprobs: Logprobs) -> generation_pb2.TokenLogprobs:
        return generation_pb2.TokenLogprobs(
            logprob=logprobs.logprob,
            top=[
                generation_pb2.TopLogprob(
                    token_id=token_id,
                    logprob=logprob,
                    token=token_bytes(self._tokenizer, token_id),
                )
                for token_id, logprob in logprobs.top
            ],
        )

    async def _finished(self, finished: Finished) -> generation_pb2.Finished:
        timings = finished.timings
        return generation_pb2.Finished(
            completions=[_completion(completion) for completion in finished.completions],
            usage=options_pb2.Usage(
                prompt_tokens=finished.prompt_tokens,
                cached_tokens=finished.cached_tokens,
                completion_tokens=finished.completion_tokens,
            ),
            timings=options_pb2.Timings(
                queue=duration(timings.queue),
                prefill=duration(timings.prefill),
                first_token=None if timings.first_token is None else duration(timings.first_token),
                first_sentence=None if timings.first_text is None else duration(timings.first_text),
                total=duration(timings.total),
            ),
            prompt_logprobs=await self._all_logprobs(finished.prompt_logprobs),
        )


def _completion(completion: Completion) -> generation_pb2.Completion:
    message = generation_pb2.Completion(
        index=completion.index,
        finish_reason=FINISH_REASONS[completion.finish_reason],
        completion_tokens=completion.completion_tokens,
        text_bytes=completion.text_bytes,
    )
    if completion.stop_string is not None:
        message.stop_string = completion.stop_string
    if completion.stop_token_id is not None:
        message.stop_token_id = completion.stop_token_id
    return message
