"""Rows and requests for the sampler, in one line each."""

from collections.abc import Sequence

import torch

from hocket.server.engine.batch import SampledToken, SampleRequest
from hocket.server.engine.counts import TokenCounts
from hocket.server.engine.sampling import SamplingParams
from hocket.server.model.sampler import sample


def ask(
    *,
    seed: int = 1,
    position: int = 5,
    history: Sequence[int] = (),
    prompt_length: int = 0,
    banned: Sequence[int] = (),
    **params: object,
) -> SampleRequest:
    """Return a request for the token after a history."""
    counts = TokenCounts()
    counts.catch_up(history, prompt_length)
    return SampleRequest(
        params=SamplingParams(**params),
        seed=seed,
        position=position,
        prompt_length=prompt_length,
        banned_token_ids=banned,
        counts=counts,
    )


def drawn(logits: object, *requests: SampleRequest) -> list[SampledToken | str]:
    """Draw a token for each request; one row of logits serves them all."""
    rows = torch.as_tensor(logits, dtype=torch.float32)
    if rows.dim() == 1:
        rows = rows.expand(len(requests), -1)
    return sample(rows.clone(), requests)


def tokens(logits: object, *requests: SampleRequest) -> list[int]:
    """Return the ids of drawn tokens, all of which there must be."""
    found = drawn(logits, *requests)
    assert [token for token in found if isinstance(token, str)] == []
    return [token.token_id for token in found]
