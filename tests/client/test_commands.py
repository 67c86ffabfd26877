"""The command line, run in process against a fake server."""

import asyncio
import io
import json
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import grpc
import pytest

from client.fake_server import delta, rich_status, started, whole_answer
from hocket.client import __version__
from hocket.client.__main__ import main

FULL = rich_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", message="no room")


@pytest.fixture
def run(server, capsys, monkeypatch):
    """Runs `hocket` with arguments and standard input; gives code, output lines, error lines."""

    async def run(*arguments, stdin=""):
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        code = await asyncio.to_thread(main, [*arguments, "--address", server.address])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out.splitlines(), captured.err.splitlines()

    return run


async def test_one_prompt_is_answered_as_text(server, run) -> None:
    """A model with a chat template is asked in its own form; the text stands alone."""
    code, out, err = await run("generate", "Hello there", "--text", "--temperature", "0.5")
    assert (code, out) == (0, ["Hello there"])
    assert server.requests[0].chat.messages[0].content == "Hello there"
    assert server.requests[0].sampling.temperature == 0.5
    assert re.fullmatch(r"1 finished, 5 tokens in .* s, .* tokens/s, first text after .* s", err[0])


async def test_raw_continues_the_prompt(server, run) -> None:
    """`--raw` sends bare text, `--system` a conversation."""
    await run("generate", "--raw", "Once", "--quiet")
    await run("generate", "--system", "Be brief", "Hi", "--quiet")
    assert server.requests[0].prompt == "Once"
    assert [m.role for m in server.requests[1].chat.messages] == ["system", "user"]


async def test_many_prompts_are_labelled(run) -> None:
    """Each piece stands on its line, with number and time."""
    code, out, _ = await run("generate", "a", "b\nB", "c", "--text", "--raw")
    assert code == 0
    shown = {re.sub(r"\s+\d+\.\d\d s\s+", " ", line) for line in out}
    assert shown == {"[1] a", "[2] b", " " * 17 + "B", "[3] c"}


async def test_json_lines_tell_every_event(run) -> None:
    """The default when nobody is looking: one object for each event."""
    code, out, _ = await run("generate", "a", "b", "--raw")
    assert code == 0
    events = [json.loads(line) for line in out]
    for number, text in ((1, "a"), (2, "b")):
        own = [event for event in events if event["prompt"] == number]
        assert [event["event"] for event in own] == ["started", "sentence", "finished"]
        assert own[1]["text"] == text
        assert own[1]["kind"] == "sentence"
        assert own[2]["completions"][0]["finish_reason"] == "end_of_text"
        assert own[2]["usage"]["completion_tokens"] == 5
        assert len({event["request_id"] for event in own}) == 1


async def test_prompts_come_from_standard_input(server, run) -> None:
    """Lines are prompts; - is all of it as one."""
    await run("generate", "--raw", stdin="one\n\ntwo\n")
    assert [request.prompt for request in server.requests] == ["one", "two"]
    await run("generate", "--raw", "-", stdin="one\n\ntwo\n")
    assert server.requests[-1].prompt == "one\n\ntwo\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (("generate",), "", "no prompt"),
        (("generate", "-"), b"\xff", "not UTF-8 at byte 0"),
        (("generate", "--raw", "--system", "x", "y"), "", "--system"),
        (("generate", "--raw", "--seed", "-1", "x"), "", "out of range"),
        (("generate", "--raw", "\udcff"), "", "surrogates"),
        (("generate", "x", "--parallel", "0"), "", "at least 1"),
        (("health", "--token-file", "/nonexistent"), "", "cannot read"),
        (("health", "--cert-file", "/nonexistent"), "", "go together"),
        (("health", "--timeout", "0"), "", "above 0"),
        (("sing",), "", "invalid choice"),
    ],
)
async def test_a_wrong_use_is_told_in_one_line(run, arguments, stdin, message) -> None:
    """Exit code 2, and what is wrong."""
    code, out, err = await run(*arguments, stdin=stdin)
    assert code == 2
    assert out == []
    assert message in err[-1]


async def test_a_failed_prompt_is_told_and_disturbs_no_other(run, monkeypatch) -> None:
    """Exit code 3 when one was refused for good."""
    sleeps: list[float] = []
    monkeypatch.setattr("hocket.client._commands.generate.sleep", sleeps.append)
    many = [f"p{number}" for number in range(5)]
    code, out, err = await run("generate", "--raw", *many, "fail", "--parallel", "2", "--quiet")
    events = [json.loads(line) for line in out]
    assert code == 3
    assert sorted(e["prompt"] for e in events if e["event"] == "finished") == [1, 2, 3, 4, 5]
    (failed,) = [event for event in events if event["event"] == "failed"]
    assert set(sleeps) == {0.5}
    assert (failed["prompt"], failed["reason"], failed["retry_after"]) == (6, "QUEUE_FULL", 0.5)
    assert err == []


async def test_a_refusal_is_told_in_one_line(server, run) -> None:
    """Exit code 3, with the reason."""
    server.refuse_unary(FULL, pushback_ms=-1)
    code, _, err = await run("tokenize", "x")
    assert (code, err) == (3, ["hocket: QUEUE_FULL: no room"])


def test_an_absent_server_is_told_in_one_line(capsys) -> None:
    """Exit code 4."""
    assert main(["health", "--address", "127.0.0.1:1", "--timeout", "0.2"]) == 4
    assert capsys.readouterr().err.startswith("hocket: ")


