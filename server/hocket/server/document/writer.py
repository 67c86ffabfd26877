"""The seam between documents and whatever writes their segments. Loop thread."""

from collections.abc import AsyncGenerator
from typing import Protocol

from hocket.server.document.job import Job, Written, WrittenPiece


class Writer(Protocol):
    """Writes the target of one segment and variant: a language model, or any translator."""

    def write(self, job: Job) -> AsyncGenerator[WrittenPiece | Written]:
        """Yield the pieces of a job as they are final, then how it ended, once, last.

        Closing the generator gives the job up at once, without waiting for anything.

        Raises:
            HocketError: This job failed; others go on.
        """
        ...

    def cancel_nowait(self, job: Job) -> None:
        """Ask that a job in progress end now, with `CANCELLED`; its end still comes. Repeatable."""
        ...
