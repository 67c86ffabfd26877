"""What is done with each segment of a document. Plain values, checked where requests are parsed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Instruct:
    """What the model is told to do, in the caller's words."""

    instruction: str


@dataclass(frozen=True, slots=True)
class FillIn:
    """A prompt of the caller's, with `{segment}` in it; see `Form`."""

    template: str


@dataclass(frozen=True, slots=True)
class Translate:
    """Translates.

    Attributes:
        target_languages: Names or codes, at least one; each is a variant.
        source_language: Name or code; empty lets the model find out.
    """

    target_languages: tuple[str, ...]
    source_language: str = ""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Writes the same in other words; `style` says how, and may be empty."""

    style: str = ""


@dataclass(frozen=True, slots=True)
class Summarize:
    """Shortens to so many sentences, at least one."""

    max_sentences: int = 1


@dataclass(frozen=True, slots=True)
class Classify:
    """Says which label fits: at least two, all different, none blank."""

    labels: tuple[str, ...]


Task = Instruct | FillIn | Translate | Rewrite | Summarize | Classify


def variants_of(task: Task) -> tuple[str, ...]:
    """Return what each variant of a task is: the target languages, or one empty name."""
    return task.target_languages if isinstance(task, Translate) else ("",)
