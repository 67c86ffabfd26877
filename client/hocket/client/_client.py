"""The client for asyncio. Everything runs on the loop that `async with` was entered on."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio

from hocket.client import _calls as calls
from hocket.client import _methods as methods
from hocket.client._channel import (
    ChannelOptions,
    LoadBalancing,
    Tls,
    TokenSource,
    channel_credentials,
    channel_options,
)
from hocket.client._errors import ClientError, NotFound
from hocket.client._events import GenerationResult
from hocket.client._many import ManyStream
from hocket.client._requests import GenerationOptions, build_generate_request
from hocket.client._retry import RetryPolicy
from hocket.client._stream import GenerationStream, error_of_aio, is_task_cancelled
from hocket.client._types import (
    DrainStatus,
    Granularity,
    HealthStatus,
    Model,
    SentenceOptions,
    TextPiece,
    Token,
)

ResultT = TypeVar("ResultT")


class AsyncClient:
    """Talks to a hocket server from asyncio.

        async with AsyncClient("127.0.0.1:50051") as client:
            async with client.stream("Once upon a time") as stream:
                async for text in stream.text():
                    print(text, end="")

    Any number of calls may be in progress at once. Leaving the block ends them.
    """

    def __init__(
        self,
        target: str,
        *,
        token: TokenSource | None = None,
        timeout: float | None = None,
        tls: Tls | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
        load_balancing: LoadBalancing = "pick_first",
        options: ChannelOptions = (),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,  # noqa: S311 - jitter, not a secret
    ) -> None:
        """Describe the connection; it is made on the first call.

        Args:
            target: Where the server is, as gRPC names it: `host:port`, `unix:/path`, `dns:///name`.
            token: Bearer token, or a function that returns the present one. Without TLS it travels
                in clear text.
            timeout: Seconds that each call may take, retries included, unless it says otherwise;
                None for no limit.
            tls: Secures the connection; in clear text if neither this nor `credentials` is given.
            credentials: gRPC channel credentials, in place of `tls`.
            retry: When calls are made again.
            load_balancing: How calls spread over the addresses of the target.
            options: Further gRPC channel options; these win.
            clock: Monotonic seconds; for tests.
            sleep: Waits for seconds; for tests.
            draw: Draws from 0 to 1; for tests.

        Raises:
            ValueError: Both `tls` and `credentials` were given.
        """
        self._target = target
        self._credentials = channel_credentials(tls, credentials)
        self._options = channel_options(load_balancing=load_balancing, tls=tls, extra=options)
        self._settings = calls.CallSettings(
            token=token, timeout=timeout, retry=retry, clock=clock, draw=draw
        )
        self._sleep = sleep
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        if self._channel is not None:
            raise ClientError("the client is open already")
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(self._target, options=self._options)
        else:
            self._channel = grpc.aio.secure_channel(
                self._target, self._credentials, options=self._options
            )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    @asynccontextmanager
    async def stream(
        self,
        prompt: str | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - becomes the call's deadline
        **options: Unpack[GenerationOptions],
    ) -> AsyncIterator[GenerationStream]:
        """Write a text and follow it. Leaving the block cancels what is still being written.

        Args:
            prompt: What is continued; or `messages` or `token_ids` among the options.
            timeout: Seconds that the whole may take, retries included.
            **options: See `GenerationOptions`.

        Raises:
            TypeError: There is not exactly one input, or an option is unknown.
            ValueError: A value cannot be sent.
        """
        stream = GenerationStream(
            method=_unary_stream(self._open_channel(), methods.GENERATE),
            request=build_generate_request(prompt, options),
            settings=self._settings,
            timeout=timeout,
            sleep=self._sleep,
        )
        try:
            yield stream
        finally:
            stream.close()

    async def generate(
        self,
        prompt: str | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - becomes the call's deadline
        **options: Unpack[GenerationOptions],
    ) -> GenerationResult:
        """Write a text and return it whole; with the arguments and errors of `stream`."""
        if options.get("granularity") is None:
            options["granularity"] = Granularity.FULL
        async with self.stream(prompt, timeout=timeout, **options) as stream:
            return await stream.result()

    @asynccontextmanager
    async def generate_many(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - becomes the call's deadline
    ) -> AsyncIterator[ManyStream]:
        """Write many texts over one stream. Leaving the block cancels those in progress."""
        channel = self._open_channel()
        stream = ManyStream(
            method=channel.stream_stream(
                methods.GENERATE_MANY.path,
                request_serializer=methods.GENERATE_MANY.serialize,
                response_deserializer=methods.GENERATE_MANY.parse,
            ),
            settings=self._settings,
            timeout=timeout,
            sleep=self._sleep,
        )
        try:
            yield stream
        finally:
            stream.close()

    async def tokenize(
        self,
        text: str,
        *,
        model: str = "",
        add_special_tokens: bool = False,
        parse_special_tokens: bool = False,
    ) -> tuple[Token, ...]:
        """Return the tokens of a text, with where each begins and ends."""
        return await self._call(
            calls.tokenize(
                text,
                model=model,
                add_special_tokens=add_special_tokens,
                parse_special_tokens=parse_special_tokens,
            )
        )

    async def detokenize(
        self, token_ids: Sequence[int], *, model: str = "", keep_special_tokens: bool = False
    ) -> str:
        """Return the text of tokens."""
        return await self._call(
            calls.detokenize(token_ids, model=model, keep_special_tokens=keep_special_tokens)
        )

    async def count_tokens(
        self, texts: Sequence[str], *, model: str = "", add_special_tokens: bool = False
    ) -> tuple[int, ...]:
        """Return how many tokens each text has."""
        return await self._call(
            calls.count_tokens(texts, model=model, add_special_tokens=add_special_tokens)
        )

    async def split_sentences(
        self, text: str, *, paragraphs: bool = False, options: SentenceOptions | None = None
    ) -> tuple[TextPiece, ...]:
        """Return the sentences, or paragraphs, of a text; they join to it."""
        return await self._call(calls.split_sentences(text, paragraphs=paragraphs, options=options))

    async def list_models(self) -> tuple[Model, ...]:
        """Return all served models, the default first."""
        return await self._call(calls.list_models())

    async def get_model(self, name: str = "") -> Model:
        """Return one model; the server's default if no name is given."""
        return await self._call(calls.get_model(name))

    async def check_health(self, service: str = "") -> HealthStatus:
        """Return how the server, or one of its services, is."""
        try:
            return await self._call(calls.check_health(service))
        except NotFound:
            return HealthStatus.SERVICE_UNKNOWN

    @asynccontextmanager
    async def watch_health(self, service: str = "") -> AsyncIterator[AsyncIterator[HealthStatus]]:
        """Follow how the server, or one of its services, is: now, and at each change.

        Never retried; the iteration ends or raises when the server leaves.
        """
        call = _unary_stream(self._open_channel(), methods.HEALTH_WATCH)(
            service, metadata=self._settings.metadata()
        )

        async def statuses() -> AsyncIterator[HealthStatus]:
            try:
                async for status in call:
                    yield status
            except grpc.aio.AioRpcError as error:
                raise error_of_aio(error) from None

        try:
            yield statuses()
        finally:
            call.cancel()

    async def abort(self, request_id: str) -> bool:
        """End a generation of any caller; whether it was in progress. For operators."""
        return await self._call(calls.abort(request_id))

    async def drain(self) -> DrainStatus:
        """Make the server finish its work and leave. For operators."""
        return await self._call(calls.drain())

    async def _call(self, call: calls.UnaryCall[ResultT]) -> ResultT:
        attempts = self._settings.attempts(None)
        while True:
            method = self._open_channel().unary_unary(
                call.method.path,
                request_serializer=call.method.serialize,
                response_deserializer=call.method.parse,
            )
            try:
                response = await method(
                    call.request,
                    timeout=attempts.remaining_seconds(),
                    metadata=self._settings.metadata(),
                )
            except grpc.aio.AioRpcError as error:
                failure = error_of_aio(error)
            except asyncio.CancelledError:
                if is_task_cancelled():
                    raise
                raise ClientError("the client was closed during the call") from None
            else:
                attempts.begin()
                return call.convert(response)
            wait = attempts.wait_after(failure)
            if wait is None:
                raise failure from None
            await self._sleep(wait)

    def _open_channel(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise ClientError("the client is not open; use it as `async with AsyncClient(...)`")
        return self._channel


def _unary_stream(
    channel: grpc.aio.Channel, method: methods.Method[Any, ResultT]
) -> grpc.aio.UnaryStreamMultiCallable[Any, ResultT]:
    return channel.unary_stream(
        method.path, request_serializer=method.serialize, response_deserializer=method.parse
    )
