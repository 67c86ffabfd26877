"""Options from the wire to the engine's own types. Loop thread; pure functions.

Each function notes what is wrong and returns a value all the same, so that every violation of a
request is found in one go. What is not set takes the default that `options.proto` states.
"""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.rpc.limits import (
    DEFAULT_MAX_TOKENS,
    MAX_BUDGET_SECONDS,
    MAX_LOGIT_BIASES,
    MAX_NANOS,
    MAX_STOP_BYTES,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKENS,
    RANGES,
    Range,
    Violations,
)
from hocket.server.text.languages import resolve_language
from hocket.server.text.pieces import Granularity, QuotePolicy, SentenceMode, SentenceOptions
from hocket.v1 import options_pb2

_GRANULARITIES = {
    options_pb2.GRANULARITY_UNSPECIFIED: Granularity.SENTENCE,
    options_pb2.GRANULARITY_TOKEN: Granularity.TOKEN,
    options_pb2.GRANULARITY_SENTENCE: Granularity.SENTENCE,
    options_pb2.GRANULARITY_PARAGRAPH: Granularity.PARAGRAPH,
    options_pb2.GRANULARITY_FULL: Granularity.FULL,
}
_MODES = {
    options_pb2.SENTENCE_MODE_UNSPECIFIED: SentenceMode.EAGER,
    options_pb2.SENTENCE_MODE_EAGER: SentenceMode.EAGER,
    options_pb2.SENTENCE_MODE_CAREFUL: SentenceMode.CAREFUL,
}
_QUOTES = {
    options_pb2.QUOTE_POLICY_UNSPECIFIED: QuotePolicy.SPLIT,
    options_pb2.QUOTE_POLICY_SPLIT: QuotePolicy.SPLIT,
    options_pb2.QUOTE_POLICY_HOLD: QuotePolicy.HOLD,
}
_NUMBERS = (
    "temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
)  # fmt: skip


def parse_sampling(
    options: options_pb2.SamplingOptions,
    output: options_pb2.OutputOptions,
    *,
    vocabulary_size: int,
    fresh_seed: int,
    violations: Violations,
) -> SamplingParams:
    """Return how tokens are drawn and which log probabilities are told.

    Args:
        options: What the caller set.
        output: For the log probabilities.
        vocabulary_size: Token ids are below it.
        fresh_seed: Taken where the caller set none.
        violations: Notes what is wrong.
    """
    numbers = {name: getattr(options, name) for name in _NUMBERS if _has(options, name)}
    for name, value in numbers.items():
        violations.check_range(f"sampling.{name}", value)
    violations.check_range("sampling.top_k", options.top_k, Range(0, vocabulary_size))
    logit_bias: tuple[tuple[int, float], ...] = ()
    if violations.check_count("sampling.logit_bias", len(options.logit_bias), MAX_LOGIT_BIASES):
        logit_bias = tuple(sorted(options.logit_bias.items()))
    for token_id, bias in logit_bias:
        name = f"sampling.logit_bias[{token_id}]"
        if token_id >= vocabulary_size:
            violations.add(name, f"must have a token id below {vocabulary_size}")
        violations.check_range(name, bias, RANGES["sampling.logit_bias"])
    for name in ("logprobs", "prompt_logprobs"):
        if _has(output, name):
            violations.check_range(f"output.{name}", getattr(output, name))
    return SamplingParams(
        **numbers,
        top_k=options.top_k,
        seed=options.seed if options.HasField("seed") else fresh_seed,
        logit_bias=logit_bias,
        logprobs=output.logprobs if output.HasField("logprobs") else None,
        prompt_logprobs=output.prompt_logprobs if output.HasField("prompt_logprobs") else None,
    )


