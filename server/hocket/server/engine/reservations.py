"""Ids that are taken for requests to come, and whether any more may be. Loop thread.

A driver has them, and so has an ensemble of drivers, each for its own requests.
"""

from collections.abc import Callable

from hocket.server.engine.commands import FinishReason
from hocket.server.engine.generation import DrivenGeneration, Owner
from hocket.server.engine.mailbox import Mailbox
from hocket.server.errors import DuplicateRequest, EngineFailed, HocketError


class Reservations:
    """The requests of one owner that are not submitted yet."""

    def __init__(
        self, owner: Owner, *, mailbox_bytes: int, is_in_progress: Callable[[str], bool]
    ) -> None:
        """Begin with none, open to all.

        Args:
            owner: Whom they will be submitted to.
            mailbox_bytes: Most that waits for the reader of one request.
            is_in_progress: Whether an id is that of a request that was submitted and not let go.
        """
        self._owner = owner
        self._mailbox_bytes = mailbox_bytes
        self._is_in_progress = is_in_progress
        self._reserved: dict[str, DrivenGeneration] = {}
        self._refusal: Callable[[], HocketError] | None = None
        self._is_closed = False

    def __len__(self) -> int:
        """Return how many are reserved and not submitted."""
        return len(self._reserved)

    @property
    def refusal(self) -> Callable[[], HocketError] | None:
        """Makes what whoever comes is told, after `refuse`."""
        return self._refusal

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def reserve_nowait(self, request_id: str) -> DrivenGeneration:
        """Take an id for a request that will be submitted.

        Raises:
            DuplicateRequest: A request with this id is reserved or in progress.
            HocketError: What `check_open` raises.
        """
        self.check_open()
        if request_id in self._reserved or self._is_in_progress(request_id):
            raise DuplicateRequest(request_id)
        mailbox = Mailbox(request_id, max_bytes=self._mailbox_bytes)
        generation = DrivenGeneration(self._owner, request_id, mailbox)
        self._reserved[request_id] = generation
        return generation

    def check_open(self) -> None:
        """Raise if nothing comes in any more.

        Raises:
            EngineFailed: Closed, and no other reason is known.
            HocketError: What `refuse` was given.
        """
        if self._refusal is not None:
            raise self._refusal()
        if self._is_closed:
            raise EngineFailed

    def note_submitted(self, request_id: str) -> None:
        """Forget a reservation whose request was let in, if it is one of these."""
        self._reserved.pop(request_id, None)

    def abort_nowait(self, request_id: str, reason: FinishReason) -> bool:
        """Let a request end as soon as it is submitted; False if it is not reserved."""
        generation = self._reserved.get(request_id)
        if generation is not None:
            generation.abort_nowait(reason)
        return generation is not None

    def give_back(self, request_id: str, mailbox: Mailbox) -> bool:
        """Forget the reservation whose reader has this mailbox; False if it is not reserved."""
        generation = self._reserved.get(request_id)
        if generation is None or not generation.owns(mailbox):
            return False
        del self._reserved[request_id]
        return True

    def refuse(self, failure: Callable[[], HocketError]) -> Callable[[], HocketError]:
        """End all with a failure, and let nothing in from here on.

        Their ids stay taken until they are given back.

        Returns:
            What makes the failure: that of the first call.
        """
        self._refusal = self._refusal or failure
        for generation in self._reserved.values():
            generation.fail_nowait(self._refusal())
        return self._refusal

    def close(self) -> None:
        """Let nothing in from here on; what is reserved fails when it is submitted."""
        self._is_closed = True

    def fail_all(self) -> None:
        """End all with `EngineFailed`, which is what is said from here on, and forget them."""
        self._refusal = EngineFailed
        for generation in self._reserved.values():
            generation.fail_nowait(EngineFailed())
        self._reserved.clear()
