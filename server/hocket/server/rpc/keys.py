"""Which credentials are known, and what each may do. Loop thread; read once, at start.

A keys file has one credential a line: `NAME ROLE SHA256`, where ROLE is `user` or `operator` and
SHA256 the hexadecimal digest of the bearer token. Tokens themselves are never stored.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from hocket.server.errors import Forbidden, StartupError, Unauthenticated

_LINE = re.compile(r"(?P<name>[\w.-]{1,64})\s+(?P<role>user|operator)\s+(?P<digest>[0-9a-f]{64})")
_MOST_TOKEN = 4_096
_PUBLIC_PREFIX = "/grpc.health.v1."
_OPERATOR_PREFIX = "/hocket.v1.ControlService/"


class Role(Enum):
    """What a credential may do."""

    USER = "user"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class _Key:
    name: str
    role: Role
    digest: bytes


class Keys:
    """The known credentials; without any, every caller may do everything that is enabled."""

    def __init__(self, lines: tuple[str, ...] = ()) -> None:
        """Read the lines of a keys file.

        Raises:
            StartupError: A line is malformed.
        """
        self._keys: list[_Key] = []
        for number, line in enumerate(lines, start=1):
            text = line.partition("#")[0].strip()
            found = _LINE.fullmatch(text)
            if found:
                role = Role(found["role"])
                self._keys.append(_Key(found["name"], role, bytes.fromhex(found["digest"])))
            elif text:
                raise StartupError(f"line {number} of the keys file is not NAME ROLE SHA256")

    @classmethod
    def from_file(cls, path: str) -> "Keys":
        """Read a keys file; an empty path means no keys.

        Raises:
            StartupError: It cannot be read, is malformed, or holds no key.
        """
        if not path:
            return cls()
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise StartupError(f"the keys file {path} cannot be read") from None
        keys = cls(tuple(lines))
        if not keys._keys:
            raise StartupError(f"the keys file {path} holds no key")
        return keys

    def check(self, method: str, authorization: str | bytes | None) -> str:
        """Return who makes a call, if it may be made: its credential's name, or none.

        Args:
            method: Its full name, such as `/hocket.v1.TextService/Tokenize`.
            authorization: The value of the `authorization` metadata, if any.

        Raises:
            Unauthenticated: It carries no known credential.
            Forbidden: Its credential does not allow this method.
        """
        if not self._keys or method.startswith(_PUBLIC_PREFIX):
            return ""
        key = self._key_of(authorization)
        if key is None:
            raise Unauthenticated
        if method.startswith(_OPERATOR_PREFIX) and key.role is not Role.OPERATOR:
            raise Forbidden
        return key.name

    def _key_of(self, authorization: str | bytes | None) -> "_Key | None":
        if authorization is None or len(authorization) > _MOST_TOKEN:
            return None
        raw = authorization.encode() if isinstance(authorization, str) else authorization
        scheme, _, token = raw.partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            return None
        digest = hashlib.sha256(token.strip()).digest()
        # Every key is compared, so that the time taken tells nothing.
        matches = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]
        return matches[0] if matches else None
