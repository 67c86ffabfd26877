"""A document service whose answers each test writes itself, and what such answers are made of."""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
from google.rpc import code_pb2, status_pb2

from client.fake_server import rich_status, trailers_of
from hocket.v1 import document_pb2, document_pb2_grpc, options_pb2

Behaviour = Callable[[AsyncIterator[object], grpc.aio.ServicerContext], AsyncIterator[object]]
FAILED = rich_status(grpc.StatusCode.INTERNAL, "GENERATION_FAILED", message="no luck")
CANCELLED = options_pb2.FINISH_REASON_CANCELLED


class Script:
    """The lawful events of one document, in the order in which a test calls these methods.

    Attributes:
        messages: The events so far.
    """

    def __init__(self, variants=("",), *, response=document_pb2.TransformResponse) -> None:
        self.messages: list[object] = []
        self.is_composed = response is document_pb2.ComposeResponse
        self._response = response
        self._variants = variants
        self._sources: dict[int, document_pb2.ByteRange] = {}
        self._source = 0
        self._sizes: dict[tuple[int, int], int] = {}
        self._pieces: dict[tuple[int, int], int] = {}
        self._targets = [0] * len(variants)
        self._failed = self._incomplete = 0

    def add(self, **event) -> object:
        message = self._response(sequence=len(self.messages), **event)
        self.messages.append(message)
        return message

    def started(self, **fields):
        fields = {"request_id": "r", "model": "fake", "seed": 7, "language": "en"} | fields
        started = document_pb2.DocumentStarted(variants=self._variants, window=4, **fields)
        return self.add(started=started)

    def begin(self, segment: int, *, variant: int = 0, gap: str = "", size: int = 0, title=""):
        """Begin a segment that has `size` bytes in the source; its first variant comes first."""
        if segment not in self._sources and not self.is_composed:
            start = self._source + len(gap.encode())
            self._source = start + size
            self._sources[segment] = document_pb2.ByteRange(start_byte=start, end_byte=start + size)
        self._sizes[segment, variant] = self._pieces[segment, variant] = 0
        self._targets[variant] += len(gap.encode())
        event = document_pb2.SegmentStarted(
            segment=segment,
            variant=variant,
            source=self._sources.get(segment),
            gap=gap,
            title=title,
        )
        return self.add(**{self._name("started"): event})

    def piece(self, segment: int, text: str, *, variant: int = 0):
        key = (segment, variant)
        event = document_pb2.SegmentPiece(
            segment=segment,
            variant=variant,
            piece=self._pieces[key],
            text=text,
            start_byte=self._sizes[key],
            kind=options_pb2.PIECE_KIND_SENTENCE,
        )
        self._pieces[key] += 1
        self._sizes[key] += len(text.encode())
        self._targets[variant] += len(text.encode())
        return self.add(piece=event)

    def end(
        self,
        segment: int,
        *,
        variant: int = 0,
        status: status_pb2.Status | None = None,
        reason: int = options_pb2.FINISH_REASON_END_OF_TEXT,
        **fields,
    ):
        self._failed += status is not None
        self._incomplete += reason == CANCELLED
        event = document_pb2.SegmentFinished(
            segment=segment,
            variant=variant,
            status=status,
            finish_reason=None if status is not None else reason,
            source=self._sources.get(segment),
            target_bytes=self._sizes[segment, variant],
            usage=options_pb2.Usage(prompt_tokens=3, completion_tokens=5),
            **fields,
        )
        return self.add(**{self._name("finished"): event})

    def finished(self, *, gap: str = "", **fields):
        tail = len(gap.encode())
        event = document_pb2.DocumentFinished(
            segments=len({segment for segment, _ in self._sizes}),
            failed=self._failed,
            incomplete=self._incomplete,
            source_bytes=self._source + tail,
            gap=gap,
            target_bytes=[size + tail for size in self._targets],
            usage=options_pb2.Usage(completion_tokens=5 * len(self._sizes)),
            **fields,
        )
        event.total.FromMilliseconds(1500)
        return self.add(finished=event)

    def whole(self, segment: int, text: str, *, gap: str = "", title: str = ""):
        """Write a whole segment in one piece."""
        self.begin(segment, gap=gap, size=len(text.encode()), title=title)
        self.piece(segment, text)
        self.end(segment)

    def _name(self, what: str) -> str:
        return f"{'section' if self.is_composed else 'segment'}_{what}"


