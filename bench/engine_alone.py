"""The engine of `topologies.py` without gRPC: `EngineCore` stepped in a tight loop.

A process of its own. Arguments are settings (`section.key=value`). Reads one line of JSON for each
turn from standard input (`{"prompts": [[token ids]], "new_tokens": 128}`) and answers with one line
(`{"seconds": ..., "tokens": ...}`).
"""

import json
import sys
import time

from hocket.server.engine.commands import Submit
from hocket.server.engine.core import EngineCore
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.settings import read_settings
from hocket.server.startup import load_with_torch


def turn(core: EngineCore, prompts: list[list[int]], new_tokens: int) -> dict[str, float]:
    """Write all texts and return how long it took, and how many tokens they have."""
    begun = time.perf_counter()
    commands = [
        Submit(
            request_id=str(number),
            prompt_token_ids=tuple(prompt),
            sampling=SamplingParams(),
            stopping=StoppingParams(max_tokens=new_tokens, min_tokens=new_tokens, ignore_eos=True),
            arrived=time.monotonic(),
        )
        for number, prompt in enumerate(prompts)
    ]
    tokens, has_work = 0, True
    while has_work:
        outputs = core.step(commands)
        commands, has_work = [], outputs.has_work
        tokens += sum(each.finished.completion_tokens for each in outputs.outputs if each.finished)
    return {"seconds": time.perf_counter() - begun, "tokens": tokens}


def main() -> None:
    """Load the model and answer turns."""
    settings = read_settings(sets=sys.argv[1:]).settings
    loaded = load_with_torch(settings.model, settings.runner, lambda _stage, _done: None)
    core = EngineCore(loaded.runner, loaded.tokenizer, settings.engine, time.monotonic)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(turn(core, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
