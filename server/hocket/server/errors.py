"""Everything that may go wrong, each once: a class, a status code, a reason.

Rooms raise these; `rpc/status.py` alone turns them into what goes over the wire.
Any thread. The tree:

    HocketError
    ├── InvalidRequest      INVALID_ARGUMENT    FIELD_INVALID, PROMPT_EMPTY, PROMPT_TOO_LONG
    ├── ModelNotFound       NOT_FOUND           MODEL_NOT_FOUND
    ├── DuplicateRequest    ALREADY_EXISTS      REQUEST_ID_IN_USE
    ├── Unsupported         UNIMPLEMENTED       FEATURE_DISABLED
    ├── Unauthenticated     UNAUTHENTICATED     TOKEN_INVALID
    ├── Forbidden           PERMISSION_DENIED   OPERATION_FORBIDDEN
    ├── Overloaded          RESOURCE_EXHAUSTED  QUEUE_FULL
    ├── ReaderTooSlow       RESOURCE_EXHAUSTED  READER_TOO_SLOW
    ├── Draining            UNAVAILABLE         SERVER_DRAINING
    ├── NotReady            UNAVAILABLE         MODEL_LOADING
    ├── QueueTimeout        DEADLINE_EXCEEDED   QUEUE_TIMEOUT
    ├── GenerationFailed    INTERNAL            GENERATION_FAILED
    ├── EngineFailed        UNAVAILABLE         ENGINE_FAILED
    ├── InternalError       INTERNAL            INTERNAL
    └── StartupError        never on the wire: ends the process with one clear line

A message is read by strangers: it names fields, limits and counts, never
prompts, paths, addresses or the text of another exception. Every dynamic value
in it stands in `metadata` too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar


class Code(StrEnum):
    """The canonical status codes that hocket answers with."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


class Reason(StrEnum):
    """Why, for programs; the names of `hocket.v1.ErrorReason` without their prefix."""

    FIELD_INVALID = "FIELD_INVALID"
    PROMPT_EMPTY = "PROMPT_EMPTY"
    PROMPT_TOO_LONG = "PROMPT_TOO_LONG"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    REQUEST_ID_IN_USE = "REQUEST_ID_IN_USE"
    FEATURE_DISABLED = "FEATURE_DISABLED"
    TOKEN_INVALID = "TOKEN_INVALID"  # noqa: S105 - the name of a reason
    OPERATION_FORBIDDEN = "OPERATION_FORBIDDEN"
    QUEUE_FULL = "QUEUE_FULL"
    READER_TOO_SLOW = "READER_TOO_SLOW"
    SERVER_DRAINING = "SERVER_DRAINING"
    MODEL_LOADING = "MODEL_LOADING"
    QUEUE_TIMEOUT = "QUEUE_TIMEOUT"
    GENERATION_FAILED = "GENERATION_FAILED"
    ENGINE_FAILED = "ENGINE_FAILED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One field of a request that cannot be accepted.

    Attributes:
        field: Its path in the request, such as `sampling.top_p` or `stopping.stop[2]`.
        description: What is wrong, naming the limit: "must be above 0 and at most 1".
    """

    field: str
    description: str


class HocketError(Exception):
    """Anything that hocket raises on purpose.

    Attributes:
        code: The status code that it arrives with.
        reason: The reason that it arrives with.
        message: One sentence for people, safe to show to strangers.
        metadata: The dynamic values in the message, for programs.
        retry_after_seconds: When to try again; None if the error says nothing about it,
            negative if the same call must not be retried.
    """

    code: ClassVar[Code]
    reason: Reason
    message: str
    metadata: Mapping[str, str]
    retry_after_seconds: float | None

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = MappingProxyType(dict(metadata or {}))
        self.retry_after_seconds = retry_after_seconds


class InvalidRequest(HocketError):
    """The request breaks the contract; sent again it will break it again."""

    code = Code.INVALID_ARGUMENT
    reason = Reason.FIELD_INVALID

    def __init__(
        self,
        *violations: FieldViolation,
        reason: Reason = Reason.FIELD_INVALID,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Make one error of all violations, so that a caller can mend them in one go.

        Raises:
            ValueError: No violation was given.
        """
        if not violations:
            raise ValueError("an invalid request has at least one violation")
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        super().__init__(f"{first.field}: {first.description}{more}", metadata=metadata)
        self.reason = reason
        self.violations = violations

    @classmethod
    def of(cls, field: str, description: str) -> "InvalidRequest":
        """Make an error about a single field."""
        return cls(FieldViolation(field=field, description=description))


