"""The bounds of every field of a request, in one table. Any thread.

The comments in `proto/hocket/v1` state the same numbers; a test compares.
"""

import math
import re
from dataclasses import dataclass, field

from hocket.server.errors import FieldViolation, InvalidRequest, Reason

MAX_CHOICES = 16
MAX_LOGPROBS = 20
MAX_STOP_STRINGS = 16
MAX_STOP_BYTES = 256
MAX_STOP_TOKENS = 64
MAX_LOGIT_BIASES = 1_024
MAX_MESSAGES = 1_024
MAX_TEXTS = 1_024
MAX_COUNTED_BYTES = 1_048_576
MAX_DETOKENIZED = 1_048_576
MAX_INSTRUCTION_CHARS = 8_192
MAX_TARGETS = 16
MAX_LANGUAGE_CHARS = 64
MAX_STYLE_CHARS = 256
MAX_LABELS = 256
MAX_LABEL_CHARS = 64
MAX_TERMS = 1_024
MAX_TERM_CHARS = 256
MAX_SPANS = 65_536
MAX_ITEM_ID_BYTES = 256
MAX_ITEM_BYTES = 262_144
MAX_SECTIONS = 1_024
MAX_TITLE_CHARS = 512
MAX_BUDGET_SECONDS = 315_576_000_000
MAX_NANOS = 999_999_999
DEFAULT_MAX_TOKENS = 512
# No token of any served vocabulary is longer on average; far more text cannot fit the context.
MAX_BYTES_PER_TOKEN = 64

REQUEST_ID = re.compile(r"[A-Za-z0-9\-_.:]{1,128}")
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`; `low` itself is out where `is_open`."""

    low: float
    high: float
    is_open: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value lies inside; NaN does not."""
        return (self.low < value if self.is_open else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        if self.is_open:
            return f"must be above {self.low:g} and at most {self.high:g}"
        return f"must be from {self.low:g} to {self.high:g}"


# The number that 0.01 becomes in a `float` of the wire; a little less than the double.
_A_HUNDREDTH = 0.009999999776482582

RANGES = {
    "sampling.temperature": Range(0, 10),
    "sampling.top_p": Range(0, 1, is_open=True),
    "sampling.min_p": Range(0, 1),
    "sampling.repetition_penalty": Range(_A_HUNDREDTH, 10),
    "sampling.presence_penalty": Range(-2, 2),
    "sampling.frequency_penalty": Range(-2, 2),
    "sampling.logit_bias": Range(-100, 100),
    "output.n": Range(1, MAX_CHOICES),
    "output.logprobs": Range(0, MAX_LOGPROBS),
    "output.prompt_logprobs": Range(0, MAX_LOGPROBS),
    "priority": Range(-100, 100),
    "sentences.min_chars": Range(0, 200),
    "sentences.max_chars": Range(40, 2_000),
    "transform.context_segments": Range(0, 16),
    "summarize.max_sentences": Range(1, 100),
    "compose.max_sections": Range(2, 32),
}


@dataclass(slots=True)
class Violations:
    """Collects what is wrong with a request, so that all of it is told at once.

    A prompt that is too long gives the whole its reason, whatever else is wrong.
    """

    found: list[FieldViolation] = field(default_factory=list)
    _reason: Reason = Reason.FIELD_INVALID
    _metadata: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, description: str) -> None:
        """Note one violation."""
        self.found.append(FieldViolation(field=name, description=description))

    def add_too_long(self, name: str, count: int, most: int) -> None:
        """Note a prompt of at least so many tokens."""
        self.add(name, f"has at least {count} tokens, more than {most}")
        self._reason = Reason.PROMPT_TOO_LONG
        self._metadata = {"prompt_tokens": str(count), "max_prompt_tokens": str(most)}

    def check_range(self, name: str, value: float, bounds: Range | None = None) -> None:
        """Note a value outside its range; the table has it unless given."""
        bounds = bounds or RANGES[name]
        if not bounds.holds(value):
            what = f"{bounds}" + ("" if math.isfinite(value) else "; it is not a number")
            self.add(name, what)

    def check_count(self, name: str, count: int, most: int) -> bool:
        """Note a repeated field with too many values; return whether it may be looked through."""
        if count > most:
            self.add(name, f"must have at most {most} values; it has {count}")
        return count <= most

    def check_chars(self, name: str, text: str, most: int, *, least: int = 0) -> None:
        """Note a text that is too long or too short."""
        if not least <= len(text) <= most:
            bounds = f"from {least} to {most}" if least else f"at most {most}"
            self.add(name, f"must have {bounds} characters; it has {len(text)}")

    def check_bytes(self, name: str, text: str, most: int) -> None:
        """Note a text that is too long."""
        size = len(text.encode())
        if size > most:
            self.add(name, f"must have at most {most} bytes; it has {size}")

    def move_to(self, other: "Violations", prefix: str) -> None:
        """Note all of this in another place, of a message that holds what was looked at."""
        other.found += (
            FieldViolation(field=f"{prefix}.{each.field}", description=each.description)
            for each in self.found
        )

    def raise_any(self) -> None:
        """Return if nothing is wrong.

        Raises:
            InvalidRequest: Something is.
        """
        if self.found:
            raise InvalidRequest(*self.found, reason=self._reason, metadata=self._metadata)
