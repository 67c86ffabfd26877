"""Which prefixes are kept, and where: a trie of chunks that forgets what was used longest ago.

Engine thread; slot numbers only, no tensors. A chunk is a fixed number of consecutive tokens, known
by its owner and all tokens from position 0 on: the path through the trie compares every one of
them, so that no prefix is ever taken for another, nor given to another.

Whoever uses a chunk uses all before it too, and these count as used after it. So the chunk that was
used longest ago never has another behind it, and to forget it leaves no gap.
"""

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class _Node:
    """A chunk that is kept, and those that follow it; the root stands before the first token."""

    slot: int = -1
    tokens: bytes = b""
    parent: "_Node | None" = None
    children: "dict[bytes, _Node]" = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Addition:
    """Chunks that are new in the index, and whose keys and values its owner has to bring.

    Attributes:
        first: Which chunk of the sequence the first of them is.
        slots: Where they belong, in order.
    """

    first: int
    slots: tuple[int, ...]


# What was found of one sequence, from its first chunk on; an index alone reads it.
Trail = list[_Node]


class PrefixIndex:
    """Gives the chunks of token sequences slots, as many as there are."""

    def __init__(self, *, num_slots: int, chunk_tokens: int) -> None:
        """Make an empty index of slots `[0, num_slots)`, for chunks of so many tokens."""
        self._num_slots = num_slots
        self._chunk_tokens = chunk_tokens
        self._root = _Node()
        self._nodes: OrderedDict[int, _Node] = OrderedDict()  # by slot, least recently used first
        self._free = list(range(num_slots - 1, -1, -1))

    @property
    def total(self) -> int:
        """All slots."""
        return self._num_slots

    @property
    def used(self) -> int:
        """Slots that hold a chunk."""
        return len(self._nodes)

    def find(
        self,
        token_ids: Sequence[int],
        limit: int,
        *,
        owner: str = "",
        trail: Trail | None = None,
    ) -> list[int]:
        """Return the slots of the longest prefix of at most `limit` tokens, kept for an owner.

        Args:
            token_ids: All of a sequence's tokens.
            limit: How many of them the prefix may have.
            owner: Whose it must be.
            trail: Empty at first; handed in again for the same sequence and owner, only what has
                changed since is compared. The answer is the same without it.
        """
        trail = [] if trail is None else trail
        del trail[limit // self._chunk_tokens :]
        # With a chunk all behind it are forgotten: up to the last that is kept, all are.
        while trail and self._nodes.get(trail[-1].slot) is not trail[-1]:
            trail.pop()
        self._follow(trail, token_ids, limit, owner)
        return [node.slot for node in trail]

    def touch(self, slots: Sequence[int]) -> None:
        """Note that a prefix is used: all its slots, as `find` returned them."""
        for slot in reversed(slots):
            self._nodes.move_to_end(slot)

    def add(
        self, token_ids: Sequence[int], limit: int, *, known: int = 0, owner: str = ""
    ) -> Addition:
        """Keep the whole chunks among the first `limit` tokens, as many as find a slot.

        Slots are free ones first, then those of the chunks used longest ago, but none of this very
        prefix.

        Args:
            token_ids: All of a sequence's tokens.
            limit: How many of them may be kept.
            known: The first chunks were kept already; if some were forgotten since, none is added.
            owner: Whose they are.
        """
        path: Trail = []
        self._follow(path, token_ids, limit, owner)
        first, wanted = len(path), limit // self._chunk_tokens - len(path)
        if first < known:
            return Addition(first, ())
        self.touch([node.slot for node in path])
        while len(self._free) < wanted and len(self._nodes) > len(path):
            self._remove(next(iter(self._nodes.values())))
        parent = path[-1] if path else self._root
        added: list[_Node] = []
        for index in range(first, first + min(wanted, len(self._free))):
            tokens = self._key(token_ids, index, owner)
            node = _Node(self._free.pop(), tokens, parent)
            parent.children[tokens] = node
            added.append(node)
            parent = node
        for node in reversed(added):
            self._nodes[node.slot] = node
        self.touch([node.slot for node in path])
        return Addition(first, tuple(node.slot for node in added))

    def drop(self, slots: Sequence[int]) -> None:
        """Forget chunks, and all that follow them."""
        for slot in slots:
            if slot in self._nodes:
                self._remove(self._nodes[slot])

    def check_integrity(self) -> None:
        """Raise if slots are lost or doubled, or a chunk may go before one that follows it."""
        if sorted([*self._free, *self._nodes]) != list(range(self._num_slots)):
            raise AssertionError("a prefix slot is lost or given twice. This is a bug.")
        places = {slot: place for place, slot in enumerate(self._nodes)}
        known = 0
        stack = [self._root]
        while stack:
            node = stack.pop()
            known += len(node.children)
            for tokens, child in node.children.items():
                if self._nodes.get(child.slot) is not child or child.tokens != tokens:
                    raise AssertionError("a prefix is not where its slot says. This is a bug.")
                if child.parent is not node or places[child.slot] > places.get(
                    node.slot, self._num_slots
                ):
                    raise AssertionError("a prefix outlives what it follows. This is a bug.")
                stack.append(child)
        if known != len(self._nodes):
            raise AssertionError("a slot holds a prefix that cannot be found. This is a bug.")

    def _follow(self, path: Trail, token_ids: Sequence[int], limit: int, owner: str) -> None:
        """Lengthen a path by the chunks that are kept behind it."""
        node = path[-1] if path else self._root
        for index in range(len(path), limit // self._chunk_tokens):
            if not node.children:
                break
            child = node.children.get(self._key(token_ids, index, owner))
            if child is None:
                break
            path.append(child)
            node = child

    def _key(self, token_ids: Sequence[int], index: int, owner: str) -> bytes:
        begin = index * self._chunk_tokens
        tokens = array("q", token_ids[begin : begin + self._chunk_tokens]).tobytes()
        return tokens if index else tokens + owner.encode()

    def _remove(self, node: _Node) -> None:
        """Free a chunk and all behind it."""
        if node.parent is not None:
            del node.parent.children[node.tokens]
        stack = [node]
        while stack:
            gone = stack.pop()
            stack += gone.children.values()
            del self._nodes[gone.slot]
            self._free.append(gone.slot)
