"""Signed tokens by which a lost stream can be gone on with, here or on another server. Any thread.

Nothing of a stream is kept for it: what must be as it was is signed, as digests, and compared when
the stream comes back. Servers that read the same key file know each other's tokens.
"""

import hashlib
import hmac
import secrets
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from annotated_types import Ge, Le

from hocket.server.catalogue import ModelDescription
from hocket.server.errors import InvalidRequest, StartupError
from hocket.v1 import generation_pb2

_FIELD: Final = "resume.token"
_VERSION: Final = 1
_LAYOUT: Final = struct.Struct(">BQQ16s16s16s")  # version, time, seed, then the digests
_SIGNATURE_BYTES: Final = 32
_LEAST_KEY_BYTES: Final = 32
_FREE_FIELDS: Final = ("request_id", "resume", "time_budget", "priority")  # say nothing of the text


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeConfig:
    """How lost streams are gone on with.

    Attributes:
        key_file: File of at least 32 bytes that nobody else knows, as `openssl rand -hex 32` makes
            them. Servers that share it go on with each other's streams. Empty: a random key, and
            streams end with the process.
        max_age_seconds: Seconds after the start of a stream, or after it was gone on with last, in
            which it can be gone on with.
    """

    key_file: str = ""
    max_age_seconds: Annotated[int, Ge(1), Le(604_800)] = 3_600


@dataclass(frozen=True, slots=True)
class Bond:
    """What a token holds only together with; digests of 16 bytes.

    Attributes:
        request: Of all that bears on the text.
        model: Of the model's name and weights.
        caller: Of the credential's name.
    """

    request: bytes
    model: bytes
    caller: bytes

    @classmethod
    def of(
        cls, request: generation_pb2.GenerateRequest, model: ModelDescription, caller: str
    ) -> "Bond":
        """Return what binds a request, as it came, to the model that answers and to its caller."""
        bare = generation_pb2.GenerateRequest()
        bare.CopyFrom(request)
        for name in _FREE_FIELDS:
            bare.ClearField(name)
        return cls(
            _digest(bare.SerializeToString(deterministic=True)),
            _digest(f"{model.name}\n{model.digest}".encode()),
            _digest(caller.encode()),
        )


class ResumeTokens:
    """Signs tokens and knows them again."""

    def __init__(
        self, key: bytes, *, max_age_seconds: float, now: Callable[[], float] = time.time
    ) -> None:
        """Sign with a key.

        Args:
            key: At least 32 bytes.
            max_age_seconds: For how long a token is good.
            now: Seconds of the wall clock, which servers have in common.
        """
        self._key = key
        self._max_age_seconds = max_age_seconds
        self._now = now

    @classmethod
    def from_config(cls, config: ResumeConfig) -> "ResumeTokens":
        """Read the key, or draw one.

        Raises:
            StartupError: The key file cannot be read, or is too short to be a secret.
        """
        key = _read_key(config.key_file) if config.key_file else secrets.token_bytes(32)
        return cls(key, max_age_seconds=config.max_age_seconds)

    def issue(self, bond: Bond, *, seed: int) -> bytes:
        """Return a token for a stream that begins now with a seed of 64 bits."""
        body = _LAYOUT.pack(_VERSION, int(self._now()), seed, bond.request, bond.model, bond.caller)
        return body + self._sign(body)

    def open(self, token: bytes, bond: Bond) -> int:
        """Return the seed of the stream that a token was given for.

        Raises:
            InvalidRequest: It is not good for this.
        """
        body, signature = token[:-_SIGNATURE_BYTES], token[-_SIGNATURE_BYTES:]
        is_ours = hmac.compare_digest(signature, self._sign(body))
        if not is_ours or len(body) != _LAYOUT.size or body[0] != _VERSION:
            raise InvalidRequest.of(
                _FIELD, "must be as `Started` gave it, from this server or one that has its key"
            )
        _, issued, seed, request, model, caller = _LAYOUT.unpack(body)
        if caller != bond.caller:
            raise InvalidRequest.of(_FIELD, "was given to another credential")
        if model != bond.model:
            raise InvalidRequest.of(_FIELD, "belongs to another model than the one that answers")
        if request != bond.request:
            free = ", ".join(_FREE_FIELDS)
            raise InvalidRequest.of(
                _FIELD, f"belongs to another request: all fields but {free} must be as they were"
            )
        if self._now() - issued > self._max_age_seconds:
            raise InvalidRequest.of(
                _FIELD, f"is too old: it was good for {self._max_age_seconds} seconds"
            )
        return int(seed)

    def _sign(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:16]


def _read_key(path: str) -> bytes:
    try:
        key = Path(path).read_bytes().strip()
    except OSError:
        raise StartupError(f"the key file {path} cannot be read") from None
    if len(key) < _LEAST_KEY_BYTES:
        raise StartupError(f"the key file {path} holds fewer than {_LEAST_KEY_BYTES} bytes")
    return key
