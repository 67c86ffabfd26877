"""Which KV block holds what: a pool whose used blocks stay compact. Engine thread.

The used blocks are always `[0, used)`. When a table is released, the highest used blocks move into
the holes it leaves; the pool returns these moves for the runner and rewrites the tables they
belong to.
"""

from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class BlockTable:
    """The blocks of one sequence in logical order. Written by the pool alone."""

    blocks: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.blocks)


class BlockPool:
    """Hands out the blocks of a KV cache and keeps the used ones compact."""

    def __init__(self, num_blocks: int) -> None:
        self._num_blocks = num_blocks
        self._holders: list[tuple[BlockTable, int]] = []  # of block i: its table, its place in it

    @property
    def total(self) -> int:
        """All blocks."""
        return self._num_blocks

    @property
    def used(self) -> int:
        """Blocks that belong to a table: exactly `[0, used)`."""
        return len(self._holders)

    @property
    def free(self) -> int:
        """Blocks that belong to none."""
        return self._num_blocks - len(self._holders)

    def extend(self, table: BlockTable, count: int) -> bool:
        """Append blocks to a table, all of them or none; False if there are too few."""
        if count > self.free:
            return False
        for _ in range(count):
            self._holders.append((table, len(table.blocks)))
            table.blocks.append(len(self._holders) - 1)
        return True

    def release(self, table: BlockTable) -> list[tuple[int, int]]:
        """Take all blocks back; return the moves (from, to) that close the holes, in order."""
        holes = set(table.blocks)
        keep = len(self._holders) - len(holes)
        targets = sorted(hole for hole in holes if hole < keep)
        sources = (
            block for block in range(len(self._holders) - 1, keep - 1, -1) if block not in holes
        )
        moves = list(zip(sources, targets, strict=True))
        for source, target in moves:
            holder, place = self._holders[source]
            holder.blocks[place] = target
            self._holders[target] = (holder, place)
        del self._holders[keep:]
        table.blocks.clear()
        return moves

    def check_integrity(self) -> None:
        """Raise if a block and its table disagree."""
        for block, (table, place) in enumerate(self._holders):
            if table.blocks[place] != block:
                raise AssertionError(f"block {block} is not where its table says. This is a bug.")
        if len(self._holders) > self._num_blocks:
            raise AssertionError("more blocks are used than there are. This is a bug.")