def parse_stopping(
    options: options_pb2.StoppingOptions,
    *,
    vocabulary_size: int,
    max_completion_tokens: int,
    violations: Violations,
) -> tuple[StoppingParams, int | None]:
    """Return when a text ends, and `max_tokens` if it was set.

    What was not set is known only with the prompt: `default_max_tokens` tells it then.
    """
    most = options.max_tokens if options.HasField("max_tokens") else None
    if most is not None:
        bounds = Range(1, max_completion_tokens)
        violations.check_range("stopping.max_tokens", most, bounds)
        if options.min_tokens > most:
            violations.add("stopping.min_tokens", "must not be above stopping.max_tokens")
    bounds = Range(0, max_completion_tokens)
    violations.check_range("stopping.min_tokens", options.min_tokens, bounds)
    stop: tuple[str, ...] = ()
    if violations.check_count("stopping.stop", len(options.stop), MAX_STOP_STRINGS):
        stop = tuple(options.stop)
    for index, text in enumerate(stop):
        if not 1 <= len(text.encode()) <= MAX_STOP_BYTES:
            name = f"stopping.stop[{index}]"
            violations.add(name, f"must have from 1 to {MAX_STOP_BYTES} bytes")
    token_ids: tuple[int, ...] = ()
    count = len(options.stop_token_ids)
    if violations.check_count("stopping.stop_token_ids", count, MAX_STOP_TOKENS):
        token_ids = tuple(options.stop_token_ids)
    for index, token_id in enumerate(token_ids):
        if token_id >= vocabulary_size:
            violations.add(f"stopping.stop_token_ids[{index}]", f"must be below {vocabulary_size}")
    params = StoppingParams(
        max_tokens=DEFAULT_MAX_TOKENS if most is None else most,
        min_tokens=options.min_tokens,
        stop=stop,
        stop_token_ids=frozenset(token_ids),
        ignore_eos=options.ignore_eos,
    )
    return params, most


def default_max_tokens(min_tokens: int, room: int) -> int:
    """Return the most tokens that are written if the caller did not say.

    Args:
        min_tokens: What the caller wants at least. It may reach past the context, which then ends
            the text and says so.
        room: What the prompt leaves of the context.
    """
    return max(min_tokens, min(DEFAULT_MAX_TOKENS, room))


def parse_granularity(
    value: options_pb2.Granularity.ValueType, violations: Violations
) -> Granularity:
    """Return in which pieces text is handed out."""
    if value not in _GRANULARITIES:
        violations.add("output.granularity", f"must be a known value; it is {value}")
    return _GRANULARITIES.get(value, Granularity.SENTENCE)


def parse_sentences(
    options: options_pb2.SentenceOptions, prefix: str, violations: Violations
) -> SentenceOptions:
    """Return how text is cut into sentences.

    Args:
        options: What the caller set.
        prefix: Path of the options in the request.
        violations: Notes what is wrong.
    """
    defaults = SentenceOptions()
    language = defaults.language
    if options.HasField("language"):
        try:
            language = resolve_language(options.language)
        except ValueError:
            violations.add(f"{prefix}.language", "must be a known ISO 639-1 code")
    for name, table in (("mode", _MODES), ("quotes", _QUOTES)):
        if getattr(options, name) not in table:
            violations.add(
                f"{prefix}.{name}", f"must be a known value; it is {getattr(options, name)}"
            )
    for name in ("min_chars", "max_chars"):
        if _has(options, name):
            bounds = RANGES[f"sentences.{name}"]
            violations.check_range(f"{prefix}.{name}", getattr(options, name), bounds)
    return SentenceOptions(
        language=language,
        mode=_MODES.get(options.mode, defaults.mode),
        quotes=_QUOTES.get(options.quotes, defaults.quotes),
        min_chars=options.min_chars if options.HasField("min_chars") else defaults.min_chars,
        max_chars=options.max_chars if options.HasField("max_chars") else defaults.max_chars,
    )


def parse_budget(budget: Duration, violations: Violations) -> float:
    """Return the seconds of a time budget."""
    seconds: float = budget.seconds + budget.nanos * 1e-9
    if not 0 <= budget.nanos <= MAX_NANOS:
        violations.add("time_budget.nanos", f"must be from 0 to {MAX_NANOS}")
    elif not 0 < seconds <= MAX_BUDGET_SECONDS:
        violations.add("time_budget", f"must be above 0 and at most {MAX_BUDGET_SECONDS} seconds")
    return seconds


def _has(message: Message, name: str) -> bool:
    """Return whether an optional field is set; the stubs know names as literals alone."""
    return message.HasField(name)
