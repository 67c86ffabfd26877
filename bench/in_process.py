"""The engine alone, without gRPC and without asyncio, and where the time of its steps goes.

    python -m bench.in_process [--set SECTION.KEY=VALUE]

As a command it is a process for other measurements: it reads lines of JSON, each
`{"prompts": [[token ids]], "new_tokens": n}`, and answers each with seconds, tokens, steps and the
model's size.
"""

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TextIO

from bench.command import serving_parser
from bench.roofline import Size
from hocket.server.engine.batch import (
    Batch,
    ModelLimits,
    ModelRunner,
    PrefixChunks,
    StepResult,
)
from hocket.server.engine.commands import Submit
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.core import EngineCore
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.model.config import ModelSourceConfig
from hocket.server.settings import Settings, read_settings
from hocket.server.startup import load_with_torch
from hocket.server.text.pieces import Granularity
from hocket.server.text.tokenizer import Tokenizer


@dataclass(slots=True, kw_only=True)
class Step:
    """One step of the engine. Times are in seconds.

    Attributes:
        total: The whole step.
        before: Until the model is called: commands, schedule, slices.
        forward: The network's forward pass; 0 where it is not told apart from `model`.
        head: The output head; the same.
        model: The whole call of the model: these two, drawing tokens, checking them.
        prompt_tokens: Computed of prompts.
        streams: Sequences of which a written token was computed.
        context: Tokens that these look back at, themselves included, in all.
    """

    total: float = 0.0
    before: float = 0.0
    forward: float = 0.0
    head: float = 0.0
    model: float = 0.0
    prompt_tokens: int = 0
    streams: int = 0
    context: int = 0

    @property
    def drawing(self) -> float:
        """Drawing and checking tokens."""
        return self.model - self.forward - self.head

    @property
    def after(self) -> float:
        """From the model's answer on: tokens to text, ends, outputs."""
        return self.total - self.before - self.model


@dataclass(slots=True)
class Watch:
    """The step in progress, for all that take part in it."""

    step: Step = field(default_factory=Step)
    begun: float = 0.0


