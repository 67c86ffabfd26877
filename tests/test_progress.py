"""Progress: one line that is written over on a terminal, one log line for each stage elsewhere."""

import io

import structlog

from hocket.server.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(text: str) -> list[str]:
    """Return the lines that a terminal shows in the end."""
    return [line.rpartition("\r\x1b[2K")[2] for line in text.split("\n")]


def test_a_terminal_shows_the_newest_stage_on_one_line():
    """Each stage takes the place of the one before."""
    terminal = Terminal()
    progress = Progress(terminal)
    progress.report("fetching", 0.5)
    progress.report("loading")
    assert shown(terminal.getvalue()) == ["loading ..."]


def test_what_is_announced_stays():
    """The last word is a line of its own and nothing else is left."""
    terminal = Terminal()
    progress = Progress(terminal)
    progress.report("loading", 0.25)
    progress.announce("serving")
    progress.close()
    assert shown(terminal.getvalue()) == ["serving", ""]


def test_closing_leaves_nothing_half_written():
    """After a failed start the error stands on a clean line."""
    terminal = Terminal()
    progress = Progress(terminal)
    progress.report("loading")
    progress.close()
    progress.close()
    assert shown(terminal.getvalue()) == [""]


def test_a_terminal_is_not_flooded():
    """A thousand reports within a moment are drawn once; the end of a stage always is."""
    terminal, clock = Terminal(), Clock()
    progress = Progress(terminal, clock=clock)
    for part in range(1000):
        progress.report("fetching", part / 1000)
    assert terminal.getvalue().count("fetching") == 1
    progress.report("fetching", 1.0)
    assert shown(terminal.getvalue()) == ["fetching 100 % ..."]
    clock.now += 1
    progress.report("fetching", 2.0)
    assert shown(terminal.getvalue()) == ["fetching 100 % ..."]


def test_elsewhere_each_stage_is_one_log_line():
    """A log is not a place for percentages."""
    file = io.StringIO()
    with structlog.testing.capture_logs() as lines:
        progress = Progress(file)
        for part in range(10):
            progress.report("fetching", part / 10)
        progress.report("loading")
        progress.announce("serving")
        progress.close()
    assert [line["stage"] for line in lines] == ["fetching", "loading"]
    assert file.getvalue() == ""


def test_a_terminal_that_went_away_is_left_alone():
    """A closed terminal does not stop the server from starting."""

    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise OSError

    progress = Progress(Gone())
    progress.report("loading")
    progress.announce("serving")
    progress.close()
