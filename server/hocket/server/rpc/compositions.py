"""`DocumentService.Compose`: one text in sections, given or drafted. Loop thread.

    first message ▸ check fields ▸ take a place ▸ read cancels | write events ▸ leave

A text is whole with its first message, so that a server that leaves writes it to its end.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from hocket.server.document.compose import Author, Compose, OutlineReady
from hocket.server.document.merge import Released
from hocket.server.errors import InvalidRequest
from hocket.server.rpc.document_calls import (
    DocumentCalls,
    bug_teller,
    check_alive,
    note,
    note_usage,
)
from hocket.server.rpc.parse_compositions import CheckedComposition, check_composition
from hocket.server.rpc.record import AccessRecord
from hocket.server.rpc.render_compositions import CompositionRenderer
from hocket.v1 import document_pb2

AuthorFor = Callable[[CheckedComposition], Author]
ComposeRequests = AsyncIterator[document_pb2.ComposeRequest]
Response = document_pb2.ComposeResponse


class Compositions:
    """Writes texts in sections, one a call."""

    def __init__(self, calls: DocumentCalls, *, author_for: AuthorFor, max_window: int) -> None:
        """Make it.

        Args:
            calls: How its calls come in and leave.
            author_for: Makes the writer of a text.
            max_window: The widest window.
        """
        self._calls = calls
        self._author_for = author_for
        self._max_window = max_window

    async def compose(
        self, requests: ComposeRequests, record: AccessRecord
    ) -> AsyncGenerator[Response]:
        """Yield the events of a text.

        Raises:
            HocketError: It is refused, its outline could not be had, the caller erred, or all that
                is left of it would fail.
        """
        arrived = self._calls.clock()
        start = (await self._calls.first(requests)).start
        checked = check_composition(
            start,
            self._calls.model_of(start, record),
            owner=record.caller,
            arrived=arrived,
            remaining=record.remaining_seconds(),
            max_window=self._max_window,
        )
        with self._calls.admitted(checked.writing, record) as places:
            text = Compose(
                checked.plan,
                author=self._author_for(checked),
                places=places,
                on_bug=bug_teller(record),
            )
            reading = _Cancels(requests, text)
            async with aclosing(self._work(text, reading, checked, record)) as responses:
                async for response in responses:
                    yield response

    async def _work(
        self,
        text: Compose,
        cancels: "_Cancels",
        checked: CheckedComposition,
        record: AccessRecord,
    ) -> AsyncGenerator[Response]:
        """Obey what the caller sends and yield what is due, until all is over."""
        writing = checked.writing
        with self._calls.in_progress(text, writing, cancels.obey()):
            renderer = CompositionRenderer(request_id=writing.request_id)
            yield renderer.started(checked)
            async with aclosing(text.events()) as events:
                async for event in events:
                    cancels.raise_error()
                    if isinstance(event, Released):
                        note(record, event, text.usage)
                        yield renderer.released(event)
                        check_alive(event)
                    elif isinstance(event, OutlineReady):
                        note_usage(record, text.usage)
                        yield renderer.outline(event)
                    else:
                        note_usage(record, text.usage)
                        record.finish_reason = "time_budget" if event.is_partial else ""
                        total = self._calls.clock() - writing.arrived
                        yield renderer.finished(event, total=total)


class _Cancels:
    """What a caller sends after the first message."""

    def __init__(self, requests: ComposeRequests, text: Compose) -> None:
        self._requests = requests
        self._text = text
        self._error: Exception | None = None

    async def obey(self) -> None:
        """Cancel what the caller cancels; end all if it errs."""
        try:
            async for request in self._requests:
                if request.WhichOneof("action") == "cancel":
                    if not request.cancel.variant:  # there is no other
                        self._text.cancel_nowait(request.cancel.segment)
                else:
                    _refuse(request)
        except Exception as error:  # noqa: BLE001 - raised by whoever writes the events
            self._error = error
            self._text.abort_nowait()

    def raise_error(self) -> None:
        """Return unless the caller erred."""
        if self._error is not None:
            raise self._error


def _refuse(request: document_pb2.ComposeRequest) -> None:
    if request.WhichOneof("action") is None:
        raise InvalidRequest.of("action", "cancel must be set")
    raise InvalidRequest.of("start", "must come once, first")
