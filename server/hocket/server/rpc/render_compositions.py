"""From the events of a text in sections to protobuf. Loop thread."""

from typing import Any

from hocket.server.document.compose import OutlineReady
from hocket.server.document.job import JobEnded, JobPiece, JobStarted
from hocket.server.document.merge import Released
from hocket.server.document.tally import DocumentEnded
from hocket.server.rpc.parse_compositions import CheckedComposition
from hocket.server.rpc.render_documents import (
    render_ended,
    render_finished,
    render_piece,
    render_usage,
)
from hocket.v1 import document_pb2


class CompositionRenderer:
    """Renders the events of one text; numbers them as it goes."""

    def __init__(self, *, request_id: str) -> None:
        self._request_id = request_id
        self._sequence = 0

    def started(self, checked: CheckedComposition) -> document_pb2.ComposeResponse:
        """Return the first event."""
        writing = checked.writing
        return self._numbered(
            started=document_pb2.DocumentStarted(
                request_id=self._request_id,
                model=checked.model.description.name,
                seed=writing.sampling.seed,
                language=checked.sentences.language,
                variants=("",),
                window=writing.window,
                is_parallel=checked.is_surely_parallel,
            )
        )

    def outline(self, outline: OutlineReady) -> document_pb2.ComposeResponse:
        """Return what is going to be written."""
        return self._numbered(
            outline=document_pb2.Outline(
                sections=(
                    document_pb2.Section(title=section.title, instruction=section.instruction)
                    for section in outline.sections
                ),
                is_drafted=outline.is_drafted,
                is_parallel=outline.is_parallel,
                usage=render_usage(outline.usage),
            )
        )

    def released(self, released: Released) -> document_pb2.ComposeResponse:
        """Return an event of a section."""
        match released.event:
            case JobStarted(job):
                return self._numbered(
                    section_started=document_pb2.SegmentStarted(
                        segment=job.place.segment, gap=job.segment.gap, title=job.segment.text
                    )
                )
            case JobPiece() as piece:
                return self._numbered(piece=render_piece(piece))
            case JobEnded() as ended:
                message = render_ended(ended, released.target_start, request_id=self._request_id)
                return self._numbered(section_finished=message)

    def finished(self, ended: DocumentEnded, *, total: float) -> document_pb2.ComposeResponse:
        """Return the last event; `total` is seconds from arrival."""
        return self._numbered(finished=render_finished(ended, total=total))

    def _numbered(self, **event: Any) -> document_pb2.ComposeResponse:  # noqa: ANN401 - of the oneof
        sequence, self._sequence = self._sequence, self._sequence + 1
        return document_pb2.ComposeResponse(sequence=sequence, **event)
