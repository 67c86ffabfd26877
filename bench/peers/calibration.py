"""What the machine can do at this moment: a float32 matrix product, timed in a process of its own.

    python -m bench.peers.calibration

Measured before and after a run, it shows whether something else used the machine meanwhile.
"""

import os
import subprocess
import sys
import time

import torch

from bench.machine import ROOT

_SIZE = 1024
_SECONDS = 1.5


def gflops() -> float:
    """Return the best billions of operations per second of matrix products on all cores."""
    left, right = torch.randn(_SIZE, _SIZE), torch.randn(_SIZE, _SIZE)
    torch.set_num_threads(os.cpu_count() or 1)
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while (begun := time.perf_counter()) < end:
        torch.mm(left, right)
        best = min(best, time.perf_counter() - begun)
    return 2 * _SIZE**3 / best / 1e9


def measured() -> float:
    """Return `gflops` of a process that ends with the measurement, so that nothing of it stays."""
    command = [sys.executable, "-m", "bench.peers.calibration"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout)


if __name__ == "__main__":
    print(f"{gflops():.1f}")
