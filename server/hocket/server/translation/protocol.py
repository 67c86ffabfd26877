"""The seams of the room: what translates a sentence, and how documents ask for one.

    document ▸ Interpreter.translate ▸ (threads ▸ Translator.translate) | (an engine) ▸ sentence

Whatever turns a sentence into one of another language can be served behind `Interpreter`. What has
one blocking function is a `Translator`, and `threads.py` makes an interpreter of it; a
sequence-to-sequence model in an engine is an interpreter by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hocket.server.errors import HocketError

Pair = tuple[str, str]  # source and target, as ISO 639-1 codes


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatorFacts:
    """What a translator is.

    Attributes:
        pairs: The directions that it knows.
        max_chars: The longest text that it is given at once; longer sentences go in pieces.
        architecture: Such as `marian`.
        dtype: Number type of the weights in memory.
        parameters: How many there are; 0 if unknown.
        license: SPDX identifier or name of the licence of the weights; empty if unknown.
        digest: Tells these weights from any others of the same name; may be empty.
    """

    pairs: frozenset[Pair]
    max_chars: int
    architecture: str
    dtype: str
    parameters: int = 0
    license: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslationRequest:
    """One sentence of a document.

    Attributes:
        text: The sentence, without white space around it; at most `max_chars`, not blank.
        pair: From which language into which; one that the translator knows.
        request_id: The document that it is of.
        owner: Who asks.
        priority: Lower runs first, where the translator has an order.
        deadline: When it is no longer wanted, in seconds of the engines' clock; None for never.
    """

    text: str
    pair: Pair
    request_id: str
    owner: str = ""
    priority: int = 0
    deadline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """A sentence in another language.

    Attributes:
        text: It; white space around it has no meaning.
        queue: Seconds that it waited before it was worked on.
        prompt_tokens: Tokens read; 0 where nobody counts.
        completion_tokens: Tokens written; 0 where nobody counts.
    """

    text: str
    queue: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Interpreter(Protocol):
    """Translates sentences for documents. Loop thread."""

    @property
    def facts(self) -> TranslatorFacts:
        """What it is."""
        ...

    async def translate(self, request: TranslationRequest) -> Translation:
        """Return a sentence in another language. Many are asked for at once.

        How many is bounded by the door that documents come through. Whoever is cancelled here
        leaves at once, whatever is still computed for it.

        Raises:
            HocketError: It cannot, or all were cut off; other sentences go on.
        """
        ...

    def cut_all_nowait(self, error_of: Callable[[], HocketError]) -> int:
        """Fail all sentences in progress, and all that come later; return how many there were."""
        ...


class Translator(Protocol):
    """Translates a sentence while its caller waits. Any thread, several at once."""

    @property
    def facts(self) -> TranslatorFacts:
        """What it is."""
        ...

    def translate(self, text: str, source: str, target: str) -> str:
        """Return a sentence in another language.

        Raises:
            Exception: It cannot.
        """
        ...

    def close(self) -> None:
        """Let go of what it holds; nobody asks any more."""
        ...
