"""The gRPC server itself: address, TLS, HTTP/2 options, services. Loop thread."""

import asyncio
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import grpc
from annotated_types import Ge, Le
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hocket.server.errors import StartupError
from hocket.server.rpc.control import ControlService
from hocket.server.rpc.documents import DocumentService
from hocket.server.rpc.generation import GenerationService
from hocket.server.rpc.handlers import Continuation, Handler
from hocket.server.rpc.health import HealthService
from hocket.server.rpc.models import ModelService
from hocket.server.rpc.reflection import Reflection
from hocket.server.rpc.texts import TextService
from hocket.v1 import (
    control_pb2,
    control_pb2_grpc,
    document_pb2,
    document_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    text_pb2,
    text_pb2_grpc,
)

SERVICES = tuple(
    service.full_name
    for file in (generation_pb2, document_pb2, text_pb2, model_pb2, control_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
_HANDSHAKE_MS = 5_000
_METADATA_BYTES = 8_192
_LEAST_PING_MS = 10_000
_WINDOW_BYTES = 65_536
_IDLE_MS = 900_000
_BACKGROUND = ("/grpc.health.v1.", "/grpc.reflection.")
_FAREWELL_SECONDS = 1.0  # for readers of background streams to hear that they ended


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerConfig:
    """Where and how the server listens.

    Attributes:
        address: Host and port; port 0 takes a free one. `[::1]:50051` for IPv6.
        allow_insecure: Listen on other addresses than loopback without TLS, as behind a mesh's
            sidecar.
        tls_certificate: File with the certificate chain, PEM. Empty: no TLS.
        tls_key: File with its private key, PEM.
        tls_client_ca: File with the authorities that callers' certificates must come from, PEM.
            Empty: callers need none.
        max_message_kib: Longest message taken or sent, in KiB.
        max_concurrent_streams: Most calls of one connection at once; clients queue above it.
        max_generations_per_stream: Most generations of one `GenerateMany` call that are worked on
            at once; further ones wait, in the server or unread.
        write_seconds: Longest that a message waits for its caller to read; after it the call ends
            with READER_TOO_SLOW and its places come back.
        keepalive_seconds: A connection that is silent this long is asked whether it lives.
        reflection: Whether generic clients may ask for the services and their messages.
        control: Whether `ControlService` is enabled.
    """

    address: str = "127.0.0.1:50051"
    allow_insecure: bool = False
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    max_message_kib: Annotated[int, Ge(16), Le(16_384)] = 4_096
    max_concurrent_streams: Annotated[int, Ge(1), Le(65_536)] = 256
    max_generations_per_stream: Annotated[int, Ge(1), Le(65_536)] = 256
    write_seconds: Annotated[float, Ge(0.1), Le(86_400)] = 30.0
    keepalive_seconds: Annotated[int, Ge(1), Le(7_200)] = 20
    reflection: bool = True
    control: bool = False


class Listener:
    """A gRPC server with hocket's services. Made on the loop that it will serve on."""

    def __init__(
        self,
        config: ListenerConfig,
        *,
        generation: GenerationService,
        documents: DocumentService,
        texts: TextService,
        models: ModelService,
        control: ControlService,
        health: HealthService,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
    ) -> None:
        """Build a server that does not listen yet."""
        self._config = config
        self._leaving = asyncio.Event()
        self._calls = _Calls()
        self._server = grpc.aio.server(
            interceptors=[self._calls, *interceptors], options=_options(config), compression=None
        )
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(generation, self._server)
        document_pb2_grpc.add_DocumentServiceServicer_to_server(documents, self._server)
        text_pb2_grpc.add_TextServiceServicer_to_server(texts, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(models, self._server)
        control_pb2_grpc.add_ControlServiceServicer_to_server(control, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        if config.reflection:
            names = (*SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
            reflection = Reflection(names, self._leaving)
            self._server.add_generic_rpc_handlers(reflection.handlers())

    async def start(self) -> str:
        """Listen; return the address that was bound.

        Raises:
            StartupError: The address cannot be bound, must not be without TLS, or a TLS file is
                missing or broken.
        """
        address = self._config.address
        host, _, _ = address.rpartition(":")
        is_socket_file = address.startswith("unix:")
        credentials = _credentials(self._config)
        if credentials is None and not (
            self._config.allow_insecure or is_socket_file or _is_loopback(host)
        ):
            raise StartupError(
                f"{address} is not a loopback address: give it TLS"
                " (listener.tls_certificate) or set listener.allow_insecure"
            )
        try:
            port = (
                self._server.add_secure_port(address, credentials)
                if credentials
                else self._server.add_insecure_port(address)
            )
        except RuntimeError:
            port = 0
        if not port:
            raise StartupError(f"cannot listen on {address}: it is taken or not ours")
        await self._server.start()
        return address if is_socket_file else f"{host}:{port}"

    async def stop(self, grace_seconds: float) -> None:
        """Take no more calls; return when all have ended, cancelled after the grace. Repeatable.

        Health and reflection streams do not count: they end by themselves, and where a reader
        does not take even that, they are cancelled once nothing else runs.
        """
        self._leaving.set()
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(self._server.stop(grace_seconds))
            quiet = group.create_task(self._calls.wait_none())
            await asyncio.wait({stopping, quiet}, return_when=asyncio.FIRST_COMPLETED)
            quiet.cancel()
            if not (await asyncio.wait({stopping}, timeout=_FAREWELL_SECONDS))[0]:
                await self._server.stop(0)


class _Calls(grpc.aio.ServerInterceptor):
    """Counts the calls in progress, but for those in the background. Put it outermost."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._changed = asyncio.Event()

    async def intercept_service(
        self,
        continuation: Continuation,
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Count a call until its task ends, which is when its status was sent."""
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("an interceptor runs outside of a task. This is a bug.")
        if not str(handler_call_details.method).startswith(_BACKGROUND):
            self._tasks.add(task)
            task.add_done_callback(self._forget)
        handler: Handler | None = await continuation(handler_call_details)
        return handler

    async def wait_none(self) -> None:
        """Wait until none is in progress."""
        while self._tasks:
            self._changed.clear()
            await self._changed.wait()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._changed.set()


def _options(config: ListenerConfig) -> list[tuple[str, int]]:
    message = config.max_message_kib * 1024
    return [
        ("grpc.so_reuseport", 0),  # or a second server would share the port without a word
        ("grpc.max_concurrent_streams", config.max_concurrent_streams),
        ("grpc.max_receive_message_length", message),
        ("grpc.max_send_message_length", message),
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
        ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_PING_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.keepalive_time_ms", config.keepalive_seconds * 1000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
    ]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _credentials(config: ListenerConfig) -> grpc.ServerCredentials | None:
    files = (config.tls_certificate, config.tls_key)
    if not any(files):
        if config.tls_client_ca:
            raise StartupError("listener.tls_client_ca needs listener.tls_certificate and tls_key")
        return None
    if not all(files):
        raise StartupError("listener.tls_certificate and listener.tls_key go together")
    chain, key = (_file(path) for path in files)
    authorities = _file(config.tls_client_ca) if config.tls_client_ca else None
    _check_tls(config)
    return grpc.ssl_server_credentials(
        [(key, chain)],
        root_certificates=authorities,
        require_client_auth=authorities is not None,
    )


def _check_tls(config: ListenerConfig) -> None:
    """Read the files once with Python's own TLS: gRPC would say no more than that it cannot bind.

    Raises:
        StartupError: They are not what they should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The password keeps an encrypted key from asking the terminal for one.
        context.load_cert_chain(config.tls_certificate, config.tls_key, password="")
    except (ssl.SSLError, OSError) as error:
        raise StartupError(
            f"the TLS files {config.tls_certificate!r} and {config.tls_key!r} are not a"
            " certificate chain and its private key in clear text, as PEM"
        ) from error
    if not config.tls_client_ca:
        return
    try:
        context.load_verify_locations(config.tls_client_ca)
    except (ssl.SSLError, OSError) as error:
        raise StartupError(
            f"the TLS file {config.tls_client_ca!r} holds no certificate as PEM"
        ) from error


def _file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StartupError(f"the TLS file {path!r} cannot be read: {error.strerror}") from error
