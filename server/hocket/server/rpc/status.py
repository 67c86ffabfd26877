"""From our errors to rich statuses: the one place that knows the wire. Any thread.

Every status carries `google.rpc.ErrorInfo` with a reason of `hocket.v1.ErrorReason`. A delay to
retry after travels twice: as `RetryInfo` for people's code, and as `grpc-retry-pushback-ms` for
the retry machinery of gRPC clients (gRPC proposal A6), where a negative number means "never".
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2

from hocket.server.errors import HocketError, InvalidRequest, ModelNotFound
from hocket.server.rpc.render import duration

if TYPE_CHECKING:
    from google.protobuf.message import Message

DOMAIN = "hocket"
_MOST_VIOLATIONS = 16
_LAST_WORDS_SECONDS = 1.0  # for a status to go out
_MOST_TEXT = 160  # characters of a field or description: trailers are bounded to 8 KiB

Context = grpc.aio.ServicerContext[Any, Any]


def to_status(error: HocketError, *, request_id: str = "") -> status_pb2.Status:
    """Return an error as `google.rpc.Status` with all its details."""
    metadata = {key: value[:_MOST_TEXT] for key, value in error.metadata.items()}
    if request_id:
        metadata["request_id"] = request_id
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=metadata)
    ]
    if isinstance(error, InvalidRequest):
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field[:_MOST_TEXT],
                        description=violation.description[:_MOST_TEXT],
                    )
                    for violation in error.violations[:_MOST_VIOLATIONS]
                ]
            )
        )
    if isinstance(error, ModelNotFound):
        details.append(
            error_details_pb2.ResourceInfo(resource_type="model", resource_name=error.model)
        )
    if error.retry_after_seconds is not None and error.retry_after_seconds >= 0:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration(error.retry_after_seconds)))
    if request_id:
        details.append(error_details_pb2.RequestInfo(request_id=request_id))
    status = status_pb2.Status(
        code=code_pb2.Code.Value(error.code.value), message=error.message[: 4 * _MOST_TEXT]
    )
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def trailing_metadata(
    error: HocketError, *, request_id: str = ""
) -> tuple[tuple[str, str | bytes], ...]:
    """Return what goes into the trailers of a call that ends with an error."""
    status = to_status(error, request_id=request_id)
    pairs: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    if error.retry_after_seconds is not None:
        delay = error.retry_after_seconds
        pairs.append(("grpc-retry-pushback-ms", str(round(delay * 1000)) if delay >= 0 else "-1"))
    if request_id:
        pairs.append(("x-request-id", request_id))
    return tuple(pairs)


async def abort(context: Context, error: HocketError, *, request_id: str = "") -> NoReturn:
    """End a call with an error.

    The status stands in line behind text that the caller may never read, so it is not waited for
    without end; gRPC still sends it if the line moves. That a caller is gone is no news, either.
    """
    with contextlib.suppress(TimeoutError, grpc.aio.InternalError):
        async with asyncio.timeout(_LAST_WORDS_SECONDS):
            await context.abort(
                grpc.StatusCode[error.code.value],
                error.message[: 4 * _MOST_TEXT],
                trailing_metadata(error, request_id=request_id),
            )
    await context.read()  # raises what `abort` would have: nothing follows a status
    raise AssertionError("abort returned. This is a bug.")
