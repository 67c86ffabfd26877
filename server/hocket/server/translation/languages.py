"""Which languages a caller means, and whether a translator knows the way between them. Pure."""

from collections.abc import Iterable

from hocket.server.translation.protocol import Pair

# English names beside the codes, for what translators are made for.
_NAMES = {
    "arabic": "ar", "chinese": "zh", "dutch": "nl", "english": "en", "french": "fr",
    "german": "de", "hindi": "hi", "italian": "it", "japanese": "ja", "korean": "ko",
    "polish": "pl", "portuguese": "pt", "russian": "ru", "spanish": "es", "turkish": "tr",
    "ukrainian": "uk",
}  # fmt: skip


def code_of(language: str) -> str:
    """Return the ISO 639-1 code of a language given by code, tag or English name, if it is known.

    What is not known comes back in small letters.
    """
    name = language.strip().lower().replace("_", "-")
    return _NAMES.get(name) or name.partition("-")[0]


def sources_of(pairs: Iterable[Pair], target: str) -> tuple[str, ...]:
    """Return the languages that there is a way from into this one, in order."""
    return tuple(sorted(source for source, into in pairs if into == code_of(target)))


def in_words(pairs: Iterable[Pair]) -> str:
    """Return directions for people, in order."""
    return ", ".join(f"{source} to {target}" for source, target in sorted(pairs))
