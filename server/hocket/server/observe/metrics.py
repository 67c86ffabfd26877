"""The server's numbers for Prometheus, on a port and threads of their own.

What the engine and admission count is read from their newest frozen snapshots when somebody
scrapes; only histograms and counters of requests are kept here. Requests are observed on the loop
thread, steps on the engine's, and scrapes are answered by `hocket-metrics` and at most a few
threads beside it: prometheus_client's own locks are held for microseconds. All label sets are
closed; no id, name or address that a caller chose becomes a label.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from hocket.server.engine.commands import FinishReason
from hocket.server.engine.statistics import EngineStatistics
from hocket.server.errors import Code, Reason
from hocket.server.lifecycle import ServerState
from hocket.server.observe.exporter import split_address
from hocket.server.telemetry import RequestRecord

_REQUEST_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2.5, 5)

_LAG_BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.05, 0.1, 0.25, 1)

_OTHER = "other"
_METHODS = frozenset(
    {"Generate", "GenerateMany", "Tokenize", "Detokenize", "CountTokens", "SplitSentences"}
    | {"ListModels", "GetModel", "Abort", "Drain"}
)
# The codes that hocket answers with, and those that gRPC's core answers with on its own.
_CODES = frozenset(Code) | {"OK", "CANCELLED", "UNKNOWN", "DEADLINE_EXCEEDED", "UNAVAILABLE"}
_REASONS = frozenset(Reason) | {""}
_FINISH_REASONS = frozenset(reason.value for reason in FinishReason)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """Where metrics can be scraped.

    Attributes:
        enabled: Whether they can.
        address: Host and port to listen on, with plain HTTP and no key asked for; port 0 takes a
            free one. An IPv6 host stands in brackets.
        vllm_names: Whether the gauges that pickers of replicas know from vLLM are there too.
    """

    enabled: bool = True
    address: str = "127.0.0.1:9464"
    vllm_names: bool = True

    def __post_init__(self) -> None:
        """Check the address.

        Raises:
            ValueError: It is not a host and a port.
        """
        split_address(self.address)


class Metrics:
    """Everything that can be scraped. `observe_request` makes it an observer of requests."""

    def __init__(
        self,
        config: MetricsConfig,
        *,
        engine: Callable[[], EngineStatistics],
        state: Callable[[], ServerState],
        gauges: Callable[[], dict[str, tuple[str, float]]] = dict,
    ) -> None:
        """Make the metrics; nothing is served yet.

        Args:
            config: Which names there are.
            engine: Returns the newest snapshot.
            state: Returns the server's state.
            gauges: Returns further gauges: name without prefix to description and value.
        """
        self._config = config
        self._engine = engine
        self._state = state
        self._gauges = gauges
        disable_created_metrics()  # type: ignore[no-untyped-call]  # half of all series otherwise, which nobody asks for
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)
        build = Gauge("hocket_build_info", "What is running.", ["version"], registry=self._registry)
        build.labels(version=metadata.version("hocket")).set(1)
        self._requests = Counter(
            "hocket_requests",
            "Requests that ended, by method, status code and reason.",
            ["method", "code", "reason"],
            registry=self._registry,
        )
        self._finishes = Counter(
            "hocket_finished_generations",
            "Generations that ended well, by finish reason.",
            ["finish_reason"],
            registry=self._registry,
        )
        self._sentences = Counter(
            "hocket_sentences", "Sentences handed out.", registry=self._registry
        )
        self._request_seconds = self._histogram(
            "request", "From arrival until the end of a request.", _REQUEST_BUCKETS
        )
        self._queue_seconds = self._histogram(
            "queue", "From arrival until the first token was computed on.", _REQUEST_BUCKETS
        )
        self._first_token_seconds = self._histogram(
            "time_to_first_token", "From arrival until the first token.", _REQUEST_BUCKETS
        )
        self._first_sentence_seconds = self._histogram(
            "time_to_first_sentence", "From arrival until the first sentence.", _REQUEST_BUCKETS
        )
        self._token_seconds = self._histogram(
            "inter_token_latency", "Between tokens of one sequence.", _TOKEN_BUCKETS
        )
        self._step_seconds = self._histogram("step", "Of one engine step.", _TOKEN_BUCKETS)
        self._translation_seconds = self._histogram(
            "translation", "Of one sentence through a translator, without its wait.", _TOKEN_BUCKETS
        )
        self._lag_seconds = self._histogram(
            "event_loop_lag", "How late the event loop comes to what is due.", _LAG_BUCKETS
        )

    def observe_request(self, record: RequestRecord) -> None:
        """Count a request that ended. Loop thread."""
        self._requests.labels(
            method=record.method if record.method in _METHODS else _OTHER,
            code=record.code if record.code in _CODES else _OTHER,
            reason=record.reason if record.reason in _REASONS else _OTHER,
        ).inc()
        if record.finish_reason:
            known = record.finish_reason in _FINISH_REASONS
            self._finishes.labels(finish_reason=record.finish_reason if known else _OTHER).inc()
        self._sentences.inc(record.sentences)
        self._request_seconds.observe(record.total_seconds)
        if record.queue_seconds is not None:
            self._queue_seconds.observe(record.queue_seconds)
        if record.ttft_seconds is not None:
            self._first_token_seconds.observe(record.ttft_seconds)
        if record.ttfs_seconds is not None:
            self._first_sentence_seconds.observe(record.ttfs_seconds)
        for seconds in record.itl_seconds:
            self._token_seconds.observe(seconds)

    def observe_step(self, seconds: float) -> None:
        """Count an engine step. Engine thread."""
        self._step_seconds.observe(seconds)

    def observe_translation(self, seconds: float) -> None:
        """Count a sentence that a translator translated. Translator thread."""
        self._translation_seconds.observe(seconds)

    def observe_lag(self, seconds: float) -> None:
        """Count a moment at which the event loop was so late. Loop thread."""
        self._lag_seconds.observe(seconds)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format. Any thread."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield what is read from snapshots; prometheus_client calls it at each scrape."""
        now = self._engine()
        state = self._state()
        yield _gauge("server_is_serving", "Whether new work is welcome.", state is _SERVING)
        yield _gauge("num_running_seqs", "Sequences in the batch.", now.running_sequences)
        yield _gauge("num_waiting_seqs", "Sequences that wait.", now.waiting_sequences)
        yield _gauge("kv_blocks_used", "KV blocks that hold tokens.", now.blocks_used)
        yield _gauge("kv_blocks_total", "KV blocks in all.", now.blocks_total)
        yield _gauge("kv_blocks_saved", "Blocks of preempted sequences.", now.saved_blocks)
        yield _gauge("prefix_chunks_used", "Chunks in the prefix cache.", now.prefix_chunks_used)
        yield _gauge("prefix_chunks_total", "Chunks that fit it.", now.prefix_chunks_total)
        queried, hit = now.prefix_queried_tokens, now.prefix_hit_tokens
        yield _counter("prefix_cache_query_tokens", "Tokens that were looked up in it.", queried)
        yield _counter("prefix_cache_hit_tokens", "Of these, tokens that it had.", hit)
        yield _counter("steps", "Engine steps that computed something.", now.steps)
        yield _counter("preemptions", "Sequences put aside.", now.preemptions)
        yield _counter("yields", "Of these, those that gave way to a smaller group.", now.yields)
        yield _counter("prompt_tokens", "Prompt tokens computed.", now.prefill_tokens)
        yield _counter("completion_tokens", "Tokens written.", now.decode_tokens)
        yield _counter("spec_decode_draft_tokens", "Tokens guessed and computed.", now.draft_tokens)
        yield _counter("spec_decode_accepted_tokens", "Guesses that held.", now.accepted_tokens)
        for name, (description, value) in self._gauges().items():
            yield _gauge(name, description, value)
        if self._config.vllm_names:
            usage = now.blocks_used / now.blocks_total if now.blocks_total else 0.0
            running, waiting = float(now.running_sequences), float(now.waiting_sequences)
            yield GaugeMetricFamily("vllm:num_requests_running", "Running.", running)
            yield GaugeMetricFamily("vllm:num_requests_waiting", "Queued.", waiting)
            yield GaugeMetricFamily("vllm:kv_cache_usage_perc", "From 0 to 1.", usage)

    def _histogram(self, name: str, description: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"hocket_{name}_seconds", description, buckets=buckets, registry=self._registry
        )


_SERVING: Literal[ServerState.SERVING] = ServerState.SERVING


def _gauge(name: str, description: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"hocket_{name}", description, float(value))


def _counter(name: str, description: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"hocket_{name}", description, float(value))
