"""The flags that say which server to talk to, and the client made of them."""

import argparse
from pathlib import Path

from hocket.client import Client, Tls

DEFAULT_ADDRESS = "127.0.0.1:50051"


class UsageError(Exception):
    """The command line cannot be followed: printed as one line, exit code 2."""


def add_connection_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that all commands share."""
    group = parser.add_argument_group("connection")
    group.add_argument(
        "--address",
        default=DEFAULT_ADDRESS,
        help="where the server is (default: %(default)s)",
    )
    group.add_argument(
        "--token-file", type=Path, metavar="FILE", help="file that holds the bearer token"
    )
    group.add_argument(
        "--timeout",
        type=positive_seconds,
        metavar="SECONDS",
        help="most time that a call may take (default: none)",
    )
    group.add_argument("--tls", action="store_true", help="encrypt the connection")
    group.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="authorities to trust, PEM; implies --tls"
    )
    group.add_argument(
        "--cert-file", type=Path, metavar="FILE", help="own certificate, PEM; implies --tls"
    )
    group.add_argument("--key-file", type=Path, metavar="FILE", help="key of --cert-file, PEM")


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Add the choice between lines for people and for programs."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--json",
        action="store_const",
        const=True,
        dest="json",
        help="JSON lines (default when standard output is not a terminal)",
    )
    group.add_argument(
        "--text",
        action="store_const",
        const=False,
        dest="json",
        help="readable text (default on a terminal)",
    )


def make_client(arguments: argparse.Namespace, *, timeout: float | None = None) -> Client:
    """Return a client as the flags say; `timeout` stands where they give none.

    Raises:
        UsageError: A file cannot be read, or the certificate has no key.
    """
    tls = None
    if arguments.tls or arguments.ca_file or arguments.cert_file:
        if (arguments.cert_file is None) != (arguments.key_file is None):
            raise UsageError("--cert-file and --key-file go together")
        tls = Tls(
            root_certificates=_read(arguments.ca_file),
            certificate_chain=_read(arguments.cert_file),
            private_key=_read(arguments.key_file),
        )
    token = _read(arguments.token_file)
    try:
        decoded = None if token is None else token.decode("ascii").strip()
    except UnicodeDecodeError:
        raise UsageError(f"{arguments.token_file} does not hold a token") from None
    return Client(
        arguments.address,
        token=decoded,
        tls=tls,
        timeout=timeout if arguments.timeout is None else arguments.timeout,
    )


def positive_seconds(text: str) -> float:
    """Read a number of seconds above 0."""
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0: {text}")
    return seconds


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
