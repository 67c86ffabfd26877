"""Many requests on one server: a closed loop of streams, or an open loop of arrivals."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.arrivals import poisson
from bench.prompts import Prompt
from bench.samples import milliseconds
from bench.streams import Stream, follow, wait_until
from hocket.client import AsyncClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is sent, and for how long.

    Attributes:
        requests: Sent in turn, from the first again as often as need be; at least one, or without
            end.
        streams: Requests in progress at any time, each following on the last; None for an open
            loop.
        rate: Requests a second that are sent come what may; None for a closed loop.
        seed: Of the arrivals of an open loop.
        warm_up_seconds: Requests that were meant to be sent earlier count for nothing.
        seconds: Nothing is sent later than this after the warm-up; None for no bound.
        count: No more than this many requests are sent after the warm-up; None for no bound.
    """

    requests: Iterable[Prompt]
    streams: int | None = None
    rate: float | None = None
    seed: int = 0
    warm_up_seconds: float = 0.0
    seconds: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        """Refuse what never starts or never ends.

        Raises:
            ValueError: Streams and a rate are given, or neither; or nothing bounds the load.
        """
        if not self.requests or (self.streams is None) == (self.rate is None):
            raise ValueError("a load has requests, and either streams or a rate")
        if self.seconds is None and self.count is None:
            raise ValueError("a load has a bound: seconds or a count of requests")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a load after the warm-up.

    Attributes:
        streams: The requests that were meant to be sent after the warm-up.
        seconds: How long tokens and requests were counted: from the end of the warm-up to the
            bound, or without one to the end of the last stream.
        tokens: Received in that time, those of earlier requests included.
        completed: Requests that ended well in that time.
        cpu_share: Processor time of this process in that time, as a share of one core.
    """

    streams: tuple[Stream, ...]
    seconds: float
    tokens: int
    completed: int
    cpu_share: float

    def summary(self) -> dict[str, object]:
        """Return rates, percentiles in milliseconds, and failures by status."""
        good = [stream for stream in self.streams if stream.error is None]
        return {
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "requests_per_second": round(self.completed / self.seconds, 3),
            "requests": len(self.streams),
            "errors": dict(Counter(stream.error for stream in self.streams if stream.error)),
            "ttft_ms": milliseconds([s.first_token for s in good if s.first_token is not None]),
            "ttfs_ms": milliseconds(
                [s.first_sentence for s in good if s.first_sentence is not None]
            ),
            "gap_ms": milliseconds([gap for stream in good for gap in stream.gaps]),
            "latency_ms": milliseconds([stream.latency for stream in good]),
            "client_cpu_share": round(self.cpu_share, 3),
        }


async def bear(clients: Sequence[AsyncClient], load: Workload) -> Outcome:
    """Send a load, spread over the clients in turn, and wait for all that was sent."""
    return await _Run(clients, load).outcome()


class _Run:
    """A load in progress."""

    def __init__(self, clients: Sequence[AsyncClient], load: Workload) -> None:
        self._load = load
        self._clients = itertools.cycle(clients)
        self._requests = itertools.cycle(load.requests)
        self._begun = time.perf_counter() + load.warm_up_seconds  # of what counts
        self._end = None if load.seconds is None else self._begun + load.seconds
        self._left = load.count
        self._streams: list[Stream] = []
        self._used_before = self._used_until = 0.0

    async def outcome(self) -> Outcome:
        load = self._load
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch_processor())
            if load.rate is not None:
                moments = poisson(load.rate, load.seed)
                sending = group.create_task(self._send_at(moments))
            else:
                sending = group.create_task(self._send_in_turn(load.streams or 0))
            await sending
            watch.cancel()
        end = max((s.ended for s in self._streams), default=time.perf_counter())
        if self._end is not None:
            end = self._end if load.count is None else min(self._end, end)
        self._used_until = self._used_until or time.process_time()
        seconds = max(end - self._begun, 1e-9)
        return Outcome(
            streams=tuple(s for s in self._streams if s.intended >= self._begun),
            seconds=seconds,
            tokens=sum(
                tokens
                for stream in self._streams
                for moment, tokens in stream.deliveries
                if self._begun <= moment <= end
            ),
            completed=sum(
                stream.error is None and self._begun <= stream.ended <= end
                for stream in self._streams
            ),
            cpu_share=(self._used_until - self._used_before) / seconds,
        )

    async def _watch_processor(self) -> None:
        await wait_until(self._begun)
        self._used_before = time.process_time()
        if self._end is not None:
            await wait_until(self._end)
            self._used_until = time.process_time()

    def _may_send(self, moment: float) -> bool:
        """Whether a request may be sent at a moment; what counts is counted."""
        if self._end is not None and moment >= self._end:
            return False
        if moment < self._begun or self._left is None:
            return True
        self._left -= 1
        return self._left >= 0

    async def _follow(self, intended: float) -> Stream:
        request = next(self._requests)
        stream = await follow(
            next(self._clients), request.options, prompt=request.text, intended=intended
        )
        self._streams.append(stream)
        return stream

    async def _send_at(self, moments: Iterator[float]) -> None:
        """Send at each moment; what is late, is measured from when it was meant to be sent."""
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for moment in moments:
                intended = begun + moment
                if not self._may_send(intended):
                    break
                await wait_until(intended)
                group.create_task(self._follow(intended))

    async def _send_in_turn(self, streams: int) -> None:
        async def one() -> None:
            while self._may_send(now := time.perf_counter()):
                stream = await self._follow(now)
                if stream.error is not None:
                    await asyncio.sleep(_PAUSE_SECONDS)  # a refusal costs nothing; spare both sides

        async with asyncio.TaskGroup() as group:
            for _ in range(streams):
                group.create_task(one())


_PAUSE_SECONDS = 0.05
