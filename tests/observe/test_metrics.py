"""Metrics: what was observed is what is scraped, and no caller can make new series."""

import http.client
import re
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from hocket.server.engine.statistics import EngineStatistics
from hocket.server.errors import StartupError
from hocket.server.lifecycle import ServerState
from hocket.server.observe.exporter import MetricsExporter, split_address
from hocket.server.observe.metrics import Metrics, MetricsConfig
from hocket.server.telemetry import RequestRecord


def make(statistics=None, state=ServerState.SERVING, gauges=dict, **config):
    """Return metrics over a fixed snapshot."""
    return Metrics(
        MetricsConfig(**config),
        engine=lambda: statistics or EngineStatistics(),
        state=lambda: state,
        gauges=gauges,
    )


def samples(metrics):
    """Return the values that a scrape finds, by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def get(address, path="/metrics"):
    """Return the answer to one HTTP request."""
    host, port = split_address(address)
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.fixture
def exporter():
    exporter = MetricsExporter(make().render, address="127.0.0.1:0")
    yield exporter
    exporter.close()


def test_the_engines_snapshot_is_what_is_scraped():
    """Every number of a snapshot appears under its name."""
    statistics = EngineStatistics(
        steps=7,
        running_sequences=3,
        waiting_sequences=2,
        blocks_total=40,
        blocks_used=10,
        saved_blocks=4,
        prefix_chunks_total=50,
        prefix_chunks_used=8,
        prefix_queried_tokens=900,
        prefix_hit_tokens=600,
        prefill_tokens=123,
        decode_tokens=45,
        draft_tokens=30,
        accepted_tokens=20,
        preemptions=6,
        yields=5,
    )
    found = samples(make(statistics))
    expected = {
        "hocket_steps_total": 7,
        "hocket_num_running_seqs": 3,
        "hocket_num_waiting_seqs": 2,
        "hocket_kv_blocks_total": 40,
        "hocket_kv_blocks_used": 10,
        "hocket_kv_blocks_saved": 4,
        "hocket_prefix_chunks_total": 50,
        "hocket_prefix_chunks_used": 8,
        "hocket_prefix_cache_query_tokens_total": 900,
        "hocket_prefix_cache_hit_tokens_total": 600,
        "hocket_prompt_tokens_total": 123,
        "hocket_completion_tokens_total": 45,
        "hocket_preemptions_total": 6,
        "hocket_yields_total": 5,
        "hocket_spec_decode_draft_tokens_total": 30,
        "hocket_spec_decode_accepted_tokens_total": 20,
        "vllm:num_requests_running": 3,
        "vllm:num_requests_waiting": 2,
        "vllm:kv_cache_usage_perc": 0.25,
        "hocket_server_is_serving": 1,
    }
    assert expected == {name: found[name,] for name in expected}


@pytest.mark.parametrize("state", list(ServerState))
def test_only_a_serving_server_says_that_it_serves(state):
    """The gauge follows the lifecycle."""
    found = samples(make(state=state))
    assert float(state is ServerState.SERVING) == found["hocket_server_is_serving",]


def test_foreign_names_can_be_turned_off():
    """Without `vllm_names` every name is ours or the process collector's."""
    names = {name for name, *_ in samples(make(vllm_names=False))}
    assert all(re.match("hocket_|process_", name) for name in names)


def test_further_gauges_come_along():
    """The app can add gauges of other rooms."""
    found = samples(make(gauges=lambda: {"permits_held": ("Held.", 4)}))
    assert found["hocket_permits_held",] == 4


def test_the_version_is_told():
    """`build_info` is one series that is 1."""
    assert [v for (name, *_), v in samples(make()).items() if name == "hocket_build_info"] == [1.0]


