"""What can be done with each item of a corpus: generate, tokenize, split. Loop thread.

An operation is made once for a call, which checks all that `start` says of it; then it is run for
each item, many at a time. It waits for places at its door and never fails for want of them.
"""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import NoReturn, Protocol, TypeVar

from hocket.server.admission import Admission, Permit
from hocket.server.catalogue import Catalogue
from hocket.server.errors import InvalidRequest, Unsupported
from hocket.server.executors import Executors
from hocket.server.rpc.generator import Generator
from hocket.server.rpc.limits import Violations
from hocket.server.rpc.parse import check
from hocket.server.rpc.parse_options import parse_sentences
from hocket.server.rpc.parse_process import (
    check_empty,
    check_generate,
    check_item,
    generate_request,
    of_item,
)
from hocket.server.rpc.record import AccessRecord
from hocket.server.rpc.slices import Slices, split, tokenize
from hocket.server.rpc.text_work import places_of, run_slices
from hocket.server.rpc.weights import PIECE_TEXT_BYTES, RANGE_BYTES, TOKEN_BYTES
from hocket.v1 import generation_pb2, options_pb2, text_pb2

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRooms:
    """What operations work with.

    Attributes:
        catalogue: The models.
        generator: Writes texts, behind the door of generations.
        text_admission: The door of texts.
        executors: Where text is worked on.
        max_message_bytes: The longest message that can be sent.
        clock: The clock that the engine reads deadlines by.
    """

    catalogue: Catalogue
    generator: Generator
    text_admission: Admission
    executors: Executors
    max_message_bytes: int
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one item.

    Attributes:
        result: With the outcome set, and nothing else.
        permit: Places to be given back once the result was sent, where those bound its size.
    """

    result: text_pb2.ProcessResult
    permit: Permit | None = None


class Operation(Protocol):
    """Something to do with each item.

    Attributes:
        model: The model that works; empty if none does.
    """

    model: str

    async def run(self, item: text_pb2.ProcessItem, record: AccessRecord) -> Outcome:
        """Do it with one item.

        Args:
            item: As it came.
            record: Knows the call, and is told what becomes of the item.

        Raises:
            HocketError: The item is refused, or fails.
        """
        ...


class Generating:
    """Continues each item, or answers it."""

    def __init__(
        self, rooms: OperationRooms, start: text_pb2.ProcessStart, violations: Violations
    ) -> None:
        """Check all that is said of the generations by trying it with an empty item.

        Raises:
            ModelNotFound: No such model is served.
            NotReady: No model is loaded yet.
        """
        self._generator = rooms.generator
        self._template = start.generate
        model = rooms.catalogue.find(start.generate.model, field="start.generate.model")
        self.model = model.description.name
        check_generate(start.generate, violations)
        request = generate_request(start.generate, "")
        request.request_id = ""
        try:
            check(
                request,
                model,
                arrived=rooms.clock(),
                remaining=None,
                max_message_bytes=rooms.max_message_bytes,
            )
        except InvalidRequest as error:
            for found in error.violations:
                violations.add(f"start.generate.{found.field}", found.description)
        # A result holds the whole text: nobody would see its sentences.
        self._template.output.granularity = options_pb2.GRANULARITY_FULL

    async def run(self, item: text_pb2.ProcessItem, record: AccessRecord) -> Outcome:
        """Write the text of one item, once there is a place for it."""
        check_item(item)
        request = generate_request(self._template, item.text)
        request.request_id = record.request_id
        parts: list[str] = []
        written = text_pb2.ProcessedText()
        with await self._generator.enter(record) as permit:
            events = self._generator.events(request, record, permit=permit)
            try:
                async with aclosing(events) as closing:
                    async for event in closing:
                        match event:
                            case generation_pb2.Delta():
                                parts.append(event.text)
                            case generation_pb2.Finished():
                                written.finish_reason = event.completions[0].finish_reason
                                written.usage.CopyFrom(event.usage)
            except InvalidRequest as error:
                raise of_item(error) from error
        written.text = "".join(parts)
        return Outcome(text_pb2.ProcessResult(generated=written))


class Tokenizing:
    """Turns each item into tokens."""

    def __init__(
        self, rooms: OperationRooms, start: text_pb2.ProcessStart, violations: Violations
    ) -> None:
        """Check what is said of it.

        Raises:
            ModelNotFound: No such model is served.
            NotReady: No model is loaded yet.
        """
        self._rooms = rooms
        self._template = start.tokenize
        model = rooms.catalogue.find(start.tokenize.model, field="start.tokenize.model")
        self.model = model.description.name
        self._tokenizer = model.tokenizer
        self._most_bytes = rooms.max_message_bytes // TOKEN_BYTES
        check_empty("tokenize.text", start.tokenize.text, violations)

    async def run(self, item: text_pb2.ProcessItem, record: AccessRecord) -> Outcome:
        """Turn one item into tokens."""
        check_item(item, self._most_bytes)
        request = text_pb2.TokenizeRequest()
        request.CopyFrom(self._template)
        request.text = item.text
        tokens, permit = await _work(self._rooms, item, record, tokenize(self._tokenizer, request))
        return Outcome(text_pb2.ProcessResult(tokens=tokens), permit)


class Splitting:
    """Cuts each item into sentences."""

    model = ""

    def __init__(
        self, rooms: OperationRooms, start: text_pb2.ProcessStart, violations: Violations
    ) -> None:
        """Check what is said of it."""
        self._rooms = rooms
        self._template = start.split
        self._options = parse_sentences(start.split.options, "start.split.options", violations)
        self._most_bytes = rooms.max_message_bytes // RANGE_BYTES * PIECE_TEXT_BYTES
        check_empty("split.text", start.split.text, violations)

    async def run(self, item: text_pb2.ProcessItem, record: AccessRecord) -> Outcome:
        """Cut one item."""
        check_item(item, self._most_bytes)
        request = text_pb2.SplitSentencesRequest(
            text=item.text, paragraphs=self._template.paragraphs
        )
        sentences, permit = await _work(self._rooms, item, record, split(request, self._options))
        return Outcome(text_pb2.ProcessResult(sentences=sentences), permit)


async def _work(
    rooms: OperationRooms, item: text_pb2.ProcessItem, record: AccessRecord, work: Slices[_T]
) -> tuple[_T, Permit]:
    """Wait for places, work on a text, and return what came of it with the places."""
    places = places_of(len(item.text.encode()))
    permit = await rooms.text_admission.enter(record.peer, places)
    try:
        return await run_slices(rooms.executors, work), permit
    except InvalidRequest as error:
        permit.release()
        raise of_item(error) from error
    except BaseException:
        permit.release()
        raise


def _transforming(
    _rooms: OperationRooms, _start: text_pb2.ProcessStart, _violations: Violations
) -> NoReturn:
    raise Unsupported("items are not transformed by this server")


MakeOperation = Callable[[OperationRooms, text_pb2.ProcessStart, Violations], Operation]

OPERATIONS: Mapping[str, MakeOperation] = MappingProxyType(
    {
        "generate": Generating,
        "transform": _transforming,
        "tokenize": Tokenizing,
        "split": Splitting,
    }
)
"""By the field of `ProcessStart.operation`."""
