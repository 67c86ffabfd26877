"""Stop strings in a text that comes in parts. Owned by one sequence; engine thread.

Aho and Corasick's automaton (CACM 18(6), 1975): one state per prefix of a stop string, and the
depth of the present state is the length of the longest suffix that may still become one. So what
is held back is never more than it must be, and the work is linear in the text.
"""

import re
from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class _State:
    """A prefix of at least one stop string.

    Attributes:
        depth: Its length, in code points.
        children: The prefixes one character longer.
        fallback: The longest proper suffix that is a prefix too.
        stop: The longest stop string that this prefix ends with.
    """

    depth: int
    children: dict[str, "_State"] = field(default_factory=dict)
    fallback: "_State | None" = None
    stop: str | None = None

    def after(self, character: str) -> "_State":
        """Return the state that a character leads to."""
        state = self
        while (child := state.children.get(character)) is None:
            if state.fallback is None:
                return state
            state = state.fallback
        return child


def _automaton(stops: tuple[str, ...]) -> _State:
    root = _State(depth=0)
    for stop in stops:
        state = root
        for character in stop:
            state = state.children.setdefault(character, _State(depth=state.depth + 1))
        state.stop = stop
    queue = deque(root.children.values())
    for child in queue:
        child.fallback = root
    while queue:
        state = queue.popleft()
        for character, child in state.children.items():
            fallback = state.fallback or root
            child.fallback = fallback.after(character)
            child.stop = child.stop or child.fallback.stop
            queue.append(child)
    return root


class StopMatcher:
    """Lets text through up to the first stop string.

    The first is the one that starts first, and of those the one that is complete first. A stop
    string inside the beginning of a longer one is therefore decided only when the longer one is
    complete or has failed; the cut depends on the text alone, not on how it was divided.

    Attributes:
        matched: The stop string that the text was cut before; None while there is none. The last
            text may decide it in `finish`.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        """Prepare for some stop strings, which may be none.

        Raises:
            ValueError: A stop string is empty.
        """
        if not all(stops):
            raise ValueError("a stop string has at least one character")
        self.matched: str | None = None
        self._root = _automaton(stops)
        self._state = self._root
        first_characters = "".join(re.escape(character) for character in self._root.children)
        self._first = re.compile(f"[{first_characters}]") if stops else None
        self._held = ""
        self._candidate: tuple[int, str] | None = None  # where in the held text, and which

    def push(self, text: str) -> str:
        """Return what is now safe to show; everything after a match is dropped."""
        if self._first is None:
            return text
        if self.matched is not None:
            return ""
        whole = self._held + text
        position = len(self._held)
        while position < len(whole):
            if self._state is self._root:
                found = self._first.search(whole, position)
                if found is None:
                    break
                position = found.start()
            self._state = self._state.after(whole[position])
            position += 1
            if self._is_decided(position):
                return self._cut(whole)
        safe = len(whole) - self._state.depth
        self._held = whole[safe:]
        if self._candidate is not None:
            start, stop = self._candidate
            self._candidate = (start - safe, stop)
        return whole[:safe]

    def finish(self) -> str:
        """Return what was held for a stop string that now cannot come."""
        held, self._held = self._held, ""
        self._state = self._root
        return self._cut(held) if self._candidate is not None else held

    def _is_decided(self, position: int) -> bool:
        """Note a stop string that ends here; tell whether none can start before the noted one."""
        stop = self._state.stop
        if stop is not None:
            start = position - len(stop)
            if self._candidate is None or start < self._candidate[0]:
                self._candidate = (start, stop)
        return self._candidate is not None and position - self._state.depth >= self._candidate[0]

    def _cut(self, text: str) -> str:
        if self._candidate is None:
            raise RuntimeError("a cut needs a match. This is a bug.")
        start, self.matched = self._candidate
        self._candidate, self._held = None, ""
        return text[:start]
