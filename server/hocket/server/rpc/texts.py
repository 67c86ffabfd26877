"""`TextService`: tokenizer and splitter over the wire. Loop thread.

It has a door of its own, which counts the bytes that are worked on, and threads of its own, so that
no generation waits for it. Work is done in slices, between which other texts get their turn; a
call that was cancelled, or whose deadline passed, ends at the next one.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TypeVar

from google.protobuf.message import Message

from hocket.server.admission import Admission, Permit
from hocket.server.catalogue import Catalogue
from hocket.server.errors import InvalidRequest
from hocket.server.executors import Executors
from hocket.server.rpc.inputs import parse_chat
from hocket.server.rpc.limits import MAX_COUNTED_BYTES, MAX_DETOKENIZED, MAX_TEXTS, Violations
from hocket.server.rpc.parse_options import parse_sentences
from hocket.server.rpc.process import Corpora
from hocket.server.rpc.record import current_record
from hocket.server.rpc.slices import count_tokens, detokenize, split, tokenize
from hocket.server.rpc.status import Context
from hocket.server.rpc.text_work import places_of, run_slices
from hocket.server.rpc.weights import PIECE_TEXT_BYTES, RANGE_BYTES, TOKEN_BYTES
from hocket.v1 import text_pb2, text_pb2_grpc

_Response = TypeVar("_Response", bound=Message)


class TextService(text_pb2_grpc.TextServiceServicer):
    """Works on text."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        admission: Admission,
        executors: Executors,
        corpora: Corpora,
        max_message_bytes: int,
    ) -> None:
        """Make the service.

        Args:
            catalogue: The models.
            admission: Its door; not that of generations.
            executors: Where text is worked on.
            corpora: Works on many texts over one stream.
            max_message_bytes: The longest message that can be sent.
        """
        self._catalogue = catalogue
        self._admission = admission
        self._executors = executors
        self._corpora = corpora
        self._max_message_bytes = max_message_bytes

    async def Tokenize(
        self, request: text_pb2.TokenizeRequest, context: Context
    ) -> text_pb2.TokenizeResponse:
        """Turn text into token ids."""
        tokenizer = self._catalogue.find(request.model).tokenizer
        violations = Violations()
        violations.check_bytes("text", request.text, self._max_message_bytes // TOKEN_BYTES)
        violations.raise_any()
        with self._enter(request, context):
            response = await run_slices(self._executors, tokenize(tokenizer, request))
        return self._fitting(response, "text")

    async def Detokenize(
        self, request: text_pb2.DetokenizeRequest, context: Context
    ) -> text_pb2.DetokenizeResponse:
        """Turn token ids into text."""
        tokenizer = self._catalogue.find(request.model).tokenizer
        violations = Violations()
        violations.check_count("token_ids", len(request.token_ids), MAX_DETOKENIZED)
        violations.raise_any()
        with self._enter(request, context):
            response = await run_slices(
                self._executors, detokenize(tokenizer, request, most_bytes=self._max_message_bytes)
            )
        return self._fitting(response, "token_ids")

    async def CountTokens(
        self, request: text_pb2.CountTokensRequest, context: Context
    ) -> text_pb2.CountTokensResponse:
        """Count the tokens of texts and of a conversation."""
        model = self._catalogue.find(request.model)
        violations = Violations()
        if violations.check_count("texts", len(request.texts), MAX_TEXTS):
            for index, text in enumerate(request.texts):
                violations.check_bytes(f"texts[{index}]", text, MAX_COUNTED_BYTES)
        chat = None
        if request.HasField("chat"):
            chat, size = parse_chat(request.chat, model, violations)
            if size > MAX_COUNTED_BYTES:
                violations.add(chat.field, f"must have at most {MAX_COUNTED_BYTES} characters")
        violations.raise_any()
        with self._enter(request, context):
            return await run_slices(self._executors, count_tokens(model.tokenizer, request, chat))

    async def SplitSentences(
        self, request: text_pb2.SplitSentencesRequest, context: Context
    ) -> text_pb2.SplitSentencesResponse:
        """Cut text into sentences."""
        violations = Violations()
        options = parse_sentences(request.options, "options", violations)
        most = self._max_message_bytes // RANGE_BYTES * PIECE_TEXT_BYTES
        violations.check_bytes("text", request.text, most)
        violations.raise_any()
        with self._enter(request, context):
            response = await run_slices(self._executors, split(request, options))
        return self._fitting(response, "text")

    async def Process(
        self, request_iterator: AsyncIterator[text_pb2.ProcessRequest], _context: Context
    ) -> AsyncIterator[text_pb2.ProcessResponse]:
        """Do the same with many texts."""
        async with aclosing(
            self._corpora.responses(request_iterator, current_record())
        ) as responses:
            async for response in responses:
                yield response

    def _enter(self, request: Message, context: Context) -> Permit:
        return self._admission.enter_nowait(context.peer(), places_of(request.ByteSize()))

    def _fitting(self, response: _Response, name: str) -> _Response:
        """Return an answer that fits into a message, as all but the strangest do that get here.

        Raises:
            InvalidRequest: It does not.
        """
        size, most = response.ByteSize(), self._max_message_bytes
        if size > most:
            raise InvalidRequest.of(name, f"its answer has {size} bytes, a message at most {most}")
        return response
