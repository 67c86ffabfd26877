"""Prompts to tokens through the engine's core, stepped by hand."""

from collections.abc import Mapping, Sequence

from hocket.server.engine.batch import ModelRunner
from hocket.server.engine.commands import Finished, Logprobs, Submit
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.core import EngineCore
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.text.pieces import Granularity


class Written:
    """What came of some requests, by id."""

    def __init__(self) -> None:
        self.tokens: dict[str, list[int]] = {}
        self.logprobs: dict[str, list[Logprobs]] = {}
        self.finished: dict[str, Finished] = {}
        self.preemptions = 0
        self.draft_tokens = self.accepted_tokens = 0


def write(
    runner: ModelRunner,
    prompts: Mapping[str, Sequence[int]],
    *,
    max_tokens: int,
    engine: EngineConfig | None = None,
    sampling: SamplingParams | None = None,
    arrivals: Mapping[str, int] | None = None,
) -> Written:
    """Run all prompts to the end; each arrives in the step that `arrivals` says, 0 by default."""
    core = EngineCore(runner, ByteTokenizer(), engine or EngineConfig(), lambda: 0.0)
    arrivals = arrivals or {}
    submits = {
        name: Submit(
            request_id=name,
            prompt_token_ids=tuple(prompt),
            sampling=sampling or SamplingParams(),
            stopping=StoppingParams(max_tokens=max_tokens, ignore_eos=True),
            granularity=Granularity.TOKEN,
        )
        for name, prompt in prompts.items()
    }
    written, step = Written(), 0
    while len(written.finished) < len(prompts):
        arriving = [submits[name] for name in prompts if arrivals.get(name, 0) == step]
        outputs = core.step(arriving)
        core.check_integrity()
        for output in outputs.outputs:
            assert output.failure is None, output.failure
            for text in output.texts:
                written.tokens.setdefault(output.request_id, []).extend(text.token_ids)
                written.logprobs.setdefault(output.request_id, []).extend(text.logprobs)
            if output.finished:
                written.finished[output.request_id] = output.finished
        written.preemptions = outputs.statistics.preemptions
        written.draft_tokens = outputs.statistics.draft_tokens
        written.accepted_tokens = outputs.statistics.accepted_tokens
        step += 1
    assert outputs.statistics.blocks_used == outputs.statistics.saved_blocks == 0
    return written
