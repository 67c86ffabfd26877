"""Nothing leaks: what a test starts is gone when it ends."""

import asyncio
import threading
from collections.abc import Iterator

import pytest


def _ours() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("hocket")}


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    """No thread of hocket's outlives the test that started it."""
    before = _ours()
    yield
    left = _ours() - before
    for thread in left:
        thread.join(timeout=5)
    alive = sorted(thread.name for thread in left if thread.is_alive())
    assert alive == []


@pytest.fixture
async def no_leaked_tasks() -> None:
    """No task outlives the test that started it. Ask for it by name in asyncio tests."""
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    left.discard(asyncio.current_task())  # the end of this fixture is a task of its own
    assert set() == left
