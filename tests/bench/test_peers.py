"""The comparison with peers reads streams, ratios and absences rightly."""

import asyncio
import json

import pytest
from bench.peers.completions import completions, is_healthy
from bench.peers.figures import figures, ratios, table
from bench.peers.peer import Arrival, Turn, stream_of
from hypothesis import given
from hypothesis import strategies as st

TEXT = "It rains today. The owls stay home."


def _turn(seconds: float, first: float) -> Turn:
    arrivals = [Arrival(first + index / 100, part) for index, part in enumerate(TEXT)]
    return Turn(seconds=seconds, streams=(stream_of(len(TEXT), arrivals),))


@given(st.lists(st.integers(1, len(TEXT) - 1), unique=True).map(sorted))
def test_the_first_sentence_is_there_when_what_follows_proves_its_end(cuts: list[int]) -> None:
    """However the text is cut into arrivals, and no text is waited for twice."""
    parts = [TEXT[a:b] for a, b in zip([0, *cuts], [*cuts, len(TEXT)], strict=True)]
    stream = stream_of(9, [Arrival(float(i), part) for i, part in enumerate(["", *parts])])
    assert stream.first_text == 1.0
    assert sum(stream.gaps) == len(parts) - 1
    received = "".join(parts[: int(stream.first_sentence or 0)])
    assert received.startswith("It rains today.")


def test_a_stream_without_text_is_an_error() -> None:
    """It must not count as a fast one."""
    with pytest.raises(RuntimeError, match="without text"):
        stream_of(3, [Arrival(0.1, "")])


def test_more_than_one_is_better_for_us() -> None:
    """For rates and for times alike, against the best rival of each figure."""
    sides = {
        "ours": figures([_turn(1.0, 0.1)]),
        "quick": figures([_turn(4.0, 0.2)]),
        "strong": figures([_turn(2.0, 0.4)]),
    }
    found = ratios(sides, ["quick", "strong"], ["ours"])["ours"]
    assert found["rate"] == 2.0
    assert found["first_text_p99"] == 2.0
    assert found["first_sentence_p50"] > 1


def test_an_absent_side_is_a_row_with_its_reason() -> None:
    """Nothing is left out in silence."""
    sides = {"ours": figures([_turn(1.0, 0.1)])}
    streams = {"8": {"sides": sides, "ratios": {}}}
    lines = table(
        {"sides": {"ours": "", "gone": ""}, "absent": {"gone": "no wheel"}, "streams": streams}
    ).splitlines()
    assert "| gone | absent: no wheel |" in lines[-1]
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
async def test_an_event_stream_is_read_however_it_is_chunked(size: int) -> None:
    """Chunks may cut lines and characters."""
    texts = ["It ", "rains töday. ", "Owls stay."]
    events: list[dict[str, object]] = [{"choices": [{"text": text}]} for text in texts]
    events.append({"choices": [], "usage": {"completion_tokens": 3}})
    body = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)
    body_bytes = (body + "data: [DONE]\n\n").encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if b"POST" in head:
            for start in range(0, len(body_bytes), size):
                part = body_bytes[start : start + size]
                writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await is_healthy(port)
        turn = await completions(port, [[1, 2], [3]], 3, {"model": "any"})
    assert [stream.tokens for stream in turn.streams] == [3, 3]
    assert all(stream.first_sentence is not None for stream in turn.streams)
    assert not await is_healthy(port)
