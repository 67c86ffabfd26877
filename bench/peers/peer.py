"""A side of the comparison: something that starts, takes turns, and stops.

All sides are given the same prompts as token ids, all at once, and write greedily as many tokens as
they are told, end tokens ignored. What is noted while a side computes is only when which text came;
sentences are looked for afterwards, with hocket's own splitter, so that the client costs each side
the same and little.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hocket.server.text.pieces import PieceKind, SentenceOptions
from hocket.server.text.sentences import SentenceSplitter

_WHOLE = {PieceKind.SENTENCE, PieceKind.PARAGRAPH_END}


class Arrival(NamedTuple):
    """Text that came.

    Attributes:
        seconds: Since the requests were sent.
        text: What came; may be empty where a token completes no character.
    """

    seconds: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One answer as its reader saw it.

    Attributes:
        tokens: How many were written, as the side itself counts them.
        first_text: Seconds from sending to the first text; None if only whole sentences are sent.
        first_sentence: Seconds until a whole sentence was received; None if there was none.
        gaps: Seconds between one text and the next.
    """

    tokens: int
    first_text: float | None
    first_sentence: float | None
    gaps: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """All prompts of a round, answered by one side.

    Attributes:
        seconds: From the first request sent to the last stream's end.
        streams: The answers, in the order of their prompts.
    """

    seconds: float
    streams: tuple[Stream, ...]

    @property
    def rate(self) -> float:
        """Tokens per second of all streams together."""
        return sum(stream.tokens for stream in self.streams) / self.seconds


class Peer(Protocol):
    """A side of the comparison.

    Attributes:
        name: As tables show it.
        version: What runs, once started.
        rivals: Whether it is one of the packages that hocket is measured against.
    """

    name: str
    version: str
    rivals: bool

    async def start(self) -> None:
        """Install and start what the turns need.

        Raises:
            Absent: That is impossible here.
        """
        ...

    async def turn(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Turn:
        """Answer all prompts at once, each with so many tokens."""
        ...

    def cpu_seconds(self) -> float:
        """Return the processor time that its processes used since they started."""
        ...

    async def stop(self) -> None:
        """End its processes; without effect if it never started."""
        ...


def stream_of(tokens: int, arrivals: Sequence[Arrival], *, is_whole: bool = False) -> Stream:
    """Look for the first text, the first sentence and the gaps in what came.

    Args:
        tokens: As the side counts them.
        arrivals: What came.
        is_whole: Each of them is a whole sentence already.

    Raises:
        RuntimeError: No text came at all.
    """
    texts = [arrival for arrival in arrivals if arrival.text]
    if not texts:
        raise RuntimeError("a stream ended without text")
    return Stream(
        tokens=tokens,
        first_text=None if is_whole else texts[0].seconds,
        first_sentence=texts[0].seconds if is_whole else _first_sentence(texts),
        gaps=tuple(after.seconds - before.seconds for before, after in itertools.pairwise(texts)),
    )


def _first_sentence(texts: Sequence[Arrival]) -> float | None:
    splitter = SentenceSplitter(SentenceOptions())
    for seconds, text in texts:
        if any(piece.kind in _WHOLE for piece in splitter.push(text)):
            return seconds
    return None
