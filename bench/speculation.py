"""How much faster few streams are with drafts, and what drafts cost where they are no use.

    python -m bench.speculation [--numbers int8 bfloat16] [--streams 1 2 4 8] [--rounds 3]
        [--output FILE]

SmolLM2 in the engine's core, in process. Each turn writes so many texts at once, with drafts or
without, prompts read included; turns alternate, and both must write the same tokens. A figure is
the median over pairs of turns: time without drafts over time with them. What was measured is put
beside what the file holds already.

    copy       repeat, correct, extract, continue: the answer stands in the prompt; greedy
    chat       bench.load's questions as a conversation, to the end of the answer; greedy
    drawn      the same at temperature 0.8
    load       bench.load's questions as it sends them: no template, no end; greedy. A small
               model soon repeats itself then, which drafts are good at and readers are not
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import description
from bench.prompts import QUESTION, TOPICS
from hocket.server.engine.commands import Submit
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.core import EngineCore
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.model.loading import LoadedModel, load_model
from hocket.server.text.pieces import Granularity
from hocket.server.text.tokenizer import ChatMessage

MOST_SEQUENCES = 1024
PROMPTS = 8
STORY = (
    "The old lighthouse at Merrow Point was built in 1871 by an engineer named Alan Drummond. It"
    " stands forty meters above the cliffs, and its lamp could be seen from twenty miles away. In"
    " the storm of {year} the keeper, Thomas Hale, kept the light burning for three nights while"
    " the sea broke the lower windows. Forty-two sailors owed him their lives. Today the tower is a"
    " museum, and visitors can climb its 198 steps."
)
RECORDS = (
    "Name: Maria Keller, Age: 34, City: Hamburg, Job: carpenter. Name: Jonas Brandt, Age: 51, City:"
    " Leipzig, Job: teacher. Name: Aisha Rahman, Age: 27, City: Bremen, Job: pilot. Year: {year}."
)
CODE = (
    "def total(prices, tax):\n    result = {year}\n    for price in prices:\n"
    "        result += price\n    result = result * (1 + tax)\n    return result\n"
)
TASKS = (
    f"Repeat this text word for word:\n\n{STORY}",
    f"Write these records as a JSON list with the keys name, age, city and job:\n\n{RECORDS}",
    f"Rewrite this text and change as little as possible:\n\n{STORY.replace('tower', 'towwer')}",
    f"Rename the variable result to amount and write the whole code again:\n\n{CODE}",
)


@dataclass(frozen=True, kw_only=True)
class Load:
    """Prompts of one kind, and how they are continued."""

    prompts: list[tuple[int, ...]]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    ignore_eos: bool = False


def loads(model: LoadedModel) -> dict[str, Load]:
    """Return eight prompts of each kind."""

    def chat(text: str) -> tuple[int, ...]:
        if model.chat_template is None:
            raise RuntimeError("the model has no chat template")
        message = ChatMessage(role="user", content=text)
        return tuple(model.chat_template.encode([message], add_generation_prompt=True))

    def plain(text: str) -> tuple[int, ...]:
        return model.tokenizer.encode(text, add_special=True, parse_special=False).token_ids

    tasks = [TASKS[at % len(TASKS)].replace("{year}", str(1903 + at)) for at in range(PROMPTS)]
    questions = [QUESTION.format(topic=TOPICS[at], number=at) for at in range(PROMPTS)]
    drawn = SamplingParams(temperature=0.8, top_p=0.95, seed=3)
    return {
        "copy": Load(prompts=[chat(task) for task in tasks]),
        "chat": Load(prompts=[chat(question) for question in questions]),
        "drawn": Load(prompts=[chat(question) for question in questions], sampling=drawn),
        "load": Load(prompts=[plain(question) for question in questions], ignore_eos=True),
    }


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What came of one turn."""

    seconds: float
    texts: dict[str, list[int]]
    draft_tokens: int
    accepted_tokens: int


def turn(
    model: LoadedModel, load: Load, chosen: range, max_tokens: int, *, speculates: bool
) -> Turn:
    """Continue some of the prompts at once."""
    config = EngineConfig(speculate_up_to=MOST_SEQUENCES if speculates else 0)
    core = EngineCore(model.runner, model.tokenizer, config, time.perf_counter)
    texts: dict[str, list[int]] = {}
    begun = time.perf_counter()
    commands = [
        Submit(
            request_id=str(at),
            prompt_token_ids=load.prompts[at],
            sampling=load.sampling,
            stopping=StoppingParams(max_tokens=max_tokens, ignore_eos=load.ignore_eos),
            granularity=Granularity.SENTENCE,
        )
        for at in chosen
    ]
    has_work = True
    while has_work:
        outputs = core.step(commands)
        commands, has_work = [], outputs.has_work
        for output in outputs.outputs:
            for text in output.texts:
                texts.setdefault(output.request_id, []).extend(text.token_ids)
    return Turn(
        seconds=time.perf_counter() - begun,
        texts=texts,
        draft_tokens=outputs.statistics.draft_tokens,
        accepted_tokens=outputs.statistics.accepted_tokens,
    )


def measure(
    model: LoadedModel, load: Load, streams: int, arguments: argparse.Namespace
) -> dict[str, object]:
    """Alternate turns with and without drafts, over four prompts at least.

    Raises:
        RuntimeError: Drafts have changed a text.
    """
    turns: dict[bool, list[Turn]] = {False: [], True: []}
    for number in range(arguments.rounds):
        for first in range(0, max(4, streams), streams):
            is_even = (number + first // streams) % 2 == 0
            for speculates in (is_even, not is_even):
                done = turn(
                    model,
                    load,
                    range(first, first + streams),
                    arguments.new_tokens,
                    speculates=speculates,
                )
                turns[speculates].append(done)
            if turns[False][-1].texts != turns[True][-1].texts:
                raise RuntimeError("drafts have changed a text. This is a bug.")
    off, on = turns[False], turns[True]
    ratios = sorted(
        without.seconds / drafted.seconds for without, drafted in zip(off, on, strict=True)
    )
    tokens = sum(len(text) for done in on for text in done.texts.values())
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "tokens_per_second": round(tokens / sum(done.seconds for done in on), 1),
        "without_drafts": round(tokens / sum(done.seconds for done in off), 1),
        "tokens": tokens,
        "draft_tokens": sum(done.draft_tokens for done in on),
        "accepted_tokens": sum(done.accepted_tokens for done in on),
    }


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--numbers", nargs="+", choices=["int8", "bfloat16"])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--output", type=Path, help="where to write the result as JSON")
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    if arguments.output and arguments.output.exists():
        result = json.loads(arguments.output.read_text())
    for number in arguments.numbers or ["int8", "bfloat16"]:
        quantization = "int8" if number == "int8" else "none"
        model = load_model(
            ModelSourceConfig(model="smollm2"),
            RunnerConfig(kernels="native", quantization=quantization, kv_cache_mib=256),
            lambda *_: None,
        )
        kinds = loads(model)
        turn(model, kinds["load"], range(4), 16, speculates=True)  # warms up
        for streams in arguments.streams:
            for kind, load in kinds.items():
                found = measure(model, load, streams, arguments)
                result.setdefault(number, {}).setdefault(str(streams), {})[kind] = found
                print(number, streams, kind, json.dumps(found), file=sys.stderr)
    result |= {
        "command": "python -m bench.speculation",
        "rounds": arguments.rounds,
        "new_tokens": arguments.new_tokens,
        "machine": description("torch"),
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
