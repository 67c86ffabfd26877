"""SmolLM2 itself writes sections: each as its prompt alone gives it, for less."""

import asyncio

import pytest

from document.driven import driven, run_here
from document.jobs import options
from document.test_compose import compose_of, read
from hocket.server.document.compose import Parallel
from hocket.server.document.merge import Order
from hocket.server.document.outline import Section
from hocket.server.document.sections import SectionWriter
from hocket.server.engine.sampling import StoppingParams
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.model.loading import load_model
from numerics.generation import write as write_tokens

pytestmark = [pytest.mark.torch, pytest.mark.weights, pytest.mark.slow, pytest.mark.timeout(300)]

MAX_TOKENS = 24
TASK = (
    "Write an article about bees for a school magazine. It is read by children of ten years, who"
    " know little of insects. Write short sentences, explain every hard word, and give examples"
    " from gardens and fields that they know."
)
SECTIONS = tuple(
    map(Section, ("What bees are", "How honey is made", "Bees and flowers", "How to help bees"))
)


@pytest.fixture(scope="module")
def smollm2(smollm2_path):
    return load_model(
        ModelSourceConfig(model=str(smollm2_path)), RunnerConfig(num_threads=1), lambda *_: None
    )


def author_of(model, task=TASK):
    return SectionWriter(
        model,
        options(stopping=StoppingParams(max_tokens=MAX_TOKENS), has_max_tokens=True),
        task=task,
        run_text=run_here,
        clock=asyncio.get_running_loop().time,
    )


async def test_a_branch_equals_its_prompt_alone_and_the_prefix_is_computed_once(smollm2):
    async with driven(smollm2) as model:
        before = model.engine.statistics().prefill_tokens
        author = author_of(model)
        composed = await read(
            compose_of(
                model,
                author=author,
                sections=SECTIONS,
                parallel=Parallel.ALWAYS,
                order=Order.AS_COMPLETED,
            )
        )
        computed = model.engine.statistics().prefill_tokens - before
        prompts = [author._question(at, ()).encode(model, reserved=0) for at in range(4)]
        shared, chunk = len(author._shared()), model.limits.prefix_chunk_tokens
        assert shared > 3 * chunk
        # The prefix once, and of each prompt what lies behind its last whole chunk.
        assert computed == shared + sum(len(each) - shared // chunk * chunk for each in prompts)
        cached = {written.usage.cached_tokens for written in composed.written.values()}
        assert cached == {shared // chunk * chunk}
        ends = model.tokenizer.end_token_ids
        for at, prompt in enumerate(prompts):
            alone = write_tokens(smollm2.runner, {"alone": prompt}, max_tokens=MAX_TOKENS)
            tokens = alone.tokens["alone"]
            end = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
            assert composed.texts[at] == model.tokenizer.decode(tokens[:end]).strip()


async def test_a_text_is_composed_of_what_the_model_drafts(smollm2):
    async with driven(smollm2) as model:
        compose = compose_of(
            model, author=author_of(model, "Bread at home"), sections=(), max_sections=4
        )
        composed = await read(compose)
    assert 1 < len(composed.outline.sections) <= 4
    assert composed.outline.usage.completion_tokens > 0
    assert all(composed.texts.values())
