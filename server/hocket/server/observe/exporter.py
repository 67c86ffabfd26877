"""A small HTTP server for scrapes: `GET /metrics`.

Thread `hocket-metrics`, and one more for each scrape. Scrapes in progress are bounded and a silent
peer is cut off, so that nobody who can reach the port can make the process hold more than a few
threads.
"""

import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from hocket.server.errors import StartupError

_MOST_SCRAPES = 8
_SILENCE_SECONDS = 5.0
_HIGHEST_PORT = 65_535


class MetricsExporter:
    """Answers scrapes with what `render` returns, from `start` until `close`."""

    def __init__(self, render: Callable[[], bytes], *, address: str) -> None:
        self._render = render
        self._address = address
        self._server: TCPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Listen; return the address with the port that was bound.

        Raises:
            StartupError: The address cannot be listened on.
        """
        host, port = split_address(self._address)
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._server = _server(family, (host, port), self._render)
        except OSError as error:
            raise StartupError(
                f"metrics cannot listen on {self._address}: {error.strerror or error}"
                " (metrics.address sets another address, metrics.enabled=false turns them off)"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="hocket-metrics",
            daemon=True,
        )
        self._thread.start()
        return _join(host, int(self._server.server_address[1]))

    def close(self) -> None:
        """Stop listening. Repeatable; takes no longer than the scrape that is accepted now."""
        server, self._server = self._server, None
        if server is None or self._thread is None:
            return
        server.shutdown()
        server.server_close()
        self._thread.join()


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port`; an IPv6 host stands in brackets.

    Raises:
        ValueError: It is not of that form.
    """
    host, colon, port = address.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not is_bracketed):
        raise ValueError(f"address {address!r} is not host:port")
    if not (port.isascii() and port.isdigit() and int(port) <= _HIGHEST_PORT):
        raise ValueError(f"address {address!r} has no port from 0 to {_HIGHEST_PORT}")
    return (host[1:-1] if is_bracketed else host), int(port)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _server(
    family: socket.AddressFamily, address: tuple[str, int], render: Callable[[], bytes]
) -> TCPServer:
    scrapes = threading.BoundedSemaphore(_MOST_SCRAPES)

    class Handler(BaseHTTPRequestHandler):
        timeout = _SILENCE_SECONDS
        server_version = "hocket"
        sys_version = ""

        def do_GET(self) -> None:
            if self.path.partition("?")[0] not in {"/metrics", "/"}:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            body = render()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Say nothing: scrapes are many and dull."""

    class Server(ThreadingMixIn, TCPServer):
        address_family = family
        daemon_threads = True
        allow_reuse_address = True
        request_queue_size = 32

        def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base's
            if scrapes.acquire(blocking=False):
                super().process_request(request, client_address)
            else:
                self.shutdown_request(request)

        def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base's
            try:
                super().process_request_thread(request, client_address)
            finally:
                scrapes.release()

        def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base's
            """Say nothing of a scraper that left."""

    return Server(address, Handler)
