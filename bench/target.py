"""Which server a measurement talks to: one that runs somewhere, or one of its own."""

import argparse
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from bench.serving import server
from hocket.client import NO_RETRIES, AsyncClient, Tls


def add_target_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name a server and open its door."""
    group = parser.add_argument_group("target")
    group.add_argument(
        "--target", metavar="HOST:PORT", help="a server that runs (default: one is started)"
    )
    group.add_argument("--token-file", type=Path, help="file that holds the bearer token")
    group.add_argument("--tls", action="store_true", help="encrypt the connection")
    group.add_argument("--ca-file", type=Path, help="authorities to trust, PEM; implies --tls")
    group.add_argument("--cert-file", type=Path, help="own certificate, PEM; implies --tls")
    group.add_argument("--key-file", type=Path, help="key of --cert-file, PEM")
    group.add_argument(
        "--connections", type=int, default=1, help="over which requests go in turn (default: 1)"
    )


@contextlib.asynccontextmanager
async def connected(arguments: argparse.Namespace) -> AsyncIterator[list[AsyncClient]]:
    """Connect to the server that the arguments name, or to one started for it.

    Nothing is sent twice: what the server refuses counts as refused.
    """
    async with contextlib.AsyncExitStack() as stack:
        address = arguments.target
        if address is None:
            address = await stack.enter_async_context(server("auto", arguments.set))
        tls = None
        if arguments.tls or arguments.ca_file or arguments.cert_file:
            tls = Tls(
                root_certificates=_read(arguments.ca_file),
                certificate_chain=_read(arguments.cert_file),
                private_key=_read(arguments.key_file),
            )
        token = _read(arguments.token_file)
        # Channels of the same options would share one connection.
        yield [
            await stack.enter_async_context(
                AsyncClient(
                    address,
                    token=token.decode("ascii").strip() if token else None,
                    tls=tls,
                    retry=NO_RETRIES,
                    options=(("grpc.use_local_subchannel_pool", 1),),
                )
            )
            for _ in range(arguments.connections)
        ]


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