def test_a_request_is_counted_where_it_belongs():
    """Each time goes to its histogram, and what was not measured is not made up."""
    metrics = make()
    metrics.observe_request(
        RequestRecord(
            method="Generate",
            code="OK",
            finish_reason="max_tokens",
            prompt_tokens=9,
            cached_tokens=5,
            completion_tokens=3,
            sentences=2,
            total_seconds=2.0,
            queue_seconds=0.5,
            ttft_seconds=0.75,
            ttfs_seconds=1.5,
            itl_seconds=(0.25, 0.5),
        )
    )
    metrics.observe_request(
        RequestRecord(
            method="Generate", code="RESOURCE_EXHAUSTED", reason="QUEUE_FULL", total_seconds=0.25
        )
    )
    metrics.observe_step(0.125)
    found = samples(metrics)
    sums = {
        "request": 2.25,
        "queue": 0.5,
        "time_to_first_token": 0.75,
        "time_to_first_sentence": 1.5,
        "inter_token_latency": 0.75,
        "step": 0.125,
    }
    assert sums == {name: found[f"hocket_{name}_seconds_sum",] for name in sums}
    counts = {"request": 2, "queue": 1, "time_to_first_token": 1, "inter_token_latency": 2}
    assert counts == {name: found[f"hocket_{name}_seconds_count",] for name in counts}
    assert found["hocket_requests_total", "", "Generate", "OK"] == 1
    assert found["hocket_requests_total", "Generate", "QUEUE_FULL", "RESOURCE_EXHAUSTED"] == 1
    assert found["hocket_finished_generations_total", "max_tokens"] == 1
    assert found["hocket_sentences_total",] == 2


@given(st.lists(st.tuples(st.text(), st.text(), st.text(), st.text()), max_size=30))
def test_no_caller_can_make_new_series(words):
    """Unknown methods, codes and reasons are one series, whatever they are."""
    metrics = make()
    for method, code, reason, finish in words:
        metrics.observe_request(
            RequestRecord(
                method="x" + method,
                code="x" + code,
                reason="x" + reason,
                finish_reason="x" + finish,
                total_seconds=0.0,
            )
        )
    found = samples(metrics)
    series = [key for key in found if key[0] == "hocket_requests_total"]
    assert len(series) == bool(words)
    assert len(words) == sum(found[key] for key in series)


def test_a_scrape_brings_everything(exporter):
    """`GET /metrics` answers with the text format; anything else is not found."""
    address = exporter.start()
    status, body = get(address)
    assert status == 200
    assert b"hocket_num_running_seqs 0.0" in body
    assert get(address, "/secrets")[0] == 404


def test_a_silent_peer_delays_no_scrape(exporter):
    """A connection that says nothing takes one of a few places and nothing else."""
    address = exporter.start()
    with socket.create_connection(split_address(address)):
        assert get(address)[0] == 200


def test_scrapes_are_bounded(exporter):
    """However many connect, only a few threads answer."""
    address = exporter.start()
    before = threading.active_count()
    peers = [socket.create_connection(split_address(address)) for _ in range(40)]
    try:
        closed = 0
        for peer in peers[8:]:
            peer.settimeout(10)
            closed += peer.recv(1) == b""
        assert closed == 32
        assert threading.active_count() <= before + 8
    finally:
        for peer in peers:
            peer.close()


def test_a_taken_address_is_told_in_one_line(exporter):
    """The error names the address and what to set."""
    address = exporter.start()
    second = MetricsExporter(bytes, address=address)
    with pytest.raises(StartupError, match=re.escape(f"metrics cannot listen on {address}: ")):
        second.start()
    second.close()


def test_closing_frees_the_port(exporter):
    """After `close` the same address can be bound again."""
    address = exporter.start()
    exporter.close()
    exporter.close()
    again = MetricsExporter(bytes, address=address)
    assert address == again.start()
    again.close()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:9464", ("::1", 9464)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses_are_split(address, expected):
    """A host and a port, brackets around IPv6."""
    assert expected == split_address(address)


@pytest.mark.parametrize(
    "address", ["", ":1", "host", "host:", "host:x", "host:-1", "host:65536", "::1:80", "host:٣"]
)
def test_bad_addresses_are_refused_by_the_config(address):
    """A configuration never holds an address that cannot be listened on."""
    with pytest.raises(ValueError, match="address"):
        MetricsConfig(address=address)


def test_twenty_scrapes_a_second_are_cheap():
    """Rendering takes a small part of the 50 ms between two scrapes, whatever was observed."""
    metrics = make()
    for method in ("Generate", "Tokenize"):
        for code in ("OK", "INTERNAL", "CANCELLED", "UNAVAILABLE"):
            metrics.observe_request(RequestRecord(method=method, code=code, total_seconds=1.0))
    metrics.render()
    began = time.thread_time()
    for _ in range(20):
        metrics.render()
    assert time.thread_time() - began < 0.4  # of the processor's second
