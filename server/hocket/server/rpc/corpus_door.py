"""How the items of one corpus job get places at a door. Loop thread.

A job takes one place, as any request does, but waits for it; for what else it does at the same
time it takes further ones, as a document does: as far as they are free, within the share of the
door that all who do so have together. The rest is kept for others, however wide the jobs are.
"""

import asyncio

from hocket.server.admission import Admission, Permit


class CorpusDoor:
    """A door, for the items of one job."""

    def __init__(self, admission: Admission, connection: str) -> None:
        """Stand before it.

        Args:
            admission: The door.
            connection: Names the caller's connection.
        """
        self._admission = admission
        self._connection = connection
        self._first: Permit | None = None
        self._turn = asyncio.Lock()  # items come in as they were read

    async def enter(self, places: int = 1) -> Permit:
        """Take the places of an item, all or none, once there are enough.

        Raises:
            Overloaded: There will never be enough.
        """
        async with self._turn:
            while self._first is not None and self._first.is_held:
                permit = self._admission.try_enter(self._connection, places)
                if permit is not None:
                    return permit
                await self._admission.wait_left()
            self._first = await self._admission.enter(self._connection, places)
            return self._first

    def try_enter(self) -> Permit | None:
        """Take one more place for an item that is inside; None if none is free."""
        return self._admission.try_enter(self._connection)
