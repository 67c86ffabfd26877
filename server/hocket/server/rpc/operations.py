"""What can be done with each item of a corpus, by name. Loop thread."""

from collections.abc import Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import TypeVar

from hocket.server.admission import Permit
from hocket.server.errors import InvalidRequest
from hocket.server.rpc.corpus_door import CorpusDoor
from hocket.server.rpc.limits import Violations
from hocket.server.rpc.operation import MakeOperation, OperationRooms, Outcome
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
from hocket.server.rpc.transforming import Transforming
from hocket.server.rpc.weights import PIECE_TEXT_BYTES, RANGE_BYTES, TOKEN_BYTES
from hocket.v1 import generation_pb2, options_pb2, text_pb2

_T = TypeVar("_T")


class Generating:
    """Continues each item, or answers it."""

    def __init__(
        self,
        rooms: OperationRooms,
        start: text_pb2.ProcessStart,
        violations: Violations,
        call: AccessRecord,
    ) -> None:
        """Check all that is said of the generations by trying it with an empty item.

        Raises:
            ModelNotFound: No such model is served.
            NotReady: No model is loaded yet.
        """
        self._generator = rooms.generator
        self._door = CorpusDoor(rooms.admission, call.peer)
        self._group = call.request_id
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
        with await self._door.enter() as permit:
            events = self._generator.events(request, record, group=self._group, permit=permit)
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
        self,
        rooms: OperationRooms,
        start: text_pb2.ProcessStart,
        violations: Violations,
        call: AccessRecord,
    ) -> None:
        """Check what is said of it.

        Raises:
            ModelNotFound: No such model is served.
            NotReady: No model is loaded yet.
        """
        self._work = _TextWork(rooms, call)
        self._template = start.tokenize
        model = rooms.catalogue.find(start.tokenize.model, field="start.tokenize.model")
        self.model = model.description.name
        self._tokenizer = model.tokenizer
        self._most_bytes = rooms.max_message_bytes // TOKEN_BYTES
        check_empty("tokenize.text", start.tokenize.text, violations)

    async def run(self, item: text_pb2.ProcessItem, _record: AccessRecord, /) -> Outcome:
        """Turn one item into tokens."""
        check_item(item, self._most_bytes)
        request = text_pb2.TokenizeRequest()
        request.CopyFrom(self._template)
        request.text = item.text
        tokens, permit = await self._work.do(item, tokenize(self._tokenizer, request))
        return Outcome(text_pb2.ProcessResult(tokens=tokens), permit)


class Splitting:
    """Cuts each item into sentences."""

    model = ""

    def __init__(
        self,
        rooms: OperationRooms,
        start: text_pb2.ProcessStart,
        violations: Violations,
        call: AccessRecord,
    ) -> None:
        """Check what is said of it."""
        self._work = _TextWork(rooms, call)
        self._template = start.split
        self._options = parse_sentences(start.split.options, "start.split.options", violations)
        self._most_bytes = rooms.max_message_bytes // RANGE_BYTES * PIECE_TEXT_BYTES
        check_empty("split.text", start.split.text, violations)

    async def run(self, item: text_pb2.ProcessItem, _record: AccessRecord, /) -> Outcome:
        """Cut one item."""
        check_item(item, self._most_bytes)
        request = text_pb2.SplitSentencesRequest(
            text=item.text, paragraphs=self._template.paragraphs
        )
        sentences, permit = await self._work.do(item, split(request, self._options))
        return Outcome(text_pb2.ProcessResult(sentences=sentences), permit)


class _TextWork:
    """Work on the texts of one job, behind the door of texts."""

    def __init__(self, rooms: OperationRooms, call: AccessRecord) -> None:
        self._executors = rooms.executors
        self._door = CorpusDoor(rooms.text_admission, call.peer)

    async def do(self, item: text_pb2.ProcessItem, work: Slices[_T]) -> tuple[_T, Permit]:
        """Wait for places, work on an item, and return what came of it with the places."""
        permit = await self._door.enter(places_of(len(item.text.encode())))
        try:
            return await run_slices(self._executors, work), permit
        except InvalidRequest as error:
            permit.release()
            raise of_item(error) from error
        except BaseException:
            permit.release()
            raise


OPERATIONS: Mapping[str, MakeOperation] = MappingProxyType(
    {
        "generate": Generating,
        "transform": Transforming,
        "tokenize": Tokenizing,
        "split": Splitting,
    }
)
"""By the field of `ProcessStart.operation`."""
