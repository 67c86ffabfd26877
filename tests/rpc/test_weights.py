"""What is begun can be answered: the heaviest answer to what is let in fits into a message."""

from bisect import bisect_left
from collections.abc import Callable

import pytest

from hocket.server.engine.commands import (
    Finished,
    Logprobs,
    RequestOutput,
    TextOutput,
    Timings,
)
from hocket.server.errors import InvalidRequest
from hocket.server.rpc.parse import check
from hocket.server.rpc.render import EventRenderer
from hocket.server.rpc.weights import longest_tokens, token_bytes
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.text.pieces import Piece, PieceKind
from hocket.server.text.tokenizer import Tokenizer
from hocket.v1 import generation_pb2, options_pb2
from rpc.served import served_model

MOST = 65_536
CONTEXT = 16_384
Make = Callable[[int], generation_pb2.GenerateRequest]
TIMINGS = Timings(queue=1e6, prefill=1e6, first_token=1e6, first_text=1e6, total=1e6)
GRANULARITIES = [
    options_pb2.GRANULARITY_SENTENCE,
    options_pb2.GRANULARITY_PARAGRAPH,
    options_pb2.GRANULARITY_FULL,
]


class LongTokenizer(ByteTokenizer):
    """Its tokens are of any length up to 200 bytes, the longest last."""

    def token_bytes(self, token_id: int) -> bytes:
        return b"x" * (token_id * 200 // self.vocabulary_size)


TOKENIZERS = [LongTokenizer(), ByteTokenizer()]
COUNTS = [0, 1, 7, 20]


def position(tokenizer: Tokenizer, count: int) -> Logprobs:
    """Return the heaviest log probabilities of a position."""
    heaviest = sorted(
        range(tokenizer.vocabulary_size),
        key=lambda token_id: len(token_bytes(tokenizer, token_id)),
        reverse=True,
    )
    return Logprobs(-1.0, tuple((token_id, -1.0) for token_id in heaviest[:count]))


async def weight(tokenizer: Tokenizer, output: RequestOutput) -> int:
    """Return the bytes of the heaviest event, told among those of many generations."""
    renderer = EventRenderer(tokenizer=tokenizer, model="m", seed=2**64 - 1)
    sizes = []
    for event in await renderer.events(output):
        response = generation_pb2.GenerateManyResponse(request_id="a" * 128)
        getattr(response, type(event).__name__.lower()).CopyFrom(event)
        sizes.append(response.ByteSize())
    return max(sizes)


def is_let_in(tokenizer: Tokenizer, request: generation_pb2.GenerateRequest, field: str) -> bool:
    model = served_model(tokenizer, max_context_tokens=CONTEXT)
    checked = check(request, model, arrived=0.0, remaining=None, max_message_bytes=MOST)
    try:
        checked.encode()
    except InvalidRequest as error:
        (violation,) = error.violations
        assert violation.field == field
        assert str(MOST) in violation.description
        return False
    return True


def most_let_in(tokenizer: Tokenizer, make: Make, field: str) -> int:
    """Return the most tokens with which a request is let in."""
    return bisect_left(
        range(1, CONTEXT - 1), True, key=lambda n: not is_let_in(tokenizer, make(n), field)
    )


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["long", "bytes"])
def test_the_longest_tokens_are_the_longest(tokenizer):
    """Special ones by how they are written, since that is how they are told."""
    sizes = [len(token_bytes(tokenizer, token_id)) for token_id in range(260)]
    assert longest_tokens(tokenizer) == tuple(sorted(sizes, reverse=True)[:20])
    assert 13 in longest_tokens(ByteTokenizer())


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["long", "bytes"])
async def test_log_probabilities_of_the_longest_prompt_fit(tokenizer, count):
    """Just so: what is refused might really have been too much, or nearly."""

    def make(tokens: int) -> generation_pb2.GenerateRequest:
        request = generation_pb2.GenerateRequest(prompt="x" * tokens)
        request.output.prompt_logprobs = count
        return request

    tokens = most_let_in(tokenizer, make, "output.prompt_logprobs")
    finished = Finished(
        completions=(),
        prompt_tokens=tokens,
        cached_tokens=tokens,
        completion_tokens=tokens,
        timings=TIMINGS,
        prompt_logprobs=(position(tokenizer, count),) * (tokens - 1),
    )
    size = await weight(tokenizer, RequestOutput(request_id="a", finished=finished))
    assert MOST / 2 < size <= MOST


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("count", [None, *COUNTS])
@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["long", "bytes"])
async def test_a_piece_with_all_the_tokens_fits(tokenizer, count, granularity):
    """Such as the whole text, or a sentence to which all tokens without a text belong."""

    def make(tokens: int) -> generation_pb2.GenerateRequest:
        request = generation_pb2.GenerateRequest(prompt="x")
        request.stopping.max_tokens = tokens
        request.output.granularity = granularity
        if count is not None:
            request.output.logprobs = count
        return request

    field = "stopping.max_tokens" if count is None else "output.logprobs"
    tokens = most_let_in(tokenizer, make, field)
    is_full = granularity == options_pb2.GRANULARITY_FULL
    text = "x" * (tokens * longest_tokens(tokenizer)[0] if is_full else 500)
    piece = Piece(text, 0, len(text), PieceKind.DELTA if is_full else PieceKind.TAIL)
    logprobs = () if count is None else (position(tokenizer, count),) * tokens
    output = TextOutput(0, piece, (259,) * tokens, logprobs)
    size = await weight(tokenizer, RequestOutput(request_id="a", texts=(output,)))
    assert MOST / 4 < size <= MOST


@pytest.mark.parametrize("count", [None, 20])
def test_deltas_are_not_bounded_by_all_the_tokens(count):
    """Each holds what one step brought, or what fits into the mailbox."""
    request = generation_pb2.GenerateRequest(prompt="x")
    request.stopping.max_tokens = CONTEXT - 1
    request.output.granularity = options_pb2.GRANULARITY_TOKEN
    if count is not None:
        request.output.logprobs = count
    assert is_let_in(TOKENIZERS[0], request, "")


def test_an_ordinary_request_is_not_refused():
    """The bounds are far from what is asked for without a thought."""
    assert is_let_in(TOKENIZERS[0], generation_pb2.GenerateRequest(prompt="hi"), "")
