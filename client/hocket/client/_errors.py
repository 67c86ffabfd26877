"""Everything that a call may raise, and how a status becomes one of these. Any thread.

    ClientError
    ├── TransportError            no answer: unreachable, or the connection was lost
    ├── StatusError               the server refused or failed the call
    │   ├── InvalidRequest        FIELD_INVALID, PROMPT_EMPTY, PROMPT_TOO_LONG
    │   ├── NotFound
    │   │   └── ModelNotFound     MODEL_NOT_FOUND
    │   ├── DuplicateRequest      REQUEST_ID_IN_USE
    │   ├── Unsupported           FEATURE_DISABLED
    │   ├── Unauthenticated       TOKEN_INVALID
    │   ├── Forbidden             OPERATION_FORBIDDEN
    │   ├── ResourceExhausted
    │   │   ├── Overloaded        QUEUE_FULL; also when a proxy on the way sheds load
    │   │   └── ReaderTooSlow     READER_TOO_SLOW
    │   ├── Unavailable
    │   │   ├── Draining          SERVER_DRAINING
    │   │   ├── NotReady          MODEL_LOADING
    │   │   └── EngineFailed      ENGINE_FAILED
    │   ├── DeadlineExceeded      also when the deadline passed on this side
    │   │   └── QueueTimeout      QUEUE_TIMEOUT
    │   └── InternalError         INTERNAL
    │       └── GenerationFailed  GENERATION_FAILED
    └── StreamError               a stream ended without its last event, or was closed

A reason that this client does not know falls back to the class of its status
code. `asyncio.CancelledError` stays itself.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

_DOMAIN = "hocket"
_DETAILS_KEY = "grpc-status-details-bin"
_PUSHBACK_KEY = "grpc-retry-pushback-ms"
_PUSHBACK = re.compile(r"-?[0-9]{1,10}")
_MAX_PUSHBACK_MS = 2**31 - 1
# How Envoy says that it shed the call itself: circuit breaker, overload, rate limit.
_SHED_KEYS = frozenset({"x-envoy-overloaded", "x-envoy-local-overloaded", "x-envoy-ratelimited"})
_SHED_CODES = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED"})

RawMetadata: TypeAlias = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One field of a request that the server did not accept.

    Attributes:
        field: Its path in the request, such as `sampling.top_p`.
        description: What is wrong.
    """

    field: str
    description: str


class ClientError(Exception):
    """Anything that a call of this client raises on purpose.

    Attributes:
        message: One sentence for people.
        retry_after: Seconds after which the server suggests to try again; None if it says nothing.
        is_retry_forbidden: Whether the server asked not to send the same call again.
        has_pushback: Whether `retry_after` is a pushback, to be kept to exactly.
    """

    retry_after: float | None = None
    is_retry_forbidden: bool = False
    has_pushback: bool = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class TransportError(ClientError):
    """No server answered, or the connection to it was lost."""


class StreamError(ClientError):
    """A stream ended without its last event, or was used after it had been closed."""


class StatusError(ClientError):
    """The server refused or failed the call.

    Attributes:
        code: The canonical name of the status code, such as `RESOURCE_EXHAUSTED`.
        reason: The reason, for programs, such as `QUEUE_FULL`; empty if none was given.
        metadata: The values that the message speaks of.
        violations: The fields that were not accepted.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.metadata = MappingProxyType(dict(metadata or {}))
        self.violations = violations

    def __str__(self) -> str:
        return f"{self.reason or self.code}: {self.message}"


class InvalidRequest(StatusError):
    """The request breaks the contract; `violations` names the fields."""


class NotFound(StatusError):
    """What the call names does not exist."""


class ModelNotFound(NotFound):
    """No such model is served."""


class DuplicateRequest(StatusError):
    """A request with this id is in progress."""


class Unsupported(StatusError):
    """This server does not offer the operation."""


class Unauthenticated(StatusError):
    """The call carries no credential that the server knows."""


class Forbidden(StatusError):
    """The credential is good, but not for this operation."""


class ResourceExhausted(StatusError):
    """A limit was met: room, quota or the size of a message."""


class Overloaded(ResourceExhausted):
    """There is no room to run or to wait, at the server or at a proxy before it."""


class ReaderTooSlow(ResourceExhausted):
    """This client read so slowly that too much text waited for it."""


class Unavailable(StatusError):
    """This server cannot take the call now; another one might."""


class Draining(Unavailable):
    """The server is leaving."""


class NotReady(Unavailable):
    """The model is not loaded yet."""


class EngineFailed(Unavailable):
    """The engine died and the server is leaving."""


class DeadlineExceeded(StatusError):
    """The time that the call was given has passed."""


class QueueTimeout(DeadlineExceeded):
    """The time passed before the request began to run; nothing was computed for it."""


class InternalError(StatusError):
    """A fault of the server's; `metadata["request_id"]`, if there, finds it in its log."""


class GenerationFailed(InternalError):
    """This one generation failed by a fault of the server's; others went on."""


