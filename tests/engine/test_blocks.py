"""The pool keeps used blocks compact, whatever is taken and released."""

from hypothesis import given
from hypothesis import strategies as st

from hocket.server.engine.blocks import BlockPool, BlockTable


@given(
    num_blocks=st.integers(0, 20),
    operations=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=60),
)
def test_contents_follow_their_tables(num_blocks, operations):
    pool = BlockPool(num_blocks)
    tables = [BlockTable() for _ in range(6)]
    memory: dict[int, object] = {}
    contents: list[list[object]] = [[] for _ in tables]
    for index, count in operations:
        table = tables[index]
        if count:
            before = len(table)
            if pool.extend(table, count):
                for block in table.blocks[before:]:
                    memory[block] = object()
                    contents[index].append(memory[block])
            else:
                assert count > pool.free
                assert len(table) == before
        else:
            for source, target in pool.release(table):
                memory[target] = memory.pop(source)
            contents[index].clear()
        pool.check_integrity()
        assert pool.used + pool.free == pool.total == num_blocks
        assert sorted(b for t in tables for b in t.blocks) == list(range(pool.used))
        for table_, content in zip(tables, contents, strict=True):
            assert [memory[block] for block in table_.blocks] == content
