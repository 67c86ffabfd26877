"""From keyword arguments to protobuf, for documents: what is sent. Any thread; pure functions.

A document is one first message and then its parts: text as the caller has it, or segments that the
caller cut.
"""

from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hocket.client._document_options import ComposeOptions, TransformOptions
from hocket.client._document_types import (
    GivenSegment,
    Parallel,
    Section,
    Segmentation,
    SegmentOrder,
)
from hocket.client._requests import (
    GRANULARITIES,
    build_duration,
    build_sampling,
    build_sentence_options,
    build_stopping,
    select_given,
)
from hocket.client._types import Granularity
from hocket.v1 import document_pb2

_ORDERS = {
    SegmentOrder.IN_ORDER: document_pb2.SEGMENT_ORDER_IN_ORDER,
    SegmentOrder.AS_COMPLETED: document_pb2.SEGMENT_ORDER_AS_COMPLETED,
    SegmentOrder.INTERLEAVED: document_pb2.SEGMENT_ORDER_INTERLEAVED,
}
_SEGMENTATIONS = {
    Segmentation.SENTENCES: document_pb2.SEGMENTATION_SENTENCES,
    Segmentation.PARAGRAPHS: document_pb2.SEGMENTATION_PARAGRAPHS,
    Segmentation.WHOLE: document_pb2.SEGMENTATION_GIVEN,
}
_PARALLELS = {
    Parallel.AUTO: document_pb2.PARALLEL_AUTO,
    Parallel.ALWAYS: document_pb2.PARALLEL_ALWAYS,
    Parallel.NEVER: document_pb2.PARALLEL_NEVER,
}
_OF_ONE_CALL = {"order", "granularity", "window", "request_id", "protected_ranges"}
_TASKS = ("instruction", "template", "translate_to", "rewrite", "summarize", "classify")

MAX_PART_CHARS = 16_384
"""Longer texts go up in parts of so many characters."""

