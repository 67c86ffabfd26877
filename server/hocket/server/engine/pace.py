"""How many tokens a step may compute, so that streams go on at an even pace. Engine thread.

What a step takes was measured when the model was loaded: so much for each step, and so much for
each token in it. Nothing here reads a clock, so that the same commands give the same steps.
"""

from hocket.server.engine.batch import ModelLimits
from hocket.server.engine.config import EngineConfig

# Prompts may make the steps of running streams so many times as long as they would be without, even
# where that is longer than `max_step_ms`.
SLOWDOWN = 2.0


class Pace:
    """Turns milliseconds into tokens."""

    def __init__(self, limits: ModelLimits, config: EngineConfig) -> None:
        self._step_ms = limits.step_ms
        self._token_ms = limits.token_ms
        self._config = config

    def budget(self, *, streams: int, prompts: int) -> int:
        """Return how many tokens the next step may compute, `max_num_seqs` at least.

        While more sequences wait for their first token than are being written, or where nobody
        knows what a token costs, the number of tokens alone bounds a step.

        Args:
            streams: Sequences that are being written.
            prompts: Sequences that wait for their first token and have a place.
        """
        config = self._config
        if prompts > streams or not self._token_ms or not config.max_step_ms:
            return config.max_step_tokens
        undisturbed = self._step_ms + self._token_ms * streams
        most = max(config.max_step_ms, SLOWDOWN * undisturbed)
        affordable = int((most - self._step_ms) / self._token_ms)
        return max(config.max_num_seqs, min(affordable, config.max_step_tokens))
