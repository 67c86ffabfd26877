"""A server of its own for a measurement, in a process beside it."""

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.metrics import Metrics, scrape
from bench.process import Process

_QUIET = ("log.level=warning", "drain.delay_seconds=0")
_START_SECONDS = 600
WITH_METRICS = "metrics.address=127.0.0.1:0"
WITHOUT_METRICS = "metrics.enabled=false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that serves.

    Attributes:
        address: Where, as host and port.
        metrics_address: Where its metrics can be scraped; empty if they cannot.
        process: Its process, whose main thread runs the event loop.
        start_seconds: From the start of the process until it served.
    """

    address: str
    metrics_address: str
    process: Process
    start_seconds: float

    async def metrics(self) -> Metrics:
        """Return what its metrics say now."""
        return await asyncio.to_thread(scrape, self.metrics_address)


@contextlib.asynccontextmanager
async def started(
    settings: Sequence[str],
    *,
    module: str = "hocket.server",
    log: Path | None = None,
    environment: Mapping[str, str | None] | None = None,
) -> AsyncIterator[Server]:
    """Run a server on a free loopback port until the block ends.

    Args:
        settings: Of the server, as `SECTION.KEY=VALUE`.
        module: What Python is to run.
        log: Where its output goes; to our standard error if None.
        environment: Added to ours; a variable that is None is taken out of it.

    Raises:
        Absent: It does not start.
    """
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command: list[str | Path] = [sys.executable, "-m", module, "--address", "127.0.0.1:0"]
        command += ["--ready-file", ready]
        for setting in (*_QUIET, *settings):
            command += ["--set", setting]
        begun = time.perf_counter()
        process = Process(command, log=log, environment=environment)

        async def is_ready() -> bool:
            return ready.exists()

        try:
            await process.wait_ready(is_ready, _START_SECONDS)
            seconds = time.perf_counter() - begun
            told = json.loads(ready.read_text(encoding="utf-8"))
            yield Server(
                address=told["address"],
                metrics_address=told["metrics_address"],
                process=process,
                start_seconds=seconds,
            )
        finally:
            await process.end()


@contextlib.asynccontextmanager
async def server(dtype: str, extra: Sequence[str]) -> AsyncIterator[str]:
    """Run a server without metrics until the block ends; yield its address.

    Args:
        dtype: Number type of the weights, or `auto`.
        extra: Further settings, as `SECTION.KEY=VALUE`.
    """
    async with started([f"runner.dtype={dtype}", WITHOUT_METRICS, *extra]) as serving:
        yield serving.address
