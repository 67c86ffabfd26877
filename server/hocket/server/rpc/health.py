"""`grpc.health.v1` from the server's lifecycle: Check, Watch, List. Loop thread.

Our own servicer: the one that gRPC ships writes to watchers while it holds a lock, so that one
that does not read stops all news. Here each watcher asks for the newest state whenever it is ready
for one, and a watch ends when the server leaves.

Names: `""` and `readiness` say whether new work is welcome, each service of `hocket.v1` the same
for itself, `liveness` whether the process should be left alone; it never depends on load.
"""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hocket.server.lifecycle import Lifecycle, ServerState
from hocket.server.rpc.status import Context

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

_LIST_RESPONSE: Any = vars(health_pb2)["HealthListResponse"]  # absent from the type stubs

_MOST_WATCHES = 32  # of one connection
_DEAD = {ServerState.STOPPED, ServerState.FAILED}


class HealthService(health_pb2_grpc.HealthServicer):
    """Tells how the server is."""

    def __init__(self, lifecycle: Lifecycle, services: tuple[str, ...]) -> None:
        """Make the service.

        Args:
            lifecycle: The server's state.
            services: Full names of the services that are served.
        """
        self._lifecycle = lifecycle
        self._names = ("", "readiness", "liveness", *services)
        self._watches: Counter[str] = Counter()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Tell the state of one name."""
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def List(self, _request: Any, _context: Context) -> Any:
        """Tell the states of all names."""
        return _LIST_RESPONSE(
            statuses={
                name: health_pb2.HealthCheckResponse(status=self._status(name))
                for name in self._names
            }
        )

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Tell the state of one name, and each newer one, until the server leaves."""
        connection = context.peer()
        if self._watches[connection] >= _MOST_WATCHES:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"a connection may watch {_MOST_WATCHES} names at once",
            )
        self._watches[connection] += 1
        try:
            told = None
            async for _ in self._lifecycle.states():
                status = self._status(request.service)
                if status != told:
                    told = status
                    yield health_pb2.HealthCheckResponse(status=status)
                if self._lifecycle.is_leaving:
                    return
        finally:
            self._watches[connection] -= 1
            self._watches += Counter()  # forgets connections without a watch

    def _status(self, name: str) -> Any:
        if name not in self._names:
            return _UNKNOWN
        if name == "liveness":
            return _NOT_SERVING if self._lifecycle.state in _DEAD else _SERVING
        return _SERVING if self._lifecycle.is_serving else _NOT_SERVING
