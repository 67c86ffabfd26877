"""Something that is done with each item of a corpus: what it works with, and what comes of it.

Loop thread. An operation is made once for a call, which checks all that `start` says of it; then it
is run for each item, many at a time. It waits for places at its door and never fails for want of
them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hocket.server.admission import Admission, Permit
from hocket.server.catalogue import Catalogue
from hocket.server.document.config import DocumentConfig
from hocket.server.document.writer import Writer
from hocket.server.executors import Executors
from hocket.server.rpc.document_calls import DocumentCalls
from hocket.server.rpc.generator import Generator
from hocket.server.rpc.limits import Violations
from hocket.server.rpc.parse_documents import CheckedTransform
from hocket.server.rpc.record import AccessRecord
from hocket.v1 import text_pb2


class WriterFor(Protocol):
    """Makes the writer of a document."""

    def __call__(self, checked: CheckedTransform, /, *, group: str) -> Writer:
        """Return what writes it; `group` is what it shares its part of the batch with."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRooms:
    """What operations work with.

    Attributes:
        catalogue: The models.
        admission: The door of what a model writes.
        generator: Writes texts.
        document: The bounds of documents.
        documents: Those that are in progress.
        writer_for: Makes the writer of a document.
        text_admission: The door of texts.
        executors: Where text is worked on.
        max_message_bytes: The longest message that can be sent.
        clock: The clock that the engine reads deadlines by.
    """

    catalogue: Catalogue
    admission: Admission
    generator: Generator
    document: DocumentConfig
    documents: DocumentCalls
    writer_for: WriterFor
    text_admission: Admission
    executors: Executors
    max_message_bytes: int
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one item.

    Attributes:
        result: With the outcome set, and nothing else.
        permit: Places to be given back once the result was sent, where those bound its size.
    """

    result: text_pb2.ProcessResult
    permit: Permit | None = None


class Operation(Protocol):
    """Something to do with each item.

    Attributes:
        model: The model that works; empty if none does.
    """

    model: str

    async def run(self, item: text_pb2.ProcessItem, record: AccessRecord, /) -> Outcome:
        """Do it with one item.

        Args:
            item: As it came.
            record: Knows the call, and is told what becomes of the item.

        Raises:
            HocketError: The item is refused, or fails.
        """
        ...


MakeOperation = Callable[
    [OperationRooms, text_pb2.ProcessStart, Violations, AccessRecord], Operation
]
"""Makes the operation of one call, from its first message and its record."""
