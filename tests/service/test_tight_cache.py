"""What the KV cache cannot hold is refused at the door, and nobody waits behind it."""

import pytest

from hocket.client import InvalidRequest
from hocket.server.testing.scripted_runner import ScriptedRunner, echo
from hocket.server.testing.serving import ScriptedModel, serving


async def test_a_prompt_larger_than_the_cache_is_refused_and_delays_nobody(client_of):
    """The context that the model declares counts for nothing where the cache is smaller."""
    model = ScriptedModel(ScriptedRunner(block_size=8, num_blocks=16, max_context_tokens=4_096))
    async with serving(model) as app, client_of(app) as client:
        limits = (await client.get_model()).limits
        assert limits.max_prompt_tokens == 16 * 8 - 1
        with pytest.raises(InvalidRequest) as caught:
            await client.generate("x" * 128)
        assert caught.value.reason == "PROMPT_TOO_LONG"
        assert (await client.generate("hi")).text == echo(b"hi").decode()


async def test_the_longest_prompt_that_fits_is_answered(client_of):
    model = ScriptedModel(ScriptedRunner(block_size=8, num_blocks=16))
    async with serving(model) as app, client_of(app) as client:
        result = await client.generate("x" * 127)
        assert result.usage.completion_tokens == 1
