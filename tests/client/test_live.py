"""Documents on a terminal: what it shows in the end, and what it shows meanwhile."""

import asyncio
import io
import os
import re
import sys

import pytest

from client.fake_documents import FAILED, Script, serving_documents
from hocket.client.__main__ import main
from hocket.v1 import document_pb2


@pytest.fixture
async def server():
    """A fake document service on loopback."""
    async with serving_documents() as fake:
        yield fake


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "document.txt"
    path.write_text("One. Two. Three.")
    return str(path)


class Terminal(io.StringIO):
    """A terminal of 40 columns that remembers its lines, as far as the live view commands it."""

    def __init__(self, server, monkeypatch) -> None:
        super().__init__()
        self._server = server
        self._monkeypatch = monkeypatch

    async def run(self, *arguments: str) -> int:
        """Run `hocket` on it."""
        arguments = (*arguments, "--address", self._server.address)
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", self)
            patch.setattr("shutil.get_terminal_size", lambda **_: os.terminal_size((40, 10)))
            patch.setattr("hocket.client._commands.live._SECONDS_BETWEEN_DRAWINGS", 0)
            return await asyncio.to_thread(main, arguments)

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """Return what stands there in the end, without colours."""
        lines: list[str] = []
        for part in re.split(r"(\x1b\[\d+A\x1b\[J)", self.getvalue()):
            if up := re.fullmatch(r"\x1b\[(\d+)A\x1b\[J", part):
                del lines[len(lines) - int(up[1]) :]
            else:
                lines += re.sub(r"\x1b\[\d*m", "", part).splitlines()
        return lines


@pytest.fixture
def terminal(server, monkeypatch):
    return Terminal(server, monkeypatch)


async def test_a_terminal_shows_what_is_being_written(server, document, terminal, capsys) -> None:
    """Segments fill up at once; what is done stands there in the order of the document."""
    script = Script()
    script.started()
    gaps = ["", " ", " "]
    for index, gap in enumerate(gaps):
        script.begin(index, gap=gap, size=4)
    script.piece(1, "second, ")
    script.piece(2, "third\x1b[31m")
    script.end(2)
    script.piece(1, "x" * 50 + " newest")
    script.piece(0, "first\nline")
    seen = script.messages[:]
    script.end(0)
    script.end(1, status=FAILED)
    script.finished()
    shown: list[list[str]] = []

    async def behave(requests, context):
        server.starts.append((await anext(requests)).start)
        for message in seen:
            yield message
        # What is drawn next shows that all before it was.
        while "first" not in terminal.getvalue():
            await asyncio.sleep(0)
        shown.append(terminal.lines())
        for message in script.messages[len(seen) :]:
            yield message

    server.behaviours.append(behave)
    code = await terminal.run("transform", document, "--rewrite")
    assert code == 3
    (start,) = server.starts
    assert start.order == document_pb2.SEGMENT_ORDER_INTERLEAVED
    *rows, status = shown[0]
    assert rows == ["[1]   .first line", "[2]   ." + "x" * 25 + " newest", "[3]   =third[31m"]
    assert status.startswith("1 done, 2 in progress, 5 tokens in ")
    assert all(len(line) < 40 for line in shown[0])
    assert terminal.lines() == [
        "[1]    first",
        "       line",
        "[2]    second, " + "x" * 50 + " newest",
        "       failed: GENERATION_FAILED: no luck",
        "[3]    third[31m",
    ]
    assert capsys.readouterr().err.startswith("2 segments, 1 failed, ")


async def test_a_terminal_shows_more_than_it_has_room_for(server, document, terminal) -> None:
    """The first in progress, and how many there are beside them; wide characters count twice."""
    script = Script(["pt", "es"])
    script.started()
    for index in range(10):
        for variant in range(2):
            script.begin(index, variant=variant, size=4)
    script.piece(0, "長" * 40)
    server.answer(script.messages)
    assert await terminal.run("transform", document, "--rewrite", "--quiet") == 4
    written = terminal.getvalue()
    assert "and 14 more" in written
    assert "[1 pt].長" in written
    assert "長" * 16 in written
    assert terminal.lines().count("       not finished") == 20


async def test_a_composed_text_on_a_terminal(server, terminal) -> None:
    """The outline first, then each section under its title."""
    assert await terminal.run("compose", "--task", "Food", "--outline", "--quiet") == 0
    assert terminal.lines() == [
        "Drafted sections, written in parallel:",
        "  1. Drafted",
        "",
        "Drafted",
        "[1]    About Drafted.",
    ]


async def test_text_on_a_terminal_cannot_command_it(server, document, terminal) -> None:
    """Control characters are left out there, and the line ends."""
    script = Script()
    script.started()
    script.whole(0, "a\x1b[31m\x07b")
    script.finished()
    server.answer(script.messages)
    assert await terminal.run("transform", document, "--rewrite", "--text") == 0
    assert terminal.getvalue() == "a[31mb\n"
