"""Stop strings in a text that comes in parts.

Aho and Corasick's automaton (CACM 18(6), 1975): one state per prefix of a stop string, and the
depth of the present state is the length of the longest suffix that may still become one. So what
is held back is never more than it must be, and the work is linear in the text.

The automaton never changes: it is built once for a request, on whatever thread, and shared by all
its texts. A matcher belongs to one sequence; engine thread.
"""

import re
from array import array

_ROOT = 0
_CHARACTER_BITS = 21


class StopStrings:
    """Some stop strings, ready to be looked for. Never changes; any number of texts may share it.

    States are numbers and stand in flat tables, not in objects: 16 stop strings of 256 characters
    make four thousand of them.
    """

    __slots__ = ("_depths", "_fallbacks", "_next", "_stops", "first")

    def __init__(self, stops: tuple[str, ...] = ()) -> None:
        """Build the automaton of some stop strings, which may be none.

        Raises:
            ValueError: A stop string is empty.
        """
        if not all(stops):
            raise ValueError("a stop string has at least one character")
        self._next: dict[int, int] = {}  # from a state and a character to the prefix of both
        self._depths = array("I", [0])
        self._fallbacks = array("I", [_ROOT])  # the longest proper suffix that is a prefix too
        self._stops: dict[int, str] = {}  # the longest stop string that a prefix ends with
        paths = [self._grow(stop) for stop in dict.fromkeys(stops)]
        for depth in range(max(map(len, stops), default=0)):
            for stop, path in paths:
                if depth < len(path):
                    self._link(path[depth - 1] if depth else _ROOT, stop[depth], path[depth])
        characters = "".join(re.escape(character) for character in {stop[0] for stop in stops})
        # Finds where a stop string may begin; None if there is none.
        self.first = re.compile(f"[{characters}]") if stops else None

    def after(self, state: int, character: str) -> int:
        """Return the state that a character leads to."""
        code = ord(character)
        while (found := self._next.get(state << _CHARACTER_BITS | code)) is None:
            if state == _ROOT:
                return _ROOT
            state = self._fallbacks[state]
        return found

    def depth(self, state: int) -> int:
        """Return the length of a state's prefix, in code points."""
        return self._depths[state]

    def stop(self, state: int) -> str | None:
        """Return the longest stop string that a state's prefix ends with."""
        return self._stops.get(state)

    def _grow(self, stop: str) -> tuple[str, list[int]]:
        """Add the prefixes of a stop string; return their states, the shortest first."""
        state, path = _ROOT, []
        for character in stop:
            key = state << _CHARACTER_BITS | ord(character)
            depth = self._depths[state] + 1
            state = self._next.setdefault(key, len(self._depths))
            if state == len(self._depths):
                self._depths.append(depth)
                self._fallbacks.append(_ROOT)
            path.append(state)
        self._stops[state] = stop
        return stop, path

    def _link(self, parent: int, character: str, state: int) -> None:
        """Find a state's fallback, once all shorter prefixes have theirs."""
        if parent == _ROOT:
            return
        fallback = self.after(self._fallbacks[parent], character)
        self._fallbacks[state] = fallback
        if state not in self._stops and fallback in self._stops:
            self._stops[state] = self._stops[fallback]


class StopMatcher:
    """Lets text through up to the first stop string.

    The first is the one that starts first, and of those the one that is complete first. A stop
    string inside the beginning of a longer one is therefore decided only when the longer one is
    complete or has failed; the cut depends on the text alone, not on how it was divided.

    Attributes:
        matched: The stop string that the text was cut before; None while there is none. The last
            text may decide it in `finish`.
    """

    def __init__(self, stops: StopStrings) -> None:
        """Begin a text that some stop strings may end."""
        self.matched: str | None = None
        self._stops = stops
        self._state = _ROOT
        self._held = ""
        self._candidate: tuple[int, str] | None = None  # where in the held text, and which

    def push(self, text: str) -> str:
        """Return what is now safe to show; everything after a match is dropped."""
        first = self._stops.first
        if first is None:
            return text
        if self.matched is not None:
            return ""
        whole = self._held + text
        position = len(self._held)
        while position < len(whole):
            if self._state == _ROOT:
                found = first.search(whole, position)
                if found is None:
                    break
                position = found.start()
            self._state = self._stops.after(self._state, whole[position])
            position += 1
            if self._is_decided(position):
                return self._cut(whole)
        safe = len(whole) - self._stops.depth(self._state)
        self._held = whole[safe:]
        if self._candidate is not None:
            start, stop = self._candidate
            self._candidate = (start - safe, stop)
        return whole[:safe]

    def finish(self) -> str:
        """Return what was held for a stop string that now cannot come."""
        held, self._held = self._held, ""
        self._state = _ROOT
        return self._cut(held) if self._candidate is not None else held

    def _is_decided(self, position: int) -> bool:
        """Note a stop string that ends here; tell whether none can start before the noted one."""
        stop = self._stops.stop(self._state)
        if stop is not None:
            start = position - len(stop)
            if self._candidate is None or start < self._candidate[0]:
                self._candidate = (start, stop)
        if self._candidate is None:
            return False
        return position - self._stops.depth(self._state) >= self._candidate[0]

    def _cut(self, text: str) -> str:
        if self._candidate is None:
            raise RuntimeError("a cut needs a match. This is a bug.")
        start, self.matched = self._candidate
        self._candidate, self._held = None, ""
        return text[:start]
