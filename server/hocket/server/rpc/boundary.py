"""The net under every handler: known errors become statuses, bugs become INTERNAL. Loop thread.

Requests arrive here as bytes and are parsed here, since gRPC answers a malformed message by
itself, with the decoder's own words. No text of an exception that is not ours passes this line.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError

from hocket.server.errors import HocketError, InternalError, InvalidRequest, StartupError
from hocket.server.rpc.handlers import Continuation, Handler, Stream, Unary, each, wrap
from hocket.server.rpc.record import current_record
from hocket.server.rpc.status import Context, abort

_log = structlog.get_logger(__name__)

Guard = Callable[[str, Context], None]


class Boundary(grpc.aio.ServerInterceptor):
    """The net. Put it inside `Access`, which tells how the call ended."""

    def __init__(self, guard: Guard) -> None:
        """Make it.

        Args:
            guard: Called with the method's name before a request is read; raises to refuse it.

        Raises:
            StartupError: protobuf runs in pure Python, which nested messages can exhaust.
        """
        if api_implementation.Type() == "python":
            raise StartupError("protobuf runs in pure Python here; install one of its wheels")
        self._guard = guard

    async def intercept_service(
        self,
        continuation: Continuation,
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the method's handler with the net under it."""
        handler: Handler | None = await continuation(handler_call_details)
        if handler is None:
            return handler  # an unknown method: gRPC answers UNIMPLEMENTED
        return self._caught(handler, str(handler_call_details.method))

    def _caught(self, handler: Handler, method: str) -> Handler:
        parse = handler.request_deserializer

        def message(raw: Any) -> Any:
            return raw if parse is None else _parsed(parse, raw)

        def request_of(raw: Any) -> Any:
            if not handler.request_streaming:
                return message(raw)
            return (message(item) async for item in raw)

        def unary(behaviour: Unary) -> Unary:
            async def call(raw: Any, context: Context) -> Any:
                try:
                    self._guard(method, context)
                    return await behaviour(request_of(raw), context)
                except Exception as error:  # noqa: BLE001 - this is the net
                    await end_call(context, error, method)

            return call

        def stream(behaviour: Stream) -> Stream:
            async def call(raw: Any, context: Context) -> AsyncIterator[Any]:
                try:
                    self._guard(method, context)
                    async with aclosing(each(behaviour(request_of(raw), context))) as responses:
                        async for response in responses:
                            yield response
                except Exception as error:  # noqa: BLE001 - this is the net
                    await end_call(context, error, method)

            return call

        return wrap(handler, unary=unary, stream=stream, is_raw=True)


def _parsed(parse: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        return parse(raw)
    except (DecodeError, ValueError):
        raise InvalidRequest.of("request", "must be a well-formed message of its type") from None


async def end_call(context: Context, error: Exception, method: str) -> NoReturn:
    """End a call with the status of an error; a bug's traceback goes to our log alone."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    record = current_record()
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        await end_call(context, error.exceptions[0], method)
    if not isinstance(error, HocketError):
        _log.error("bug", method=method, request_id=record.request_id, exc_info=error)
        error = InternalError()
    record.note_failure(error)
    await abort(context, error, request_id=record.request_id)
