"""What the server says on stderr: lines for people on a terminal, JSON otherwise.

Any thread may log. A line goes into a queue, bounded in lines and bytes, that a thread of its own
(`hocket-log`) empties, so that a full pipe or a slow terminal never holds up the loop or the
engine; when the queue is full, lines are dropped and their number is told as soon as there is room
again. Control characters are escaped: no caller can forge a line or steer a terminal.
"""

import contextlib
import json
import logging
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal, TextIO

import structlog

_MOST_LINES = 10_000  # at one line for each request this is many seconds of traffic
_MOST_BYTES = 8 << 20
_CLOSE_SECONDS = 2.0  # how long leaving waits for a reader of stderr that has stopped reading

# C0, DEL, C1, line and paragraph separators, directional marks, lone surrogates.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_CONTROL_BUT_LAYOUT = re.compile(_CONTROL.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))
_ROUTED = ("asyncio", "grpc", "huggingface_hub", "py.warnings")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What is logged, and how it looks.

    Attributes:
        level: The least important kind of line that is written.
        format: `console` for people, `json` for programs; `auto`: console on a terminal, else json.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class LogWriter:
    """Hands lines to a thread that writes them. Never blocks its callers; any thread.

    Use `close` to write what is left.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        max_lines: int = _MOST_LINES,
        max_bytes: int = _MOST_BYTES,
        dropped_line: Callable[[int], str] = "{} log lines were dropped\n".format,
    ) -> None:
        self._stream = stream
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._dropped_line = dropped_line
        self._lines: deque[str] = deque()
        self._bytes = 0
        self._dropped = 0
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="hocket-log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Take text to be written; drop it if too much waits, or would."""
        size = len(text.encode(errors="surrogatepass"))
        with self._changed:
            has_room = len(self._lines) < self._max_lines and self._bytes + size <= self._max_bytes
            if self._is_closing or not has_room:
                self._dropped += 1
                return
            self._lines.append(text)
            self._bytes += size
            self._changed.notify_all()

    def flush(self) -> None:
        """Do nothing: the thread flushes what it wrote, and callers do not wait."""

    @property
    def dropped(self) -> int:
        """How many lines were dropped and not yet told of."""
        return self._dropped

    def close(self, seconds: float = _CLOSE_SECONDS) -> bool:
        """Write what is left, in bounded time; return whether all was written. Repeatable."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._is_closing)
                if not self._lines:
                    return
                text = "".join(self._lines)
                self._lines.clear()
                self._bytes = 0
                dropped, self._dropped = self._dropped, 0
            if dropped:
                text += self._dropped_line(dropped)
            # A closed pipe or a full disk loses lines; the next ones may fare better.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(text)
                self._stream.flush()


class _RoutedHandler(logging.Handler):
    """Sends records of the standard library's loggers down the same road."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):  # a log line must never raise
            structlog.get_logger(record.name).log(
                max(record.levelno, logging.DEBUG),
                record.getMessage(),
                logger=record.name,
                exc_info=record.exc_info,
            )


class Log:
    """The configured log; ends with `close`."""

    def __init__(self, writer: LogWriter, handler: logging.Handler) -> None:
        self._writer = writer
        self._handler = handler

    def close(self) -> None:
        """Write what is left and give the standard library's loggers back. Repeatable."""
        for name in _ROUTED:
            logging.getLogger(name).removeHandler(self._handler)
            logging.getLogger(name).propagate = True
        logging.captureWarnings(False)
        self._writer.close()
        structlog.reset_defaults()


def open_log(config: LogConfig, *, stream: TextIO | None = None) -> Log:
    """Configure structlog and what logs by the standard library; `stream` is stderr if None."""
    stream = sys.stderr if stream is None else stream
    with contextlib.suppress(AttributeError, ValueError):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    level = getattr(logging, config.level.upper())
    is_console = config.format == "console" or (config.format == "auto" and stream.isatty())
    writer = LogWriter(stream) if is_console else LogWriter(stream, dropped_line=_dropped_json)
    structlog.configure(
        processors=_console(stream) if is_console else _json(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=writer),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    handler = _RoutedHandler()
    logging.captureWarnings(True)
    for name in _ROUTED:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(max(level, logging.WARNING))
        logger.propagate = False
    return Log(writer, handler)


_Event = MutableMapping[str, Any]
_Processor = Callable[[Any, str, _Event], Any]


def _json() -> list[_Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(default=str),
        _escape_delete,
    ]


def _escape_delete(_logger: object, _method: str, line: Any) -> Any:  # noqa: ANN401 - structlog's type
    """Escape the one control character that JSON in ASCII leaves as it is."""
    return line.replace("\x7f", "\\u007f")


def _dropped_json(count: int) -> str:
    return json.dumps({"event": "log lines dropped", "count": count, "level": "warning"}) + "\n"


def _console(stream: TextIO) -> list[_Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        structlog.processors.format_exc_info,
        escape_controls,
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(),
            pad_event_to=0,
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]


def escape_controls(_logger: object, _method: str, event: _Event) -> _Event:
    """Write control characters as escapes in every value; a traceback keeps its line breaks."""
    for key, value in event.items():
        if isinstance(value, (bool, int, float)) or value is None:
            continue
        pattern = _CONTROL_BUT_LAYOUT if key == "exception" else _CONTROL
        event[key] = pattern.sub(_escaped, value if isinstance(value, str) else repr(value))
    return event


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - one byte
