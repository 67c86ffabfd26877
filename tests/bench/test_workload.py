"""A load against a server with a scripted model."""

import time
from collections.abc import AsyncIterator

import pytest
from bench.load import burst, fixed_length, load
from bench.prompts import Prompt
from bench.streams import follow
from bench.workload import Workload, bear

from hocket.client import NO_RETRIES, AsyncClient, Granularity
from hocket.server.testing.serving import loopback_settings, serving

TOKENS = 6


def _prompt(granularity: Granularity = Granularity.TOKEN) -> Prompt:
    options = fixed_length({"token_ids": [104, 105]}, TOKENS, granularity)
    return Prompt(options=options)


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    async with serving() as app, AsyncClient(app.address, retry=NO_RETRIES) as client:
        yield client


@pytest.mark.parametrize("loop", [{"streams": 3}, {"rate": 500.0}])
async def test_so_many_requests_are_sent_and_all_their_tokens_counted(
    client: AsyncClient, loop: dict
) -> None:
    outcome = await bear([client], Workload(requests=[_prompt()], count=7, **loop))
    assert len(outcome.streams) == outcome.completed == 7
    assert outcome.tokens == 7 * TOKENS
    summary = outcome.summary()
    assert summary["errors"] == {}
    assert summary["gap_ms"]["count"] == sum(len(s.deliveries) - 1 for s in outcome.streams)
    assert summary["ttft_ms"]["count"] == 7


async def test_a_warm_up_is_sent_but_not_counted(client: AsyncClient) -> None:
    begun = time.perf_counter()
    outcome = await bear(
        [client], Workload(requests=[_prompt()], streams=1, warm_up_seconds=0.05, count=3)
    )
    assert len(outcome.streams) == 3
    assert outcome.seconds <= time.perf_counter() - begun - 0.05


async def test_latencies_count_from_when_a_request_was_meant_to_be_sent(
    client: AsyncClient,
) -> None:
    """A sender that was held up does not hide it."""
    for granularity in (Granularity.TOKEN, Granularity.SENTENCE):
        options = _prompt(granularity).options
        stream = await follow(client, options, intended=time.perf_counter() - 100)
        assert stream.latency > 100
        assert stream.first_token is not None
        assert stream.first_token > 100


async def test_refusals_are_counted_by_status() -> None:
    settings = loopback_settings(admission={"max_running": 1, "max_waiting": 0})
    async with (
        serving(settings=settings) as app,
        AsyncClient(app.address, retry=NO_RETRIES) as client,
    ):
        outcome = await bear([client], Workload(requests=[_prompt()], rate=1e6, count=20))
    refused = outcome.summary()["errors"]
    assert set(refused) == {"RESOURCE_EXHAUSTED"}
    assert refused["RESOURCE_EXHAUSTED"] + outcome.completed == 20


async def test_a_turn_counts_what_all_streams_wrote(client: AsyncClient) -> None:
    turn = await load(client, [[104, 105]] * 4, TOKENS)
    assert turn.tokens == 4 * TOKENS
    assert turn.rate == pytest.approx(turn.tokens / turn.seconds)


async def test_a_turn_in_which_a_stream_fails_is_no_measurement(client: AsyncClient) -> None:
    with pytest.raises(RuntimeError, match="INVALID_ARGUMENT"):
        await burst(client, [[104], []], TOKENS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"streams": 1, "rate": 1.0, "count": 1},
        {"count": 1},
        {"streams": 1},
        {"requests": [], "streams": 1, "count": 1},
    ],
)
def test_a_load_without_bound_or_kind_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="a load has"):
        Workload(**{"requests": [_prompt()], **wrong})
