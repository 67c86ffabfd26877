"""What all tests share."""

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["plugins.leaks"]

# A shell starts what runs in the background with SIGINT ignored, which all that is started from
# there inherits: commands that tests interrupt would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Deadlines measure the machine, not the code; the default profile keeps a run short.
settings.register_profile(
    "default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", parent=settings.get_profile("default"), max_examples=2_000)
settings.load_profile("default")


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The weights of the default model: installed, cached, or fetched once."""
    from hocket.server.model.config import (  # noqa: PLC0415 - not every test needs models
        ModelSourceConfig,
    )
    from hocket.server.model.registry import resolve  # noqa: PLC0415 - the same

    return resolve(ModelSourceConfig(model="smollm2")).path
