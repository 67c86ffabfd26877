"""How far a lost stream had come, out of protobuf, and held against what its tokens give.

Fields are checked on the loop's thread. `check_received` writes the text of the tokens again, by
the very rules of the engine, on a text thread: nothing is computed for a state that never was.
"""

from dataclasses import dataclass

from hocket.server.catalogue import ServedModel
from hocket.server.engine.endings import Bounds
from hocket.server.engine.sampling import SamplingParams
from hocket.server.rpc.limits import Violations
from hocket.server.text.assembly import AssembledPiece, TextAssembly
from hocket.server.text.pieces import Granularity, PieceKind
from hocket.v1 import generation_pb2

_IDS = "resume.token_ids"
_BYTES = "resume.received_bytes"
_SENTENCES = "resume.received_sentences"
_INSIDE_CHARACTER = range(0x80, 0xC0)  # bytes of UTF-8 that begin none


@dataclass(frozen=True, slots=True, kw_only=True)
class LostStream:
    """What the caller has of a stream that was lost.

    Attributes:
        token: As `Started` gave it.
        token_ids: Of all that was received.
        text_bytes: Length of the text that was received, in UTF-8 bytes.
        sentences: How many sentences were received.
    """

    token: bytes
    token_ids: tuple[int, ...]
    text_bytes: int
    sentences: int


def can_resume(sampling: SamplingParams, choices: int, granularity: Granularity) -> bool:
    """Whether a lost stream of this kind can be gone on with: its pieces tell all of its state."""
    return (
        choices == 1
        and granularity is not Granularity.FULL
        and sampling.logprobs is None
        and sampling.prompt_logprobs is None
    )


def parse_resume(
    request: generation_pb2.GenerateRequest,
    model: ServedModel,
    violations: Violations,
    *,
    is_possible: bool,
) -> LostStream | None:
    """Return what the caller has; None where nothing is resumed. Loop thread.

    Args:
        request: As it came.
        model: Who would go on.
        violations: Notes what is wrong.
        is_possible: What `can_resume` says of it.
    """
    if not request.HasField("resume"):
        return None
    if not is_possible:
        violations.add(
            "resume",
            "is only for a single answer, in pieces, without logprobs and prompt_logprobs",
        )
    resume, most = request.resume, model.limits.max_context_tokens - 1
    token_ids: tuple[int, ...] = ()
    if violations.check_count(_IDS, len(resume.token_ids), most):
        token_ids = tuple(resume.token_ids)
    size = model.limits.vocabulary_size
    if token_ids and max(token_ids) >= size:
        stray = next(index for index, token_id in enumerate(token_ids) if token_id >= size)
        violations.add(f"{_IDS}[{stray}]", f"must be below {size}")
    return LostStream(
        token=resume.token,
        token_ids=token_ids,
        text_bytes=resume.received_bytes,
        sentences=resume.received_sentences,
    )


def check_received(
    lost: LostStream, bounds: Bounds, assembly: TextAssembly, violations: Violations
) -> None:
    """Note what cannot be of a stream that these tokens give. Text thread.

    Args:
        lost: What the caller has.
        bounds: What may end the text.
        assembly: Fresh, for the text of the stream; used up.
        violations: Notes what is wrong.
    """
    count, most = len(lost.token_ids), min(bounds.stopping.max_tokens, bounds.room)
    if count > most:
        violations.add(_IDS, f"has {count} values, more than the text may have: {most}")
        return
    pieces: list[AssembledPiece] = []
    ending = None
    for index, token_id in enumerate(lost.token_ids):
        if ending is not None:
            violations.add(f"{_IDS}[{index}]", "comes after the token that ended the text")
            return
        completed, ending = bounds.push(assembly, token_id)
        pieces += completed
    shown, last_start = assembly.text_bytes, assembly.last_start
    rest = assembly.finish()
    if ending is not None:
        pieces += rest
    end_byte = lost.text_bytes
    at = _place_of(lost, pieces)
    if at is not None:
        _check_sentences(lost, pieces, (at, at), violations)
    elif ending is None and max(shown, last_start) < end_byte and _is_boundary(rest, end_byte):
        # A piece that later tokens decided, which the caller never saw: so nobody can tell whether
        # it is one piece or several.
        counts = (len(pieces) + 1, len(pieces) + end_byte - shown)
        _check_sentences(lost, rest, counts, violations)
    else:
        violations.add(_BYTES, f"is no length of text that {count} tokens were received with")


def _place_of(lost: LostStream, pieces: list[AssembledPiece]) -> int | None:
    """Return after how many of the pieces the caller stands; None if after none of them."""
    if not lost.token_ids and not lost.text_bytes:
        return 0
    for at, piece in enumerate(pieces, start=1):
        tokens = piece.first_token + piece.token_count
        if (tokens, piece.piece.end_byte) == (len(lost.token_ids), lost.text_bytes):
            return at
    return None


def _is_boundary(pieces: list[AssembledPiece], end_byte: int) -> bool:
    """Whether a character ends in these pieces at a byte of the text."""
    for piece in pieces:
        if piece.piece.start_byte < end_byte <= piece.piece.end_byte:
            tail = piece.piece.text.encode()[end_byte - piece.piece.start_byte :]
            return not tail or tail[0] not in _INSIDE_CHARACTER
    return False


def _check_sentences(
    lost: LostStream,
    pieces: list[AssembledPiece],
    bounds: tuple[int, int],
    violations: Violations,
) -> None:
    least, most = bounds
    if any(piece.piece.kind is PieceKind.DELTA for piece in pieces):
        least = most = 0
    if not least <= lost.sentences <= most:
        wanted = f"{least}" if least == most else f"from {least} to {most}"
        violations.add(_SENTENCES, f"must be {wanted}, as the text received has it")
