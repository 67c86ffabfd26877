"""A served model and a server's rooms for tests of the porch that need no wire."""

from typing import Any

from hocket.server.catalogue import Catalogue, ServedModel
from hocket.server.engine.batch import ModelLimits
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.testing.serving import RoleTemplate, ScriptedModel
from hocket.server.text.tokenizer import Tokenizer


def served_model(
    tokenizer: Tokenizer | None = None, *, max_context_tokens: int = 4_096
) -> ServedModel:
    """Return a model that nobody runs."""
    engine: Any = None
    return ServedModel(
        description=ScriptedModel().description,
        limits=ModelLimits(
            max_context_tokens=max_context_tokens,
            vocabulary_size=ByteTokenizer().vocabulary_size,
            block_size=8,
            num_blocks=max_context_tokens // 8,
            num_saved_blocks=0,
        ),
        tokenizer=tokenizer or ByteTokenizer(),
        chat_template=RoleTemplate(),
        engine=engine,
    )


def catalogue_of(model: ServedModel) -> Catalogue:
    """Return a catalogue of one model."""
    catalogue = Catalogue()
    catalogue.add(model)
    return catalogue


class Caller:
    """A call's context, as far as the handlers ask."""

    def __init__(self, connection: str = "ipv4:127.0.0.1:1") -> None:
        self._connection = connection

    def peer(self) -> str:
        """Return the name of the connection."""
        return self._connection
