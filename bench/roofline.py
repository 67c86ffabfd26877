"""The least time that a model's arithmetic can take on a machine, whoever computes it.

A step of b sequences with S tokens of context each reads all weights once and each sequence's keys
and values once, and multiplies:

    t >= max(q P / BW, 2 b P / F_q) + max(b S K / BW, 4 b S L H D / F_bf16)

P: parameters of the linear layers and the head; q: bytes for each; K: bytes of keys and values for
each token; BW: bytes read a second; F: operations a second, a multiply-add being two. A prompt of T
tokens multiplies 2 T P for its body, 2 L H D T^2 for attention, and the head once.
"""

from dataclasses import dataclass

_BF16_BYTES = 2
INT8_BYTES = 1 + 2 / 64  # with a bfloat16 scale for each 64 inputs
BF16_BYTES = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a machine can do at most, all threads together.

    Attributes:
        read: Bytes read from memory a second.
        bf16: Operations a second in bfloat16; a multiply-add is two.
        int8: Operations a second in int8.
        source: How they were measured: `instructions` or `torch`.
    """

    read: float
    bf16: float
    int8: float
    source: str

    def better(self, other: "Rates") -> "Rates":
        """Return the higher of two measurements, rate by rate."""
        return Rates(
            read=max(self.read, other.read),
            bf16=max(self.bf16, other.bf16),
            int8=max(self.int8, other.int8),
            source=self.source,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a decoder of the Llama family has to read and to multiply.

    Attributes:
        body: Parameters of the linear layers.
        head: Parameters of the output head.
        layers: Transformer blocks.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of one head.
    """

    body: int
    head: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int

    @classmethod
    def of(
        cls, *, hidden: int, intermediate: int, vocabulary: int,
        layers: int, heads: int, kv_heads: int, head_dim: int,
    ) -> "Size":  # fmt: skip
        """Return the size of a model with these hyperparameters."""
        attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
        return cls(
            body=layers * (attention + 3 * hidden * intermediate),
            head=vocabulary * hidden,
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
        )

    @property
    def kv_bytes(self) -> int:
        """Bytes of one token's keys and values in bfloat16."""
        return 2 * self.layers * self.kv_heads * self.head_dim * _BF16_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """A model in one number type on one machine. All times are in seconds.

    Attributes:
        size: Of the model.
        rates: Of the machine.
        is_int8: Whether the weights are int8; bfloat16 otherwise.
    """

    size: Size
    rates: Rates
    is_int8: bool

    def _products(self, parameters: int, rows: int) -> float:
        """Return the least time to multiply rows by weights that are read once."""
        width, rate = (
            (INT8_BYTES, self.rates.int8) if self.is_int8 else (BF16_BYTES, self.rates.bf16)
        )
        return max(width * parameters / self.rates.read, 2 * rows * parameters / rate)

    def decode_step(self, streams: int, context: float) -> float:
        """Return the least time of a step that writes a token for each stream.

        Args:
            streams: Sequences in the step.
            context: Tokens that each looks back at, itself included; their mean will do.
        """
        size, rates = self.size, self.rates
        tokens = streams * context
        read = tokens * size.kv_bytes / rates.read
        operations = 4 * tokens * size.layers * size.heads * size.head_dim
        return self._products(size.body + size.head, streams) + max(read, operations / rates.bf16)

    def prefill(self, streams: int, prompt: float) -> float:
        """Return the least time to compute prompts of a length, and the first token of each."""
        size = self.size
        attention = 2 * size.layers * size.heads * size.head_dim * prompt**2 * streams
        return (
            self._products(size.body, round(streams * prompt))
            + self._products(size.head, streams)
            + attention / self.rates.bf16
        )

    def job(self, streams: int, prompt: float, new_tokens: int) -> float:
        """Return the least time to write so many tokens for each of the streams."""
        steps = (self.decode_step(streams, prompt + n) for n in range(1, new_tokens))
        return self.prefill(streams, prompt) + sum(steps)
