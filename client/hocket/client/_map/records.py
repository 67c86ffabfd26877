"""What is written of each row, by operation. Any thread; pure functions.

Nothing in a record depends on when or in what company it was made.
"""

import json
from collections.abc import Mapping
from typing import Any

from hocket.client import MapOperation, MapResult, StatusError
from hocket.client._map.sources import Row

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "generate": ("text", "finish_reason", "prompt_tokens", "completion_tokens"),
    "transform": ("text", "finish_reason", "segments", "failed_segments"),
    "tokenize": ("token_ids",),
    "split": ("sentences",),
}


def record_of(op: MapOperation, row: Row, result: MapResult) -> dict[str, Any]:
    """Return a row's id and what came of it."""
    if result.error is not None:
        error: dict[str, Any] = {"message": result.error.message}
        if isinstance(result.error, StatusError):
            error = {"code": result.error.code, "reason": result.error.reason, **error}
        return {"id": row.id, "error": error}
    match op:
        case "tokenize":
            return {"id": row.id, "token_ids": [token.id for token in result.tokens]}
        case "split":
            return {
                "id": row.id,
                "sentences": [
                    {
                        "text": piece.text,
                        "start_byte": piece.start_byte,
                        "end_byte": piece.end_byte,
                        "kind": piece.kind.value,
                    }
                    for piece in result.pieces
                ],
            }
        case _:
            reason = result.finish_reason
            return {
                "id": row.id,
                "text": result.text,
                "finish_reason": reason.value if reason else "",
                **_counts(op, result),
            }


def _counts(op: MapOperation, result: MapResult) -> dict[str, int]:
    if op == "transform":  # what it took depends on what others had written before
        return {"segments": result.segments, "failed_segments": result.failed_segments}
    usage = result.usage
    return {
        "prompt_tokens": usage.prompt_tokens if usage else 0,
        "completion_tokens": usage.completion_tokens if usage else 0,
    }


def is_failed(result: MapResult) -> bool:
    """Whether a row failed, or a part of it."""
    return result.error is not None or result.failed_segments > 0


def tokens_of(op: MapOperation, result: MapResult) -> int:
    """Return the tokens that were made for a row."""
    if op == "tokenize":
        return len(result.tokens)
    return result.usage.completion_tokens if result.usage else 0


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record whose error, if it has one, is a line of text."""
    error = record.get("error")
    if error is None:
        return dict(record)
    reason = error.get("reason") or error.get("code") or "ERROR"
    return {**record, "error": f"{reason}: {error['message']}"}


def as_text(value: object) -> object:
    """Return a value as a cell of a table of text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
