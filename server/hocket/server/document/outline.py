"""An outline that a model drafts: how it is asked for, read, and judged. Pure.

Small models number badly, repeat themselves, and go on talking; what they draft is read all the
same, and what cannot be read as an outline becomes one section.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hocket.server.catalogue import ServedModel
from hocket.server.text.tokenizer import ChatMessage, Tokenizer

_MOST_TITLE_CHARS: Final = 120
_MOST_INSTRUCTION_CHARS: Final = 1_000
_TOKENS_PER_SECTION: Final = 24
_BIAS: Final = 100.0  # more than any logit: nothing else can be drawn

# One shot: without it small models write the text itself.
_EXAMPLE_TASK: Final = "Write about cats."
_EXAMPLE: Final = "1. What cats are\n2. Where cats live\n3. What cats eat\n4. Cats and people"

_MARKER: Final = re.compile(
    r"""(?P<indent>\s*)
    (?:\*\*|__)?                        # **1. bold from the number on**
    (?: (?P<number> \(?\d{1,3}(?:\.\d{1,3})*\s?[.):]\)? | \(?[IVXivx]{1,5}[.)] | \(?[A-Za-z][.)] )
      | (?P<bullet> [-*+\u2022\u2013\u2014\u25cf\u25aa] )
      | (?P<heading> \#{1,6} )
    )
    (?:\s+ | (?=\*\*))
    (?P<text> \S.*)""",
    re.VERBOSE,
)
_EMPHASIS: Final = re.compile(r"\*\*|__|^[*_]|[*_]$|`")
_LABEL: Final = re.compile(r"(?:section|part|chapter|title)\s*\d*\s*[:.\-]\s*", re.IGNORECASE)
_PARTED: Final = re.compile(r"\s*(?::\s+|\s[-\u2013\u2014]\s|:$)\s*")
_QUOTES: Final = "\"'\u201c\u201d\u2018\u2019 \t"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a text that is to be written.

    Attributes:
        title: Its heading; not empty.
        instruction: What else the model should know of it; may be empty.
    """

    title: str
    instruction: str = ""


@dataclass(frozen=True, slots=True)
class OutlineQuestion:
    """Asks for an outline of so many sections at most."""

    task: str
    max_sections: int

    def encode(self, model: ServedModel, *, reserved: int) -> tuple[int, ...]:
        """Return the tokens of the question. Text thread."""
        del reserved  # what does not fit is refused
        if model.chat_template is None:
            example = f"{_asked(_EXAMPLE_TASK, 4)}\n\n{_EXAMPLE}"
            text = f"{example}\n\n{_asked(self.task, self.max_sections)}\n\n"
            return model.tokenizer.encode(text, add_special=True, parse_special=False).token_ids
        messages = (
            ChatMessage(role="user", content=_asked(_EXAMPLE_TASK, 4)),
            ChatMessage(role="assistant", content=_EXAMPLE),
            ChatMessage(role="user", content=_asked(self.task, self.max_sections)),
        )
        return model.chat_template.encode(messages, add_generation_prompt=True)

    def stops_for(self, model: ServedModel) -> tuple[str, ...]:
        """Return what ends an outline where the model does not know."""
        return ("\n\n",) if model.chat_template is None else ()

    @property
    def max_tokens(self) -> int:
        """Most tokens of the answer."""
        return _TOKENS_PER_SECTION * (self.max_sections + 1)


def parse_outline(text: str, *, most: int) -> tuple[Section, ...]:
    """Return the sections of a drafted outline, at most so many; none if it is no outline.

    Marked lines are points, however they are numbered: those of the shallowest level, and where
    there are numbers, those alone. What stands deeper, or behind a colon, is the instruction of its
    point. A title that comes again is left out. Without any marks, two or more short lines are
    points.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    marked = [found for line in lines if (found := _MARKER.fullmatch(line.rstrip()))]
    if not marked:
        return _of_short_lines(lines, most)
    strongest = next(
        kind for kind in ("number", "heading", "bullet") if any(found[kind] for found in marked)
    )
    depth = min(len(found["indent"]) for found in marked if found[strongest])
    points: list[tuple[str, list[str]]] = []
    for found in marked:
        if found[strongest] and len(found["indent"]) == depth:
            title, about = _split(found["text"])
            points.append((title, [about] if about else []))
        elif points:
            points[-1][1].append(_clean(found["text"]))
    return _distinct(points, most)


def fall_back(task: str) -> tuple[Section, ...]:
    """Return the one section of a text whose outline could not be read."""
    first = next((line.strip() for line in task.splitlines() if line.strip()), task)
    return (Section(first[:_MOST_TITLE_CHARS].strip()),)


def question_of_independence(told: str) -> str:
    """Return what asks whether the points of an outline can be written each by itself.

    Args:
        told: The task and the outline, as each section's prompt begins with them.
    """
    return (
        f"{told}\n\nCan each section be written without having read the sections before it?"
        " Answer yes or no."
    )


@dataclass(frozen=True, slots=True)
class YesNo:
    """Lets a model answer by yes or no alone, with one token.

    Attributes:
        yes: First tokens of a yes.
        no: First tokens of a no.
    """

    yes: frozenset[int]
    no: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "YesNo":
        """Return the tokens by which a tokenizer begins either word, and not the other."""
        yes, no = (
            frozenset(
                tokenizer.encode(text, add_special=False, parse_special=False).token_ids[0]
                for text in (word, word.capitalize(), f" {word}", f" {word.capitalize()}")
            )
            for word in ("yes", "no")
        )
        return cls(yes - no, no - yes)

    @property
    def logit_bias(self) -> tuple[tuple[int, float], ...]:
        """What bars every other token."""
        return tuple((token_id, _BIAS) for token_id in sorted(self.yes | self.no))


def _asked(task: str, most: int) -> str:
    return (
        f"Write an outline for this task: {task}\n\n"
        f"Answer with a numbered list of at most {most} short titles."
    )


def _of_short_lines(lines: Sequence[str], most: int) -> tuple[Section, ...]:
    short = [
        line for line in lines if len(line) <= _MOST_TITLE_CHARS and not line.rstrip().endswith(".")
    ]
    points = [(title, [about] if about else []) for title, about in map(_split, short)]
    sections = _distinct([point for point in points if point[0]], most)
    return sections if len(sections) > 1 and len(short) == len(lines) else ()


def _distinct(points: Sequence[tuple[str, list[str]]], most: int) -> tuple[Section, ...]:
    found: dict[str, Section] = {}
    for title, about in points:
        if title:
            instruction = "\n".join(about)[:_MOST_INSTRUCTION_CHARS].strip()
            found.setdefault(title.casefold(), Section(title, instruction))
    return tuple(found.values())[:most]


def _split(text: str) -> tuple[str, str]:
    """Return the title of a point, and what is said about it behind a colon or dash."""
    text = _LABEL.sub("", _EMPHASIS.sub("", text.strip()), count=1)
    title, *about = _PARTED.split(text, maxsplit=1)
    return _clean(title)[:_MOST_TITLE_CHARS].strip(), _clean(about[0]) if about else ""


def _clean(text: str) -> str:
    return _EMPHASIS.sub("", text).strip(_QUOTES).rstrip(":.").strip(_QUOTES)
