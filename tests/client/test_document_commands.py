"""`hocket transform` and `hocket compose`, run in process against a fake server."""

import asyncio
import io
import json
import re
import signal
import subprocess
import sys

import grpc
import pytest

from client.fake_documents import Script, serving_documents
from client.fake_server import rich_status
from hocket.client import FinishReason
from hocket.client.__main__ import main
from hocket.v1 import document_pb2

TEXT = "One. Two.\r\n\r\nThree.\n"


@pytest.fixture
async def server():
    """A fake document service on loopback."""
    async with serving_documents() as fake:
        yield fake


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "document.txt"
    path.write_bytes(TEXT.encode())
    return str(path)


@pytest.fixture
def run(server, capsysbinary, monkeypatch):
    """Runs `hocket` with arguments and standard input; gives code, output, error lines."""

    async def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = await asyncio.to_thread(main, [*arguments, "--address", server.address])
        captured = capsysbinary.readouterr()
        assert b"Traceback" not in captured.err
        return code, captured.out.decode(), captured.err.decode().splitlines()

    return run


async def test_the_target_is_written_byte_for_byte(run, document) -> None:
    """With `--text`: nothing but the target, line ends as they were."""
    code, out, err = await run("transform", document, "--instruction", "Shout.", "--text")
    assert (code, out) == (0, "ONE. TWO.\r\n\r\nTHREE.\n")
    assert re.fullmatch(
        r"3 segments, 15 tokens in .* s, .* tokens/s, first text after .* s", err[0]
    )


async def test_a_document_comes_from_standard_input(server, run) -> None:
    """However its characters are cut by the reading."""
    text = ("ä" * 999 + ". ") * 80
    code, out, _ = await run(
        "transform", "-", "--rewrite", "--text", "--quiet", stdin=text.encode()
    )
    assert (code, out) == (0, text.upper())


async def test_json_lines_tell_every_event(run, document) -> None:
    """The default when nobody is looking."""
    code, out, _ = await run("transform", document, "--translate-to", "pt", "es")
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds == [
        "started",
        *["segment_started", "piece", "segment_finished"] * 6,
        "finished",
    ]
    assert len({event["request_id"] for event in events}) == 1
    assert events[0]["variants"] == ["pt", "es"]
    begun = [event for event in events if event["event"] == "segment_started"]
    assert [(event["segment"], event["variant"]) for event in begun[:3]] == [(0, 0), (0, 1), (1, 0)]
    assert begun[2]["gap"] == " "
    assert begun[2]["source"] == {"start_byte": 5, "end_byte": 9}
    assert events[2]["text"] == "ONE."
    assert events[3]["finish_reason"] == "end_of_text"
    assert events[3]["error"] is None


