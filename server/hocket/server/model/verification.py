"""Draws the tokens of a step, and tells by them which drafts are right. Engine thread.

Every token is drawn from its own row and by its own random number, which (seed, position) fixes. A
draft is right if it is the very token that is drawn in its place. So a text with drafts is the text
without them, not only one of the same distribution as after Leviathan et al. (2023): their rule
accepts a draft by a random number of its own, and so needs the probability of every guess.
"""

from collections.abc import Sequence

from torch import Tensor

from hocket.server.engine.batch import SampledToken, SequenceSlice
from hocket.server.model.sampler import sample

Drawn = tuple[SampledToken, ...] | str


def draw(logits: Tensor, slices: Sequence[SequenceSlice]) -> list[Drawn]:
    """Draw one token for each slice that asks for any, and one more after each right draft.

    Args:
        logits: `[rows or more, vocabulary]` float32, one row for each sample of each slice, in
            order; changed in place.
        slices: What was computed.

    Returns:
        For each slice its tokens, or in one word why the first cannot be drawn; see `sample`. One
        after a draft that cannot be drawn is left out: it is met again when its turn comes.
    """
    drawn: list[list[SampledToken]] = [[] for _ in slices]
    failures: dict[int, str] = {}
    rows: dict[int, int] = {}  # of the slices that go on: the row that is drawn from next
    first = 0
    for index, piece in enumerate(slices):
        if piece.samples:
            rows[index] = first
        first += len(piece.samples)
    at = 0
    while rows:
        places = list(rows.values())
        chosen = logits if places == list(range(len(places))) else logits[places]
        requests = [slices[index].samples[at] for index in rows]
        going: dict[int, int] = {}
        for index, token in zip(rows, sample(chosen, requests), strict=True):
            if isinstance(token, SampledToken):
                drawn[index].append(token)
                piece = slices[index]
                drafts = piece.token_ids[len(piece.token_ids) - piece.num_drafts :]
                if at < len(drafts) and drafts[at] == token.token_id:
                    going[index] = rows[index] + 1
            elif at == 0:
                failures[index] = token
        rows, at = going, at + 1
    return [failures.get(index, tuple(tokens)) for index, tokens in enumerate(drawn)]
