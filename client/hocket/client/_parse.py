"""From protobuf to our own values: what has arrived. Any thread; pure functions.

Values that this client does not know, since the server is newer, become `UNKNOWN`; events that it
does not know are left out.
"""

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration

from hocket.client._events import Delta, Event, Finished, Sentence, Started
from hocket.client._types import (
    Completion,
    DrainStatus,
    FinishReason,
    Model,
    ModelLimits,
    PieceKind,
    TextPiece,
    Timings,
    Token,
    TokenLogprobs,
    TopLogprob,
    Usage,
)
from hocket.v1 import control_pb2, generation_pb2, model_pb2, options_pb2, text_pb2

FINISH_REASONS = {
    options_pb2.FINISH_REASON_END_OF_TEXT: FinishReason.END_OF_TEXT,
    options_pb2.FINISH_REASON_MAX_TOKENS: FinishReason.MAX_TOKENS,
    options_pb2.FINISH_REASON_CONTEXT_FULL: FinishReason.CONTEXT_FULL,
    options_pb2.FINISH_REASON_STOP_STRING: FinishReason.STOP_STRING,
    options_pb2.FINISH_REASON_STOP_TOKEN: FinishReason.STOP_TOKEN,
    options_pb2.FINISH_REASON_CANCELLED: FinishReason.CANCELLED,
    options_pb2.FINISH_REASON_ABORTED: FinishReason.ABORTED,
    options_pb2.FINISH_REASON_TIME_BUDGET: FinishReason.TIME_BUDGET,
}
PIECE_KINDS = {
    options_pb2.PIECE_KIND_SENTENCE: PieceKind.SENTENCE,
    options_pb2.PIECE_KIND_PARAGRAPH_END: PieceKind.PARAGRAPH_END,
    options_pb2.PIECE_KIND_LIST_ITEM: PieceKind.LIST_ITEM,
    options_pb2.PIECE_KIND_CODE: PieceKind.CODE,
    options_pb2.PIECE_KIND_SOFT: PieceKind.SOFT,
    options_pb2.PIECE_KIND_TAIL: PieceKind.TAIL,
}


def parse_event(
    message: generation_pb2.GenerateResponse | generation_pb2.GenerateManyResponse,
) -> Event | None:
    """Return what happened; None for an event that this client does not know."""
    match message.WhichOneof("event"):
        case "started":
            return Started(
                prompt_tokens=message.started.prompt_tokens,
                cached_tokens=message.started.cached_tokens,
                seed=message.started.seed,
                model=message.started.model,
                request_id=message.started.request_id,
            )
        case "delta":
            delta = message.delta  # each look at a field of a message costs
            return Delta(
                text=delta.text,
                choice_index=delta.choice_index,
                start_byte=delta.start_byte,
                token_ids=tuple(delta.token_ids),
                logprobs=_parse_logprobs(delta.logprobs),
            )
        case "sentence":
            sentence = message.sentence
            return Sentence(
                text=sentence.text,
                index=sentence.index,
                choice_index=sentence.choice_index,
                start_byte=sentence.start_byte,
                end_byte=sentence.end_byte,
                kind=PIECE_KINDS.get(sentence.kind, PieceKind.UNKNOWN),
                token_ids=tuple(sentence.token_ids),
                logprobs=_parse_logprobs(sentence.logprobs),
            )
        case "finished":
            return _parse_finished(message.finished)
        case _:
            return None


def parse_finish_reason(reason: options_pb2.FinishReason.ValueType) -> FinishReason:
    """Return why a text ended."""
    return FINISH_REASONS.get(reason, FinishReason.UNKNOWN)


def parse_tokens(response: text_pb2.TokenizeResponse) -> tuple[Token, ...]:
    """Return the tokens of a text."""
    return tuple(
        Token(id=token.id, start_byte=token.start_byte, end_byte=token.end_byte)
        for token in response.tokens
    )


def parse_pieces(text: str, response: text_pb2.SplitSentencesResponse) -> tuple[TextPiece, ...]:
    """Return the pieces of a text, each with its words."""
    encoded = text.encode()
    return tuple(
        TextPiece(
            text=encoded[piece.start_byte : piece.end_byte].decode(errors="replace"),
            start_byte=piece.start_byte,
            end_byte=piece.end_byte,
            kind=PIECE_KINDS.get(piece.kind, PieceKind.UNKNOWN),
        )
        for piece in response.ranges
    )


def parse_model(model: model_pb2.Model) -> Model:
    """Return the description of a model."""
    return Model(
        name=model.name,
        architecture=model.architecture,
        dtype=model.dtype,
        parameters=model.parameters,
        vocabulary_size=model.vocabulary_size,
        limits=ModelLimits(
            max_context_tokens=model.limits.max_context_tokens,
            max_prompt_tokens=model.limits.max_prompt_tokens,
            max_completion_tokens=model.limits.max_completion_tokens,
            max_choices=model.limits.max_choices,
            max_logprobs=model.limits.max_logprobs,
            max_stop_strings=model.limits.max_stop_strings,
        ),
        can_generate=model.capabilities.generate,
        can_chat=model.capabilities.chat,
        can_tokenize=model.capabilities.tokenize,
        can_translate=model.capabilities.translate,
        directions=tuple((each.source_language, each.target_language) for each in model.directions),
        license=model.license,
        digest=model.digest,
    )


def parse_drain(response: control_pb2.DrainResponse) -> DrainStatus:
    """Return how a drain begins."""
    return DrainStatus(
        requests_in_progress=response.requests_in_progress,
        refusing_in=parse_seconds(response.refusing_in),
    )


def parse_seconds(duration: Duration) -> float:
    """Return a duration in seconds."""
    return duration.seconds + duration.nanos / 1_000_000_000


def parse_usage(usage: options_pb2.Usage) -> Usage:
    """Return how many tokens something took."""
    return Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
    )


def parse_timings(timings: options_pb2.Timings) -> Timings:
    """Return where the time went."""
    return Timings(
        queue=parse_seconds(timings.queue),
        prefill=parse_seconds(timings.prefill),
        first_token=(
            parse_seconds(timings.first_token) if timings.HasField("first_token") else None
        ),
        first_sentence=(
            parse_seconds(timings.first_sentence) if timings.HasField("first_sentence") else None
        ),
        total=parse_seconds(timings.total),
    )


def _parse_finished(finished: generation_pb2.Finished) -> Finished:
    return Finished(
        completions=tuple(
            sorted(
                (_parse_completion(completion) for completion in finished.completions),
                key=lambda completion: completion.index,
            )
        ),
        usage=parse_usage(finished.usage),
        timings=parse_timings(finished.timings),
        prompt_logprobs=_parse_logprobs(finished.prompt_logprobs),
    )


def _parse_completion(completion: generation_pb2.Completion) -> Completion:
    stopped_by = completion.WhichOneof("stopped_by")
    return Completion(
        index=completion.index,
        finish_reason=parse_finish_reason(completion.finish_reason),
        stop_string=completion.stop_string if stopped_by == "stop_string" else None,
        stop_token_id=completion.stop_token_id if stopped_by == "stop_token_id" else None,
        completion_tokens=completion.completion_tokens,
        text_bytes=completion.text_bytes,
    )


def _parse_logprobs(
    logprobs: Iterable[generation_pb2.TokenLogprobs],
) -> tuple[TokenLogprobs, ...]:
    return tuple(
        TokenLogprobs(
            logprob=position.logprob,
            top=tuple(
                TopLogprob(token_id=top.token_id, logprob=top.logprob, token=top.token)
                for top in position.top
            ),
        )
        for position in logprobs
    )
