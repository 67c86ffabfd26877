"""How a client reaches a server: addresses, TLS, limits, keepalive, tokens. Any thread."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

import grpc

from hocket.client._errors import ClientError
from hocket.client._version import __version__

ChannelOptions: TypeAlias = Sequence[tuple[str, str | int]]
LoadBalancing: TypeAlias = Literal["pick_first", "weighted_round_robin"]
TokenSource: TypeAlias = str | Callable[[], str]
CallMetadata: TypeAlias = tuple[tuple[str, str], ...]

ChannelT = TypeVar("ChannelT")

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How a connection is secured. All values are PEM.

    Attributes:
        root_certificates: Whom to trust; None trusts gRPC's built-in authorities.
        certificate_chain: This client's own certificate, for servers that ask for one.
        private_key: The key of `certificate_chain`.
        server_name: The name that the server's certificate must bear, if not the target's.
    """

    root_certificates: bytes | None = None
    certificate_chain: bytes | None = None
    private_key: bytes | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Return what gRPC calls it."""
        return grpc.ssl_channel_credentials(
            root_certificates=self.root_certificates,
            private_key=self.private_key,
            certificate_chain=self.certificate_chain,
        )


def service_config(load_balancing: LoadBalancing = "pick_first") -> str:
    """Return the service config that clients of any language should use, as JSON.

    It retries what may be retried, throttled; `weighted_round_robin` also spreads calls over all
    addresses of the target by the load that servers report, leaving out those not ready.
    Hedging is not part of it: it would generate every text twice.
    """
    config: dict[str, object] = {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
    if load_balancing == "weighted_round_robin":
        # Client-side health checking needs a policy other than pick_first.
        config["healthCheckConfig"] = {"serviceName": "readiness"}
        config["loadBalancingConfig"] = [
            {"weighted_round_robin": {"enableOobLoadReport": True, "oobReportingPeriod": "10s"}},
            {"round_robin": {}},
        ]
    return json.dumps(config)


def channel_options(
    *, load_balancing: LoadBalancing, tls: Tls | None, extra: ChannelOptions
) -> list[tuple[str, str | int]]:
    """Return the options of a channel; `extra` come last and win."""
    options: dict[str, str | int] = {
        "grpc.primary_user_agent": f"hocket-python/{__version__}",
        # Our own loop retries; gRPC's would double it.
        "grpc.enable_retries": 0,
        # A dead peer is noticed within 30 s; the server allows a ping each 10 s.
        "grpc.keepalive_time_ms": 20_000,
        "grpc.keepalive_timeout_ms": 10_000,
        "grpc.keepalive_permit_without_calls": 0,
        "grpc.http2.max_pings_without_data": 0,
        # A quick restart of the server should not cost a retrying call its attempts.
        "grpc.initial_reconnect_backoff_ms": 200,
        "grpc.max_reconnect_backoff_ms": 5_000,
        "grpc.max_send_message_length": 16 * _MEBIBYTE,
        # Tokenizing the largest accepted text gives an answer several times its size.
        "grpc.max_receive_message_length": 64 * _MEBIBYTE,
        "grpc.service_config": service_config(load_balancing),
    }
    if tls is not None and tls.server_name is not None:
        options["grpc.ssl_target_name_override"] = tls.server_name
    options.update(extra)
    return list(options.items())


def channel_credentials(
    tls: Tls | None, credentials: grpc.ChannelCredentials | None
) -> grpc.ChannelCredentials | None:
    """Return the one that was given; None for a connection in clear text.

    Raises:
        ValueError: Both were given.
    """
    if tls is not None and credentials is not None:
        raise ValueError("give either tls or credentials, not both")
    return tls.credentials() if tls is not None else credentials


class Endpoint:
    """Where a server is, and how channels to it are made."""

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None,
        credentials: grpc.ChannelCredentials | None,
        load_balancing: LoadBalancing,
        options: ChannelOptions,
    ) -> None:
        self._target = target
        self._credentials = channel_credentials(tls, credentials)
        self._options = channel_options(load_balancing=load_balancing, tls=tls, extra=options)

    def connect(
        self, *, insecure: Callable[..., ChannelT], secure: Callable[..., ChannelT]
    ) -> "Connection[ChannelT]":
        """Make a channel with one of gRPC's two functions for that; it connects when first used."""
        if self._credentials is None:
            return Connection(insecure(self._target, options=self._options))
        return Connection(secure(self._target, self._credentials, options=self._options))


class Connection(Generic[ChannelT]):
    """A channel, from entering its client to leaving it.

    Attributes:
        channel: What calls are made over.
        is_closed: Whether the client was left, so that its calls end. Set once, by the client.
    """

    def __init__(self, channel: ChannelT) -> None:
        self.channel = channel
        self.is_closed = False

    def check_open(self) -> None:
        """Return if calls may be made, and made again.

        Raises:
            ClientError: The client was left.
        """
        if self.is_closed:
            raise ClientError("the client was closed during the call")


def call_metadata(token: TokenSource | None) -> CallMetadata:
    """Return the metadata of a call: the bearer token, asked for anew if it is a function.

    Raises:
        ValueError: The token has a character that cannot be sent, such as a line's end.
    """
    if token is None:
        return ()
    text = token if isinstance(token, str) else token()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("the token must be printable ASCII; a line's end is not")
    return (("authorization", f"Bearer {text}"),)
