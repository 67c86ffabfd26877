"""Sections in parallel share what they begin with; one after the other each knows those before."""

import asyncio
from contextlib import aclosing

import pytest

from document.driven import driven, run_here, scripted
from document.jobs import options
from hocket.server.document.compose import Compose, ComposePlan, OutlineReady, Parallel
from hocket.server.document.job import JobEnded, JobPiece, JobStarted
from hocket.server.document.merge import Order, Released
from hocket.server.document.outline import Section
from hocket.server.document.sections import SectionWriter
from hocket.server.document.tally import DocumentEnded
from hocket.server.engine.commands import FinishReason
from hocket.server.errors import InvalidRequest
from hocket.server.testing.scripted_runner import ScriptedRunner
from hocket.server.testing.serving import ScriptedModel

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")

TASK = "All about bees."
SECTIONS = tuple(map(Section, ("Wings", "Honey", "Wax", "Queens")))
ANSWERS = tuple((f'"{each.title}" only', f"{each.title} it is. Yes.") for each in SECTIONS)
JOIN = ("Conclude.", "All in all, bees.")


class Door:
    """Has room for all; counts the places that were given back."""

    def __init__(self):
        self.taken = 0

    def try_enter(self):
        self.taken += 1
        return self

    def release(self):
        self.taken -= 1


def compose_of(model, *, author=None, task=TASK, places=None, changes=None, **plan) -> Compose:
    values = {"order": Order.IN_ORDER, "window": 8, "sections": SECTIONS} | plan
    author = author or SectionWriter(
        model,
        options(**(changes or {})),
        task=task,
        join="Conclude." if plan.get("has_join") else "",
        run_text=run_here,
        clock=asyncio.get_running_loop().time,
    )
    bugs = []
    compose = Compose(
        ComposePlan(**values),
        author=author,
        places=places or Door(),
        on_bug=lambda _, error: bugs.append(error),
    )
    compose.bugs = bugs
    return compose


class Composed:
    """What came of a text."""

    def __init__(self):
        self.texts = {}
        self.written = {}
        self.events = []

    @property
    def outline(self) -> OutlineReady:
        return self.events[0]

    @property
    def ended(self) -> DocumentEnded:
        return self.events[-1]


async def read(compose) -> Composed:
    composed = Composed()
    async with aclosing(compose.events()) as events:
        async for event in events:
            composed.events.append(event)
            match event:
                case Released(JobStarted(job)):
                    composed.texts[job.place.segment] = ""
                case Released(JobPiece(place, _, start, piece)):
                    assert len(composed.texts[place.segment].encode()) == start
                    composed.texts[place.segment] += piece.text
                case Released(JobEnded() as ended):
                    composed.written[ended.job.place.segment] = ended.written or ended.failure
    assert compose.bugs == []
    assert [type(event) for event in composed.events].count(OutlineReady) == 1
    assert isinstance(composed.outline, OutlineReady)
    assert isinstance(composed.ended, DocumentEnded)
    return composed


@pytest.fixture
def prompts_of():
    """Makes a model note the prompts of its sequences, in the order in which they began."""

    def make(*answers, **limits):
        model, prompts = scripted(*answers, **limits), []
        real = model.runner._script

        def noting(prompt):
            text = prompt.decode()
            if text not in prompts:
                prompts.append(text)
            return real(prompt)

        model.runner._script = noting
        return model, prompts

    return make


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("parallel", Parallel)
async def test_a_section_is_what_its_prompt_alone_gives(order, parallel, prompts_of):
    """In any order of events, whether in parallel or not."""
    model, prompts = prompts_of(*ANSWERS)
    async with driven(model) as served:
        composed = await read(compose_of(served, order=order, parallel=parallel))
    assert composed.texts == {at: said for at, (_, said) in enumerate(ANSWERS)}
    assert composed.outline.sections == SECTIONS
    assert not composed.outline.is_drafted
    assert composed.outline.is_parallel is (parallel is not Parallel.NEVER)
    asked = [prompt for prompt in prompts if "only." in prompt]
    knows = [prompt.count("it is. Yes.") for prompt in asked]
    assert knows == ([0, 1, 2, 3] if parallel is Parallel.NEVER else [0, 0, 0, 0])
    assert composed.ended.segments == len(SECTIONS)
    assert composed.ended.source_bytes == 0
    whole = "\n\n".join(said for _, said in ANSWERS)
    assert composed.ended.target_bytes == (len(whole),)


async def test_what_sections_share_is_computed_once():
    async with driven(scripted(*ANSWERS, num_prefix_chunks=64)) as model:
        compose = compose_of(model, parallel=Parallel.ALWAYS)
        composed = await read(compose)
        statistics = model.engine.statistics()
    usage = composed.ended.usage
    # A token was written to have the prefix computed.
    assert compose.tally.usage.completion_tokens + 1 == usage.completion_tokens
    assert statistics.prefill_tokens == usage.prompt_tokens - usage.cached_tokens
    shared = len(f"{TASK}\n\nOutline:\n1. Wings\n2. Honey\n3. Wax\n4. Queens\n\n")
    cached = [written.usage.cached_tokens for written in composed.written.values()]
    assert len(set(cached)) == 1
    assert cached[0] >= shared // 4 * 4
    # Each section computes its own question, and what does not fill a chunk.
    assert statistics.prefill_tokens < shared + 4 * len('Write the section "Queens" only.12345678')


