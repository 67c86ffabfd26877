"""One record and one log line for each call, who may make it, and how long it may be left unread.

Loop thread. Everything that a call does happens inside `Access`, its writes included, so that
whatever ends it is seen here, and no text of an exception finds a way around `Boundary`.
"""

import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import grpc
import structlog

from hocket.server.errors import ReaderTooSlow
from hocket.server.rpc.boundary import end_call
from hocket.server.rpc.handlers import Continuation, Handler, Stream, Unary, Writing, each, wrap
from hocket.server.rpc.keys import Keys
from hocket.server.rpc.patience import Patience
from hocket.server.rpc.record import CURRENT, AccessRecord, Observers, current_record
from hocket.server.rpc.status import Context
from hocket.server.telemetry import RequestObserver, RequestRecord

_log = structlog.get_logger("hocket.access")

_CORRELATION = re.compile(r"[\x21-\x7e]{1,128}")
_QUIET = ("/grpc.health.v1.", "/grpc.reflection.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessConfig:
    """Who may call.

    Attributes:
        keys_file: File of credentials, one `NAME ROLE SHA256` a line, ROLE being `user` or
            `operator` and SHA256 the digest of the bearer token. Empty: everybody may call.
    """

    keys_file: str = ""


class AccessLog:
    """Writes the canonical line and tells the observers."""

    def __init__(self, observers: Observers = ()) -> None:
        self._observers = observers

    def write(self, record: AccessRecord) -> None:
        """Tell of a call that ended. Never raises: the call has its own end to tell."""
        ended = record.finish()
        for observer in self._observers:
            _tell(observer, ended)
        _log.info(
            "rpc",
            method=record.method,
            request_id=record.request_id,
            correlation_id=record.correlation_id or None,
            peer=record.peer,
            model=record.model or None,
            code=record.code,
            reason=record.reason or None,
            finish_reason=record.finish_reason or None,
            prompt_tokens=record.prompt_tokens,
            cached_tokens=record.cached_tokens,
            completion_tokens=record.completion_tokens,
            sentences=record.sentences,
            items=record.items or None,
            failed_items=record.failed_items or None,
            queue_ms=_milliseconds(record.queue_seconds),
            ttft_ms=_milliseconds(record.ttft_seconds),
            ttfs_ms=_milliseconds(record.ttfs_seconds),
            itl_p50_ms=_milliseconds(_median(record.itl_seconds)),
            total_ms=_milliseconds(ended.total_seconds),
        )


class Access(grpc.aio.ServerInterceptor):
    """Keeps the record of each call and does its writing. Put it outside `Boundary`."""

    def __init__(
        self,
        log: AccessLog,
        *,
        write_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it.

        Args:
            log: Told of each call that ended.
            write_seconds: Longest that one message waits for its caller to read.
            clock: Seconds of a monotonic clock.
        """
        self._log = log
        self._write_seconds = write_seconds
        self._clock = clock

    async def intercept_service(
        self,
        continuation: Continuation,
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the method's handler with a record kept of each call."""
        handler: Handler | None = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method.startswith(_QUIET):
            return handler

        def unary(behaviour: Unary) -> Unary:
            async def call(request: Any, context: Context) -> Any:
                record = self._begin(method, context)
                try:
                    return await behaviour(request, context)
                except Exception as error:  # noqa: BLE001 - nothing is outside of this
                    await end_call(context, error, method)
                except BaseException:
                    record.note_left()
                    raise
                finally:
                    self._end(record)

            return call

        def stream(behaviour: Stream) -> Writing:
            async def call(request: Any, context: Context) -> None:
                record = self._begin(method, context)
                try:
                    await self._write_all(behaviour(request, context), context, record)
                    record.note_whole()
                except grpc.aio.InternalError:  # a write found nobody to take it
                    record.note_left()
                    raise
                except Exception as error:  # noqa: BLE001 - nothing is outside of this
                    await end_call(context, error, method)
                except BaseException:
                    record.note_left()
                    raise
                finally:
                    self._end(record)

            return call

        return wrap(handler, unary=unary, stream=stream)

    def _begin(self, method: str, context: Context) -> AccessRecord:
        # All is read now: a context must not be touched once its call is over, which crashes.
        now = self._clock()
        remaining: float | None = cast("Any", context).time_remaining()  # whatever its stubs say
        record = AccessRecord(
            method=method.rpartition("/")[2],
            clock=self._clock,
            arrived=now,
            deadline=None if remaining is None else now + remaining,
            peer=str(context.peer()),
            correlation_id=_metadata(context, "x-request-id"),
            request_id=secrets.token_hex(16),
        )
        CURRENT.set(record)
        return record

    async def _write_all(
        self, responses: AsyncIterator[Any], context: Context, record: AccessRecord
    ) -> None:
        """Write responses, unless the caller leaves one unread for too long."""
        with Patience(self._write_seconds) as patience:
            async with aclosing(each(responses)) as generated:
                async for response in generated:
                    try:
                        await patience.wait(context.write(response))
                    except ReaderTooSlow as error:
                        record.note_failure(error)  # before the call's generations are told to end
                        raise

    def _end(self, record: AccessRecord) -> None:
        # The generations of a shared call have lines of their own.
        if not record.is_shared or record.code != "OK":
            self._log.write(record)


def guard(keys: Keys) -> Callable[[str, Context], None]:
    """Return what refuses callers without the right credential."""

    def check(method: str, context: Context) -> None:
        authorization = _metadata(context, "authorization", is_checked=False) or None
        current_record(method).caller = keys.check(method, authorization)

    return check


def _tell(observer: RequestObserver, record: RequestRecord) -> None:
    try:
        observer.observe_request(record)
    except Exception as error:  # noqa: BLE001 - who watches must not change what is watched
        _log.error("bug", method=record.method, exc_info=error)


def _metadata(context: Context, name: str, *, is_checked: bool = True) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == name:
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            return text if not is_checked or _CORRELATION.fullmatch(text) else ""
    return ""


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None
