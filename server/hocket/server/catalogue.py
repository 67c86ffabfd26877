"""The models that are served, by name. Loop thread."""

from dataclasses import dataclass

from hocket.server.engine.batch import ModelLimits
from hocket.server.engine.protocol import Engine
from hocket.server.errors import InvalidRequest, ModelNotFound, NotReady
from hocket.server.text.tokenizer import ChatTemplate, Tokenizer
from hocket.server.translation.protocol import Interpreter


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """What a model is.

    Attributes:
        name: The name to ask for it by.
        architecture: Such as `llama`.
        dtype: Number type of the weights in memory, such as `bfloat16`.
        parameters: How many there are; 0 if unknown.
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
    """A language model with all that serves it.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedTranslator:
    """A translator that is no language model: documents alone, and of these translations alone.

    Attributes:
        description: What it is.
        interpreter: Translates.
    """

    description: ModelDescription
    interpreter: Interpreter


Served = ServedModel | ServedTranslator


class Catalogue:
    """What is served, by name; the first one added is the default."""

    def __init__(self) -> None:
        self._served: dict[str, Served] = {}

    def add(self, model: Served) -> None:
        """Serve one more.

        Raises:
            ValueError: One of that name is served.
        """
        name = model.description.name
        if name in self._served:
            raise ValueError(f"a model named {name!r} is served already")
        self._served[name] = model

    def find(self, name: str, *, field: str = "model") -> ServedModel:
        """Return the language model of this name, or the default one for an empty name.

        Args:
            name: As the caller gave it.
            field: The path of the field that it stands in.

        Raises:
            NotReady: Nothing is loaded yet.
            ModelNotFound: None has this name.
            InvalidRequest: It is no language model.
        """
        model = self.find_any(name)
        if isinstance(model, ServedTranslator):
            raise InvalidRequest.of(
                field, f"{model.description.name} is a translator; it takes Transform alone"
            )
        return model

    def find_any(self, name: str) -> Served:
        """Return whatever has this name, or the default for an empty name.

        Raises:
            NotReady: Nothing is loaded yet.
            ModelNotFound: None has this name.
        """
        if not self._served:
            raise NotReady
        if not name:
            return next(iter(self._served.values()))
        try:
            return self._served[name]
        except KeyError:
            raise ModelNotFound(name) from None

    def all(self) -> tuple[Served, ...]:
        """Return all, the default first."""
        return tuple(self._served.values())

    def engines(self) -> tuple[Engine, ...]:
        """Return the engines of all language models."""
        return tuple(each.engine for each in self.all() if isinstance(each, ServedModel))

    def interpreters(self) -> tuple[Interpreter, ...]:
        """Return what translates, of all translators."""
        return tuple(each.interpreter for each in self.all() if isinstance(each, ServedTranslator))
