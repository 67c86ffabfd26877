"""The index of prefixes finds exactly what was kept, and forgets what was used longest ago."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from hocket.server.engine.prefix_index import PrefixIndex

TEXTS = st.lists(st.integers(0, 1), max_size=12)


@dataclasses.dataclass
class Model:
    """The same, said plainly: the last moment at which each kept prefix was used."""

    slots: int
    chunk: int
    used_at: dict[tuple[int, ...], int] = dataclasses.field(default_factory=dict)
    now: int = 0

    def prefixes(self, text: list[int], limit: int) -> list[tuple[int, ...]]:
        return [
            tuple(text[:end]) for end in range(self.chunk, limit + 1, self.chunk)
        ]  # fmt: skip

    def find(self, text: list[int], limit: int) -> list[tuple[int, ...]]:
        found = []
        for prefix in self.prefixes(text, limit):
            if prefix not in self.used_at:
                break
            found.append(prefix)
        return found

    def touch(self, prefixes: list[tuple[int, ...]]) -> None:
        self.now += 1
        self.used_at |= dict.fromkeys(prefixes, self.now)

    def add(self, text: list[int], limit: int) -> None:
        """One chunk after the other, each in the place of the leaf that was used longest ago."""
        wanted = self.prefixes(text, limit)
        self.touch(self.find(text, limit))
        for prefix in wanted:
            if prefix in self.used_at:
                continue
            if len(self.used_at) == self.slots:
                leaves = {p: at for p, at in self.used_at.items() if not self.is_followed(p)}
                others = {p: at for p, at in leaves.items() if p not in wanted}
                if not others:
                    return
                del self.used_at[min(others, key=lambda p: others[p])]
            self.used_at[prefix] = self.now

    def is_followed(self, prefix: tuple[int, ...]) -> bool:
        end = len(prefix)
        return any(len(other) > end and other[:end] == prefix for other in self.used_at)


@given(
    slots=st.integers(0, 6),
    chunk=st.integers(1, 3),
    history=st.lists(st.tuples(st.sampled_from(["add", "use", "drop"]), TEXTS), max_size=40),
)
def test_it_finds_what_a_plain_model_finds(slots, chunk, history):
    """The longest kept prefix, in the slots that it was given; nothing else, nothing less."""
    index, model = PrefixIndex(num_slots=slots, chunk_tokens=chunk), Model(slots, chunk)
    contents: dict[int, tuple[int, ...]] = {}
    for action, text in history:
        if action == "add":
            added = index.add(text, len(text))
            model.add(text, len(text))
            for place, slot in enumerate(added.slots, start=added.first + 1):
                contents[slot] = tuple(text[: place * chunk])
        elif action == "use":
            found = index.find(text, len(text))
            index.touch(found)
            model.touch(model.find(text, len(text)))
        else:
            found = index.find(text, len(text))[-1:]
            gone = [contents[slot] for slot in found]
            index.drop(found)
            model.used_at = {
                prefix: at
                for prefix, at in model.used_at.items()
                if not any(prefix[: len(g)] == g for g in gone)
            }
        index.check_integrity()
        assert index.used == len(model.used_at) <= index.total == slots
        for limit in range(len(text) + 1):
            slots_found = index.find(text, limit)
            assert [contents[slot] for slot in slots_found] == model.find(text, limit)


@given(text=TEXTS, other=TEXTS, known=st.integers(0, 6))
def test_nothing_is_added_behind_a_gap(text, other, known):
    index = PrefixIndex(num_slots=8, chunk_tokens=2)
    index.add(other, len(other))
    before = index.find(text, len(text))
    added = index.add(text, len(text), known=known)
    index.check_integrity()
    assert bool(added.slots) == (known <= len(before) < len(text) // 2)


def test_a_prefix_longer_than_the_store_is_kept_as_far_as_it_goes():
    index = PrefixIndex(num_slots=3, chunk_tokens=2)
    index.add([9, 9], 2)
    assert len(index.add(list(range(10)), 10).slots) == 3
    assert len(index.find(list(range(10)), 10)) == 3
    assert index.find([9, 9], 2) == []
    assert index.add(list(range(10)), 10).slots == ()


@given(
    slots=st.integers(1, 8),
    texts=st.lists(st.tuples(st.sampled_from(["", "a", "b", "ab"]), TEXTS), max_size=30),
)
def test_nothing_is_found_that_another_brought(slots, texts):
    """Not by the same text, not by a name that begins like the other's."""
    index, owners = PrefixIndex(num_slots=slots, chunk_tokens=2), {}
    for owner, text in texts:
        assert all(owners[slot] == owner for slot in index.find(text, len(text), owner=owner))
        for slot in index.add(text, len(text), owner=owner).slots:
            owners[slot] = owner
        index.check_integrity()


class Counted(list):
    """Tokens that count how often some of them are read."""

    reads = 0

    def __getitem__(self, at):
        self.reads += 1
        return super().__getitem__(at)


@given(
    slots=st.integers(0, 8),
    sought=TEXTS,
    history=st.lists(
        st.tuples(st.sampled_from(["add", "drop"]), TEXTS, st.integers(0, 12)), max_size=30
    ),
)
def test_looking_again_finds_what_looking_anew_finds(slots, sought, history):
    """Whatever was kept and forgotten meanwhile, up to whichever token."""
    index, trail = PrefixIndex(num_slots=slots, chunk_tokens=2), []
    for action, text, limit in history:
        if action == "add":
            index.add(text, len(text))
        else:
            index.drop(index.find(text, len(text))[-1:])
        end = min(limit, len(sought))
        assert index.find(sought, end, trail=trail) == index.find(sought, end)


def test_looking_again_reads_only_what_is_new():
    """And what was forgotten, as far as it has to."""
    index, trail, text = PrefixIndex(num_slots=64, chunk_tokens=2), [], Counted(range(100))
    index.add(text, 80)
    assert len(index.find(text, 100, trail=trail)) == 40
    before = text.reads
    for _ in range(100):
        index.find(text, 100, trail=trail)
    assert text.reads == before  # nothing is kept behind the last
    index.add(text, 90)
    before = text.reads
    assert len(index.find(text, 100, trail=trail)) == 45
    assert text.reads == before + 5
    index.drop(index.find(text, 100)[20:])
    before = text.reads
    assert len(index.find(text, 100, trail=trail)) == 20
    assert text.reads == before
