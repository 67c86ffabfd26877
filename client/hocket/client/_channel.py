"""How a client reaches a server: addresses, TLS, limits, keepalive, tokens. Any thread."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import grpc

from hocket.client._version import __version__

ChannelOptions: TypeAlias = Sequence[tuple[str, str | int]]
LoadBalancing: TypeAlias = Literal["pick_first", "weighted_round_robin"]
TokenSource: TypeAlias = str | Callable[[], str]

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


def call_metadata(token: TokenSource | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call: the bearer token, asked for anew if it is a function."""
    if token is None:
        return ()
    text = token if isinstance(token, str) else token()
    return (("authorization", f"Bearer {text}"),)
