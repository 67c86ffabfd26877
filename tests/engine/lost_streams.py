"""Streams that are lost and gone on with: a model whose text hangs on all that it wrote."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hocket.server.engine.batch import SampleRequest
from hocket.server.engine.commands import Submit, TextOutput
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.testing.scripted_runner import ScriptedRunner

# Half characters, several sentences in one token, marks that wait for what follows, stop strings.
CHUNKS = (
    b"Hi. ", b"He", b" said", b".", b"?\n\n", b" Go. Yes. No", b"Mr. ", b"\xf0\x9f", b"\x99\x82",
    b"3.", b"5", b" ", b"\xc3", b"\xa9", b"STO", b"P", b"\n", b"- x\n", b"\xe3\x80\x82", b"! ",
    b"e\xcc\x81",
)  # fmt: skip


class ChunkTokenizer(ByteTokenizer):
    """A tokenizer whose tokens are texts, or parts of their bytes."""

    def token_bytes(self, token_id: int) -> bytes:
        return CHUNKS[token_id] if token_id < len(CHUNKS) else b""


class HashingRunner(ScriptedRunner):
    """Draws by a hash of the whole sequence, the seed, the position and what it wrote how often.

    A token that was read back wrong, or one too many, changes all that comes after it.
    """

    def next_token(self, tokens: Sequence[int], request: SampleRequest) -> int:
        counts = request.counts
        written = () if counts is None else (list(counts.written_ids), list(counts.written_times))
        told = (list(tokens), request.seed, request.position, written)
        digest = zlib.crc32(repr(told).encode())
        return ByteTokenizer.END if digest % 41 == 0 else digest // 41 % len(CHUNKS)


@dataclass(frozen=True)
class Had:
    """What a reader has of a stream."""

    token_ids: tuple[int, ...] = ()
    text_bytes: int = 0
    pieces: int = 0

    def and_then(self, texts: Iterable[TextOutput]) -> "Had":
        """Return what it has after further pieces."""
        texts = tuple(texts)
        return Had(
            self.token_ids + tuple(token for text in texts for token in text.token_ids),
            texts[-1].piece.end_byte if texts else self.text_bytes,
            self.pieces + len(texts),
        )

    def resume(self, submit: Submit, request_id: str) -> Submit:
        """Return a request that goes on behind it."""
        return replace(
            submit,
            request_id=request_id,
            resumed_token_ids=self.token_ids,
            received_bytes=self.text_bytes,
        )
