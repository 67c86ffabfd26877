"""GPT-2 (Radford et al., 2019). Engine thread."""

from torch import Tensor
from torch.nn import functional

from hocket.server.model.attention import Attention
from hocket.server.model.checkpoint import DecoderConfig
from hocket.server.model.head import OutputHead
from hocket.server.model.inputs import StepInputs
from hocket.server.model.kv_cache import KVCache
from hocket.server.model.layer_reader import LayerReader
from hocket.server.model.linear import Linear


class _Block:
    """One transformer block."""

    def __init__(self, index: int, config: DecoderConfig, reader: LayerReader) -> None:
        prefix = f"transformer.h.{index}"
        self._index = index
        self._config = config
        self._qkv = reader.linear(f"{prefix}.attn.c_attn", has_bias=True)
        self._o = reader.linear(f"{prefix}.attn.c_proj", has_bias=True)
        self._up = reader.linear(f"{prefix}.mlp.c_fc", has_bias=True, activation=config.activation)
        self._down = reader.linear(f"{prefix}.mlp.c_proj", has_bias=True)
        self._before_attention = reader.layer_norm(f"{prefix}.ln_1", config.norm_epsilon)
        self._before_mlp = reader.layer_norm(f"{prefix}.ln_2", config.norm_epsilon)
        self._attention = Attention(
            num_heads=config.num_heads,
            num_kv_heads=config.num_heads,
            scale=config.query_scale,
            sliding_window=None,
        )

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Its matrix products."""
        return self._qkv, self._o, self._up, self._down

    def __call__(self, x: Tensor, inputs: StepInputs, cache: KVCache) -> Tensor:
        heads = self._config.num_heads
        qkv = self._qkv(self._before_attention(x)).view(x.shape[0], 3 * heads, -1)
        real = inputs.num_rows
        cache.write(
            self._index, inputs.cache_rows, qkv[:real, heads : 2 * heads], qkv[:real, 2 * heads :]
        )
        x = self._o.plus(self._attention(qkv[:, :heads], inputs, cache, self._index), x)
        return self._down.plus(self._up(self._before_mlp(x)), x)


class GPT2:
    """A GPT-2 model."""

    def __init__(self, reader: LayerReader, config: DecoderConfig) -> None:
        """Read the weights.

        Raises:
            StartupError: A tensor is missing or broken.
        """
        self._embedding = reader.tensor("transformer.wte.weight")
        self._positions = reader.tensor("transformer.wpe.weight")
        self._blocks = [_Block(index, config, reader) for index in range(config.num_layers)]
        self._norm = reader.layer_norm("transformer.ln_f", config.norm_epsilon)
        head = self._embedding if config.tie_embeddings else reader.tensor("lm_head.weight")
        self._head = OutputHead(head)
        self.parameters = reader.parameters

    @property
    def linears(self) -> tuple[Linear, ...]:
        """A matrix product of each shape."""
        return self._blocks[0].linears

    @property
    def head(self) -> OutputHead:
        """The output head."""
        return self._head

    def forward(self, inputs: StepInputs, cache: KVCache) -> Tensor:
        """Return the normalised hidden states, `[padded rows, hidden_size]`."""
        x = functional.embedding(inputs.token_ids, self._embedding)
        x = x + functional.embedding(inputs.positions, self._positions)
        for block in self._blocks:
            x = block(x, inputs, cache)
        return self._norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 logits, `[rows, vocabulary]`, for `[rows, hidden_size]`."""
        return self._head(hidden)
