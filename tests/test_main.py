"""`hocket serve` as a function: arguments in, one exit code out, and clear lines on the way."""

import functools
import gc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import tomllib

import pytest

from hocket.client.__main__ import main as hocket
from hocket.server import __main__ as process
from hocket.server.app import App
from hocket.server.errors import StartupError
from hocket.server.testing.serving import ScriptedModel

QUICK = (
    "--address", "127.0.0.1:0", "--set", "metrics.enabled=false", "--set", "drain.delay_seconds=0",
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """Variables of whoever runs the tests do not count, and signals come back to them."""
    for name in set(os.environ):  # noqa: TID251 - a test that clears it
        if name.startswith(("HOCKET_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail(f"left at once, with {code}"))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    gc.unfreeze()


@pytest.fixture
def serve(monkeypatch):
    """Runs the command with a model that `load` returns or fails to; once it serves, `then`."""

    def run(load, *arguments: str, then=lambda: None) -> int:
        class ScriptedApp(App):
            def _announce(self, model) -> None:
                super()._announce(model)
                then()

        app = functools.partial(ScriptedApp, load=lambda *_: load())
        monkeypatch.setattr("hocket.server.app.App", app)
        return process.serve([*QUICK, *arguments])

    return run


def signalled(number: signal.Signals):
    """Return what sends this process a signal."""
    return lambda: os.kill(os.getpid(), number)


def told(capfd) -> list[str]:
    """Return the lines on stderr that are for people."""
    lines = capfd.readouterr().err.splitlines()
    return [line for line in lines if not line.startswith("{")]


def test_what_was_loaded_is_left_to_itself_once_the_server_serves(serve):
    """No collection of garbage walks through it again."""
    frozen: list[int] = []

    def note() -> None:
        frozen.append(gc.get_freeze_count())
        os.kill(os.getpid(), signal.SIGINT)

    assert gc.get_freeze_count() == 0
    assert serve(ScriptedModel, then=note) == 0
    assert frozen[0] > 10_000


@pytest.mark.parametrize(
    ("number", "delay"), [(signal.SIGTERM, "0"), (signal.SIGINT, "0"), (signal.SIGINT, "3600")]
)
def test_a_signal_is_a_wish_to_leave(serve, number, delay):
    """Exit code 0; an interrupt from the keyboard does not wait for load balancers."""
    delayed = ("--set", f"drain.delay_seconds={delay}")
    assert serve(ScriptedModel, *delayed, then=signalled(number)) == 0


def test_a_second_signal_leaves_with_its_number(monkeypatch):
    """128 and the number, as shells have it, without anything else being waited for."""
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    for number in (signal.SIGTERM, signal.SIGINT):
        process._leave_at_once(number, None)
    assert left == [143, 130]


@pytest.mark.parametrize("code", [1, 2, 7])
def test_what_prevents_a_start_is_a_line_and_its_code(serve, capfd, code):
    """Every line of the message has the command's name in front; nothing else is for people."""

    def load():
        raise StartupError("no such weights\ntry others", exit_code=code)

    assert serve(load) == code
    assert told(capfd) == ["hocket serve: no such weights", "hocket serve: try others"]


def test_an_engine_that_fails_is_exit_code_1_and_one_event(serve, capfd):
    """The traceback stands in the log, in one JSON line."""

    def load():
        raise OSError("the disk is gone")

    assert serve(load) == 1
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (critical,) = [line for line in lines if line["level"] == "critical"]
    assert critical["event"] == "the engine failed"
    assert "the disk is gone" in critical["exception"]


def test_quiet_says_nothing_that_is_well(serve, capfd):
    """A server that came and went in peace leaves no line; one that failed leaves its own."""
    assert serve(ScriptedModel, "--quiet", then=signalled(signal.SIGTERM)) == 0
    assert capfd.readouterr().err == ""


def test_a_thread_that_is_stuck_is_not_waited_for(serve, monkeypatch):
    """Python would join it for ever; the process leaves with the same code."""
    may_end, left = threading.Event(), []

    def load() -> None:
        signalled(signal.SIGTERM)()
        assert may_end.wait(20)

    monkeypatch.setattr("hocket.server.app._STOP_SECONDS", 0)
    monkeypatch.setattr(os, "_exit", left.append)
    assert serve(load) == 0
    assert left == [0]
    may_end.set()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--mod", "x"], "unrecognized arguments: --mod x"),  # no flag is shortened
        (["model"], "unrecognized arguments: model"),
        (["--model"], "--model: expected one argument"),
        (["--print-config=1"], "--print-config: ignored explicit argument"),
    ],
)
def test_arguments_that_are_unknown_are_exit_code_2(capfd, arguments, words):
    """Nothing is loaded or listened on for a command that was not understood."""
    with pytest.raises(SystemExit) as caught:
        process.serve(arguments)
    assert caught.value.code == 2
    assert words in capfd.readouterr().err


def test_settings_that_are_wrong_are_exit_code_2_and_a_line_each(capfd, monkeypatch, tmp_path):
    """From every source at once; even `--print-config` does not print what cannot be."""
    monkeypatch.setenv("HOCKET_ENGIN__MAX_NUM_SEQS", "1")
    absent = str(tmp_path / "absent.toml")
    arguments = ["--print-config", "--config", absent, "--set", "log.level=loud", "--set", "x"]
    assert process.serve(arguments) == 2
    lines = told(capfd)
    assert [line.split(": ")[1] for line in lines] == [
        absent, "HOCKET_ENGIN__MAX_NUM_SEQS", "--set x", "--set log.level",
    ]  # fmt: skip
    assert all(line.startswith("hocket serve: ") for line in lines)


def test_an_install_without_the_server_says_what_is_missing(capfd, monkeypatch):
    """In one line, with the command that brings it, before anything is imported."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    assert process.serve(["--print-config"]) == 2
    (line,) = told(capfd)
    assert line.startswith("hocket serve: torch not found; ")
    assert 'pip install "hocket[server]"' in line


def test_the_settings_in_effect_are_printed_with_their_sources(capfd, monkeypatch, tmp_path):
    """As TOML on stdout, and nothing is served; by way of the client's command as well."""
    file = tmp_path / "hocket.toml"
    file.write_text("[engine]\nmax_num_seqs = 3\nmailbox_kib = 5\n")
    monkeypatch.setenv("HOCKET_ENGINE__MAILBOX_KIB", "6")
    arguments = ["--print-config", "--config", str(file), "--model", "gpt2", "--quiet"]
    arguments += ["--quantization", "none"]
    assert process.serve(arguments) == 0
    printed = capfd.readouterr()
    document = tomllib.loads(printed.out)
    assert document["engine"]["max_num_seqs"] == 3
    assert document["model"]["model"] == "gpt2"
    assert printed.err == ""
    for line in (
        f"max_num_seqs = 3  # {file}",
        "mailbox_kib = 6  # HOCKET_ENGINE__MAILBOX_KIB",
        'model = "gpt2"  # --model',
        'level = "warning"  # --quiet',
        'quantization = "none"  # --quantization',
        'address = "127.0.0.1:50051"  # default',
    ):
        assert line in printed.out.splitlines()
    assert hocket(["serve", *arguments]) == 0
    assert capfd.readouterr().out == printed.out


def test_no_secret_is_printed(capfd, tmp_path):
    """Credentials stand in files; only the files' names are settings."""
    secrets = {"access.keys_file": "0123456789abcdef" * 4, "listener.tls_key": "PRIVATE KEY"}
    arguments = []
    for key, secret in secrets.items():
        (tmp_path / key).write_text(secret)
        arguments += ["--set", f"{key}={tmp_path / key}"]
    assert process.serve(["--print-config", *arguments]) == 0
    printed = capfd.readouterr().out
    for key, secret in secrets.items():
        assert str(tmp_path / key) in printed
        assert secret not in printed


@pytest.mark.slow
def test_a_path_of_any_bytes_is_printed_and_torch_is_not_needed_for_it():
    """A name that is no text, and a stdout that knows ASCII alone, do not end in a traceback."""
    code = (
        "import sys; from hocket.server.__main__ import serve;"
        "code = serve(['--print-config', '--set', 'model.model_dir=/é\\udcff']);"
        "assert 'torch' not in sys.modules and 'grpc' in sys.modules; sys.exit(code)"
    )
    environment = {"PYTHONIOENCODING": "ascii:strict"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, timeout=50, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b'model_dir = "/\\xe9\\udcff"' in ended.stdout
