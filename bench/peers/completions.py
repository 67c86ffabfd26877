"""A client for the completions API as vLLM and llama.cpp serve it, over plain sockets.

Small on purpose: while a side computes, the client takes only the time of each line that comes;
lines are read as JSON when all streams have ended.
"""

import asyncio
import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.peers.peer import Arrival, Stream, Turn, stream_of

_DONE = b"data: [DONE]"
_LINE_BYTES = 1 << 22


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


def free_port() -> int:
    """Return a TCP port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def is_healthy(port: int) -> bool:
    """Whether `GET /health` of the loopback's port answers 200."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status = await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()
    return b" 200 " in status


async def completions(
    port: int, prompts: Sequence[Sequence[int]], new_tokens: int, options: Mapping[str, object]
) -> Turn:
    """Send all prompts at once, each over a connection that is open already, and read all streams.

    Args:
        port: Of the loopback.
        prompts: Token ids.
        new_tokens: How many each stream writes.
        options: What the server wants beside, such as how to go on past end tokens.

    Raises:
        RuntimeError: An answer is an error, or ends before its time.
    """
    connections = [
        _Connection(*await asyncio.open_connection("127.0.0.1", port, limit=_LINE_BYTES))
        for _ in prompts
    ]
    requests = [_request(prompt, new_tokens, options) for prompt in prompts]
    begun = time.perf_counter()
    try:
        answers = await asyncio.gather(
            *(
                _lines(connection, request, begun)
                for connection, request in zip(connections, requests, strict=True)
            )
        )
        seconds = time.perf_counter() - begun
    finally:
        for connection in connections:
            connection.writer.close()
    return Turn(seconds=seconds, streams=tuple(map(_stream, answers)))


def _request(prompt: Sequence[int], new_tokens: int, options: Mapping[str, object]) -> bytes:
    body = json.dumps(
        {
            "prompt": list(prompt),
            "max_tokens": new_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            **options,
        }
    ).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _lines(
    connection: _Connection, request: bytes, begun: float
) -> list[tuple[float, bytes]]:
    """Return the lines of an event stream, each with the seconds when it was whole."""
    reader = connection.reader
    connection.writer.write(request)
    status = await reader.readline()
    while await reader.readline() != b"\r\n":
        pass
    if b" 200 " not in status:
        raise RuntimeError(f"{status!r}: {(await reader.read(1000))!r}")
    lines: list[tuple[float, bytes]] = []
    rest = b""
    while size := int(await reader.readline() or b"0", 16):
        whole, _, rest = (rest + await reader.readexactly(size)).rpartition(b"\n")
        await reader.readexactly(2)  # the line end that closes a chunk
        now = time.perf_counter() - begun
        lines += [(now, line) for line in whole.split(b"\n") if line.strip()]
        if lines and lines[-1][1].startswith(_DONE):
            return lines
    raise RuntimeError("a stream ended without [DONE]")


def _stream(lines: Sequence[tuple[float, bytes]]) -> Stream:
    arrivals: list[Arrival] = []
    tokens = 0
    for seconds, line in lines:
        if not line.startswith(b"data: ") or line.startswith(_DONE):
            continue
        event = json.loads(line.removeprefix(b"data: "))
        if "error" in event:
            raise RuntimeError(str(event["error"]))
        arrivals += [Arrival(seconds, choice["text"]) for choice in event["choices"]]
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
    return stream_of(tokens, arrivals)
