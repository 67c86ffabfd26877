"""How many tokens a step may compute, so that streams go on at an even pace. Engine thread.

What a step takes was measured when the model was loaded: so much for each step, and so much for
each token in it. Nothing here reads a clock, so that the same commands give the same steps.
"""

from collections.abc import Iterable

from hocket.server.engine.batch import ModelLimits
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.plan import Wide
from hocket.server.engine.sequence import Sequence

# Prompts may make the steps of running streams so many times as long as they would be without, even
# where that is longer than `max_step_ms`.
SLOWDOWN = 2.0


class Pace:
    """Turns milliseconds into tokens."""

    def __init__(self, limits: ModelLimits, config: EngineConfig) -> None:
        self._step_ms = limits.step_ms
        self._token_ms = limits.token_ms
        self._stream_ms = max(limits.stream_ms, limits.token_ms)
        self._config = config

    def budget(self, *, streams: int, is_rush: bool) -> int:
        """Return how many tokens the next step may compute, `max_num_seqs` at least.

        In a rush, or where nobody knows what a token costs, the number of tokens alone bounds it.

        Args:
            streams: Sequences that are being written.
            is_rush: Whether more groups that have a place wait for their first token than are being
                written.
        """
        config = self._config
        if is_rush or not self._token_ms or not config.max_step_ms:
            return config.max_step_tokens
        undisturbed = self._step_ms + self._token_ms * streams
        most = max(config.max_step_ms, SLOWDOWN * undisturbed)
        affordable = int((most - self._step_ms) / self._token_ms)
        return max(config.max_num_seqs, min(affordable, config.max_step_tokens))

    def wide(self, running: Iterable[Sequence], narrow: frozenset[str]) -> Wide | None:
        """Return what wide groups may take of the next step; None where nothing bounds them.

        Beside narrow groups a step takes `narrow_slowdown` times as long as with them alone.

        Args:
            running: Sequences that have a place.
            narrow: Groups of few sequences.
        """
        if not narrow or not self._token_ms:
            return None
        streams = sum(each.is_decoding and each.group in narrow for each in running)
        alone = self._step_ms + self._stream_ms * max(1, streams)
        more = (self._config.narrow_slowdown - 1) * alone
        return Wide(
            narrow=narrow,
            tokens=max(1.0, more / self._token_ms),
            stream_cost=self._stream_ms / self._token_ms,
        )
