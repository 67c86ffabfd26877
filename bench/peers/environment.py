"""Environments of the peers: made once at the top of the checkout, from pinned lists.

Nothing beyond a list is installed: the lists hold all that is imported, and leave out what packages
ask for that computes nothing here, such as CUDA libraries.
"""

import asyncio
import os
import sys
from importlib.metadata import distributions
from pathlib import Path

from bench.machine import ROOT
from bench.process import Absent

LISTS = Path(__file__).parent


async def peer_python(folder: str, requirements: str) -> Path:
    """Return the Python of an environment, which is made or brought up to date first if need be.

    Args:
        folder: The environment's name at the top of the checkout.
        requirements: The list's file name in this folder.

    Raises:
        Absent: Something of the list cannot be installed.
    """
    environment, wanted = ROOT / folder, (LISTS / requirements).read_text(encoding="utf-8")
    python, stamp = environment / "bin" / "python", environment / requirements
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"Installing {requirements} into {folder} ...", file=sys.stderr, flush=True)
    if not python.exists():
        await _run(sys.executable, "-m", "venv", str(environment))
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:")
    await _run(str(python), *install, "-r", str(LISTS / requirements))
    stamp.write_text(wanted, encoding="utf-8")
    return python


def installed(python: Path, package: str) -> str:
    """Return a package of an environment with its version, as in `torch 2.13.0`."""
    packages = next((python.parents[1] / "lib").glob("python*/site-packages"))
    found = next(iter(distributions(name=package, path=[str(packages)])))
    return f"{package} {found.version}"


async def _run(*command: str) -> None:
    clean = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}  # noqa: TID251 - passed on to pip
    process = await asyncio.create_subprocess_exec(
        *command, env=clean, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    if process.returncode:
        lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
        told = [line for line in lines if line.startswith("ERROR")] or lines or ["it said nothing"]
        raise Absent(f"not installed: {told[-1].strip()}")
