"""The blocking client, for programs without asyncio.

It shares with `AsyncClient` everything but the waiting: how requests are built and answers read,
the errors, the retry decisions. It waits on gRPC's blocking channel rather than on a hidden event
loop, so that it needs no thread of its own and works in programs that also run asyncio. Any number
of threads may use one client; each stream is read by one.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc

from hocket.client import _calls as calls
from hocket.client import _methods as methods
from hocket.client._channel import (
    ChannelOptions,
    Connection,
    Endpoint,
    LoadBalancing,
    Tls,
    TokenSource,
)
from hocket.client._corpus_state import MapItem, MapOperation, MapOptions, build_start
from hocket.client._errors import ClientError, NotFound
from hocket.client._events import GenerationResult
from hocket.client._health import serialize_health_request
from hocket.client._requests import GenerationOptions, build_generate_request
from hocket.client._retry import RetryPolicy
from hocket.client._sync_corpus import SyncMapStream
from hocket.client._sync_document_calls import SyncDocumentCalls
from hocket.client._sync_many import SyncManyStream
from hocket.client._sync_stream import SyncGenerationStream
from hocket.client._sync_stream_call import SyncStreamCall, error_of_rpc
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


class Client(SyncDocumentCalls):
    """Talks to a hocket server, blocking.

        with Client("127.0.0.1:50051") as client:
            with client.stream("Once upon a time") as stream:
                for text in stream.text():
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
        sleep: Callable[[float], object] = time.sleep,
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
        self._endpoint = Endpoint(
            target, tls=tls, credentials=credentials, load_balancing=load_balancing, options=options
        )
        self._settings = calls.CallSettings(
            token=token, timeout=timeout, retry=retry, clock=clock, draw=draw
        )
        self._sleep = sleep
        self._connection: Connection[grpc.Channel] | None = None

    def __enter__(self) -> Self:
        if self._connection is not None:
            raise ClientError("the client is open already")
        self._connection = self._endpoint.connect(
            insecure=grpc.insecure_channel, secure=grpc.secure_channel
        )
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.is_closed = True
            connection.channel.close()

    @contextmanager
    def stream(
        self,
        prompt: str | None = None,
        *,
        timeout: float | None = None,
        resume: bool = True,
        **options: Unpack[GenerationOptions],
    ) -> Iterator[SyncGenerationStream]:
        """Write a text and follow it. Leaving the block cancels what is still being written.

        Args:
            prompt: What is continued; or `messages` or `token_ids` among the options.
            timeout: Seconds that the whole may take, retries included.
            resume: Go on by itself where a stream breaks with its server or connection, as far as
                the server lets: with one answer in pieces, without log probabilities.
            **options: See `GenerationOptions`.

        Raises:
            TypeError: There is not exactly one input, or an option is unknown.
            ValueError: A value cannot be sent.
        """
        connection = self._open_connection()
        stream = SyncGenerationStream(
            method=methods.GENERATE.over(connection.channel.unary_stream),
            request=build_generate_request(prompt, options),
            state=self._settings.stream(connection, timeout),
            resume=resume,
            sleep=self._sleep,
        )
        with closing(stream):
            yield stream

    def generate(
        self,
        prompt: str | None = None,
        *,
        timeout: float | None = None,
        resume: bool = True,
        **options: Unpack[GenerationOptions],
    ) -> GenerationResult:
        """Write a text and return it whole; with the arguments and errors of `stream`."""
        if options.get("granularity") is None:
            options["granularity"] = Granularity.FULL
        with self.stream(prompt, timeout=timeout, resume=resume, **options) as stream:
            return stream.result()

    @contextmanager
    def generate_many(
        self,
        *,
        timeout: float | None = None,
    ) -> Iterator[SyncManyStream]:
        """Write many texts over one stream. Leaving the block cancels those in progress."""
        connection = self._open_connection()
        stream = SyncManyStream(
            method=methods.GENERATE_MANY.over(connection.channel.stream_stream),
            state=self._settings.stream(connection, timeout),
            sleep=self._sleep,
        )
        with closing(stream):
            yield stream

    def map(
        self,
        items: Iterable[MapItem],
        *,
        op: MapOperation = "generate",
        window: int | None = None,
        in_order: bool = False,
        stop_on_error: bool = False,
        timeout: float | None = None,
        **options: Unpack[MapOptions],
    ) -> SyncMapStream:
        """Do the same with many texts and iterate over what comes of each.

            for result in client.map(["One.", "Two."], op="split"):
                print(result.id, result.pieces)

        Items are taken as the server makes room: it holds one window of them, and this client no
        more than twice that. One that fails has a result with its error. Leaving the loop, or the
        block of `with`, ends the job. A job that was let in is not made again; its
        results tell what was done until then.

        Args:
            items: Texts, or pairs of an id and a text; gRPC's own thread takes them.
            op: What to do with each.
            window: Most items in flight; the server's bound if None.
            in_order: Gives results in the order of the items instead of as they come.
            stop_on_error: Ends the job at the first item that fails.
            timeout: Seconds that the whole may take.
            **options: See `MapOptions`.

        Raises:
            TypeError: An option does not belong to the operation.
            ValueError: A value cannot be sent.
        """
        connection = self._open_connection()
        return SyncMapStream(
            items,
            start=build_start(
                op, options, window=window, in_order=in_order, stop_on_error=stop_on_error
            ),
            method=methods.PROCESS.over(connection.channel.stream_stream),
            state=self._settings.stream(connection, timeout),
            sleep=self._sleep,
        )

    def tokenize(
        self,
        text: str,
        *,
        model: str = "",
        add_special_tokens: bool = False,
        parse_special_tokens: bool = False,
    ) -> tuple[Token, ...]:
        """Return the tokens of a text, with where each begins and ends."""
        return self._call(
            calls.tokenize(
                text,
                model=model,
                add_special_tokens=add_special_tokens,
                parse_special_tokens=parse_special_tokens,
            )
        )

    def detokenize(
        self, token_ids: Sequence[int], *, model: str = "", keep_special_tokens: bool = False
    ) -> str:
        """Return the text of tokens."""
        return self._call(
            calls.detokenize(token_ids, model=model, keep_special_tokens=keep_special_tokens)
        )

    def count_tokens(
        self, texts: Sequence[str], *, model: str = "", add_special_tokens: bool = False
    ) -> tuple[int, ...]:
        """Return how many tokens each text has."""
        return self._call(
            calls.count_tokens(texts, model=model, add_special_tokens=add_special_tokens)
        )

    def split_sentences(
        self, text: str, *, paragraphs: bool = False, options: SentenceOptions | None = None
    ) -> tuple[TextPiece, ...]:
        """Return the sentences, or paragraphs, of a text; they join to it."""
        return self._call(calls.split_sentences(text, paragraphs=paragraphs, options=options))

    def list_models(self) -> tuple[Model, ...]:
        """Return all served models, the default first."""
        return self._call(calls.list_models())

    def get_model(self, name: str = "") -> Model:
        """Return one model; the server's default if no name is given."""
        return self._call(calls.get_model(name))

    def check_health(self, service: str = "") -> HealthStatus:
        """Return how the server, or one of its services, is."""
        try:
            return self._call(calls.check_health(service))
        except NotFound:
            return HealthStatus.SERVICE_UNKNOWN

    @contextmanager
    def watch_health(self, service: str = "") -> Iterator[Iterator[HealthStatus]]:
        """Follow how the server, or one of its services, is: now, and at each change.

        Never retried; the iteration ends or raises when the server leaves.
        """
        connection = self._open_connection()
        state = self._settings.watch(connection)
        request = serialize_health_request(service)
        method = methods.HEALTH_WATCH.over(connection.channel.unary_stream)
        call = SyncStreamCall[HealthStatus](
            start=lambda: method(request, **state.arguments()), state=state, sleep=self._sleep
        )

        def statuses() -> Iterator[HealthStatus]:
            while (status := call.read()) is not None:
                yield status

        with closing(call):
            yield statuses()

    def abort(self, request_id: str) -> bool:
        """End a generation of any caller; whether it was in progress. For operators."""
        return self._call(calls.abort(request_id))

    def drain(self) -> DrainStatus:
        """Make the server finish its work and leave. For operators."""
        return self._call(calls.drain())

    def _call(self, call: calls.UnaryCall[ResultT]) -> ResultT:
        connection = self._open_connection()
        method = call.method.over(connection.channel.unary_unary)
        attempts = self._settings.attempts()
        while True:
            connection.check_open()
            try:
                response = method(
                    call.request,
                    timeout=attempts.remaining_seconds(),
                    metadata=self._settings.metadata(),
                )
            except grpc.RpcError as error:
                failure = error_of_rpc(error)
            except ValueError:
                connection.check_open()  # gRPC's word for a channel that was closed meanwhile
                raise
            else:
                attempts.begin()
                return call.convert(response)
            # Leaving the client in another thread looks like a failure to this one.
            connection.check_open()
            wait = attempts.wait_after(failure)
            if wait is None:
                raise failure from None
            self._sleep(wait)

    def _open_connection(self) -> Connection[grpc.Channel]:
        if self._connection is None:
            raise ClientError("the client is not open; use it as `with Client(...)`")
        return self._connection
