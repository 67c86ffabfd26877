"""One record and one log line for each call, and who may make it. Loop thread."""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from hocket.server.rpc.handlers import Continuation, Handler, Stream, Unary, each, wrap
from hocket.server.rpc.keys import Keys
from hocket.server.rpc.record import CURRENT, AccessRecord, Observers
from hocket.server.rpc.status import Context

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


@dataclass(frozen=True, slots=True)
class Caller:
    """Who called: its address, and the id by which it knows the call; empty if it gave none."""

    peer: str
    correlation_id: str


class AccessLog:
    """Writes the canonical line and tells the observers."""

    def __init__(self, observers: Observers = ()) -> None:
        self._observers = observers

    def write(self, record: AccessRecord, *, peer: str = "", correlation_id: str = "") -> None:
        """Tell of a call that ended."""
        ended = record.finish()
        for observer in self._observers:
            observer.observe_request(ended)
        _log.info(
            "rpc",
            method=record.method,
            request_id=record.request_id,
            correlation_id=correlation_id or None,
            peer=peer,
            model=record.model or None,
            code=record.code,
            reason=record.reason or None,
            finish_reason=record.finish_reason or None,
            prompt_tokens=record.prompt_tokens,
            cached_tokens=record.cached_tokens,
            completion_tokens=record.completion_tokens,
            sentences=record.sentences,
            queue_ms=_milliseconds(record.queue_seconds),
            ttft_ms=_milliseconds(record.ttft_seconds),
            ttfs_ms=_milliseconds(record.ttfs_seconds),
            itl_p50_ms=_milliseconds(_median(record.itl_seconds)),
            total_ms=_milliseconds(ended.total_seconds),
        )


class Access(grpc.aio.ServerInterceptor):
    """Keeps the record of each call. Put it outside `Boundary`."""

    def __init__(self, log: AccessLog, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
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
        name = method.rpartition("/")[2]

        def begin(context: Context) -> tuple[AccessRecord, Caller]:
            record = AccessRecord(method=name, clock=self._clock, request_id=secrets.token_hex(16))
            CURRENT.set(record)
            # Read now: a context must not be touched once its call is over, which crashes.
            return record, Caller(str(context.peer()), _metadata(context, "x-request-id"))

        def unary(behaviour: Unary) -> Unary:
            async def call(request: Any, context: Context) -> Any:
                record, caller = begin(context)
                try:
                    return await behaviour(request, context)
                except asyncio.CancelledError:
                    record.note_failure("CANCELLED", "")
                    raise
                finally:
                    self._end(record, caller)

            return call

        def stream(behaviour: Stream) -> Stream:
            async def call(request: Any, context: Context) -> AsyncIterator[Any]:
                record, caller = begin(context)
                is_whole = False
                try:
                    async for response in each(behaviour(request, context)):
                        yield response
                    is_whole = True
                except grpc.aio.AbortError:
                    is_whole = True  # the boundary noted how it ended
                    raise
                finally:
                    if not is_whole:  # the caller left, or its deadline passed
                        record.note_failure("CANCELLED", "")
                    self._end(record, caller)

            return call

        return wrap(handler, unary=unary, stream=stream)

    def _end(self, record: AccessRecord, caller: Caller) -> None:
        if not record.is_shared:  # else its generations have lines of their own
            self._log.write(record, peer=caller.peer, correlation_id=caller.correlation_id)


def guard(keys: Keys) -> Callable[[str, Context], None]:
    """Return what refuses callers without the right credential."""

    def check(method: str, context: Context) -> None:
        keys.check(method, _metadata(context, "authorization", is_checked=False) or None)

    return check


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
