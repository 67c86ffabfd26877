"""What the unary calls ask and how their answers are read, for both clients. Any thread."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hocket.client import _methods as methods
from hocket.client._channel import CallMetadata, Connection, TokenSource, call_metadata
from hocket.client._health import serialize_health_request
from hocket.client._parse import parse_drain, parse_model, parse_pieces, parse_tokens
from hocket.client._requests import build_split_request
from hocket.client._retry import NO_RETRIES, Attempts, RetryPolicy, RetryThrottle
from hocket.client._stream_state import StreamState
from hocket.client._types import (
    DrainStatus,
    HealthStatus,
    Model,
    SentenceOptions,
    TextPiece,
    Token,
)
from hocket.v1 import control_pb2, model_pb2, text_pb2

ResultT = TypeVar("ResultT")


class CallSettings:
    """What all calls of one client share: token, time, and when they are made again."""

    def __init__(
        self,
        *,
        token: TokenSource | None,
        timeout: float | None,
        retry: RetryPolicy,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,  # noqa: S311 - jitter, not a secret
    ) -> None:
        self._token = token
        self._timeout = timeout
        self._retry = retry
        self._throttle = RetryThrottle(max_tokens=retry.max_tokens, token_ratio=retry.token_ratio)
        self._clock = clock
        self._draw = draw

    def attempts(self, timeout: float | None = None) -> Attempts:
        """Begin a call that may take this many seconds, or as many as the client's calls do."""
        return self._attempts(self._retry, self._timeout if timeout is None else timeout)

    def stream(self, connection: Connection[Any], timeout: float | None) -> StreamState:
        """Begin a stream that may take this many seconds, or as many as the client's calls do."""
        return StreamState(
            connection=connection, attempts=self.attempts(timeout), metadata=self.metadata
        )

    def watch(self, connection: Connection[Any]) -> StreamState:
        """Begin a stream that has no end of its own and is never made again."""
        return StreamState(
            connection=connection,
            attempts=self._attempts(NO_RETRIES, None),
            metadata=self.metadata,
        )

    def metadata(self) -> CallMetadata:
        """Return the metadata of an attempt.

        Raises:
            ValueError: The token cannot be sent.
        """
        return call_metadata(self._token)

    def _attempts(self, policy: RetryPolicy, timeout: float | None) -> Attempts:
        return Attempts(
            policy=policy,
            throttle=self._throttle,
            timeout=timeout,
            clock=self._clock,
            random=self._draw,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnaryCall(Generic[ResultT]):
    """One question with one answer.

    Attributes:
        method: Whom to ask.
        request: What to ask, as the method's `serialize` takes it.
        convert: Turns what the method's `parse` gives into the result.
    """

    method: methods.Method[Any, Any]
    request: Any
    convert: Callable[[Any], ResultT]


def tokenize(
    text: str, *, model: str, add_special_tokens: bool, parse_special_tokens: bool
) -> UnaryCall[tuple[Token, ...]]:
    """Ask for the tokens of a text."""
    return UnaryCall(
        method=methods.TOKENIZE,
        request=text_pb2.TokenizeRequest(
            model=model,
            text=text,
            add_special_tokens=add_special_tokens,
            parse_special_tokens=parse_special_tokens,
        ),
        convert=parse_tokens,
    )


def detokenize(
    token_ids: Sequence[int], *, model: str, keep_special_tokens: bool
) -> UnaryCall[str]:
    """Ask for the text of tokens."""
    return UnaryCall(
        method=methods.DETOKENIZE,
        request=text_pb2.DetokenizeRequest(
            model=model, token_ids=token_ids, keep_special_tokens=keep_special_tokens
        ),
        convert=lambda response: response.text,
    )


def count_tokens(
    texts: Sequence[str], *, model: str, add_special_tokens: bool
) -> UnaryCall[tuple[int, ...]]:
    """Ask how many tokens each text has.

    Raises:
        TypeError: A single string was given, which would count its characters one by one.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be a sequence of strings, not one string")
    return UnaryCall(
        method=methods.COUNT_TOKENS,
        request=text_pb2.CountTokensRequest(
            model=model, texts=texts, add_special_tokens=add_special_tokens
        ),
        convert=lambda response: tuple(response.counts),
    )


def split_sentences(
    text: str, *, paragraphs: bool, options: SentenceOptions | None
) -> UnaryCall[tuple[TextPiece, ...]]:
    """Ask for the sentences of a text."""
    return UnaryCall(
        method=methods.SPLIT_SENTENCES,
        request=build_split_request(text, paragraphs=paragraphs, options=options),
        convert=lambda response: parse_pieces(text, response),
    )


def list_models() -> UnaryCall[tuple[Model, ...]]:
    """Ask for all models."""
    return UnaryCall(
        method=methods.LIST_MODELS,
        request=model_pb2.ListModelsRequest(),
        convert=lambda response: tuple(parse_model(model) for model in response.models),
    )


def get_model(name: str) -> UnaryCall[Model]:
    """Ask for one model."""
    return UnaryCall(
        method=methods.GET_MODEL,
        request=model_pb2.GetModelRequest(name=name),
        convert=lambda response: parse_model(response.model),
    )


def abort(request_id: str) -> UnaryCall[bool]:
    """Ask to end a generation."""
    return UnaryCall(
        method=methods.ABORT,
        request=control_pb2.AbortRequest(request_id=request_id),
        convert=lambda response: response.found,
    )


def drain() -> UnaryCall[DrainStatus]:
    """Ask to drain."""
    return UnaryCall(method=methods.DRAIN, request=control_pb2.DrainRequest(), convert=parse_drain)


def check_health(service: str) -> UnaryCall[HealthStatus]:
    """Ask how a service is."""
    return UnaryCall(
        method=methods.HEALTH_CHECK,
        request=serialize_health_request(service),
        convert=lambda status: status,
    )
