"""Commands end as commands do."""

import asyncio
import os
import signal

import pytest
from bench.command import run
from bench.process import Absent


def test_a_result_is_returned() -> None:
    async def measured() -> int:
        return 3

    assert run(measured()) == 3


def test_what_does_not_run_is_told() -> None:
    async def measured() -> None:
        raise Absent("left with exit code 2")

    with pytest.raises(SystemExit, match="left with exit code 2"):
        run(measured())


def test_sigterm_ends_a_measurement_in_order() -> None:
    """What it started is ended by its own `finally`."""
    told = []

    async def measured() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            told.append("ended")

    with pytest.raises(SystemExit) as left:
        run(measured())
    assert left.value.code == 128 + signal.SIGTERM
    assert told == ["ended"]
