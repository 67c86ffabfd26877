"""Events out of outputs; what is long is made in parts."""

import asyncio

from hocket.server.engine.commands import Finished, Logprobs, RequestOutput, Timings
from hocket.server.rpc.render import EventRenderer
from hocket.server.testing.byte_tokenizer import ByteTokenizer

POSITIONS, TOPS = 2_000, 20


async def test_others_get_their_turn_while_much_is_rendered():
    """Every thousand log probabilities or so, which are a few milliseconds' work."""
    logprobs = Logprobs(-1.0, tuple((token_id, -1.0) for token_id in range(TOPS)))
    finished = Finished(
        completions=(),
        prompt_tokens=POSITIONS + 1,
        cached_tokens=0,
        completion_tokens=0,
        timings=Timings(queue=0, prefill=0, first_token=None, first_text=None, total=0),
        prompt_logprobs=(logprobs,) * POSITIONS,
    )
    renderer = EventRenderer(tokenizer=ByteTokenizer(), model="m", seed=0)
    rendering = asyncio.create_task(
        renderer.events(RequestOutput(request_id="a", finished=finished))
    )
    turns = 0
    while not rendering.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns >= POSITIONS * TOPS / 1_100
    (event,) = await rendering
    assert len(event.prompt_logprobs) == POSITIONS
