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
import contextlib
import json
import statistics
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.command import deliver, origin, parser
from bench.in_process import Job, write
from bench.prompts import questions
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.sampling import SamplingParams
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.startup import Loaded, load_with_torch
from hocket.server.text.tokenizer import ChatMessage

MOST_SEQUENCES = 1024
PROMPTS = 8
NUMBERS: dict[str, Literal["int8", "none"]] = {"int8": "int8", "bfloat16": "none"}
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


def loads(model: Loaded) -> dict[str, Load]:
    """Return eight prompts of each kind."""

    def chat(text: str) -> tuple[int, ...]:
        if model.chat_template is None:
            raise RuntimeError("the model has no chat template")
        message = ChatMessage(role="user", content=text)
        return tuple(model.chat_template.encode([message], add_generation_prompt=True))

    def plain(text: str) -> tuple[int, ...]:
        return model.tokenizer.encode(text, add_special=True, parse_special=False).token_ids

    tasks = [TASKS[at % len(TASKS)].replace("{year}", str(1903 + at)) for at in range(PROMPTS)]
    asked = questions(PROMPTS)
    drawn = SamplingParams(temperature=0.8, top_p=0.95, seed=3)
    return {
        "copy": Load(prompts=[chat(task) for task in tasks]),
        "chat": Load(prompts=[chat(question) for question in asked]),
        "drawn": Load(prompts=[chat(question) for question in asked], sampling=drawn),
        "load": Load(prompts=[plain(question) for question in asked], ignore_eos=True),
    }


def turn(model: Loaded, load: Load, chosen: slice, max_tokens: int, *, speculates: bool) -> Job:
    """Continue some of the prompts at once."""
    return write(
        model.runner,
        model.tokenizer,
        EngineConfig(speculate_up_to=MOST_SEQUENCES if speculates else 0),
        load.prompts[chosen],
        max_tokens,
        sampling=load.sampling,
        ignore_eos=load.ignore_eos,
    )


def measure(
    model: Loaded, load: Load, streams: int, arguments: argparse.Namespace
) -> dict[str, object]:
    """Alternate turns with and without drafts, over four prompts at least.

    Raises:
        RuntimeError: Drafts have changed a text.
    """
    turns: dict[bool, list[Job]] = {False: [], True: []}
    for number in range(arguments.rounds):
        for first in range(0, max(4, streams), streams):
            is_even = (number + first // streams) % 2 == 0
            for speculates in (is_even, not is_even):
                done = turn(
                    model,
                    load,
                    slice(first, first + streams),
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
    tokens = sum(done.tokens for done in on)
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "tokens_per_second": round(tokens / sum(done.seconds for done in on), 1),
        "without_drafts": round(tokens / sum(done.seconds for done in off), 1),
        "tokens": tokens,
        "draft_tokens": sum(done.draft_tokens for done in on),
        "accepted_tokens": sum(done.accepted_tokens for done in on),
    }


def main() -> None:
    """Run as a command."""
    made = parser(__doc__)
    made.add_argument("--numbers", nargs="+", choices=list(NUMBERS), default=list(NUMBERS))
    made.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8])
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--new-tokens", type=int, default=96)
    arguments = made.parse_args()
    result: dict[str, Any] = {}
    if arguments.output and arguments.output.exists():
        result = json.loads(arguments.output.read_text(encoding="utf-8"))
    for number in arguments.numbers:
        with contextlib.redirect_stdout(sys.stderr):  # the log; the result alone is printed
            model = load_with_torch(
                ModelSourceConfig(model="smollm2"),
                RunnerConfig(kernels="native", quantization=NUMBERS[number], kv_cache_mib=256),
                lambda _stage, _done: None,
            )
        kinds = loads(model)
        turn(model, kinds["load"], slice(4), 16, speculates=True)  # warms up
        for streams in arguments.streams:
            for kind, load in kinds.items():
                found = measure(model, load, streams, arguments)
                result.setdefault(number, {}).setdefault(str(streams), {})[kind] = found
                print(number, streams, kind, json.dumps(found), file=sys.stderr)
    result |= origin("bench.speculation", "torch")
    result |= {"rounds": arguments.rounds, "new_tokens": arguments.new_tokens}
    deliver(result, arguments)


if __name__ == "__main__":
    main()
