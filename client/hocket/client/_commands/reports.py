"""How `hocket generate` shows what happens: as text, as JSON lines, and in one line at the end."""

import sys
import time
from dataclasses import asdict
from typing import Protocol

from hocket.client import ClientError, Delta, Event, Finished, Sentence
from hocket.client._commands.output import error_fields, print_json, printable

_LEFT_OUT = ("token_ids", "logprobs", "prompt_logprobs")


class Report(Protocol):
    """Shows events of numbered prompts."""

    def event(self, number: int, request_id: str, event: Event) -> None:
        """Show an event."""
        ...

    def failed(self, number: int, request_id: str, error: ClientError) -> None:
        """Show a failure."""
        ...


class JsonReport:
    """One JSON object for each event, on a line of its own."""

    def __init__(self, began: float) -> None:
        self._began = began

    def event(self, number: int, request_id: str, event: Event) -> None:
        """Write an event."""
        fields = {key: value for key, value in asdict(event).items() if key not in _LEFT_OUT}
        self._write(number, request_id, type(event).__name__.lower(), fields)

    def failed(self, number: int, request_id: str, error: ClientError) -> None:
        """Write a failure."""
        self._write(number, request_id, "failed", error_fields(error))

    def _write(self, number: int, request_id: str, event: str, fields: dict[str, object]) -> None:
        head = {
            "prompt": number,
            "request_id": request_id,
            "seconds": round(time.monotonic() - self._began, 4),
            "event": event,
        }
        # Ours go first: an older server does not repeat the id in its events.
        print_json(head | fields | head)


class TextReport:
    """The text itself; with several at once, each piece on a line with its number and time."""

    def __init__(self, began: float, *, is_labelled: bool) -> None:
        self._began = began
        self._is_labelled = is_labelled
        self._ends_line = True

    def event(self, number: int, request_id: str, event: Event) -> None:  # noqa: ARG002 - Report's
        """Show an event, if it carries text or ends it."""
        if isinstance(event, Delta | Sentence):
            self._piece(number, event)
        elif isinstance(event, Finished) and not self._ends_line:
            print(flush=True)
            self._ends_line = True

    def failed(self, number: int, request_id: str, error: ClientError) -> None:  # noqa: ARG002 - Report's
        """Tell of a failure, beside the text."""
        label = f"[{number}] " if self._is_labelled else ""
        print(f"hocket: {label}{error}", file=sys.stderr, flush=True)

    def _piece(self, number: int, event: Delta | Sentence) -> None:
        text = printable(event.text)
        if not self._is_labelled:
            print(text, end="", flush=True)
            self._ends_line = text.endswith("\n") if text else self._ends_line
            return
        if not text.strip():
            return
        choice = f".{event.choice_index + 1}" if event.choice_index else ""
        label = f"[{number}{choice}]"
        seconds = time.monotonic() - self._began
        lines = text.strip().splitlines()
        print(f"{label:<6}{seconds:7.2f} s  {lines[0]}")
        for line in lines[1:]:
            print(f"{'':<17}{line}")
        sys.stdout.flush()


class Summary:
    """What came of all prompts."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._first_text: float | None = None
        self._finished = 0
        self._tokens = 0
        self.failed = 0

    def add(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, Finished):
            self._finished += 1
            self._tokens += event.usage.completion_tokens
        elif isinstance(event, Delta | Sentence) and self._first_text is None:
            self._first_text = time.monotonic() - self._began

    def add_failure(self) -> None:
        """Take a failure."""
        self.failed += 1

    def line(self) -> str:
        """Return it as one line."""
        seconds = time.monotonic() - self._began
        parts = [
            f"{self._finished} finished",
            *([f"{self.failed} failed"] if self.failed else []),
            f"{self._tokens} tokens in {seconds:.2f} s",
            f"{self._tokens / seconds:.1f} tokens/s",
        ]
        if self._first_text is not None:
            parts.append(f"first text after {self._first_text:.2f} s")
        return ", ".join(parts)
