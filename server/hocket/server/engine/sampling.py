"""How tokens are drawn and when a text ends, as the engine takes it. Any thread.

Values are checked where requests are parsed; in here they are trusted.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is drawn. See `SamplingOptions` in the wire contract.

    Attributes:
        temperature: 0 takes the likeliest token, lowest id on ties.
        top_k: 0 keeps all.
        top_p: In (0, 1]; 1 keeps all.
        min_p: In [0, 1]; 0 keeps all.
        seed: 64 bits, always set: the server draws one when the caller gave none.
        repetition_penalty: At least 0.01; 1 changes nothing.
        presence_penalty: 0 changes nothing.
        frequency_penalty: 0 changes nothing.
        logit_bias: Pairs of token id and what is added to its logit.
        logprobs: How many likeliest tokens are reported beside each token; None reports
            no log probabilities at all.
        prompt_logprobs: The same for the prompt.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0.0 or self.top_k == 1

    @property
    def needs_counts(self) -> bool:
        """Whether the tokens so far bear on the next one."""
        return (
            self.repetition_penalty != 1.0
            or self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingParams:
    """When a text ends.

    Attributes:
        max_tokens: Most tokens to write, at least 1.
        min_tokens: End and stop tokens are barred before this many.
        stop: Stop strings, not part of the text.
        stop_token_ids: Stop tokens, not part of the text.
        ignore_eos: Write on past the model's own end tokens.
    """

    max_tokens: int
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
