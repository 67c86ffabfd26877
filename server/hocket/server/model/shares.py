"""What each engine worker gets of the machine: its cores, its part of the KV cache. Any thread.

Plain Python; importing this needs no torch.
"""

import os
from dataclasses import replace
from pathlib import Path

from hocket.server.errors import StartupError
from hocket.server.model.config import RunnerConfig


def physical_cores() -> int:
    """Return how many physical cores this process may run on, at least 1."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(1))
    siblings: set[str] = set()
    for cpu in allowed:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            siblings.add(topology.read_text(encoding="ascii").strip())
        except OSError:
            siblings.add(str(cpu))
    return max(1, len(siblings))


def share_of(config: RunnerConfig, workers: int) -> RunnerConfig:
    """Return the settings of each of several workers, whose sum is at most what was set.

    All get the same, so that it does not matter which of them computes a text. Threads or MiB that
    cannot be divided stay unused; a thread is the least that one gets.

    Raises:
        StartupError: There is less than a MiB of cache for each.
    """
    if workers == 1:
        return config
    if config.kv_cache_mib < workers:
        raise StartupError(
            f"runner.kv_cache_mib is {config.kv_cache_mib}, which leaves less than 1 MiB to each of"
            f" {workers} workers"
        )
    return replace(
        config,
        kv_cache_mib=config.kv_cache_mib // workers,
        saved_kv_mib=config.saved_kv_mib // workers,
        prefix_cache_mib=config.prefix_cache_mib // workers,
        num_threads=max(1, (config.num_threads or physical_cores()) // workers),
    )