async def test_tokens_are_shown(run) -> None:
    """As text, as JSON lines, as a number."""
    _, out, _ = await run("tokenize", "ab", "--text")
    assert [line.split() for line in out] == [["0", "0-1", "'a'"], ["1", "1-2", "'b'"]]
    _, out, _ = await run("tokenize", "-", stdin="ab")
    assert json.loads(out[1]) == {"id": 1, "start_byte": 1, "end_byte": 2, "text": "b"}
    assert (await run("tokenize", "abc", "--count", "--text"))[1] == ["3"]


async def test_sentences_are_shown(run) -> None:
    """The pieces join to the text."""
    _, out, _ = await run("split", "Ça va. Oui.", "--language", "fr")
    assert [json.loads(line)["text"] for line in out] == ["Ça va. ", "Oui."]
    _, out, _ = await run("split", "Ça va. Oui.", "--text")
    assert [line.split(maxsplit=2) for line in out] == [
        ["[1]", "sentence", "Ça va."],
        ["[2]", "tail", "Oui."],
    ]


async def test_health_is_an_exit_code(server, run) -> None:
    """0 serving, 1 not, and `--watch` shows each change."""
    assert (await run("health", "--text"))[:2] == (0, ["serving"])
    assert (await run("health", "--service", "nobody", "--text"))[:2] == (1, ["service_unknown"])
    server.health["x"] = [2, 1]
    code, out, _ = await run("health", "--watch", "--service", "x")
    assert code == 0
    assert [json.loads(line)["status"] for line in out] == ["not_serving", "serving"]


async def test_a_conversation_goes_on(server, run) -> None:
    """Each answer is a turn of the next request; /reset forgets, /system sets, /exit leaves."""
    for text in ("First.", "Second.", "Third."):
        server.answer(*whole_answer(text))
    lines = "Hi\n\nMore\n/reset\n/system Be brief\nAgain\n/nonsense\n/exit\nnever\n"
    code, out, err = await run("chat", stdin=lines)
    assert (code, out) == (0, ["First.", "Second.", "Third."])
    turns = [[(m.role, m.content) for m in r.chat.messages] for r in server.requests]
    assert turns == [
        [("user", "Hi")],
        [("user", "Hi"), ("assistant", "First."), ("user", "More")],
        [("system", "Be brief"), ("user", "Again")],
    ]
    assert err == ["hocket: unknown command /nonsense; try /help"]


async def test_control_characters_do_not_reach_the_terminal(server, run) -> None:
    """A model cannot command the terminal; JSON escapes them anyway."""
    _, out, _ = await run("generate", "--raw", "a\x1b[31m\x07b", "--text")
    assert out == ["a[31mb"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--version"], 0, f"hocket {__version__}"),
        (["help"], 0, "generate"),
        ([], 2, "generate"),
        (["generate", "--help"], 0, "Exit codes"),
        (["chat", "--help"], 0, "/reset"),
    ],
)
def test_help_and_version(capsys, arguments, code, text) -> None:
    """They tell what there is."""
    assert main(arguments) == code
    assert text in capsys.readouterr().out


def install_command(monkeypatch, load) -> None:
    """Let `serve` be the one command that other packages bring."""
    entry = SimpleNamespace(name="serve", load=load)

    def entry_points(*, group):
        return [entry] if group == "hocket.commands" else []

    monkeypatch.setattr("hocket.client.__main__.entry_points", entry_points)


def test_commands_from_elsewhere_get_their_arguments(monkeypatch) -> None:
    """An entry point is called with what follows its name."""
    seen = []

    install_command(monkeypatch, lambda: lambda argv: seen.append(list(argv)) or 7)
    assert main(["serve", "--help", "x"]) == 7
    assert seen == [["--help", "x"]]


def test_a_missing_extra_is_named(monkeypatch, capsys) -> None:
    """Exit code 2, and the line that installs it."""

    def load():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    install_command(monkeypatch, load)
    assert main(["serve"]) == 2
    assert main(["models"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert all('pip install "hocket[server]"' in line for line in errors)
    assert "torch" in errors[0]


async def _start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hocket.client", *arguments,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


async def test_an_interrupt_cancels_and_leaves_quietly(server) -> None:
    """SIGINT: exit code 130, nothing on standard error, and the server's handler is cancelled."""
    process = await _start("generate", "--raw", "hang", "--address", server.address)
    assert json.loads(await process.stdout.readline())["event"] == "started"
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")
    await server.left.wait()


async def test_a_closed_pipe_ends_quietly(server) -> None:
    """`hocket ... | head -1` complains about nothing."""
    script = (
        f"{sys.executable} -m hocket.client split 'One. Two.' --address {server.address}"
        " | true; echo ${PIPESTATUS[0]}"
    )
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert (out, err) == (b"141\n", b"")


async def test_an_interrupted_answer_counts_as_far_as_it_came(server, monkeypatch) -> None:
    """In a conversation Ctrl-C ends the answer, not the program."""
    from hocket.client import Client  # noqa: PLC0415 - beside what it is patched for
    from hocket.client._commands.chat import _Conversation  # noqa: PLC0415

    server.answer(started(), delta("half"), hang=True)

    def interrupting_print(*values, **options):
        if "half" in values:
            raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", interrupting_print)

    def talk():
        with Client(server.address) as client:
            conversation = _Conversation(client, {}, None)
            conversation.take("Hi")
            return conversation._turns

    turns = await asyncio.to_thread(talk)
    assert [(turn.role, turn.content) for turn in turns] == [("user", "Hi"), ("assistant", "half")]
    await server.left.wait()
