"""How work on texts gets its turn: a door that counts bytes, and slices. Loop thread.

A call that was cancelled, or whose deadline passed, ends at the next slice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from hocket.server.admission import Admission, AdmissionConfig
from hocket.server.executors import Executors
from hocket.server.rpc.slices import Slices

_PLACE_BYTES = 65_536  # of a request
_CONNECTION_MESSAGES, _ALL_MESSAGES = 2, 4  # of the longest, in progress at once

_T = TypeVar("_T")


def text_admission(max_message_bytes: int, clock: Callable[[], float]) -> Admission:
    """Return the door of `TextService`, a place of which holds 64 KiB of a request or less."""
    places = places_of(max_message_bytes)
    config = AdmissionConfig(
        max_running=_ALL_MESSAGES * places,
        max_waiting=0,
        max_per_connection=_CONNECTION_MESSAGES * places,
    )
    return Admission(config, clock, noun="texts in progress, of 64 KiB or less,")


def places_of(size: int) -> int:
    """Return the places that a request of so many bytes takes."""
    return 1 + size // _PLACE_BYTES


async def run_slices(executors: Executors, work: Slices[_T]) -> _T:
    """Do work slice by slice and return what comes of it."""

    def advance() -> _Done[_T] | None:
        try:
            next(work)
        except StopIteration as end:
            return _Done(end.value)
        return None

    while True:
        done = await executors.run_aside(advance)
        if done is not None:
            return done.result


@dataclass(frozen=True, slots=True)
class _Done(Generic[_T]):
    result: _T
