"""The work of `TextService` in slices, each of a tenth of a second or so. Text threads.

A generator for each method: it yields between slices and returns the answer. A tokenizer cannot be
stopped on its way; what it is given at once is bounded instead.
"""

from collections.abc import Generator, Sequence
from typing import TypeVar

from hocket.server.errors import InvalidRequest
from hocket.server.rpc.inputs import Input
from hocket.server.rpc.render import PIECE_KINDS
from hocket.server.text.pieces import Piece, SentenceOptions
from hocket.server.text.sentences import SentenceSplitter
from hocket.server.text.tokenizer import Tokenizer
from hocket.v1 import text_pb2

SPLIT_CHARS = 8_192
COUNT_CHARS = 65_536
TOKENS = 16_384

_T = TypeVar("_T")
Slices = Generator[None, None, _T]


def tokenize(
    tokenizer: Tokenizer, request: text_pb2.TokenizeRequest
) -> Slices[text_pb2.TokenizeResponse]:
    """Turn text into token ids."""
    encoding = tokenizer.encode(
        request.text,
        add_special=request.add_special_tokens,
        parse_special=request.parse_special_tokens,
        offsets=True,
    )
    response = text_pb2.TokenizeResponse()
    for begin in range(0, len(encoding.token_ids), TOKENS):
        yield
        part = slice(begin, begin + TOKENS)
        pairs = zip(encoding.token_ids[part], encoding.byte_ranges[part], strict=True)
        for token_id, (start_byte, end_byte) in pairs:
            response.tokens.add(id=token_id, start_byte=start_byte, end_byte=end_byte)
    return response


def detokenize(
    tokenizer: Tokenizer, request: text_pb2.DetokenizeRequest, *, most_bytes: int
) -> Slices[text_pb2.DetokenizeResponse]:
    """Turn token ids into text.

    Raises:
        InvalidRequest: A token is unknown, or the text has more than so many bytes.
    """
    token_ids, keeps = request.token_ids, request.keep_special_tokens
    size = 0
    for begin in range(0, len(token_ids), TOKENS):
        part = token_ids[begin : begin + TOKENS]
        _check_known(part, begin, tokenizer.vocabulary_size)
        size += sum(map(len, map(tokenizer.token_bytes, part)))
        # Special tokens are left to the end; the first byte may be a space that is not shown.
        if size - 1 > most_bytes:
            raise InvalidRequest.of(
                "token_ids", f"their text has more bytes than the {most_bytes} of a message"
            )
        yield
    return text_pb2.DetokenizeResponse(text=tokenizer.decode(token_ids, keep_special=keeps))


def count_tokens(
    tokenizer: Tokenizer, request: text_pb2.CountTokensRequest, chat: Input | None
) -> Slices[text_pb2.CountTokensResponse]:
    """Count the tokens of texts, and of a conversation if there is one.

    Raises:
        InvalidRequest: The chat template refuses the conversation.
    """
    response = text_pb2.CountTokensResponse()
    taken = 0
    for text in request.texts:
        taken += 1 + len(text)
        if taken > COUNT_CHARS:
            taken = 0
            yield
        encoding = tokenizer.encode(
            text,
            add_special=request.add_special_tokens,
            parse_special=request.parse_special_tokens,
        )
        response.counts.append(len(encoding.token_ids))
    if chat is not None:
        yield
        response.counts.append(len(chat.encode()))
    return response


def split(
    request: text_pb2.SplitSentencesRequest, options: SentenceOptions
) -> Slices[text_pb2.SplitSentencesResponse]:
    """Cut text into sentences, or into paragraphs."""
    text = request.text
    splitter = SentenceSplitter(options, paragraphs=request.paragraphs)
    response = text_pb2.SplitSentencesResponse(language=options.language)
    for begin in range(0, len(text), SPLIT_CHARS):
        _add(response, splitter.push(text[begin : begin + SPLIT_CHARS]))
        yield
    _add(response, splitter.finish())
    return response


def _add(response: text_pb2.SplitSentencesResponse, pieces: Sequence[Piece]) -> None:
    for piece in pieces:
        response.ranges.add(
            start_byte=piece.start_byte, end_byte=piece.end_byte, kind=PIECE_KINDS[piece.kind]
        )


def _check_known(token_ids: Sequence[int], begin: int, size: int) -> None:
    if max(token_ids) >= size:
        stray = next(index for index, token_id in enumerate(token_ids) if token_id >= size)
        raise InvalidRequest.of(f"token_ids[{begin + stray}]", f"must be below {size}")
