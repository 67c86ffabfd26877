"""Documents by the generated stubs: what is sent, and what came back put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from hocket.server.app import App
from hocket.server.testing.scripted_runner import ScriptedRunner
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from hocket.v1 import document_pb2, document_pb2_grpc
from service.raw_calls import End, end_of

Request = document_pb2.TransformRequest
ORDERS = {
    "in_order": document_pb2.SEGMENT_ORDER_IN_ORDER,
    "as_completed": document_pb2.SEGMENT_ORDER_AS_COMPLETED,
    "interleaved": document_pb2.SEGMENT_ORDER_INTERLEAVED,
}


def start(**fields) -> Request:
    if not fields.keys() & {"translate", "classify", "rewrite", "summarize", "template"}:
        fields.setdefault("instruction", "Do: ")
    return Request(start=document_pb2.TransformStart(**fields))


def parts(*texts: str) -> list[Request]:
    return [Request(text=text) for text in texts]


def given(text: str, gap: str = "") -> Request:
    return Request(segment=document_pb2.GivenSegment(text=text, gap=gap))


def cancel(segment: int, **fields) -> Request:
    return Request(cancel=document_pb2.CancelSegment(segment=segment, **fields))


def call_of(channel: grpc.aio.Channel, **kwargs) -> grpc.aio.StreamStreamCall:
    return document_pb2_grpc.DocumentServiceStub(channel).Transform(**kwargs)


async def send(call, *requests: Request, ends: bool = True) -> None:
    for request in requests:
        await call.write(request)
    if ends:
        await call.done_writing()


@dataclass
class Seen:
    """A document as its caller saw it; by (segment, variant)."""

    end: End
    gaps: dict = field(default_factory=dict)
    ranges: dict = field(default_factory=dict)
    texts: dict = field(default_factory=dict)
    ends: dict = field(default_factory=dict)
    events: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert [e.sequence for e in self.end.events] == list(range(len(self.end.events)))
        for event in self.end.events:
            kind = event.WhichOneof("event")
            message = getattr(event, kind)
            if kind in {"started", "finished"}:
                continue
            place = message.segment, message.variant
            self.events.setdefault(place, []).append(message)
            if kind == "segment_started":
                assert place not in self.texts
                self.gaps[place], self.texts[place] = message.gap, ""
                self.ranges[place] = message.source.start_byte, message.source.end_byte
            elif kind == "piece":
                assert place not in self.ends
                assert message.start_byte == len(self.texts[place].encode())
                self.texts[place] += message.text
            else:
                assert message.target_bytes == len(self.texts[place].encode())
                self.ends[place] = message

    @property
    def started(self) -> document_pb2.DocumentStarted:
        return self.end.events[0].started

    @property
    def finished(self) -> document_pb2.DocumentFinished:
        return self.end.events[-1].finished

    def check(self, source: str) -> None:
        """See that gaps and ranges give the source, and gaps and texts the targets."""
        raw, last = source.encode(), self.finished
        for variant in range(len(self.started.variants)):
            places = [(index, variant) for index in range(last.segments)]
            rebuilt, target = b"", b""
            for place in places:
                begin, end = self.ranges[place]
                rebuilt += self.gaps[place].encode()
                assert len(rebuilt) == begin
                rebuilt += raw[begin:end]
                target += self.gaps[place].encode()
                said = self.ends[place]
                if said.HasField("target"):
                    assert said.target.start_byte == len(target)
                    assert said.target.end_byte == len(target) + said.target_bytes
                target += self.texts[place].encode()
            assert raw == rebuilt + last.gap.encode()
            assert last.target_bytes[variant] == len(target + last.gap.encode())
        assert last.source_bytes == len(raw)


async def seen_of(call) -> Seen:
    return Seen(await end_of(call))


def answer(prompt: bytes) -> bytes:
    """Put what the prompt ends with into brackets."""
    return b"<" + prompt.rpartition(b"\n\n")[2] + b">"


@asynccontextmanager
async def calling(**sections) -> AsyncIterator[tuple[App, grpc.aio.Channel]]:
    """Serve a model that puts segments into brackets; give the app and a channel."""
    model = ScriptedModel(ScriptedRunner(answer))
    async with (
        asyncio.timeout(20),
        serving(model, loopback_settings(**sections)) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        yield app, channel


def is_quiet(app: App) -> bool:
    """Whether nothing of any call is left."""
    return not (app._driver.in_progress or app._admission.statistics().in_progress)