class FakeDocuments(document_pb2_grpc.DocumentServiceServicer):
    """Answers each call with the next behaviour that a test put in, else as described below.

    `Transform` cuts its text after full stops and writes each sentence in capitals, in order, while
    more may come. A sentence with `fail` in it fails, one with `hang` waits to be cancelled.
    `Compose` writes each section's title as its text.

    Attributes:
        address: Where it listens.
        behaviours: What the next calls do.
        starts: The first message of every call.
        actions: All further messages, of all calls.
        left: Set when a handler was cancelled.
    """

    def __init__(self) -> None:
        self.address = ""
        self.behaviours: deque[Behaviour] = deque()
        self.starts: list[object] = []
        self.actions: list[object] = []
        self.left = asyncio.Event()
        self._grpc_server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen on loopback."""
        self._grpc_server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        document_pb2_grpc.add_DocumentServiceServicer_to_server(self, self._grpc_server)
        self.address = f"127.0.0.1:{self._grpc_server.add_insecure_port('127.0.0.1:0')}"
        await self._grpc_server.start()

    async def stop(self) -> None:
        """End all calls and connections."""
        await self._grpc_server.stop(None)

    def answer(self, messages, *, hang: bool = False) -> None:
        """Let the next call send these, and then end, or hang until it is cancelled."""

        async def behave(requests, context):
            self.starts.append((await anext(requests)).start)
            for message in messages:
                yield message
            if hang:
                await asyncio.Event().wait()

        self.behaviours.append(behave)

    def refuse(self, status: status_pb2.Status, *, after=(), pushback_ms=None) -> None:
        """Let the next call send `after` and then fail with this status."""

        async def behave(requests, context):
            for message in after:
                yield message
            await context.abort(
                grpc.StatusCode[code_pb2.Code.Name(status.code)],
                status.message,
                trailers_of(status, pushback_ms),
            )

        self.behaviours.append(behave)

    async def Transform(self, request_iterator, context):
        behave = self.behaviours.popleft() if self.behaviours else self._transform
        async for message in self._run(behave, request_iterator, context):
            yield message

    async def Compose(self, request_iterator, context):
        behave = self.behaviours.popleft() if self.behaviours else self._compose
        async for message in self._run(behave, request_iterator, context):
            yield message

    async def _run(self, behave, requests, context):
        try:
            async for message in behave(requests, context):
                yield message
        except (asyncio.CancelledError, GeneratorExit):
            self.left.set()
            raise

    async def _transform(self, requests, context):
        start = (await anext(requests)).start
        self.starts.append(start)
        variants = tuple(start.translate.target_languages) or ("",)
        script = Script(variants)
        yield script.started(request_id=start.request_id)
        text, index, gap = "", 0, ""
        cancelled: set[int] = set()

        is_more = True

        async def next_action() -> None:
            nonlocal text, is_more
            action = await anext(requests, None)
            if action is None:  # closed, or the call is cancelled, which only a wait can tell
                await asyncio.Event().wait()
            self.actions.append(action)
            match action.WhichOneof("action"):
                case "text":
                    text += action.text
                case "segment":
                    text += action.segment.gap + action.segment.text
                case "cancel":
                    cancelled.add(action.cancel.segment)
                case "end":
                    is_more = False

        while is_more or "." in text:
            found = re.match(r"(\s*)([^.]*\.)", text)
            if found is None:
                await next_action()
                continue
            gap, sentence = found[1], found[2]
            text = text[found.end() :]
            for variant in range(len(variants)):
                yield script.begin(index, variant=variant, gap=gap, size=len(sentence.encode()))
                while "hang" in sentence and index not in cancelled:
                    await next_action()
                if index in cancelled:
                    yield script.end(index, variant=variant, reason=CANCELLED)
                    continue
                yield script.piece(index, sentence.upper(), variant=variant)
                status = FAILED if "fail" in sentence else None
                yield script.end(index, variant=variant, status=status)
            index += 1
        yield script.finished(gap=text)

    async def _compose(self, requests, context):
        start = (await anext(requests)).start
        self.starts.append(start)
        script = Script(response=document_pb2.ComposeResponse)
        yield script.started()
        sections = start.sections or [document_pb2.Section(title="Drafted")]
        yield script.add(
            outline=document_pb2.Outline(
                sections=sections, is_drafted=not start.sections, is_parallel=True
            )
        )
        for index, section in enumerate(sections):
            yield script.begin(index, gap="\n\n" if index else "", title=section.title)
            yield script.piece(index, f"About {section.title}.")
            yield script.end(index)
        yield script.finished()


@asynccontextmanager
async def serving_documents() -> AsyncIterator[FakeDocuments]:
    """Serve a fake on loopback."""
    fake = FakeDocuments()
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()
