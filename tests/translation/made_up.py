"""A translator without a package: capitals, which can be held and broken."""

import asyncio
import threading

from hocket.server.translation.protocol import Pair, TranslatorFacts

PAIRS = frozenset({("en", "pt"), ("pt", "en"), ("es", "en")})


class Upper:
    """Writes capitals, in brackets into Portuguese.

    Attributes:
        asked: What it was given, in the order in which threads came to it.
        most: Most threads that were in it at once.
        is_closed: Whether it was let go of.
        reached: Set on the loop whenever somebody asks.
    """

    def __init__(
        self, pairs: frozenset[Pair] = PAIRS, *, max_chars: int = 400, is_open: bool = True
    ) -> None:
        self.facts = TranslatorFacts(
            pairs=pairs, max_chars=max_chars, architecture="capitals", dtype="int8", digest="1"
        )
        self.asked: list[tuple[str, str, str]] = []
        self.most = 0
        self.is_closed = False
        self.reached = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._inside = 0
        self._lock = threading.Lock()
        self._opened = threading.Event()
        if is_open:
            self._opened.set()

    def open(self) -> None:
        """Hold nobody any more."""
        self._opened.set()

    def translate(self, text: str, source: str, target: str) -> str:
        with self._lock:
            self.asked.append((text, source, target))
            self._inside += 1
            self.most = max(self.most, self._inside)
        try:
            self._loop.call_soon_threadsafe(self.reached.set)
            assert self._opened.wait(20)
        finally:
            with self._lock:
                self._inside -= 1
        if "bad" in text:
            raise ValueError("secret")
        capitals = text[: self.facts.max_chars].upper()
        return f" {capitals}\n" if target == "en" else f"[{capitals}]"

    def close(self) -> None:
        self.is_closed = True
