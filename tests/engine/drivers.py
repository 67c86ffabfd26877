"""The ways in which a core can be driven; the laws of a driver hold for each."""

from functools import partial

from hocket.server.engine.driver import EngineDriver
from hocket.server.engine.ensemble import Ensemble


def of_one(core, executor, **options) -> Ensemble:
    """Return an ensemble of one worker."""
    return Ensemble([core], [executor], **options)


DRIVERS = {
    "strict": EngineDriver,
    "overlapped": partial(EngineDriver, is_overlapped=True),
    "ensemble": of_one,
    "ensemble-overlapped": partial(of_one, is_overlapped=True),
}