async def test_a_failed_segment_is_told_and_disturbs_no_other(run) -> None:
    """Exit code 3; as JSON and beside the text."""
    arguments = ("transform", "-", "--instruction", "x")
    code, out, _ = await run(*arguments, "--quiet", stdin=b"One. I fail. Two.")
    ends = [e for e in map(json.loads, out.splitlines()) if e["event"] == "segment_finished"]
    assert code == 3
    assert [end["error"] and end["error"]["reason"] for end in ends] == [
        None,
        "GENERATION_FAILED",
        None,
    ]
    code, out, err = await run(*arguments, "--text", stdin=b"One. I fail. Two.")
    assert (code, out) == (3, "ONE. I FAIL. TWO.")
    assert err[0] == "hocket: [2] GENERATION_FAILED: no luck"
    assert err[1].startswith("2 segments, 1 failed, ")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--template", "Say {segment}"], {"template": "Say {segment}"}),
        (["--rewrite"], {"rewrite": document_pb2.Rewrite()}),
        (["--rewrite", "plain"], {"rewrite": document_pb2.Rewrite(style="plain")}),
        (["--summarize", "2"], {"summarize": document_pb2.Summarize(max_sentences=2)}),
        (["--classify", "good, bad"], {"classify": document_pb2.Classify(labels=["good", "bad"])}),
        (
            ["--translate-to", "pt", "--source-language", "en"],
            {"translate": document_pb2.Translate(target_languages=["pt"], source_language="en")},
        ),
        (["--rewrite", "--paragraphs"], {"segmentation": document_pb2.SEGMENTATION_PARAGRAPHS}),
        (["--rewrite", "--context", "2", "--window", "3"], {"context_segments": 2, "window": 3}),
        (["--rewrite", "--no-protect", "--no-cache"], {"protect": False, "cache": False}),
        (["--rewrite", "--keep", "a", "--keep", "b"], {"protected_terms": ["a", "b"]}),
        (
            ["--rewrite", "--order", "as-completed"],
            {"order": document_pb2.SEGMENT_ORDER_AS_COMPLETED},
        ),
        (["--rewrite", "--model", "m", "--priority", "3"], {"model": "m", "priority": 3}),
    ],
)
async def test_flags_become_the_request(server, run, document, flags, expected) -> None:
    """What is not said is left to the server."""
    await run("transform", document, *flags, "--quiet")
    (start,) = server.starts
    assert {name: getattr(start, name) for name in expected} == expected
    if "--no-protect" not in flags:
        assert not start.HasField("protect")
        assert not start.HasField("cache")
    if "--order" not in flags:
        assert start.order == document_pb2.SEGMENT_ORDER_UNSPECIFIED


async def test_targets_are_saved(run, document, tmp_path) -> None:
    """One as the file that was named, several beside it under their names."""
    target = tmp_path / "target.txt"
    await run("transform", document, "--rewrite", "--output", str(target))
    assert target.read_bytes() == TEXT.upper().encode()
    languages = ["--translate-to", "pt", "es/419"]
    _, out, _ = await run("transform", document, *languages, "--text", "--output", str(target))
    for name in ("target.pt.txt", "target.es_419.txt"):
        assert (tmp_path / name).read_bytes() == TEXT.upper().encode()
    assert out == f"[pt]\n{TEXT.upper()}[es/419]\n{TEXT.upper()}"


async def test_another_order_gives_the_same_text(server, run, document) -> None:
    """What comes out of order is written at the end."""
    script = Script()
    script.started()
    script.begin(0, size=4)
    script.begin(1, gap=" ", size=4)
    script.piece(1, "TWO.")
    script.end(1)
    script.piece(0, "ONE.")
    script.end(0)
    script.finished(gap="\n")
    server.answer(script.messages)
    arguments = ("transform", document, "--rewrite", "--order", "interleaved", "--text")
    code, out, _ = await run(*arguments)
    assert (code, out) == (0, "ONE. TWO.\n")


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        (("transform", "/nonexistent", "--rewrite"), b"", "cannot read /nonexistent"),
        (("transform", "/", "--rewrite"), b"", "cannot read /"),
        (("transform", "-", "--rewrite"), b"One. \xff", "standard input is not UTF-8"),
        (("transform", "-", "--rewrite"), b"One. \xc3", "standard input is not UTF-8"),
        (("transform", "-"), b"", "required"),
        (("transform", "-", "--rewrite", "--template", "x"), b"", "not allowed with"),
        (("transform", "-", "--instruction", "x", "--source-language", "en"), b"", "goes with"),
        (("transform", "-", "--rewrite", "--output", "/nonexistent/x"), b"", "cannot write"),
        (("transform", "-", "--rewrite", "--window", "-1"), b"", "range"),
        (("compose", "--task", "x"), b"", "required"),
        (("compose", "--task", "x", "--outline", "--section", "A"), b"", "not allowed with"),
        (("compose", "--task", "x", "--section", "A", "b", "c"), b"", "at most one instruction"),
    ],
)
async def test_a_wrong_use_is_told_in_one_line(run, arguments, stdin, told) -> None:
    """Exit code 2, and what is wrong."""
    code, _, err = await run(*arguments, stdin=stdin)
    assert code == 2
    assert told in err[-1]