@pytest.mark.parametrize("parallel", [Parallel.ALWAYS, Parallel.NEVER])
async def test_what_joins_them_knows_all_of_them(parallel, prompts_of):
    model, prompts = prompts_of(*ANSWERS, JOIN)
    async with driven(model) as served:
        composed = await read(compose_of(served, parallel=parallel, has_join=True))
    assert composed.texts[4] == JOIN[1]
    (asked,) = (prompt for prompt in prompts if "Conclude." in prompt)
    assert all(f"{each.title}\n{each.title} it is. Yes." in asked for each in SECTIONS)
    assert len(composed.outline.sections) == 4
    assert composed.ended.segments == 5


@pytest.mark.parametrize(
    ("parallel", "said", "is_parallel"),
    [
        (Parallel.AUTO, "yes", True),
        (Parallel.AUTO, "no", False),
        (Parallel.ALWAYS, "no", True),
        (Parallel.NEVER, "yes", False),
    ],
)
async def test_for_a_drafted_outline_the_model_is_asked(parallel, said, is_parallel, prompts_of):
    """Where the caller left it open; otherwise it is not asked at all."""
    draft = (f"task: {TASK}", "1. Wings\n2. Honey")
    model, prompts = prompts_of(draft, ("yes or no", said), *ANSWERS)
    async with driven(model) as served:
        composed = await read(compose_of(served, sections=(), parallel=parallel))
    assert composed.outline.sections == SECTIONS[:2]
    assert composed.outline.is_drafted
    assert composed.outline.is_parallel is is_parallel
    assert composed.outline.usage.completion_tokens >= len(draft[1])
    is_asked = any("yes or no" in prompt for prompt in prompts)
    assert is_asked is (parallel is Parallel.AUTO)
    assert [composed.texts[at] for at in (0, 1)] == [said for _, said in ANSWERS[:2]]


async def test_a_draft_that_is_no_outline_is_one_section():
    async with driven(scripted(("task:", "No."), ("only.", "Bees."))) as model:
        composed = await read(compose_of(model, sections=(), parallel=Parallel.ALWAYS))
    assert composed.outline.sections == (Section(TASK),)
    assert not composed.outline.is_parallel
    assert composed.texts == {0: "Bees."}


@pytest.mark.parametrize("parallel", [Parallel.ALWAYS, Parallel.NEVER])
@pytest.mark.parametrize("cancelled", range(5))
async def test_a_section_that_is_cancelled_holds_up_no_other(parallel, cancelled):
    async with driven(scripted(*ANSWERS, JOIN)) as model:
        compose = compose_of(model, parallel=parallel, has_join=True)
        compose.cancel_nowait(cancelled)
        compose.cancel_nowait(99)
        composed = await read(compose)
    expected = {at: said for at, (_, said) in enumerate((*ANSWERS, JOIN))} | {cancelled: ""}
    assert composed.texts == expected
    assert composed.written[cancelled].finish_reason is FinishReason.CANCELLED
    assert composed.ended.incomplete == 1


@pytest.mark.parametrize("parallel", [Parallel.ALWAYS, Parallel.NEVER])
async def test_a_section_that_fails_holds_up_no_other(parallel):
    sections = (SECTIONS[0], Section("Wax", "x" * 300), SECTIONS[1])
    async with driven(scripted(*ANSWERS, JOIN, max_context_tokens=260)) as model:
        compose = compose_of(model, sections=sections, parallel=parallel, has_join=True)
        composed = await read(compose)
    assert isinstance(composed.written[1], InvalidRequest)
    assert composed.texts == {0: ANSWERS[0][1], 1: "", 2: ANSWERS[1][1], 3: JOIN[1]}
    assert composed.ended.failed == 1


async def test_when_the_time_is_up_all_ends_and_says_so():
    """While the outline is drafted: there is one, and nothing of it is written."""
    compose = None

    def on_step(outputs):
        if outputs.statistics.decode_tokens > 20:
            compose.expire_nowait()

    endless = ("task:", "1. Wings\n2. Honey\n3." + " more" * 500)
    async with driven(scripted(endless), on_step=on_step) as model:
        compose = compose_of(model, sections=(), max_sections=32, has_join=True)
        composed = await read(compose)
    assert composed.outline.is_drafted
    reasons = {written.finish_reason for written in composed.written.values()}
    assert reasons == {FinishReason.TIME_BUDGET}
    assert set(composed.texts.values()) == {""}
    assert composed.ended.is_partial


@pytest.mark.parametrize("when", [OutlineReady, JobStarted, JobPiece])
async def test_leaving_waits_for_nothing_and_gives_all_back(when):
    """Whatever was going on: the engine is idle in the end, no place is taken."""
    door = Door()
    runner = ScriptedRunner(lambda _: b"on and " * 300)
    async with driven(ScriptedModel(runner=runner)) as model:
        compose = compose_of(model, places=door, parallel=Parallel.ALWAYS, order=Order.INTERLEAVED)
        async with aclosing(compose.events()) as events:
            async for event in events:
                if isinstance(getattr(event, "event", event), when):
                    break
        await asyncio.sleep(0)
    assert door.taken == 0
