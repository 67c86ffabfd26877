"""`TextService`: tokenizer and splitter over the wire, on the text threads. Loop thread."""

from hocket.server.catalogue import Catalogue
from hocket.server.executors import Executors
from hocket.server.rpc.limits import MAX_DETOKENIZED, MAX_TEXTS, Violations
from hocket.server.rpc.parse_options import parse_sentences
from hocket.server.rpc.render import PIECE_KINDS
from hocket.server.rpc.status import Context
from hocket.server.text.sentences import split_text
from hocket.v1 import text_pb2, text_pb2_grpc


class TextService(text_pb2_grpc.TextServiceServicer):
    """Works on text."""

    def __init__(self, *, catalogue: Catalogue, executors: Executors) -> None:
        self._catalogue = catalogue
        self._executors = executors

    async def Tokenize(
        self, request: text_pb2.TokenizeRequest, _context: Context
    ) -> text_pb2.TokenizeResponse:
        """Turn text into token ids."""
        tokenizer = self._catalogue.find(request.model).tokenizer

        def work() -> text_pb2.TokenizeResponse:
            encoding = tokenizer.encode(
                request.text,
                add_special=request.add_special_tokens,
                parse_special=request.parse_special_tokens,
                offsets=True,
            )
            tokens = zip(encoding.token_ids, encoding.byte_ranges, strict=True)
            return text_pb2.TokenizeResponse(
                tokens=[
                    text_pb2.Token(id=token_id, start_byte=begin, end_byte=end)
                    for token_id, (begin, end) in tokens
                ]
            )

        return await self._executors.run_text(work)

    async def Detokenize(
        self, request: text_pb2.DetokenizeRequest, _context: Context
    ) -> text_pb2.DetokenizeResponse:
        """Turn token ids into text."""
        tokenizer = self._catalogue.find(request.model).tokenizer
        violations = Violations()
        violations.check_count("token_ids", len(request.token_ids), MAX_DETOKENIZED)
        size = tokenizer.vocabulary_size
        stray = next((i for i, token in enumerate(request.token_ids) if token >= size), None)
        if stray is not None:
            violations.add(f"token_ids[{stray}]", f"must be below {size}")
        violations.raise_any()

        def work() -> text_pb2.DetokenizeResponse:
            text = tokenizer.decode(request.token_ids, keep_special=request.keep_special_tokens)
            return text_pb2.DetokenizeResponse(text=text)

        return await self._executors.run_text(work)

    async def CountTokens(
        self, request: text_pb2.CountTokensRequest, _context: Context
    ) -> text_pb2.CountTokensResponse:
        """Count the tokens of texts."""
        tokenizer = self._catalogue.find(request.model).tokenizer
        violations = Violations()
        violations.check_count("texts", len(request.texts), MAX_TEXTS)
        violations.raise_any()

        def work() -> text_pb2.CountTokensResponse:
            add = request.add_special_tokens
            encodings = (
                tokenizer.encode(text, add_special=add, parse_special=False)
                for text in request.texts
            )
            return text_pb2.CountTokensResponse(
                counts=[len(encoding.token_ids) for encoding in encodings]
            )

        return await self._executors.run_text(work)

    async def SplitSentences(
        self, request: text_pb2.SplitSentencesRequest, _context: Context
    ) -> text_pb2.SplitSentencesResponse:
        """Cut text into sentences."""
        violations = Violations()
        options = parse_sentences(request.options, "options", violations)
        violations.raise_any()

        def work() -> text_pb2.SplitSentencesResponse:
            pieces = split_text(request.text, options, paragraphs=request.paragraphs)
            return text_pb2.SplitSentencesResponse(
                ranges=[
                    text_pb2.TextRange(
                        start_byte=piece.start_byte,
                        end_byte=piece.end_byte,
                        kind=PIECE_KINDS[piece.kind],
                    )
                    for piece in pieces
                ],
                language=options.language,
            )

        return await self._executors.run_text(work)
