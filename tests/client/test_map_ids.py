"""The ids of a file: told apart exactly, and not kept in memory."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.client._commands.connection import UsageError
from hocket.client._map import ids
from hocket.client._map.ids import SeenIds
from hocket.client._map.sources import Source

IDS = st.one_of(
    st.integers(), st.text(st.characters(codec=None), max_size=5), st.sampled_from("37")
)


@given(st.lists(IDS | st.sampled_from([3, 7, "3", "7", "", "é", "e\u0301", "a\0", "a"])))
def test_an_id_is_new_once(given_ids):
    """As in a set of Python: 7 is not "7", nor is any text another that looks like it."""
    seen, expected = SeenIds(), set()
    for id_ in given_ids:
        assert seen.add(id_) == (id_ not in expected)
        expected.add(id_)
    seen.close()
    seen.close()


GROW = """
import resource
from hocket.client._map.ids import SeenIds

seen = SeenIds()
seen.add("first")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert all(seen.add(f"{number:0200}") for number in range(300_000))
assert not seen.add("first")
assert not any(seen.add(f"{number:0200}") for number in range(0, 300_000, 10_000))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_many_ids_take_little_memory():
    """Sixty megabytes of them; a set would take twice that."""
    told = subprocess.run([sys.executable, "-c", GROW], check=True, capture_output=True, text=True)
    assert int(told.stdout) < 24 * 1_024


def test_ids_that_cannot_be_kept_are_told_in_one_line(tmp_path, monkeypatch):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(f'{{"id": "{number:0900}", "text": "x"}}' for number in range(50)))
    monkeypatch.setattr(ids, "_CACHE_KIB", 1)
    add = SeenIds.add

    def full(seen, id_):
        seen._base.execute("PRAGMA max_page_count = 3")
        return add(seen, id_)

    monkeypatch.setattr(SeenIds, "add", full)
    with pytest.raises(UsageError, match=r"cannot keep the ids of .*full"):
        list(Source(path, "jsonl").rows())
