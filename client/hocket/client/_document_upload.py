"""What goes up for one document, without any I/O: the first message, parts, cancels, the end.

It belongs to the stream's owner; the blocking stream guards it with its condition.
"""

from typing import TypeAlias

from hocket.client._document_requests import Source
from hocket.client._many_state import Outbox
from hocket.client._requests import make_request_id
from hocket.v1 import document_pb2

DocumentRequest: TypeAlias = document_pb2.TransformRequest | document_pb2.ComposeRequest


class DocumentUpload:
    """One document on its way up.

    The sending side stays open until the document is over, so that segments can be cancelled.

    Attributes:
        outbox: What is still to be sent, after the first message.
    """

    def __init__(self, request: DocumentRequest, source: Source | None) -> None:
        """Make it.

        Args:
            request: The first message.
            source: The document; None if the first message is all.
        """
        self._request = request
        self._makes_ids = not request.start.request_id
        self.outbox = Outbox[DocumentRequest]()
        if source is not None:
            for action in source.actions:
                self.outbox.put(action)
            if source.parts is None:
                self.end()

    @property
    def request_id(self) -> str:
        """The id of the present attempt."""
        return self._request.start.request_id

    def begin(self) -> DocumentRequest:
        """Return the first message of the next attempt; all else is sent again after it."""
        if self._makes_ids:
            # The id of a lost attempt may still be in use on the server.
            self._request.start.request_id = make_request_id()
        self.outbox.rewind()
        return self._request

    def end(self) -> None:
        """Say that no more of the document will come."""
        self.outbox.put(document_pb2.TransformRequest(end=document_pb2.EndDocument()))

    def cancel(self, segment: int, variant: int | None) -> None:
        """Say that a segment is to end.

        Raises:
            ValueError: There can be no such segment.
        """
        cancel = document_pb2.CancelSegment(segment=segment, variant=variant)
        self.outbox.put(type(self._request)(cancel=cancel))