async def test_a_refusal_is_told_in_one_line(server, run, document, tmp_path) -> None:
    """Exit code 3; nothing is saved over what was there."""
    target = tmp_path / "target.txt"
    target.write_text("mine")
    server.refuse(rich_status(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", message="no"))
    code, out, err = await run("transform", document, "--rewrite", "--output", str(target))
    assert (code, out, err) == (3, "", ["hocket: FIELD_INVALID: no"])
    assert target.read_text() == "mine"


async def test_what_came_before_a_failure_is_kept(server, run, document, tmp_path) -> None:
    """Shown, saved, and counted."""
    target = tmp_path / "target.txt"
    script = Script()
    script.started()
    script.whole(0, "ONE.")
    server.answer(script.messages)
    code, out, err = await run(
        "transform", document, "--rewrite", "--text", "--output", str(target)
    )
    assert (code, out, target.read_text()) == (4, "ONE.", "ONE.")
    assert err[0].startswith("hocket: broken off; so far: 1 segments, ")
    assert err[1] == "hocket: the stream ended before the document did"


async def test_an_interrupt_gives_what_is_done_and_says_so(server, tmp_path) -> None:
    """SIGINT: exit code 130, the server's handler is cancelled, the program leaves."""
    target = tmp_path / "target.txt"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hocket.client", "transform", "-", "--rewrite", "--text",
        "--output", str(target), "--address", server.address,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdin.write(b"One. I hang.")
    assert await process.stdout.readexactly(5) == b"ONE. "
    process.send_signal(signal.SIGINT)
    # Standard input stays open: whoever reads it must not keep the program.
    code = await process.wait()
    err = (await process.stderr.read()).decode().splitlines()
    assert code == 130
    assert len(err) == 1
    assert err[0].startswith("hocket: interrupted; so far: 1 segments, ")
    assert target.read_text().startswith("ONE.")
    await server.left.wait()
    process.stdin.close()


async def test_sections_are_composed(server, run) -> None:
    """Each under its title."""
    code, out, _ = await run(
        "compose", "--task", "-", "--section", "Bread", "--section", "Salt", "Be brief.",
        "--parallel", "never", "--join", "End.", "--text", stdin=b"Food",
    )  # fmt: skip
    assert (code, out) == (0, "## Bread\n\nAbout Bread.\n\n## Salt\n\nAbout Salt.\n")
    (start,) = server.starts
    assert (start.task, start.join) == ("Food", "End.")
    assert start.parallel == document_pb2.PARALLEL_NEVER
    assert [(s.title, s.instruction) for s in start.sections] == [
        ("Bread", ""),
        ("Salt", "Be brief."),
    ]


async def test_an_outline_is_drafted(server, run, tmp_path) -> None:
    """And told before its sections."""
    target = tmp_path / "target.md"
    code, out, _ = await run(
        "compose", "--task", "Food", "--outline", "--max-sections", "3", "--output", str(target)
    )
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events[:3]] == ["started", "outline", "segment_started"]
    assert events[1]["is_drafted"]
    assert server.starts[0].max_sections == 3
    assert target.read_text() == "## Drafted\n\nAbout Drafted.\n"


async def test_what_was_cut_off_is_counted(server, run, document) -> None:
    """A budget that was used up is no failure, and is said."""
    script = Script()
    script.started()
    script.whole(0, "ONE.")
    script.begin(1, gap=" ", size=4)
    script.end(1, reason=8)
    script.finished(is_partial=True)
    server.answer(script.messages)
    code, out, err = await run("transform", document, "--rewrite", "--time-budget", "1")
    assert code == 0
    ends = [e for e in map(json.loads, out.splitlines()) if e["event"] == "segment_finished"]
    assert ends[1]["finish_reason"] == FinishReason.TIME_BUDGET
    assert err[0].startswith("1 segments, 1 incomplete, ")
    assert err[0].endswith("cut off by the time budget")
