"""HTTP/2 by hand, for what gRPC's own clients never do or never show.

Header blocks are written as literals that are never indexed (RFC 7541, 6.2.2); those that come are
kept as bytes. Nobody but the test reads, so a stream's window stays as small as it was opened.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4

HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 3, 4
MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 5, 6

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class RawConnection:
    """A connection that sends what it is told to and answers pings alone, when it is read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, kind: int, stream: int = 0, payload: bytes = b"", flags: int = 0) -> None:
        """Send a frame."""
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
        self._writer.write(head + payload)

    def call(self, stream: int, method: str, message: bytes, *metadata: tuple[str, str]) -> None:
        """Begin a call on a stream of an odd number, with one message and nothing after it."""
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *metadata,
        ]
        block = b"".join(b"\x10" + _text(name) + _text(value) for name, value in headers)
        self.send(HEADERS, stream, block, END_HEADERS)
        self.send(DATA, stream, b"\0" + len(message).to_bytes(4, "big") + message, END_STREAM)

    def widen(self, stream: int, size: int) -> None:
        """Let so many more bytes come over a stream, or over the connection if it is 0."""
        self.send(WINDOW_UPDATE, stream, size.to_bytes(4, "big"))

    async def receive(self, kind: int | None = None, stream: int | None = None) -> Frame:
        """Return the next frame, of a kind or of a stream if one is named; others are dropped."""
        while True:
            head = await self._reader.readexactly(9)
            frame = Frame(
                head[3],
                head[4],
                int.from_bytes(head[5:], "big"),
                await self._reader.readexactly(int.from_bytes(head[:3], "big")),
            )
            if frame.kind == PING and not frame.flags & ACK:
                self.send(
                    PING, payload=frame.payload, flags=ACK
                )  # or the server doubts that we live
            if kind in {None, frame.kind} and stream in {None, frame.stream}:
                return frame

    async def receive_each(self, streams: Iterable[int], flag: int) -> dict[int, Frame]:
        """Return the first frame of each stream that bears a flag, in whatever order they come."""
        wanted, found = set(streams), {}
        while wanted:
            frame = await self.receive()
            if frame.stream in wanted and frame.flags & flag:
                wanted.discard(frame.stream)
                found[frame.stream] = frame
        return found

    async def ping(self) -> None:
        """Return once the server has read all that was sent before."""
        self.send(PING, payload=b"are you?")
        while not ((frame := await self.receive(PING)).flags & ACK):
            pass
        if frame.payload != b"are you?":
            raise AssertionError("an answer to a ping that was not sent")

    async def wait_closed(self) -> None:
        """Read until the server closes the connection."""
        while await self._reader.read(65_536):
            pass


@asynccontextmanager
async def connected(address: str, *settings: tuple[int, int]) -> AsyncIterator[RawConnection]:
    """Open a connection with these settings; close it when the block ends."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    connection = RawConnection(reader, writer)
    try:
        writer.write(_PREFACE)
        connection.send(SETTINGS, payload=b"".join(struct.pack(">HI", *pair) for pair in settings))
        yield connection
    finally:
        writer.close()


def settings_of(frame: Frame) -> dict[int, int]:
    """Return the settings that a frame announces."""
    return dict(struct.iter_unpack(">HI", frame.payload))


def _text(text: str) -> bytes:
    """Write a string literal without Huffman's code (RFC 7541, 5.1 and 5.2)."""
    raw, length = text.encode(), len(text.encode())
    if length < 127:
        return bytes([length]) + raw
    head, rest = [127], length - 127
    while rest >= 128:
        head.append(rest % 128 + 128)
        rest //= 128
    return bytes([*head, rest]) + raw
