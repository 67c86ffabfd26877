"""SmolLM2 itself behind a document's writer: what each segment gives alone, for fewer tokens."""

import asyncio

import pytest

from document.driven import driven, run_here
from document.jobs import job, options, spans, texts_of, write
from hocket.server.document.generating import GeneratingWriter
from hocket.server.document.prompts import Prompts
from hocket.server.document.tasks import Classify, Rewrite, Translate
from hocket.server.engine.sampling import StoppingParams
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.model.loading import load_model
from numerics.generation import write as write_tokens

pytestmark = [pytest.mark.torch, pytest.mark.weights, pytest.mark.slow, pytest.mark.timeout(300)]

MAX_TOKENS = 24
SENTENCES = [
    "The committee has reached the conclusion that the proposal cannot be accepted.",
    "Whales are mammals that live in the sea, and they must come up to breathe.",
    "He was very tired, so he went to bed early.",
    "Where is the train station?",
    "She bought three books yesterday, and she has already read two of them.",
    "The cat sleeps on the old chair.",
]


@pytest.fixture(scope="module")
def smollm2(smollm2_path):
    return load_model(
        ModelSourceConfig(model=str(smollm2_path)), RunnerConfig(num_threads=1), lambda *_: None
    )


def writer_of(model, task):
    return GeneratingWriter(
        model,
        Prompts(task),
        options(stopping=StoppingParams(max_tokens=MAX_TOKENS), has_max_tokens=True),
        run_text=run_here,
        clock=asyncio.get_running_loop().time,
    )


@pytest.mark.parametrize("task", [Rewrite(), Translate(("fr", "de"), "en")], ids=["1", "2"])
async def test_a_greedy_segment_equals_the_same_prompt_run_alone(smollm2, task):
    prompts = Prompts(task)
    jobs = [
        job(text, at=at, variant=variant)
        for at, text in enumerate(SENTENCES)
        for variant in range(len(prompts.variants))
    ]
    async with driven(smollm2) as model:
        together = await texts_of(writer_of(model, task), jobs)
        ends = model.tokenizer.end_token_ids
        for one, text in zip(jobs, together, strict=True):
            prompt = prompts.prompt(one.segment.text, variant=one.place.variant).encode(model)
            alone = write_tokens(smollm2.runner, {"alone": prompt}, max_tokens=MAX_TOKENS)
            tokens = alone.tokens["alone"]
            end = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
            assert text == model.tokenizer.decode(tokens[:end]).strip()


async def test_what_prompts_begin_with_is_computed_once(smollm2):
    """But for what does not fill a chunk of the prefix cache."""
    async with driven(smollm2) as model:
        writer = writer_of(model, Rewrite("plain English"))
        await write(writer, job(SENTENCES[0]))
        first, second = (
            Prompts(Rewrite("plain English")).prompt(text).encode(model) for text in SENTENCES[:2]
        )
        shared = next(at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
        chunk = model.limits.prefix_chunk_tokens
        for at, text in enumerate(SENTENCES[1:], start=1):
            _, written = await write(writer, job(text, at=at))
            assert written.usage.cached_tokens == shared // chunk * chunk > 0


async def test_a_span_comes_through_and_a_label_is_a_label(smollm2):
    """However poor the model's own answer."""
    text = "Please send the report to ann@example.org before Friday."
    async with driven(smollm2) as model:
        one = job(text, protected=spans(text, "ann@example.org"))
        pieces, written = await write(writer_of(model, Rewrite()), one)
        assert "".join(piece.text for piece in pieces).count("ann@example.org") == 1
        assert written.protection in {"kept", "split"}
        labels = ("about money", "about animals", "about travel")
        for sentence in SENTENCES:
            pieces, _ = await write(writer_of(model, Classify(labels)), job(sentence))
            assert [piece.text in labels for piece in pieces] == [True]
