"""`hocket health`: whether a server is ready, for people and for probes."""

import argparse

from hocket.client import HealthStatus
from hocket.client._commands.connection import add_connection_flags, add_json_flag, make_client
from hocket.client._commands.output import print_json, wants_json

_CHECK_SECONDS = 5.0


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "health",
        help="ask whether the server is ready",
        description="Exits with 0 if the service is serving, with 1 if it is not.",
    )
    parser.add_argument("--service", default="", help="one service (default: the server)")
    parser.add_argument("--watch", action="store_true", help="show each change until it ends")
    add_json_flag(parser)
    add_connection_flags(parser)
    parser.set_defaults(run=_health)


def _health(arguments: argparse.Namespace) -> int:
    status = HealthStatus.UNKNOWN
    if arguments.watch:
        with (
            make_client(arguments) as client,
            client.watch_health(arguments.service) as statuses,
        ):
            for status in statuses:
                _show(arguments, status)
    else:
        with make_client(arguments, timeout=_CHECK_SECONDS) as client:
            status = client.check_health(arguments.service)
        _show(arguments, status)
    return 0 if status is HealthStatus.SERVING else 1


def _show(arguments: argparse.Namespace, status: HealthStatus) -> None:
    if wants_json(arguments.json):
        print_json({"service": arguments.service, "status": status})
    else:
        print(status, flush=True)
