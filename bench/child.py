"""A process that answers one line of JSON with one line of JSON, for what must not share ours."""

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Ask = Callable[[Mapping[str, object]], dict[str, Any]]


@contextlib.contextmanager
def child(
    command: Sequence[str | Path],
) -> Iterator[Ask]:
    """Run a process until the block ends; yield how to ask it.

    Args:
        command: What to run. It writes a line once it is ready, then answers each line of its
            standard input with one, and leaves when that ends.

    Raises:
        SystemExit: It leaves without an answer.
    """
    process = subprocess.Popen(
        list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise AssertionError("the pipes were asked for. This is a bug.")

    def hear() -> dict[str, Any]:
        line = stdout.readline()
        if not line:
            raise SystemExit(f"{command[1]} left without an answer")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(question: Mapping[str, object]) -> dict[str, Any]:
        stdin.write(json.dumps(question) + "\n")
        stdin.flush()
        return hear()

    try:
        hear()
        yield ask
    finally:
        stdin.close()
        process.wait(timeout=60)
        stdout.close()
