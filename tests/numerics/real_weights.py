"""Questions for models with real weights, and the comparison with transformers."""

import itertools
from functools import partial
from pathlib import Path

import pytest
import torch

from hocket.server.engine.sampling import SamplingParams
from hocket.server.model.loading import LoadedModel
from hocket.server.text.tokenizer import ChatMessage
from numerics.generation import write

NEW_TOKENS = 128
TOLERANCE = 1e-3  # of log probabilities; float32 sums in another order, over many layers
CLOSE_CALL = 1e-3  # a smaller gap between the two likeliest tokens decides nothing

_THINGS = ["the sea", "a clock", "bread", "Mount Fuji", "the number seven"]
_TASKS = [
    "Explain {}.",
    "Write a short story about {}.",
    "List five facts about {}.",
    "Translate into French: I like {}.",
]
QUESTIONS = [task.format(thing) for task, thing in itertools.product(_TASKS, _THINGS)]


def ask(loaded: LoadedModel) -> dict[str, list[int]]:
    """Return the questions as the model's template writes them, or as they are without one."""
    template, tokenizer = loaded.chat_template, loaded.tokenizer
    if template is None:
        encode = partial(tokenizer.encode, add_special=True, parse_special=False)
        return {question: list(encode(question).token_ids) for question in QUESTIONS}
    return {
        question: list(
            template.encode(
                [ChatMessage(role="user", content=question)], add_generation_prompt=True
            )
        )
        for question in QUESTIONS
    }


def assert_equals_transformers(
    loaded: LoadedModel, prompts: dict[str, list[int]], path: Path
) -> None:
    """All in one batch against one at a time: token for token, on the same dequantised weights."""
    import transformers  # noqa: PLC0415 - slow to import

    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    written = write(
        loaded.runner, prompts, max_tokens=NEW_TOKENS, sampling=SamplingParams(logprobs=1)
    )
    close_calls = 0
    for question, prompt in prompts.items():
        ours = written.tokens[question]
        assert len(ours) == NEW_TOKENS
        with torch.inference_mode():
            logprobs = model(torch.tensor([prompt + ours])).logits[0].log_softmax(-1)
        for at, (token, told) in enumerate(
            zip(ours, written.logprobs[question], strict=True), start=len(prompt) - 1
        ):
            best = logprobs[at].topk(2)
            if token != int(best.indices[0]):
                close_calls += 1
                assert float(best.values[0] - best.values[1]) < CLOSE_CALL, (question, at)
            assert told.logprob == pytest.approx(float(logprobs[at, token]), abs=TOLERANCE)
    assert close_calls <= 2
