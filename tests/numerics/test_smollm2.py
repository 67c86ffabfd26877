"""SmolLM2 itself: the same tokens as transformers on the same dequantised weights."""

import itertools
from pathlib import Path

import pytest
import torch

from hocket.server.engine.config import EngineConfig
from hocket.server.engine.sampling import SamplingParams
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.model.loading import LoadedModel, load_model
from hocket.server.text.tokenizer import ChatMessage
from numerics.generation import write

pytestmark = [pytest.mark.torch, pytest.mark.weights, pytest.mark.slow, pytest.mark.timeout(900)]

NEW_TOKENS = 128
TOLERANCE = 1e-3  # of log probabilities; float32 sums in another order, over 30 layers
CLOSE_CALL = 1e-3  # a smaller gap between the two likeliest tokens decides nothing

THINGS = ["the sea", "a clock", "bread", "Mount Fuji", "the number seven"]
TASKS = [
    "Explain {}.",
    "Write a short story about {}.",
    "List five facts about {}.",
    "Translate into French: I like {}.",
]
QUESTIONS = [task.format(thing) for task, thing in itertools.product(TASKS, THINGS)]


@pytest.fixture(scope="module")
def loaded(smollm2_path: Path) -> LoadedModel:
    source = ModelSourceConfig(model=str(smollm2_path))
    return load_model(source, RunnerConfig(dtype="float32"), lambda *_: None)


@pytest.fixture(scope="module")
def prompts(loaded: LoadedModel) -> dict[str, list[int]]:
    template = loaded.chat_template
    assert template is not None
    return {
        question: list(
            template.encode(
                [ChatMessage(role="user", content=question)], add_generation_prompt=True
            )
        )
        for question in QUESTIONS
    }


def test_greedy_tokens_and_logprobs_equal_transformers(loaded, prompts, smollm2_path):
    """All in one batch against one at a time: token for token over 20 prompts of 128 tokens."""
    import transformers  # noqa: PLC0415

    model = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2_path.parent, gguf_file=smollm2_path.name, dtype=torch.float32
    ).eval()
    written = write(
        loaded.runner, prompts, max_tokens=NEW_TOKENS, sampling=SamplingParams(logprobs=1)
    )
    close_calls = 0
    for question, prompt in prompts.items():
        ours = written.tokens[question]
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


@pytest.mark.parametrize(
    "engine",
    [
        EngineConfig(max_num_seqs=1),
        EngineConfig(max_step_tokens=7, max_prefill_tokens=7),
        EngineConfig(max_num_seqs=5, max_step_tokens=33, max_prefill_tokens=33),
    ],
    ids=["alone", "chunks of 7", "five at once"],
)
def test_batch_and_chunks_change_no_token(loaded, prompts, engine):
    chosen = dict(list(prompts.items())[:6])
    together = write(loaded.runner, chosen, max_tokens=40)
    apart = write(
        loaded.runner,
        chosen,
        max_tokens=40,
        engine=engine,
        arrivals={name: index * 3 for index, name in enumerate(chosen)},
    )
    assert apart.tokens == together.tokens
