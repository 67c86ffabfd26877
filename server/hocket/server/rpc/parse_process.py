"""What a corpus job does and how, out of protobuf. Loop thread; pure functions.

All that is wrong with `start` is found in one go, before anything is done; what is wrong with an
item is that item's own failure.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from hocket.server.errors import FieldViolation, InvalidRequest
from hocket.server.rpc.limits import MAX_ITEM_BYTES, MAX_ITEM_ID_BYTES, Range, Violations
from hocket.v1 import document_pb2, generation_pb2, options_pb2, text_pb2

_OF_EACH_ITEM = "must be empty: each item brings its own"
_NOT_SENT = "must be unset: results of items do not carry it"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessConfig:
    """How corpus jobs run.

    Attributes:
        max_window: Most items of one `Process` call that are read and have no result that was sent.
            Of the texts that it writes, as many run at once as there are places at the door for it,
            which `admission.document_share` bounds.
    """

    max_window: Annotated[int, Ge(1), Le(4_096)] = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessOptions:
    """How the items of one call are worked on.

    Attributes:
        window: Most items that are read and have no result that was sent.
        in_order: Whether results keep the order of the items.
        stop_on_error: Whether the first item that fails ends the call.
    """

    window: int
    in_order: bool
    stop_on_error: bool


def parse_options(
    start: text_pb2.ProcessStart, config: ProcessConfig, violations: Violations
) -> ProcessOptions:
    """Return how items are worked on."""
    window = start.window if start.HasField("window") else config.max_window
    violations.check_range("start.window", window, Range(1, config.max_window))
    return ProcessOptions(window=window, in_order=start.in_order, stop_on_error=start.stop_on_error)


def check_empty(name: str, text: str, violations: Violations) -> None:
    """Note a text of `start` that each item brings itself."""
    if text:
        violations.add(f"start.{name}", _OF_EACH_ITEM)


def check_generate(request: generation_pb2.GenerateRequest, violations: Violations) -> None:
    """Note what a generation asks for that no result can hold, or that each item brings itself."""
    kind = request.WhichOneof("input")
    if kind in {"prompt", "tokens"}:
        violations.add(f"start.generate.{kind}", _OF_EACH_ITEM)
    check_empty("generate.request_id", request.request_id, violations)
    if request.output.n > 1:
        violations.add("start.generate.output.n", "must be 1: a result holds one text")
    if request.output.HasField("logprobs"):
        violations.add("start.generate.output.logprobs", _NOT_SENT)
    if request.output.HasField("prompt_logprobs"):
        violations.add("start.generate.output.prompt_logprobs", _NOT_SENT)


def check_transform_start(start: document_pb2.TransformStart, violations: Violations) -> None:
    """Note what a transformation says of one text alone."""
    check_empty("transform.request_id", start.request_id, violations)
    if start.protected_ranges:
        violations.add("start.transform.protected_ranges", "must be empty: they are of one text")


def transform_start(
    template: document_pb2.TransformStart, request_id: str
) -> document_pb2.TransformStart:
    """Return the start of one item's document, of which one text is wanted, whole."""
    start = document_pb2.TransformStart()
    start.CopyFrom(template)
    start.request_id = request_id
    start.order = document_pb2.SEGMENT_ORDER_IN_ORDER
    start.granularity = options_pb2.GRANULARITY_SENTENCE
    if start.HasField("translate"):
        del start.translate.target_languages[1:]
    return start


def generate_request(
    template: generation_pb2.GenerateRequest, text: str
) -> generation_pb2.GenerateRequest:
    """Return the request of one item: it is the prompt, or the last message."""
    request = generation_pb2.GenerateRequest()
    request.CopyFrom(template)
    if template.HasField("chat"):
        request.chat.messages.add(role="user", content=text)
    else:
        request.prompt = text
    return request


def check_item(item: text_pb2.ProcessItem, most_bytes: int = MAX_ITEM_BYTES) -> None:
    """Return if an item keeps within its bounds.

    Args:
        item: As it came.
        most_bytes: What the answer of its operation leaves room for.

    Raises:
        InvalidRequest: It does not.
    """
    violations = Violations()
    violations.check_bytes("item.id", item.id, MAX_ITEM_ID_BYTES)
    violations.check_bytes("item.text", item.text, min(most_bytes, MAX_ITEM_BYTES))
    violations.raise_any()


def of_item(error: InvalidRequest) -> InvalidRequest:
    """Return what is wrong with an item under the name that its caller knows it by."""
    return InvalidRequest(
        *(
            FieldViolation(field="item.text", description=violation.description)
            if violation.field.startswith(("prompt", "chat", "text", "segment"))
            else violation
            for violation in error.violations
        ),
        reason=error.reason,
        metadata=error.metadata,
    )


def shown_id(item: text_pb2.ProcessItem) -> str:
    """Return the id that a result is sent under: the item's own, cut if it is too long."""
    return item.id.encode()[:MAX_ITEM_ID_BYTES].decode(errors="ignore")
