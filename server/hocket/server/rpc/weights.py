"""What an answer may weigh on the wire at most, told before anything is done for it. Any thread.

gRPC refuses to send a message above its bound, after all the work and without a word about why. So
nothing is begun whose answer might not fit. Weights are upper bounds: every tag and number at its
longest, every token at the longest of the vocabulary.
"""

from functools import lru_cache
from typing import Any

from hocket.server.rpc.limits import MAX_LOGPROBS
from hocket.server.text.pieces import Granularity, SentenceOptions
from hocket.server.text.sentences import PARAGRAPH_FACTOR
from hocket.server.text.tokenizer import Tokenizer

# Of `text.proto`, for texts of up to 256 MiB and vocabularies of up to two million.
TOKEN_BYTES = 16  # a `Token`
RANGE_BYTES = 14  # a `TextRange`
PIECE_TEXT_BYTES = 2  # of text in each `TextRange`, on average at least

# Of `generation.proto`.
_FRAME = 1_024  # what stands around the long fields: ids, positions, usage
_TOKEN_ID = 5
_POSITION = 10  # a `TokenLogprobs` without its likeliest tokens
_TOP = 21  # a `TopLogprob` without the token's own bytes
_CHARACTER = 4


def longest_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the bytes of the longest tokens as they are told, longest first.

    As many as are told at one position. Looks through the vocabulary, once: a tenth of a second.
    """
    key: Any = tokenizer  # hashable as every object is, which its protocol does not say
    return _longest_tokens(key)


@lru_cache(maxsize=8)
def _longest_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    sizes = (len(token_bytes(tokenizer, token_id)) for token_id in range(tokenizer.vocabulary_size))
    return tuple(sorted(sizes, reverse=True)[:MAX_LOGPROBS])


def token_bytes(tokenizer: Tokenizer, token_id: int) -> bytes:
    """Return a token as log probabilities tell it: its bytes, or how a special one is written."""
    return tokenizer.token_bytes(token_id) or tokenizer.token_text(token_id).encode()


def logprobs_bytes(tokenizer: Tokenizer, positions: int, count: int) -> int:
    """Return what log probabilities may weigh.

    Args:
        tokenizer: Whose tokens are told.
        positions: How many tokens they are of.
        count: How many likeliest tokens are told at each.
    """
    tokens = sum(longest_tokens(tokenizer)[:count])
    return positions * (_POSITION + _TOP * count + tokens)


def finished_bytes(tokenizer: Tokenizer, prompt_tokens: int, count: int) -> int:
    """Return what a `Finished` may weigh that tells the log probabilities of a prompt."""
    return _FRAME + logprobs_bytes(tokenizer, prompt_tokens - 1, count)


def piece_bytes(
    tokenizer: Tokenizer,
    tokens: int,
    logprobs: int | None,
    granularity: Granularity,
    sentences: SentenceOptions,
) -> int:
    """Return what the heaviest piece of an answer may weigh.

    Any number of tokens without text of their own may belong to a single piece.

    Args:
        tokenizer: Whose tokens are written.
        tokens: How many at most.
        logprobs: How many likeliest tokens are told at each; None without log probabilities.
        granularity: In which pieces they come.
        sentences: How sentences are cut.
    """
    if granularity is Granularity.TOKEN:
        return 0  # a delta holds the tokens of a step, or what fits into the mailbox
    # A byte that makes no character is shown as U+FFFD, of three bytes.
    text = tokens * max(3, *longest_tokens(tokenizer)[:1])
    if granularity is not Granularity.FULL:
        factor = PARAGRAPH_FACTOR if granularity is Granularity.PARAGRAPH else 1
        text = min(text, sentences.max_chars * factor * _CHARACTER)
    told = 0 if logprobs is None else logprobs_bytes(tokenizer, tokens, logprobs)
    return _FRAME + text + tokens * _TOKEN_ID + told
