"""Whether torch's products give a row the same result in any company. Engine thread, at load.

Which tokens a sequence is given should not hang on what stands beside it. The layers are made so
that it does not, as far as the libraries below them keep to one order of summation. No document
promises that, so it is tried on the model's own layers, on its output head and on products as
attention makes them. It takes some ten milliseconds.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from hocket.server.model.checkpoint import DecoderConfig
from hocket.server.model.head import OutputHead
from hocket.server.model.linear import Linear
from hocket.server.model.transfer import to_device

_ROWS = 64
_COMPANIES = (4, 8, 12, 16, 24, 32, 48)  # the fewest rows that are ever computed at once, and more
# The head is as large as many layers: on a processor a stretch of it has to do.
_HEAD_ROWS, _HEAD_TOKENS = (4, 8, 24), 8_192
_QUERIES = 16  # the same for attention over prompts
_ENTRIES = (1, 2, 5, 16)  # pairs of a decode and one of its blocks


def is_row_invariant(
    linears: Iterable[Linear],
    head: OutputHead,
    config: DecoderConfig,
    *,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> bool:
    """Whether rows come out bit by bit the same, however many are computed at once.

    Args:
        linears: Layers of a model, one of each shape.
        head: Its output head.
        config: Its hyperparameters.
        block_size: Tokens in a block of its cache.
        dtype: Number type that it computes in.
        device: Where it computes.
    """
    generator = torch.Generator().manual_seed(1)

    def numbers(*shape: int) -> Tensor:
        return to_device(torch.randn(shape, generator=generator).to(dtype), device)

    tried = head.stretch(_HEAD_TOKENS) if device.type == "cpu" else head
    return (
        all(_is_same(linear, numbers(_ROWS, linear.in_features), _COMPANIES) for linear in linears)
        and _is_same_over_prompts(numbers, config.head_dim)
        and _is_same_over_blocks(numbers, config, block_size)
        and _is_same(tried, numbers(max(_HEAD_ROWS), config.hidden_size), _HEAD_ROWS[:-1])
    )


def _is_same(layer: Callable[[Tensor], Tensor], x: Tensor, companies: Iterable[int]) -> bool:
    """Whether the first rows of `[rows, in_features]` are the same as among all."""
    together = layer(x)
    return all(torch.equal(layer(x[:count]), together[:count]) for count in companies)


def _is_same_over_prompts(numbers: Callable[..., Tensor], head_dim: int) -> bool:
    keys, queries = numbers(3, _ROWS, head_dim), numbers(3, _ROWS, head_dim)
    together = torch.bmm(queries, keys.transpose(1, 2))
    few = torch.bmm(queries[:, :_QUERIES], keys.transpose(1, 2))
    alone = torch.bmm(queries[:1], keys[:1].transpose(1, 2))
    return torch.equal(few, together[:, :_QUERIES]) and torch.equal(alone, together[:1])


def _is_same_over_blocks(
    numbers: Callable[..., Tensor], config: DecoderConfig, block_size: int
) -> bool:
    """Whether each entry of `Attention`'s products for decodes is the same among any number."""
    heads, entries = config.num_kv_heads, max(_ENTRIES)
    queries = numbers(entries * heads, config.num_heads // heads, config.head_dim)
    blocks = numbers(entries * heads, block_size, config.head_dim)
    scores = torch.bmm(queries, blocks.transpose(1, 2))
    weights = scores.float().softmax(-1).to(blocks.dtype)
    mixed = torch.bmm(weights, blocks)
    for count in _ENTRIES[:-1]:
        own = slice(count * heads)
        few = torch.bmm(queries[own], blocks[own].transpose(1, 2))
        if not torch.equal(few, scores[own]):
            return False
        if not torch.equal(torch.bmm(weights[own], blocks[own]), mixed[own]):
            return False
    return True
