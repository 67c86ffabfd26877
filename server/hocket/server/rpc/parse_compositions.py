"""From `ComposeStart` to what a text in sections needs: its field violations are born here.

Fields are named as a caller of the stream sees them, from `start` on. Nothing of the message is
kept. Loop thread.
"""

from dataclasses import dataclass, field

from hocket.server.catalogue import ServedModel
from hocket.server.document.compose import ComposePlan, Parallel
from hocket.server.document.outline import Section
from hocket.server.rpc.inputs import max_prompt_tokens
from hocket.server.rpc.limits import (
    MAX_BYTES_PER_TOKEN,
    MAX_INSTRUCTION_CHARS,
    MAX_SECTIONS,
    MAX_TITLE_CHARS,
    RANGES,
    Violations,
)
from hocket.server.rpc.parse_writing import (
    CheckedWriting,
    check_known,
    check_not_blank,
    check_words,
    check_writing,
)
from hocket.server.text.pieces import SentenceOptions
from hocket.v1 import document_pb2

_PARALLEL = {
    document_pb2.PARALLEL_UNSPECIFIED: Parallel.AUTO,
    document_pb2.PARALLEL_AUTO: Parallel.AUTO,
    document_pb2.PARALLEL_ALWAYS: Parallel.ALWAYS,
    document_pb2.PARALLEL_NEVER: Parallel.NEVER,
}
_DEFAULT_MAX_SECTIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedComposition:
    """A text that may come, whose fields are good.

    Attributes:
        model: Who writes.
        writing: How its sections are written and come back.
        task: What it is about.
        sections: What to write; empty lets the model draft it.
        max_sections: Most sections that the model drafts.
        parallel: Whether sections are written in parallel.
        join: Asks for what comes after the last section; empty for nothing.
        sentences: How what is written is cut into sentences.
    """

    model: ServedModel
    writing: CheckedWriting
    task: str
    sections: tuple[Section, ...]
    max_sections: int
    parallel: Parallel
    join: str
    sentences: SentenceOptions = field(default_factory=SentenceOptions)

    @property
    def plan(self) -> ComposePlan:
        """How it is written."""
        return ComposePlan(
            order=self.writing.order,
            window=self.writing.window,
            parallel=self.parallel,
            sections=self.sections,
            max_sections=self.max_sections,
            has_join=bool(self.join),
        )

    @property
    def is_surely_parallel(self) -> bool:
        """Whether it is known before any work that sections are written in parallel."""
        return bool(self.sections) and self.parallel is not Parallel.NEVER


def check_composition(
    start: document_pb2.ComposeStart,
    model: ServedModel,
    *,
    owner: str = "",
    arrived: float,
    remaining: float | None,
    max_window: int,
) -> CheckedComposition:
    """Check every field before any work is done.

    Args:
        start: As it came.
        model: Who would write.
        owner: Who asks; empty where nobody needs a name.
        arrived: When the call had come, in seconds of the monotonic clock.
        remaining: Seconds until the call's own deadline; None without one.
        max_window: The widest window.

    Raises:
        InvalidRequest: With all violations of all fields.
    """
    all_violations, violations = Violations(), Violations()
    writing = check_writing(
        start,
        model,
        owner=owner,
        arrived=arrived,
        remaining=remaining,
        max_window=max_window,
        violations=violations,
    )
    if not start.task.strip():
        violations.add("task", "must be set" if not start.task else "must not be blank")
    most = _DEFAULT_MAX_SECTIONS
    if start.HasField("max_sections"):
        most = start.max_sections
        violations.check_range("max_sections", most, RANGES["compose.max_sections"])
    check_known("parallel", start.parallel, _PARALLEL, violations)
    violations.check_chars("join", start.join, MAX_INSTRUCTION_CHARS)
    check_not_blank("join", start.join, violations)
    sections = _sections(start, violations)
    violations.move_to(all_violations, "start")
    shared = len(start.task) + sum(len(section.title) for section in sections)
    if shared > model.limits.max_context_tokens * MAX_BYTES_PER_TOKEN:
        all_violations.add_too_long(
            "start.task", shared // MAX_BYTES_PER_TOKEN, max_prompt_tokens(model)
        )
    all_violations.raise_any()
    return CheckedComposition(
        model=model,
        writing=writing,
        task=start.task,
        sections=sections,
        max_sections=most,
        parallel=_PARALLEL[start.parallel],
        join=start.join,
    )


def _sections(start: document_pb2.ComposeStart, violations: Violations) -> tuple[Section, ...]:
    if not violations.check_count("sections", len(start.sections), MAX_SECTIONS):
        return ()
    for index, section in enumerate(start.sections):
        path = f"sections[{index}]"
        check_words(f"{path}.title", section.title, MAX_TITLE_CHARS, violations)
        violations.check_chars(f"{path}.instruction", section.instruction, MAX_INSTRUCTION_CHARS)
    return tuple(Section(section.title, section.instruction) for section in start.sections)
