"""What `TransformStart` and `ComposeStart` have in common: how texts are written and come back.

Loop thread.
"""

import secrets
from collections.abc import Container
from dataclasses import dataclass

from hocket.server.catalogue import Served, ServedTranslator
from hocket.server.document.merge import Order
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.rpc.limits import DEFAULT_MAX_TOKENS, REQUEST_ID, Range, Violations
from hocket.server.rpc.parse import max_completion_tokens
from hocket.server.rpc.parse_options import parse_budget, parse_sampling, parse_stopping
from hocket.server.text.pieces import Granularity
from hocket.v1 import document_pb2, options_pb2

_ORDERS = {
    document_pb2.SEGMENT_ORDER_UNSPECIFIED: Order.IN_ORDER,
    document_pb2.SEGMENT_ORDER_IN_ORDER: Order.IN_ORDER,
    document_pb2.SEGMENT_ORDER_AS_COMPLETED: Order.AS_COMPLETED,
    document_pb2.SEGMENT_ORDER_INTERLEAVED: Order.INTERLEAVED,
}
_GRANULARITIES = {
    options_pb2.GRANULARITY_UNSPECIFIED: Granularity.SENTENCE,
    options_pb2.GRANULARITY_TOKEN: Granularity.TOKEN,
    options_pb2.GRANULARITY_SENTENCE: Granularity.SENTENCE,
}

Start = document_pb2.TransformStart | document_pb2.ComposeStart


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedWriting:
    """How the texts of a document are written and come back.

    Attributes:
        request_id: Given or made.
        owner: Who asks.
        sampling: How tokens are drawn; its seed is the document's.
        is_seed_given: Whether the caller set the seed.
        stopping: When a text ends; `max_tokens` holds only if `has_max_tokens`.
        has_max_tokens: Whether the caller set it.
        granularity: `TOKEN` or `SENTENCE`.
        order: In which order texts come back.
        window: Most that are worked on at once.
        priority: Lower runs first.
        arrived: When the call had come, in seconds of the monotonic clock.
        budget: When its time is up, of that clock; None for never.
        deadline: When it is no longer wanted, of that clock; None for never.
    """

    request_id: str
    owner: str
    sampling: SamplingParams
    is_seed_given: bool
    stopping: StoppingParams
    has_max_tokens: bool
    granularity: Granularity
    order: Order
    window: int
    priority: int
    arrived: float
    budget: float | None
    deadline: float | None


def check_writing(
    start: Start,
    model: Served,
    *,
    owner: str,
    arrived: float,
    remaining: float | None,
    max_window: int,
    violations: Violations,
) -> CheckedWriting:
    """Return how texts are written; it may be used only if there are no violations.

    Args:
        start: As it came.
        model: Who would write.
        owner: Who asks; empty where nobody needs a name.
        arrived: When the call had come, in seconds of the monotonic clock.
        remaining: Seconds until the call's own deadline; None without one.
        max_window: The widest window.
        violations: Notes what is wrong.
    """
    if start.request_id and not REQUEST_ID.fullmatch(start.request_id):
        violations.add("request_id", "must be 1 to 128 characters of A-Z a-z 0-9 - _ . :")
    sampling, stopping, max_tokens = _tokens(start, model, violations)
    check_known("order", start.order, _ORDERS, violations)
    check_known("granularity", start.granularity, _GRANULARITIES, violations)
    if start.HasField("priority"):
        violations.check_range("priority", start.priority)
    window = start.window if start.HasField("window") else max_window
    violations.check_range("window", window, Range(1, max_window))
    budget = parse_budget(start.time_budget, violations) if start.HasField("time_budget") else None
    times = [seconds for seconds in (budget, remaining) if seconds is not None]
    return CheckedWriting(
        request_id=start.request_id or secrets.token_hex(16),
        owner=owner,
        sampling=sampling,
        is_seed_given=start.sampling.HasField("seed"),
        stopping=stopping,
        has_max_tokens=max_tokens is not None,
        granularity=_GRANULARITIES.get(start.granularity, Granularity.SENTENCE),
        order=_ORDERS.get(start.order, Order.IN_ORDER),
        window=window,
        priority=start.priority,
        arrived=arrived,
        budget=None if budget is None else arrived + budget,
        deadline=arrived + min(times) if times else None,
    )


def _tokens(
    start: Start, model: Served, violations: Violations
) -> tuple[SamplingParams, StoppingParams, int | None]:
    """Return how tokens are drawn, when a text ends, and `max_tokens` if it was set."""
    fresh_seed = secrets.randbits(64)
    if isinstance(model, ServedTranslator):
        _check_without_tokens(start, model.description.name, violations)
        seed = start.sampling.seed if start.sampling.HasField("seed") else fresh_seed
        return SamplingParams(seed=seed), StoppingParams(max_tokens=DEFAULT_MAX_TOKENS), None
    size = model.limits.vocabulary_size
    sampling = parse_sampling(
        start.sampling,
        options_pb2.OutputOptions(),
        vocabulary_size=size,
        fresh_seed=fresh_seed,
        violations=violations,
    )
    stopping, max_tokens = parse_stopping(
        start.stopping,
        vocabulary_size=size,
        max_completion_tokens=max_completion_tokens(model),
        violations=violations,
    )
    return sampling, stopping, max_tokens


def _check_without_tokens(start: Start, name: str, violations: Violations) -> None:
    """Note what only a language model can obey; a seed and temperature 0 change nothing."""
    for field, value in start.sampling.ListFields():
        if field.name != "seed" and (field.name != "temperature" or value):
            violations.add(f"sampling.{field.name}", f"must not be set for {name}, a translator")
    for field, _ in start.stopping.ListFields():
        violations.add(f"stopping.{field.name}", f"must not be set for {name}, a translator")


def check_words(name: str, text: str, most: int, violations: Violations) -> None:
    """Note a text that is too long, too short, or blank."""
    violations.check_chars(name, text, most, least=1)
    check_not_blank(name, text, violations)


def check_not_blank(name: str, text: str, violations: Violations) -> None:
    """Note a text of white space alone."""
    if text and not text.strip():
        violations.add(name, "must not be blank")


def check_known(name: str, value: int, known: Container[int], violations: Violations) -> None:
    """Note a value of an enum that is not known here."""
    if value not in known:
        violations.add(name, f"must be a value known here; it is {value}")