class ModelNotFound(HocketError):
    """No such model is served here."""

    code = Code.NOT_FOUND
    reason = Reason.MODEL_NOT_FOUND

    def __init__(self, model: str) -> None:
        self.model = model[:128]
        super().__init__(f"model {self.model!r} is not served here", metadata={"model": self.model})


class DuplicateRequest(HocketError):
    """A request with this id is in progress."""

    code = Code.ALREADY_EXISTS
    reason = Reason.REQUEST_ID_IN_USE

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"request id {request_id!r} is in use", metadata={"conflicting_request_id": request_id}
        )


class Unsupported(HocketError):
    """This server does not offer the operation."""

    code = Code.UNIMPLEMENTED
    reason = Reason.FEATURE_DISABLED


class Unauthenticated(HocketError):
    """The call carries no credential that this server knows."""

    code = Code.UNAUTHENTICATED
    reason = Reason.TOKEN_INVALID

    def __init__(self) -> None:
        super().__init__("a valid bearer token is required")


class Forbidden(HocketError):
    """The credential is good, but not for this operation."""

    code = Code.PERMISSION_DENIED
    reason = Reason.OPERATION_FORBIDDEN

    def __init__(self) -> None:
        super().__init__("this credential does not allow the operation")


class Overloaded(HocketError):
    """There is no room to run or to wait.

    `scope` is `server` or `connection`: whose limit was met; `noun` is what it counts.
    """

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.QUEUE_FULL

    def __init__(
        self,
        *,
        scope: str,
        limit: int,
        retry_after_seconds: float,
        noun: str = "requests in progress",
    ) -> None:
        super().__init__(
            f"the {scope}'s limit of {limit} {noun} is reached",
            metadata={"scope": scope, "limit": str(limit)},
            retry_after_seconds=retry_after_seconds,
        )


class ReaderTooSlow(HocketError):
    """The text that waits for the caller passed its bound, or waited for too long."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.READER_TOO_SLOW

    def __init__(
        self, *, limit_bytes: int | None = None, limit_seconds: float | None = None
    ) -> None:
        """Make it of the limit that was passed; give one of them."""
        if limit_bytes is not None:
            message, metadata = (
                f"more than {limit_bytes} bytes waited to be read",
                {"limit_bytes": str(limit_bytes)},
            )
        else:
            message, metadata = (
                f"a message was not read within {limit_seconds:g} seconds",
                {"limit_seconds": f"{limit_seconds:g}"},
            )
        super().__init__(message, metadata=metadata, retry_after_seconds=-1)


class Draining(HocketError):
    """The server is leaving."""

    code = Code.UNAVAILABLE
    reason = Reason.SERVER_DRAINING

    def __init__(self, *, retry_after_seconds: float = 0.1) -> None:
        super().__init__("the server is draining", retry_after_seconds=retry_after_seconds)


class NotReady(HocketError):
    """The model is not loaded yet."""

    code = Code.UNAVAILABLE
    reason = Reason.MODEL_LOADING

    def __init__(self, *, retry_after_seconds: float = 0.5) -> None:
        super().__init__("the model is loading", retry_after_seconds=retry_after_seconds)


class QueueTimeout(HocketError):
    """The deadline passed before the request began to run."""

    code = Code.DEADLINE_EXCEEDED
    reason = Reason.QUEUE_TIMEOUT

    def __init__(self) -> None:
        super().__init__("the deadline passed before the request began to run")


class GenerationFailed(HocketError):
    """One generation failed by a fault of ours; others went on."""

    code = Code.INTERNAL
    reason = Reason.GENERATION_FAILED

    def __init__(self, cause: str = "fault") -> None:
        """`cause` is one of our own words, such as `non_finite`; never an exception's text."""
        super().__init__("the generation failed", metadata={"cause": cause})


class EngineFailed(HocketError):
    """The engine died and the process is leaving."""

    code = Code.UNAVAILABLE
    reason = Reason.ENGINE_FAILED

    def __init__(self) -> None:
        super().__init__("the engine failed", retry_after_seconds=0)


class InternalError(HocketError):
    """A bug; the log has it under the request's id."""

    code = Code.INTERNAL
    reason = Reason.INTERNAL

    def __init__(self) -> None:
        super().__init__("internal error")


class StartupError(Exception):
    """The process cannot start: bad settings, an absent or broken model, a taken port.

    Printed as one line; the process exits with `exit_code`.
    """

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