GivenText: TypeAlias = str | Iterable[str]
GivenSegments: TypeAlias = Iterable[GivenSegment | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A document on its way up.

    Attributes:
        actions: Its parts, all at hand; empty if they are still to come.
        parts: What gives them one after the other otherwise; None if all are at hand.
        is_segments: Whether `parts` gives segments, not text.
    """

    actions: tuple[document_pb2.TransformRequest, ...] = ()
    parts: Iterable[Any] | AsyncIterable[Any] | None = None
    is_segments: bool = False

    def convert(self, part: object) -> Iterator[document_pb2.TransformRequest]:
        """Yield what one of `parts` is sent as.

        Raises:
            TypeError: It is neither text nor a segment.
            ValueError: It cannot be sent, such as a lone surrogate.
        """
        return _segment_actions(part) if self.is_segments else _text_actions(part)


def build_source(
    text: str | Iterable[str] | AsyncIterable[str] | None,
    segments: GivenSegments | AsyncIterable[GivenSegment | str] | None,
) -> Source:
    """Make the source of a document; what is at hand is read at once.

    Raises:
        TypeError: There is not exactly one of both, or a part of a wrong type.
        ValueError: A part cannot be sent.
    """
    if (text is None) == (segments is None):
        raise TypeError("give exactly one of text and segments")
    if isinstance(text, str):
        return Source(actions=tuple(_text_actions(text)))
    if isinstance(segments, str):
        raise TypeError("segments must be several, not one string")
    if isinstance(segments, Sequence):
        return Source(
            actions=tuple(action for segment in segments for action in _segment_actions(segment))
        )
    return Source(
        parts=text if segments is None else segments,
        is_segments=segments is not None,
    )


def build_transform_request(
    options: TransformOptions, *, is_segmented: bool
) -> document_pb2.TransformRequest:
    """Make the first message of a transformed document.

    Args:
        options: The keyword arguments.
        is_segmented: Whether the caller cuts the document.

    Raises:
        TypeError: There is not exactly one task, or an option is unknown or of a wrong type.
        ValueError: A value cannot be sent.
    """
    given = select_given(options, TransformOptions.__annotations__)
    start = _transform_start(given)
    if is_segmented:
        if "segmentation" in given:
            raise TypeError("segmentation is for a text, not for segments")
        start.segmentation = document_pb2.SEGMENTATION_GIVEN
    elif start.segmentation == document_pb2.SEGMENTATION_GIVEN:
        raise TypeError("a whole text is one segment only in map; give segments")
    return document_pb2.TransformRequest(start=start)


def build_item_transform(options: Mapping[str, Any]) -> document_pb2.TransformStart:
    """Make what says how each of many texts is transformed.

    Args:
        options: The keyword arguments, those of `transform` that hold for any text.

    Raises:
        TypeError: There is not exactly one task or target, or an option is unknown or of a wrong
            type.
        ValueError: A value cannot be sent.
    """
    given = select_given(options, TransformOptions.__annotations__.keys() - _OF_ONE_CALL)
    start = _transform_start(given)
    if len(start.translate.target_languages) > 1:
        raise TypeError("translate_to takes one language here: a result holds one text")
    return start


def _transform_start(given: Mapping[str, Any]) -> document_pb2.TransformStart:
    start = document_pb2.TransformStart(
        **_writing_fields(given),
        context_segments=given.get("context_segments"),
        protect=given.get("protect"),
        protected_terms=_strings("protected_terms", given.get("protected_terms", ())),
        protected_ranges=[
            document_pb2.ByteRange(start_byte=start_byte, end_byte=end_byte)
            for start_byte, end_byte in given.get("protected_ranges", ())
        ],
        cache=given.get("cache"),
    )
    if "segmentation" in given:
        start.segmentation = _SEGMENTATIONS[Segmentation(given["segmentation"])]
    if "sentences" in given:
        start.sentences.CopyFrom(build_sentence_options(given["sentences"]))
    _set_task(start, given)
    return start


def build_compose_request(task: str, options: ComposeOptions) -> document_pb2.ComposeRequest:
    """Make the first message of a composed text.

    Raises:
        TypeError: An option is unknown or of a wrong type.
        ValueError: A value cannot be sent.
    """
    given = select_given(options, ComposeOptions.__annotations__)
    if isinstance(given.get("sections"), str):
        raise TypeError("sections must be several, not one string")
    sections = [
        Section(title=section) if isinstance(section, str) else section
        for section in given.get("sections", ())
    ]
    start = document_pb2.ComposeStart(
        **_writing_fields(given),
        task=task,
        sections=[
            document_pb2.Section(title=section.title, instruction=section.instruction)
            for section in sections
        ],
        max_sections=given.get("max_sections"),
        join=given.get("join", ""),
    )
    if "parallel" in given:
        start.parallel = _PARALLELS[Parallel(given["parallel"])]
    return document_pb2.ComposeRequest(start=start)


def _writing_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that both first messages have."""
    fields = {
        "request_id": given.get("request_id", ""),
        "model": given.get("model", ""),
        "sampling": build_sampling(given),
        "stopping": build_stopping(given),
        "window": given.get("window"),
        "priority": given.get("priority"),
    }
    if "granularity" in given:
        fields["granularity"] = GRANULARITIES[Granularity(given["granularity"])]
    if "order" in given:
        fields["order"] = _ORDERS[SegmentOrder(given["order"])]
    if "time_budget" in given:
        fields["time_budget"] = build_duration(given["time_budget"])
    return fields


def _set_task(start: document_pb2.TransformStart, given: Mapping[str, Any]) -> None:
    tasks = [name for name in _TASKS if given.get(name, False) is not False]
    if len(tasks) != 1:
        raise TypeError(f"give exactly one of {', '.join(_TASKS[:-1])} and {_TASKS[-1]}")
    (task,) = tasks
    value = given[task]
    if "source_language" in given and task != "translate_to":
        raise TypeError("source_language goes with translate_to")
    match task:
        case "instruction":
            start.instruction = value
        case "template":
            start.template = value
        case "translate_to":
            languages = (value,) if isinstance(value, str) else value
            start.translate.CopyFrom(
                document_pb2.Translate(
                    target_languages=languages, source_language=given.get("source_language", "")
                )
            )
        case "rewrite":
            style = "" if value is True else value
            start.rewrite.CopyFrom(document_pb2.Rewrite(style=style))
        case "summarize":
            most = None if value is True else value
            start.summarize.CopyFrom(document_pb2.Summarize(max_sentences=most))
        case "classify":
            start.classify.CopyFrom(document_pb2.Classify(labels=_strings("classify", value)))


def _strings(name: str, values: Sequence[str]) -> Sequence[str]:
    if isinstance(values, str):  # would become one value for each of its characters
        raise TypeError(f"{name} must be several strings, not one")
    return values


def _text_actions(part: object) -> Iterator[document_pb2.TransformRequest]:
    if not isinstance(part, str):
        raise TypeError(f"a part of a text is a string, not {type(part).__name__}")
    for start in range(0, len(part), MAX_PART_CHARS):
        yield document_pb2.TransformRequest(text=part[start : start + MAX_PART_CHARS])


def _segment_actions(part: object) -> Iterator[document_pb2.TransformRequest]:
    if isinstance(part, str):
        segment = document_pb2.GivenSegment(text=part)
    elif isinstance(part, GivenSegment):
        segment = document_pb2.GivenSegment(text=part.text, gap=part.gap)
    else:
        raise TypeError(f"a segment is a GivenSegment or a string, not {type(part).__name__}")
    yield document_pb2.TransformRequest(segment=segment)
