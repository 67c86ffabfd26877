"""The settings of documents."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentConfig:
    """How documents are worked through.

    Attributes:
        max_window: Most segments of one document, variants counted, that are worked on at once or
            wait for those before them.
        max_mib: Longest document, in MiB.
        max_segments: Most segments of one document.
        cache_mib: Memory for segments that were written before, in MiB; 0 for no cache.
    """

    max_window: Annotated[int, Ge(1), Le(4_096)] = 32
    max_mib: Annotated[int, Ge(1), Le(1_024)] = 16
    max_segments: Annotated[int, Ge(1), Le(1_048_576)] = 65_536
    cache_mib: Annotated[int, Ge(0), Le(65_536)] = 64
