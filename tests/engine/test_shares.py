"""Fair shares: a wide request keeps nobody waiting, and nobody is put aside in vain."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.test_core import Crank, submit
from hocket.server.engine.commands import Abort, FinishReason
from hocket.server.engine.plan import Work
from hocket.server.engine.scheduler import Scheduler
from hocket.server.testing.scripted_runner import ScriptedRunner, echo

WIDE = 500


def held(scheduler: Scheduler) -> Counter[str]:
    """Return how many seats each group holds."""
    return Counter(sequence.group for sequence in scheduler.running)


def assert_balanced(scheduler: Scheduler, seats: int) -> None:
    """Nobody waits beside a free seat, nor while another group could give one and not be poorer.

    Unless all that another group could give is more urgent than what waits.
    """
    newcomer = scheduler.seats.next()
    if newcomer is None:
        return
    assert len(scheduler.running) == seats
    seats_of = held(scheduler)
    for group, last in {sequence.group: sequence for sequence in scheduler.running}.items():
        if last.priority >= newcomer.priority:
            assert seats_of[group] <= seats_of[newcomer.group] + 1


@dataclass
class Watch:
    """An engine with room for every token and block, whose balance is looked at in every step."""

    seats: int
    runner: ScriptedRunner = field(default_factory=lambda: ScriptedRunner(num_blocks=4_096))
    step_tokens: int = 8_192
    is_balanced: bool = True

    def __post_init__(self) -> None:
        self.crank = Crank(self.runner, max_num_seqs=self.seats, max_step_tokens=self.step_tokens)
        self.scheduler: Scheduler = self.crank.core._scheduler
        self.steps = self.arrived = 0
        self.numbers: Counter[str] = Counter()
        self.lengths: dict[str, int] = {}
        self.begun: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        self._schedule = self.scheduler.schedule
        self.scheduler.schedule = self._watched  # type: ignore[method-assign]

    def _watched(self) -> list[Work]:
        work = self._schedule()
        if self.is_balanced:
            assert_balanced(self.scheduler, self.seats)
        return work

    def ask(self, group: str, tokens: int = 10, priority: int = 0, prompt: str = "hi"):
        """Return a request of a group, named after it and numbered."""
        self.numbers[group] += 1
        name = f"{group}-{self.numbers[group] - 1}"
        self.begun[name], self.lengths[name] = self.steps, tokens
        self.arrived += 1
        return submit(
            name, prompt, group=group, max_tokens=tokens, ignore_eos=True, priority=priority
        )

    def step(self, *commands) -> None:
        self.crank.step(*commands)
        self.steps += 1
        for output in self.crank.newest:
            if output.is_last:
                self.ended[output.request_id] = self.steps

    def run(self, *commands) -> None:
        self.step(*commands)
        while self.crank.has_work:
            self.step()

    def assert_texts(self, prompt: str = "hi") -> None:
        """Every text is what it is alone."""
        endless = (echo(prompt.encode()) + b"\x00") * 20
        for name, outputs in self.crank.outputs.items():
            if outputs[-1].finished.completions[0].finish_reason is FinishReason.MAX_TOKENS:
                tokens = self.crank.tokens(name)
                assert len(tokens) == self.lengths[name]
                text = bytes(token if token < 256 else 0 for token in tokens)
                assert endless.startswith(text)
        assert self.crank.is_at_rest()


@settings(max_examples=20, deadline=None)
@given(seats=st.integers(2, 12), newcomers=st.integers(1, 11), is_tight=st.booleans())
def test_a_wide_request_gives_back_what_newcomers_are_due(seats, newcomers, is_tight):
    """In the step in which they come, though five hundred came before, and no token is left."""
    watch = Watch(seats, step_tokens=seats if is_tight else 8_192, is_balanced=not is_tight)
    watch.step(*(watch.ask("wide", tokens=50) for _ in range(WIDE)))
    while len([s for s in watch.scheduler.running if s.is_decoding]) < seats:
        watch.step()
    assert held(watch.scheduler) == {"wide": seats}
    watch.step(*(watch.ask(str(number)) for number in range(newcomers)))
    singles = min(newcomers, seats - 1)
    assert held(watch.scheduler) == {"wide": seats - singles} | {
        str(number): 1 for number in range(singles)
    }


def test_a_wide_request_has_all_that_nobody_else_asks_for():
    watch = Watch(8)
    watch.step(watch.ask("single", tokens=5), *(watch.ask("wide") for _ in range(40)))
    assert held(watch.scheduler) == {"single": 1, "wide": 7}
    while "single-0" not in watch.ended:
        watch.step()
    watch.step()
    assert held(watch.scheduler) == {"wide": 8}


def test_segments_begin_in_their_order_and_the_last_is_put_aside():
    """What a reader waits for next is what is written."""
    watch = Watch(4)
    watch.step(*(watch.ask("wide", tokens=9) for _ in range(12)))
    watch.step(watch.ask("single", tokens=3))
    assert [s.request_id for s in watch.scheduler.running] == [
        "wide-0",
        "wide-1",
        "wide-2",
        "single-0",
    ]
    watch.run()
    ends = sorted((name for name in watch.ended if name.startswith("wide")), key=watch.ended.get)
    assert ends == [f"wide-{number}" for number in range(12)]


events = st.lists(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 12)), max_size=14),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(arrivals=events, seats=st.integers(1, 7), step_tokens=st.sampled_from([7, 12, 8_192]))
def test_nobody_is_put_aside_without_need(arrivals, seats, step_tokens):
    """No more sequences are put aside than come, whatever ends in between, and texts stay."""
    watch = Watch(seats, step_tokens=step_tokens, is_balanced=step_tokens > 1_000)
    for several in arrivals:
        watch.step(*(watch.ask(group, tokens) for group, tokens in several))
        assert watch.crank.statistics.preemptions <= watch.arrived
    watch.run()
    assert watch.crank.statistics.preemptions == watch.crank.statistics.yields <= watch.arrived
    watch.assert_texts()


@settings(max_examples=60, deadline=None)
@given(
    arrivals=events,
    seats=st.integers(1, 7),
    priorities=st.fixed_dictionaries({group: st.integers(-2, 2) for group in "abcdef"}),
    data=st.data(),
)
def test_where_priorities_differ_every_coming_and_going_moves_one_at_most(
    arrivals, seats, priorities, data
):
    watch = Watch(seats)
    for several in arrivals:
        aborts = []
        if running := [s.request_id for s in watch.scheduler.running]:
            names = data.draw(st.lists(st.sampled_from(running), max_size=2))
            aborts = [Abort(request_id=n, reason=FinishReason.ABORTED) for n in names]
        asked = [watch.ask(group, tokens, priorities[group]) for group, tokens in several]
        watch.step(*asked, *aborts)
        assert watch.crank.statistics.preemptions <= watch.arrived + len(watch.ended)
    watch.run()
    watch.assert_texts()


def test_where_nobody_comes_nobody_is_put_aside():
    """Two documents halve the seats and leave it at that, to the end."""
    watch = Watch(7)
    watch.step(*(watch.ask("first", tokens=4) for _ in range(40)))
    watch.step(*(watch.ask("second", tokens=6) for _ in range(40)))
    settled = watch.crank.statistics.preemptions
    assert settled == 3
    watch.run()
    assert watch.crank.statistics.preemptions == settled


@settings(max_examples=60, deadline=None)
@given(
    arrivals=st.lists(
        st.lists(st.tuples(st.sampled_from("abcdefghi"), st.integers(1, 12)), max_size=9),
        min_size=1,
        max_size=30,
    ),
    seats=st.integers(1, 4),
)
def test_every_sequence_ends_within_a_bound(arrivals, seats):
    """Which counts groups and not their sequences, and what stands before it in its own."""
    watch = Watch(seats)
    for several in arrivals:
        watch.step(*(watch.ask(group, tokens) for group, tokens in several))
    watch.run()
    groups = len({group for several in arrivals for group, _ in several})
    turn = 13 * (-(-groups // seats) + 1)  # the longest takes 13 steps once it runs
    for name, ended in watch.ended.items():
        before = int(name.split("-")[1])
        assert ended - watch.begun[name] <= (before + 1) * turn


@pytest.mark.parametrize("documents", [4, 9])
def test_beside_many_documents_a_single_call_waits_for_one_turn(documents):
    """Though each of them alone could fill all seats, and came first."""
    watch = Watch(4)
    watch.step(*(watch.ask(f"d{n}") for n in range(documents) for _ in range(100)))
    for number in range(5):
        watch.step(watch.ask(f"single{number}", tokens=2))
    while sum(name.startswith("single") for name in watch.ended) < 5:
        watch.step()
    waited = [watch.ended[f"single{n}-0"] - watch.begun[f"single{n}-0"] for n in range(5)]
    rounds = -(-(documents - 4 + 5) // 4) + 1
    assert max(waited) <= 11 * rounds < 11 * 100 * documents / 4


@pytest.mark.parametrize(("priority", "seats_given"), [(-3, 0), (0, 1), (3, 1)])
def test_what_is_more_urgent_gives_no_seat_to_what_is_less(priority, seats_given):
    """But the next that falls free."""
    watch = Watch(3)
    watch.step(*(watch.ask("wide", 10, priority) for _ in range(WIDE)))
    watch.step(watch.ask("single", 2))
    assert watch.crank.statistics.yields == seats_given
    for _ in range(12):
        watch.step()
    assert "single-0" in watch.ended


def test_an_urgent_newcomer_takes_no_seat_from_a_group_that_has_but_one():
    """Priority says who is next; it puts nobody aside."""
    watch = Watch(3)
    watch.step(*(watch.ask(name) for name in "abc"))
    watch.step(watch.ask("urgent", priority=-5))
    assert held(watch.scheduler) == {"a": 1, "b": 1, "c": 1}
    assert watch.crank.statistics.preemptions == 0


def test_prompts_of_newcomers_go_before_those_of_a_wide_request():
    """They wait for its first prompt at most, even where others of it have begun."""
    watch = Watch(8, step_tokens=64, is_balanced=False)
    watch.step(*(watch.ask("wide", prompt="x" * 160) for _ in range(8)))
    watch.step()
    watch.step()
    assert [s.num_computed for s in watch.scheduler.running] == [160, 32]
    watch.step(watch.ask("single", tokens=1, prompt="y" * 32))
    assert "single-0" in watch.ended
    assert [s.num_computed for s in watch.scheduler.running] == [161, 32 + 31]


@settings(max_examples=60, deadline=None)
@given(
    arrivals=events,
    seats=st.integers(1, 7),
    blocks=st.integers(6, 24),
    saved=st.sampled_from([0, 3, 40]),
    prompt=st.integers(1, 30),
    priority=st.integers(-1, 1),
)
def test_scarce_blocks_change_no_text_and_keep_nobody_waiting(
    arrivals, seats, blocks, saved, prompt, priority
):
    """Blocks are taken in the order of turns, whose first goes on in every step."""
    runner = ScriptedRunner(num_blocks=blocks, num_saved_blocks=saved, num_prefix_chunks=9)
    watch = Watch(seats, runner, is_balanced=False)
    text = "x" * prompt
    for several in arrivals:
        watch.step(
            *(
                watch.ask(group, tokens, priority if group == "a" else 0, text)
                for group, tokens in several
            )
        )
    arriving = watch.steps
    watch.run()
    alone = sum(tokens + 2 for several in arrivals for _, tokens in several)
    assert watch.steps <= arriving + 1 + 2 * alone
    watch.assert_texts(text)


def test_a_newcomer_takes_blocks_of_a_group_that_has_more():
    """There are seats, but all blocks are taken."""
    watch = Watch(16, ScriptedRunner(num_blocks=24), is_balanced=False)
    watch.step(*(watch.ask("wide", tokens=60, prompt="x" * 30) for _ in range(40)))
    for _ in range(20):
        watch.step()
    seats = held(watch.scheduler)["wide"]
    assert 1 < seats < 6
    watch.step(watch.ask("single", tokens=40, prompt="y" * 20))
    assert held(watch.scheduler)["single"] == 1
    assert 1 <= held(watch.scheduler)["wide"] < seats
    while "single-0" not in watch.ended:
        watch.step()
    assert watch.ended["single-0"] - watch.begun["single-0"] == 40  # it was never put aside


def test_a_newcomer_that_cannot_start_holds_up_no_prompt():
    """All seats are taken by what is more urgent, and one of it still reads."""
    watch = Watch(2, step_tokens=64, is_balanced=False)
    watch.step(*(watch.ask("wide", priority=-1, prompt="x" * 160) for _ in range(2)))
    watch.step()
    watch.step()
    watch.step(watch.ask("single"))
    assert [s.num_computed for s in watch.scheduler.running] == [161, 32 + 63]


def test_for_want_of_blocks_a_wide_request_puts_its_own_aside():
    """And not the single call, though that came last."""
    watch = Watch(16, ScriptedRunner(num_blocks=24), is_balanced=False)
    watch.step(*(watch.ask("wide", tokens=60) for _ in range(5)))
    watch.step(watch.ask("single", tokens=40))
    while "single-0" not in watch.ended:
        watch.step()
    assert watch.crank.statistics.preemptions > watch.crank.statistics.yields == 0
    assert watch.ended["single-0"] - watch.begun["single-0"] == 40
    watch.run()
    watch.assert_texts()


def test_thousands_of_steps_with_a_document_and_singles_all_the_time():
    """Single calls never wait, the document goes on, and each call moves one seat at most."""
    watch = Watch(8)
    watch.step(*(watch.ask("wide", tokens=40) for _ in range(WIDE)))
    calls = []
    while "wide-499" not in watch.ended:
        if watch.steps % 7 == 0:
            calls.append(watch.ask(f"single{watch.steps}", tokens=12))
            watch.step(calls[-1])
        else:
            watch.step()
    assert watch.steps > 2_500
    for call in calls[:-2]:
        assert watch.ended[call.request_id] - watch.begun[call.request_id] == 12
    assert watch.crank.statistics.preemptions <= len(calls)
    watch.run()
    watch.assert_texts()
