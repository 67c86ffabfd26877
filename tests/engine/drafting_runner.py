"""A runner whose texts repeat themselves and hang on every token before: drafts are half right."""

import zlib
from collections.abc import Sequence

from hocket.server.engine.batch import Batch, SampleRequest, StepResult
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.testing.scripted_runner import ScriptedRunner

_FOLLOWS = b"bcdea. "


class DraftingRunner(ScriptedRunner):
    """Goes round in a few letters, and strays from them by a hash of the whole sequence.

    A token that was read back wrong, or one too many, changes all that comes after it.
    """

    def __init__(self, *, straying: int = 8, **limits) -> None:
        """Stray once in so many tokens."""
        super().__init__(is_slicing_exact=True, **limits)
        self.straying = straying
        self.drafted: list[tuple[int, ...]] = []

    def execute(self, batch: Batch) -> StepResult:
        self.drafted.append(tuple(piece.num_drafts for piece in batch.slices))
        return super().execute(batch)

    def next_token(self, tokens: Sequence[int], request: SampleRequest) -> int:
        digest = zlib.crc32(repr((list(tokens), request.seed, request.position)).encode())
        if digest % 97 == 0:
            return ByteTokenizer.END
        if digest % self.straying == 0:
            return _FOLLOWS[digest // 97 % len(_FOLLOWS)]
        return _FOLLOWS[(_FOLLOWS.find(tokens[-1] % 256) + 1) % len(_FOLLOWS)]