CLASS_OF_REASON: Mapping[str, type[StatusError]] = MappingProxyType(
    {
        "FIELD_INVALID": InvalidRequest,
        "PROMPT_EMPTY": InvalidRequest,
        "PROMPT_TOO_LONG": InvalidRequest,
        "MODEL_NOT_FOUND": ModelNotFound,
        "REQUEST_ID_IN_USE": DuplicateRequest,
        "FEATURE_DISABLED": Unsupported,
        "TOKEN_INVALID": Unauthenticated,
        "OPERATION_FORBIDDEN": Forbidden,
        "QUEUE_FULL": Overloaded,
        "READER_TOO_SLOW": ReaderTooSlow,
        "SERVER_DRAINING": Draining,
        "MODEL_LOADING": NotReady,
        "QUEUE_TIMEOUT": QueueTimeout,
        "GENERATION_FAILED": GenerationFailed,
        "ENGINE_FAILED": EngineFailed,
        "INTERNAL": InternalError,
    }
)

_CLASS_OF_CODE: Mapping[str, type[StatusError]] = MappingProxyType(
    {
        "INVALID_ARGUMENT": InvalidRequest,
        "NOT_FOUND": NotFound,
        "ALREADY_EXISTS": DuplicateRequest,
        "UNIMPLEMENTED": Unsupported,
        "UNAUTHENTICATED": Unauthenticated,
        "PERMISSION_DENIED": Forbidden,
        "RESOURCE_EXHAUSTED": ResourceExhausted,
        "UNAVAILABLE": Unavailable,
        "DEADLINE_EXCEEDED": DeadlineExceeded,
        "INTERNAL": InternalError,
    }
)


def error_of_call(code: str, message: str, trailers: RawMetadata) -> ClientError:
    """Make the error of a call that ended with a status other than `OK`.

    Args:
        code: Canonical name of the status code.
        message: The status message.
        trailers: The trailing metadata. Of it are read `grpc-status-details-bin`, ignored if
            malformed, `grpc-retry-pushback-ms`, and the signs of a proxy that sheds load.
    """
    status: status_pb2.Status | None = None
    pushback_seconds: float | None = None
    is_shed = False
    for key, value in trailers:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            status = _status_of_bytes(value)
        elif key == _PUSHBACK_KEY:
            pushback_seconds = _pushback_seconds(value)
        elif key in _SHED_KEYS and code in _SHED_CODES:
            is_shed = True
    details = () if status is None else status.details
    return _make_error(code, message, details, pushback_seconds, is_shed=is_shed)


def unreadable_answer() -> ClientError:
    """Make the error of an answer that does not parse, as gRPC's blocking half has it."""
    return InternalError("the answer could not be read", code="INTERNAL")


def error_of_status(status: status_pb2.Status) -> ClientError:
    """Make the error of one request among many that failed with this status."""
    try:
        code = code_pb2.Code.Name(status.code)
    except ValueError:
        code = "UNKNOWN"
    return _make_error(code, status.message, status.details, None, is_shed=False)


def _make_error(
    code: str,
    message: str,
    details: Iterable[Message],
    pushback_seconds: float | None,
    *,
    is_shed: bool,
) -> ClientError:
    info = error_details_pb2.ErrorInfo()
    retry_info = error_details_pb2.RetryInfo()
    bad_request = error_details_pb2.BadRequest()
    for detail in details:
        for known in (info, retry_info, bad_request):
            _unpack(detail, known)

    error = _choose_error(code, message, info, bad_request, is_shed=is_shed)
    if retry_info.HasField("retry_delay"):
        delay = retry_info.retry_delay
        # By hand, as a delay out of bounds makes protobuf's own conversions raise.
        error.retry_after = max(0.0, delay.seconds + delay.nanos / 1e9)
    if pushback_seconds is not None:
        error.has_pushback = pushback_seconds >= 0
        error.is_retry_forbidden = pushback_seconds < 0
        error.retry_after = pushback_seconds if pushback_seconds >= 0 else None
    return error


def _choose_error(
    code: str,
    message: str,
    info: error_details_pb2.ErrorInfo,
    bad_request: error_details_pb2.BadRequest,
    *,
    is_shed: bool,
) -> ClientError:
    is_ours = info.domain == _DOMAIN
    if code == "UNAVAILABLE" and not is_ours and not is_shed:
        # gRPC itself and proxies say so when nobody behind them answered.
        return TransportError(message or "the server could not be reached")
    error_class = Overloaded if is_shed else _CLASS_OF_CODE.get(code, StatusError)
    if is_ours:
        error_class = CLASS_OF_REASON.get(info.reason, error_class)
    return error_class(
        message,
        code=code,
        reason=info.reason,
        metadata=info.metadata,
        violations=tuple(
            FieldViolation(field=violation.field, description=violation.description)
            for violation in bad_request.field_violations
        ),
    )


def _status_of_bytes(value: bytes) -> status_pb2.Status | None:
    try:
        return status_pb2.Status.FromString(value)
    except DecodeError:
        return None


def _unpack(detail: Message, into: Message) -> None:
    try:
        detail.Unpack(into)  # type: ignore[attr-defined]
    except DecodeError:
        into.Clear()


def _pushback_seconds(value: str | bytes) -> float:
    """Read a pushback; one that is no int32 forbids a retry, as gRFC A6 has it."""
    text = value if isinstance(value, str) else value.decode(errors="replace")
    milliseconds = int(text) if _PUSHBACK.fullmatch(text) else -1
    return milliseconds / 1000 if milliseconds <= _MAX_PUSHBACK_MS else -1.0
