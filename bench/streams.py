"""One request, followed to its end, with the moments at which things happened."""

import asyncio
import time
from dataclasses import dataclass
from itertools import pairwise

from hocket.client import (
    AsyncClient,
    ClientError,
    Delta,
    Finished,
    GenerationOptions,
    Granularity,
    Sentence,
    StatusError,
    StreamError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What became of a request. Moments are `time.perf_counter` seconds.

    Attributes:
        intended: When it was meant to be sent; all latencies count from here.
        ended: When its end was known.
        deliveries: When tokens came, and how many of them.
        first_token: Seconds until the first token; by the server's clock where only whole
            sentences are sent, None where no token came.
        first_sentence: Seconds until the first sentence was received; None where none was.
        tokens: Written, by the server's count.
        is_by_token: Whether text was sent as it was written; in whole sentences otherwise.
        error: Name of the status with which it failed; None if it ended well.
    """

    intended: float
    ended: float
    deliveries: tuple[tuple[float, int], ...]
    first_token: float | None
    first_sentence: float | None
    tokens: int
    is_by_token: bool
    error: str | None

    @property
    def latency(self) -> float:
        """Seconds from the intended sending to the end."""
        return self.ended - self.intended

    @property
    def gaps(self) -> list[float]:
        """Seconds between deliveries of tokens; none where whole sentences are sent."""
        if not self.is_by_token:
            return []
        return [after - before for (before, _), (after, _) in pairwise(self.deliveries)]


async def follow(
    client: AsyncClient,
    options: GenerationOptions,
    *,
    prompt: str | None = None,
    intended: float | None = None,
) -> Stream:
    """Send a request and follow it to its end, however it ends.

    Args:
        client: Sends it.
        options: The request.
        prompt: Its text, where the options hold neither token ids nor messages.
        intended: When it was meant to be sent; now if None.
    """
    sent = time.perf_counter()
    intended = sent if intended is None else intended
    deliveries: list[tuple[float, int]] = []
    first_token = first_sentence = finished = None
    error = None
    try:
        async with client.stream(prompt, **options) as events:
            async for event in events:
                now = time.perf_counter()
                match event:
                    case Delta() | Sentence():
                        deliveries.append((now, len(event.token_ids)))
                        if isinstance(event, Delta):
                            first_token = first_token or now - intended
                        else:
                            first_sentence = first_sentence or now - intended
                    case Finished():
                        finished = event
    except ClientError as failure:
        error = _name(failure)
    if finished is not None and first_token is None and finished.timings.first_token is not None:
        first_token = finished.timings.first_token + sent - intended
    return Stream(
        intended=intended,
        ended=time.perf_counter(),
        deliveries=tuple(deliveries),
        first_token=first_token,
        first_sentence=first_sentence,
        tokens=finished.usage.completion_tokens if finished else 0,
        is_by_token=options.get("granularity") is Granularity.TOKEN,
        error=error,
    )


def _name(failure: ClientError) -> str:
    match failure:
        case StatusError(code=code):
            return str(code)
        case StreamError():
            return "STREAM_BROKEN"
        case _:
            return "UNREACHABLE"


async def wait_until(moment: float) -> None:
    """Wait for a moment of `time.perf_counter`; return at once if it has passed."""
    delay = moment - time.perf_counter()
    if delay > 0:
        await asyncio.sleep(delay)
