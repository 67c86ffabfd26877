"""`ControlService`: for operators, off unless enabled. Loop thread."""

from collections.abc import Callable

from hocket.server.catalogue import Catalogue
from hocket.server.engine.commands import FinishReason
from hocket.server.errors import InvalidRequest, Unsupported
from hocket.server.rpc.render import duration
from hocket.server.rpc.status import Context
from hocket.v1 import control_pb2, control_pb2_grpc

Leave = Callable[[], float]


class ControlService(control_pb2_grpc.ControlServiceServicer):
    """Interferes with a running server."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        leave: Leave,
        in_progress: Callable[[], int],
        abort_document: Callable[[str], bool],
        is_enabled: bool,
    ) -> None:
        """Make the service.

        Args:
            catalogue: Whose generations may be ended.
            leave: Begins to drain; returns the seconds until new calls are refused.
            in_progress: How many generations are in progress.
            abort_document: Ends a document by its id; False if there is none.
            is_enabled: Otherwise every call is refused.
        """
        self._catalogue = catalogue
        self._leave = leave
        self._in_progress = in_progress
        self._abort_document = abort_document
        self._is_enabled = is_enabled

    async def Abort(
        self, request: control_pb2.AbortRequest, _context: Context
    ) -> control_pb2.AbortResponse:
        """End a generation or a document of any caller."""
        self._check_enabled()
        if not request.request_id:
            raise InvalidRequest.of("request_id", "must be given")
        found = [
            self._abort_document(request.request_id),
            *(
                engine.abort_nowait(request.request_id, FinishReason.ABORTED)
                for engine in self._catalogue.engines()
            ),
        ]
        return control_pb2.AbortResponse(found=any(found))

    async def Drain(
        self, _request: control_pb2.DrainRequest, _context: Context
    ) -> control_pb2.DrainResponse:
        """Begin to drain."""
        self._check_enabled()
        return control_pb2.DrainResponse(
            requests_in_progress=self._in_progress(), refusing_in=duration(self._leave())
        )

    def _check_enabled(self) -> None:
        if not self._is_enabled:
            raise Unsupported("ControlService is not enabled on this server")
