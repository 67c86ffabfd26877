"""The log: lines that cannot be forged, from a thread that nobody waits for."""

import io
import json
import logging
import threading
import unicodedata

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.log import LogConfig, LogWriter, escape_controls, open_log


class StuckStream(io.StringIO):
    """A pipe whose reader does not read until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.released = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        self.released.wait(30)
        return super().write(text)


class BrokenStream(io.StringIO):
    """A pipe that is closed for the first write."""

    def __init__(self) -> None:
        super().__init__()
        self.failed = threading.Event()

    def write(self, text: str) -> int:
        if not self.failed.is_set():
            self.failed.set()
            raise BrokenPipeError
        return super().write(text)


def logged(config: LogConfig, *events: tuple[str, str, dict]) -> str:
    """Return what is written for some log calls."""
    stream = io.StringIO()
    log = open_log(config, stream=stream)
    try:
        for level, event, values in events:
            getattr(structlog.get_logger(), level)(event, **values)
    finally:
        log.close()
    return stream.getvalue()


def test_json_lines_hold_what_was_logged():
    """Each line is one object with the event, its values, the level and a time."""
    text = logged(LogConfig(), ("info", "request", {"method": "Generate", "total_ms": 3.5}))
    line = json.loads(text)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "request", "method": "Generate", "total_ms": 3.5, "level": "info"}


@given(st.text(), st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_no_value_can_forge_a_line_or_steer_a_terminal(event, value):
    """Whatever is logged, a call makes one line without a control character."""
    for style in ("json", "console"):
        text = logged(LogConfig(format=style), ("info", event, {"peer": value}))
        assert text.endswith("\n")
        line = text[:-1]
        assert [line] == line.splitlines()
        assert {"Cc", "Cs", "Zl", "Zp"}.isdisjoint(map(unicodedata.category, line))


@given(st.text())
def test_text_without_controls_is_left_alone(text):
    """Escaping changes only what it is for."""
    plain = "".join(each for each in text if each.isprintable())
    assert {"event": plain} == escape_controls(None, "info", {"event": plain})


def test_a_traceback_keeps_its_lines():
    """A traceback is for people; the text of the exception cannot steer their terminal."""
    with pytest.raises(ValueError, match="bad") as caught:
        int("bad\x1b[2Jthing")
    text = logged(LogConfig(format="console"), ("error", "boom", {"exc_info": caught.value}))
    assert "\n" in text.rstrip("\n")
    assert "\x1b" not in text
    assert "bad" in text


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_level_is_the_least_that_is_written(level):
    """Lines below the level are not written."""
    levels = ["debug", "info", "warning", "error"]
    text = logged(LogConfig(level=level), *((each, each, {}) for each in levels))
    assert levels[levels.index(level) :] == [
        json.loads(each)["event"] for each in text.splitlines()
    ]


def test_the_standard_librarys_loggers_come_the_same_way():
    """What grpc and asyncio have to say is a line like any other."""
    stream = io.StringIO()
    log = open_log(LogConfig(), stream=stream)
    try:
        logging.getLogger("grpc._cython").error("lost %s", "a\nb")
        logging.getLogger("asyncio").debug("chatter")
    finally:
        log.close()
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["logger"], line["level"]) == ("lost a\nb", "grpc._cython", "error")


def test_closing_gives_the_standard_librarys_loggers_back():
    """After the log is closed nothing of it is left behind."""
    before = [list(logging.getLogger(name).handlers) for name in ("grpc", "asyncio")]
    open_log(LogConfig(), stream=io.StringIO()).close()
    assert before == [list(logging.getLogger(name).handlers) for name in ("grpc", "asyncio")]
    assert not structlog.is_configured()


def test_a_full_pipe_holds_nobody_up():
    """With a reader that does not read, lines are dropped and their number is told later."""
    stream = StuckStream()
    writer = LogWriter(stream, max_lines=3, dropped_line="{} gone\n".format)
    writer.write("first\n")
    assert stream.reached.wait(30)
    for number in range(10):
        writer.write(f"{number}\n")
    assert writer.dropped == 7
    stream.released.set()
    assert writer.close(30)
    assert stream.getvalue() == "first\n0\n1\n2\n7 gone\n"


def test_long_lines_fill_the_pipe_as_many_do():
    """What waits is bounded in bytes, too; a line that fits passes where a longer one does not."""
    stream = StuckStream()
    writer = LogWriter(stream, max_bytes=10, dropped_line="{} gone\n".format)
    writer.write("first\n")
    assert stream.reached.wait(30)
    for text in ("1234567\n", "tüü\n", "x\n", "y" * 11 + "\n"):
        writer.write(text)
    assert writer.dropped == 2
    stream.released.set()
    assert writer.close(30)
    assert stream.getvalue() == "first\n1234567\nx\n2 gone\n"


def test_closing_does_not_wait_for_a_reader_for_ever():
    """Leaving is bounded even when nobody reads."""
    stream = StuckStream()
    writer = LogWriter(stream)
    writer.write("first\n")
    assert stream.reached.wait(30)
    assert not writer.close(0.01)
    stream.released.set()
    assert writer.close(30)


def test_a_broken_pipe_loses_lines_and_nothing_else():
    """A write that fails is no reason to stop, nor to raise."""
    stream = BrokenStream()
    writer = LogWriter(stream)
    writer.write("lost\n")
    assert stream.failed.wait(30)
    writer.write("kept\n")
    assert writer.close(30)
    assert stream.getvalue() == "kept\n"


def test_lines_of_many_threads_stay_whole():
    """Lines never mix, and each thread's stay in order."""
    stream = io.StringIO()
    log = open_log(LogConfig(), stream=stream)

    def work(name: int) -> None:
        for number in range(200):
            structlog.get_logger().info("line", name=name, number=number)

    threads = [threading.Thread(target=work, args=[name]) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    for name in range(4):
        assert list(range(200)) == [line["number"] for line in lines if line["name"] == name]