class WatchedRunner:
    """A model whose calls are timed."""

    def __init__(self, runner: ModelRunner, watch: Watch) -> None:
        self._runner = runner
        self._watch = watch

    @property
    def limits(self) -> ModelLimits:
        """The bounds that the model sets."""
        return self._runner.limits

    def execute(self, batch: Batch) -> StepResult:
        """Compute a batch, and note how long it took and what was in it."""
        begun = time.perf_counter()
        result = self._runner.execute(batch)
        step = self._watch.step
        step.model += time.perf_counter() - begun
        step.before = begun - self._watch.begun
        for piece in batch.slices:
            if piece.start >= piece.prompt_length:
                step.streams += 1
                step.context += piece.start + len(piece.token_ids)
            else:
                step.prompt_tokens += len(piece.token_ids)
        return result

    def move_blocks(self, moves: Sequence[tuple[int, int]]) -> None:
        """See `ModelRunner`."""
        self._runner.move_blocks(moves)

    def save_blocks(self, sequence_id: int, blocks: Sequence[int]) -> None:
        """See `ModelRunner`."""
        self._runner.save_blocks(sequence_id, blocks)

    def load_blocks(self, sequence_id: int, blocks: Sequence[int]) -> None:
        """See `ModelRunner`."""
        self._runner.load_blocks(sequence_id, blocks)

    def drop_saved(self, sequence_id: int) -> None:
        """See `ModelRunner`."""
        self._runner.drop_saved(sequence_id)

    def keep_chunks(self, chunks: PrefixChunks) -> None:
        """See `ModelRunner`."""
        self._runner.keep_chunks(chunks)

    def load_chunks(self, chunks: PrefixChunks) -> None:
        """See `ModelRunner`."""
        self._runner.load_chunks(chunks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What came of some prompts.

    Attributes:
        seconds: Until the last of them ended.
        tokens: Written.
        steps: In order.
        texts: For each prompt the tokens written.
        draft_tokens: Guesses that were computed.
        accepted_tokens: Those of them that were right.
    """

    seconds: float
    tokens: int
    steps: tuple[Step, ...]
    texts: tuple[tuple[int, ...], ...]
    draft_tokens: int
    accepted_tokens: int


def write(
    runner: ModelRunner,
    tokenizer: Tokenizer,
    config: EngineConfig,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    watch: Watch | None = None,
    *,
    sampling: SamplingParams | None = None,
    ignore_eos: bool = True,
) -> Job:
    """Write so many tokens for each prompt, all begun together, in whole sentences.

    Args:
        runner: Computes.
        tokenizer: Of the model.
        config: Of the engine.
        prompts: Token ids.
        new_tokens: For each prompt; the most if end tokens are not ignored.
        watch: Is told of each step.
        sampling: Greedy if None.
        ignore_eos: Go on past end tokens.

    Raises:
        RuntimeError: A request failed.
    """
    watch = watch or Watch()
    core = EngineCore(WatchedRunner(runner, watch), tokenizer, config, time.monotonic)
    commands = [
        Submit(
            request_id=str(number),
            prompt_token_ids=tuple(prompt),
            sampling=sampling or SamplingParams(),
            stopping=StoppingParams(max_tokens=new_tokens, ignore_eos=ignore_eos),
            granularity=Granularity.SENTENCE,
        )
        for number, prompt in enumerate(prompts)
    ]
    steps, tokens = [], 0
    texts: list[list[int]] = [[] for _ in prompts]
    begun = time.perf_counter()
    while True:
        watch.step, watch.begun = Step(), time.perf_counter()
        outputs = core.step(commands)
        watch.step.total = time.perf_counter() - watch.begun
        steps.append(watch.step)
        commands = []
        for output in outputs.outputs:
            if output.failure is not None:
                raise RuntimeError(f"a request failed: {output.failure}")
            for text in output.texts:
                texts[int(output.request_id)] += text.token_ids
            if output.finished is not None:
                tokens += output.finished.completion_tokens
        if not outputs.has_work:
            break
    return Job(
        seconds=time.perf_counter() - begun,
        tokens=tokens,
        steps=tuple(steps),
        texts=tuple(map(tuple, texts)),
        draft_tokens=outputs.statistics.draft_tokens,
        accepted_tokens=outputs.statistics.accepted_tokens,
    )


def settings_of(sets: Sequence[str]) -> Settings:
    """Return the server's settings with these given."""
    return read_settings(sets=sets).settings


def size_of(source: ModelSourceConfig) -> Size:
    """Return what a model has to read and to multiply."""
    from bench.models import open_checkpoint  # noqa: PLC0415 - loads torch

    config = open_checkpoint(source).checkpoint.config
    return Size.of(
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        vocabulary=config.vocabulary_size,
        layers=config.num_layers,
        heads=config.num_heads,
        kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
    )


def command(settings: Sequence[str]) -> list[str]:
    """Return the command that runs this in a process of its own, with settings of the server."""
    flags = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", "bench.in_process", *flags]


def main() -> None:
    """Answer until standard input ends; whatever else is said goes to standard error."""
    settings = settings_of(serving_parser(__doc__).parse_args().set)
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        _answer(settings, answers)


def _answer(settings: Settings, answers: TextIO) -> None:
    loaded = load_with_torch(settings.model, settings.runner, lambda _stage, _done: None)
    size = asdict(size_of(settings.model))
    print(json.dumps({"model": asdict(loaded.description)}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        job = write(
            loaded.runner,
            loaded.tokenizer,
            settings.engine,
            asked["prompts"],
            asked["new_tokens"],
        )
        print(json.dumps(asdict(job) | {"size": size}), file=answers, flush=True)


if __name__ == "__main__":
    main()
