"""A server of its own for a measurement, in a process beside it."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import psutil

_QUIET = ("log.level=warning", "drain.delay_seconds=0")
_POLL_SECONDS = 0.01
_START_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that serves.

    Attributes:
        address: Where, as host and port.
        metrics_address: Where its metrics can be scraped; empty if they cannot.
        pid: Its process.
        start_seconds: From the start of the process until it served.
    """

    address: str
    metrics_address: str
    pid: int
    start_seconds: float

    @property
    def resident_mib(self) -> float:
        """MiB of memory that the process holds now."""
        return float(psutil.Process(self.pid).memory_info().rss) / (1 << 20)

    def metrics(self) -> dict[str, float]:
        """Return the newest value of each metric that has no labels."""
        with urlopen(f"http://{self.metrics_address}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        pairs = [line.split() for line in lines if line and line[0] != "#" and "{" not in line]
        return {name: float(value) for name, value in pairs}


@contextlib.asynccontextmanager
async def started(
    settings: Sequence[str], program: Sequence[str] = ("-m", "hocket.server")
) -> AsyncIterator[Server]:
    """Run a server on a free loopback port until the block ends.

    Args:
        settings: Of the server, as `SECTION.KEY=VALUE`.
        program: What Python is to run.

    Raises:
        SystemExit: It does not start.
    """
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, *program, "--address", "127.0.0.1:0"]
        command += ["--ready-file", str(ready)]
        for setting in (*_QUIET, *settings):
            command += ["--set", setting]
        begun = time.perf_counter()
        process = subprocess.Popen(command)
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not ready.exists():
                    if process.poll() is not None:
                        raise SystemExit(f"the server left with exit code {process.returncode}")
                    await asyncio.sleep(_POLL_SECONDS)
            seconds = time.perf_counter() - begun
            told = json.loads(ready.read_text(encoding="utf-8"))
            yield Server(
                address=told["address"],
                metrics_address=told["metrics_address"],
                pid=process.pid,
                start_seconds=seconds,
            )
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


@contextlib.asynccontextmanager
async def server(dtype: str, extra: Sequence[str]) -> AsyncIterator[str]:
    """Run a server without metrics until the block ends; yield its address.

    Args:
        dtype: Number type of the weights, or `auto`.
        extra: Further settings, as `SECTION.KEY=VALUE`.
    """
    settings = [f"runner.dtype={dtype}", "metrics.enabled=false", *extra]
    async with started(settings) as serving:
        yield serving.address
