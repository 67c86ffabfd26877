"""Wide groups give way to narrow ones, as far as is set and no further, and never stand still."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.test_core import Crank, submit
from hocket.server.engine.plan import Work
from hocket.server.testing.scripted_runner import ScriptedRunner, echo

STEP_MS, TOKEN_MS, STREAM_MS = 5.0, 0.3, 0.8


class Scene:
    """An engine that knows what its steps cost; each step's work is looked at before it is done."""

    def __init__(self, look: Callable[[list[Work]], None], *, seats: int = 32, **config) -> None:
        runner = ScriptedRunner(
            num_blocks=4_096,
            num_saved_blocks=1_024,
            step_ms=STEP_MS,
            token_ms=TOKEN_MS,
            stream_ms=STREAM_MS,
        )
        self.crank = Crank(runner, max_num_seqs=seats, max_step_tokens=512, **config)
        self.scheduler = self.crank.core._scheduler
        self.sizes: Counter[str] = Counter()
        schedule = self.scheduler.schedule

        def watched() -> list[Work]:
            work = schedule()
            look(work)
            return work

        self.scheduler.schedule = watched

    def ask(self, group: str, *, tokens: int = 30, prompt: str = "hi"):
        """Return the next request of a group."""
        self.sizes[group] += 1
        name = f"{group}-{self.sizes[group]}"
        return submit(name, prompt, group=group, max_tokens=tokens, ignore_eos=True)

    def fill(self, group: str = "wide", *, count: int = 100, **fields) -> None:
        """Let a group take all seats, each of them a stream."""
        self.crank.step(*(self.ask(group, **fields) for _ in range(count)))
        while not all(sequence.is_decoding for sequence in self.scheduler.running):
            self.crank.step()


def cost(work: list[Work]) -> float:
    """Return the milliseconds that a step takes by what is known."""
    return STEP_MS + sum(
        STREAM_MS if item.sequence.is_decoding else TOKEN_MS * item.count for item in work
    )


@settings(max_examples=30, deadline=None)
@given(
    slowdown=st.sampled_from([1.0, 1.25, 1.5, 2.0, 4.0]),
    singles=st.integers(1, 8),
    wides=st.integers(1, 3),
    prompt=st.sampled_from(["hi", "x" * 50]),
)
def test_a_step_beside_singles_takes_as_many_times_as_long_as_is_set(
    slowdown, singles, wides, prompt
):
    """Or one token of a wide group longer, so that these go on, too."""
    seen = []

    def look(work: list[Work]) -> None:
        streams = [item for item in work if item.sequence.is_decoding]
        names = {item.sequence.group for item in streams if item.sequence.group.startswith("s")}
        wide = [item for item in work if item.sequence.group.startswith("wide")]
        prompts = [i for i in work if not i.sequence.is_decoding and i not in wide]
        if not names or prompts or not wide:
            return
        alone = STEP_MS + STREAM_MS * len(names)
        seen.append(len(wide))
        assert cost(work) <= slowdown * alone + max(STREAM_MS, TOKEN_MS) + 1e-9

    scene = Scene(look, narrow_slowdown=slowdown)
    for number in range(wides):
        scene.crank.step(*(scene.ask(f"wide{number}", prompt=prompt) for _ in range(60)))
    for _ in range(5):
        scene.crank.step()
    scene.crank.step(*(scene.ask(f"s{number}") for number in range(singles)))
    while scene.crank.has_work:
        scene.crank.step()
    assert seen
    assert min(seen) >= 1
    assert scene.crank.is_at_rest()


def test_a_single_call_has_its_token_in_every_step_and_wide_groups_go_on_beside_it():
    """In turns: those of them that go on are written to their ends, then the next."""
    steps: list[dict[str, int]] = []
    scene = Scene(lambda work: steps.append({w.sequence.request_id: w.count for w in work}))
    scene.fill(tokens=20)
    begun = len(steps)
    scene.crank.step(scene.ask("single", tokens=100))
    while "single-1" not in scene.crank.outputs or not scene.crank.outputs["single-1"][-1].is_last:
        scene.crank.step()
    beside = steps[begun:]
    assert all("single-1" in step for step in beside)
    assert all(2 <= len(step) <= 7 for step in beside[1:])
    ended = [name for name, outputs in scene.crank.outputs.items() if outputs[-1].is_last]
    assert len(ended) > 10
    scene.crank.run()
    for name, outputs in scene.crank.outputs.items():
        assert outputs[-1].finished.completion_tokens == (100 if name == "single-1" else 20)
        text = (echo(b"hi") + b"\x00") * 30
        assert [min(token, 256) % 256 for token in scene.crank.tokens(name)] == list(
            text[: outputs[-1].finished.completion_tokens]
        )


@pytest.mark.parametrize("groups", [["wide"], ["a", "b", "c"], [str(n) for n in range(32)]])
def test_where_no_group_is_narrow_all_streams_have_a_token_in_every_step(groups):
    sizes = []
    scene = Scene(lambda work: sizes.append(len(work)))
    share = 32 // len(groups)
    scene.crank.step(*(scene.ask(group) for group in groups for _ in range(share)))
    while not all(sequence.is_decoding for sequence in scene.scheduler.running):
        scene.crank.step()
    del sizes[:]
    scene.crank.step()
    assert sizes == [share * len(groups)]


def test_a_bound_that_is_far_off_changes_nothing():
    sizes = []
    scene = Scene(lambda work: sizes.append(len(work)), narrow_slowdown=1_000.0)
    scene.fill()
    scene.crank.step(scene.ask("single"))
    del sizes[:]
    scene.crank.step()
    assert sizes == [32]


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    arrivals=st.lists(st.integers(0, 30), min_size=6, max_size=6),
    seats=st.integers(1, 12),
    blocks=st.integers(16, 80),
    data=st.data(),
)
def test_all_end_and_every_text_is_what_it_is_alone(sizes, arrivals, seats, blocks, data):
    """Whatever runs beside it, and however few blocks there are; no step is in vain."""
    prompts = [data.draw(st.text("ab c.", min_size=1, max_size=30)) for _ in sizes]
    runner = ScriptedRunner(
        num_blocks=blocks,
        num_saved_blocks=8,
        num_prefix_chunks=32,
        step_ms=STEP_MS,
        token_ms=TOKEN_MS,
        stream_ms=STREAM_MS,
    )
    crank = Crank(runner, max_num_seqs=seats, max_step_tokens=64)
    schedule = crank.core._scheduler.schedule

    def watched() -> list[Work]:
        work = schedule()
        assert all(item.count >= 1 for item in work)
        assert work or not crank.core._scheduler.running
        return work

    crank.core._scheduler.schedule = watched
    for step in range(31):
        crank.step(
            *(
                submit(f"{group}-{number}", prompts[group], group=str(group))
                for group, size in enumerate(sizes)
                for number in range(size)
                if arrivals[group] == step
            )
        )
    crank.run()
    for group, size in enumerate(sizes):
        for number in range(size):
            assert crank.text(f"{group}-{number}").encode() == echo(prompts[group].encode())
    assert crank.is_at_rest()
