"""The models that are served, by name. Loop thread."""

from dataclasses import dataclass

from hocket.server.engine.batch import ModelLimits
from hocket.server.engine.protocol import Engine
from hocket.server.errors import ModelNotFound, NotReady
from hocket.server.text.tokenizer import ChatTemplate, Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """What a model is.

    Attributes:
        name: The name to ask for it by.
        architecture: Such as `llama`.
        dtype: Number type of the weights in memory, such as `bfloat16`.
        parameters: How many there are.
        license: SPDX identifier or name of the licence of the weights; empty if unknown.
        digest: SHA-256 of the weights file in hexadecimal; empty for several files.
    """

    name: str
    architecture: str
    dtype: str
    parameters: int
    license: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model with all that serves it.

    Attributes:
        description: What it is.
        limits: The bounds it sets.
        tokenizer: Its tokenizer.
        chat_template: How it writes conversations down; None if it knows none.
        engine: The engine that runs it.
    """

    description: ModelDescription
    limits: ModelLimits
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    engine: Engine


class Catalogue:
    """The served models; the first one added is the default."""

    def __init__(self) -> None:
        self._models: dict[str, ServedModel] = {}

    def add(self, model: ServedModel) -> None:
        """Serve one more model.

        Raises:
            ValueError: A model of that name is served.
        """
        name = model.description.name
        if name in self._models:
            raise ValueError(f"a model named {name!r} is served already")
        self._models[name] = model

    def find(self, name: str) -> ServedModel:
        """Return the model of this name, or the default one for an empty name.

        Raises:
            NotReady: No model is loaded yet.
            ModelNotFound: None has this name.
        """
        if not self._models:
            raise NotReady
        if not name:
            return next(iter(self._models.values()))
        try:
            return self._models[name]
        except KeyError:
            raise ModelNotFound(name) from None

    def all(self) -> tuple[ServedModel, ...]:
        """Return all models, the default first."""
        return tuple(self._models.values())
