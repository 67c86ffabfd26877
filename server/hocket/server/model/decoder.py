"""The Llama family: Llama, SmolLM2, Mistral, Qwen2, Qwen3, Gemma 3. Engine thread.

One class; `DecoderConfig` has the switches. Query, key and value projections are one matrix
product. The weights of normalisations are folded into the products that follow them; activation,
gate and residual sum are computed with the product before them.
"""

import torch
from torch import Tensor
from torch.nn import functional

from hocket.server.model.attention import Attention
from hocket.server.model.checkpoint import DecoderConfig
from hocket.server.model.head import OutputHead
from hocket.server.model.inputs import StepInputs
from hocket.server.model.kv_cache import KVCache
from hocket.server.model.layer_reader import LayerReader
from hocket.server.model.layers import RMSNorm
from hocket.server.model.linear import Linear
from hocket.server.model.rope import Rope, inverse_frequencies


class _Block:
    """One transformer block."""

    def __init__(self, index: int, config: DecoderConfig, reader: LayerReader, rope: Rope) -> None:
        prefix = f"model.layers.{index}"
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        epsilon = config.norm_epsilon
        is_sliding = index in config.sliding_layers
        self._index = index
        self._config = config
        self._rope = rope
        before_mlp = f"{prefix}.post_attention_layernorm"
        self._after_attention = self._after_mlp = None
        if config.post_norms:
            before_mlp = f"{prefix}.pre_feedforward_layernorm"
            self._after_attention, self._after_mlp = (
                reader.rms_norm(f"{prefix}.post_{part}_layernorm", config.hidden_size, epsilon)
                for part in ("attention", "feedforward")
            )
        self._norm = RMSNorm(config.hidden_size, epsilon, None)
        self._qkv = reader.linear(
            *(f"{attention}.{letter}_proj" for letter in "qkv"),
            has_bias=config.attention_bias,
            norm=reader.plain(f"{prefix}.input_layernorm.weight"),
        )
        self._o = reader.linear(f"{attention}.o_proj", has_bias=config.output_bias)
        mlp_norm = reader.plain(f"{before_mlp}.weight")
        self._gate = reader.linear(
            f"{mlp}.gate_proj",
            has_bias=config.mlp_bias,
            norm=mlp_norm,
            activation=config.activation,
        )
        self._up = reader.linear(f"{mlp}.up_proj", has_bias=config.mlp_bias, norm=mlp_norm)
        self._down = reader.linear(f"{mlp}.down_proj", has_bias=config.mlp_bias)
        self._q_norm = self._k_norm = None
        if config.qk_norm:
            self._q_norm, self._k_norm = (
                reader.rms_norm(f"{attention}.{letter}_norm", config.head_dim, epsilon)
                for letter in "qk"
            )
        self._attention = Attention(
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            scale=config.query_scale,
            sliding_window=config.sliding_window if is_sliding else None,
        )

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Its matrix products."""
        return self._qkv, self._o, self._gate, self._up, self._down

    @property
    def rope(self) -> Rope:
        """What its heads are rotated by."""
        return self._rope

    def __call__(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], inputs: StepInputs, cache: KVCache
    ) -> Tensor:
        mixed = self._attend(self._norm(x), rotation, inputs, cache)
        x = _sum(x, self._o, mixed, self._after_attention)
        normal = self._norm(x)
        return _sum(x, self._down, self._up.times(normal, self._gate(normal)), self._after_mlp)

    def _attend(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], inputs: StepInputs, cache: KVCache
    ) -> Tensor:
        config = self._config
        heads = self._qkv(x).view(x.shape[0], -1, config.head_dim)
        turned = config.num_heads + config.num_kv_heads
        queries_keys, values = heads[:, :turned], heads[:, turned:]
        if self._q_norm and self._k_norm:
            queries_keys = torch.cat(
                (
                    self._q_norm(queries_keys[:, : config.num_heads]),
                    self._k_norm(queries_keys[:, config.num_heads :]),
                ),
                dim=1,
            )
        queries_keys = self._rope.rotate(queries_keys, *rotation)
        real = inputs.num_rows
        cache.write(
            self._index,
            inputs.cache_rows,
            queries_keys[:real, config.num_heads :],
            values[:real],
        )
        return self._attention(queries_keys[:, : config.num_heads], inputs, cache, self._index)


def _sum(x: Tensor, linear: Linear, mixed: Tensor, norm: RMSNorm | None) -> Tensor:
    return x + norm(linear(mixed)) if norm else linear.plus(mixed, x)


class Decoder:
    """A model of the Llama family."""

    def __init__(self, reader: LayerReader, config: DecoderConfig, *, max_positions: int) -> None:
        """Read the weights.

        Args:
            reader: Gives them.
            config: Hyperparameters.
            max_positions: Positions that rotary tables are made for.

        Raises:
            StartupError: A tensor is missing or broken.
        """
        frequencies = inverse_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        rope = Rope(
            frequencies, max_positions=max_positions, dtype=reader.dtype, device=reader.device
        )
        local = rope
        if config.rope_local_theta is not None:
            frequencies = inverse_frequencies(config.head_dim, config.rope_local_theta, None)
            local = Rope(
                frequencies, max_positions=max_positions, dtype=reader.dtype, device=reader.device
            )
        self._embedding = reader.tensor("model.embed_tokens.weight")
        # Rounded to the model's type first, as the original rounds it.
        self._embedding_scale = torch.tensor(config.embedding_scale, dtype=reader.dtype).item()
        self._blocks = [
            _Block(index, config, reader, local if index in config.sliding_layers else rope)
            for index in range(config.num_layers)
        ]
        self._ropes = [rope] if local is rope else [rope, local]
        self._norm = reader.rms_norm("model.norm", config.hidden_size, config.norm_epsilon)
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
        if self._embedding_scale != 1.0:
            x = x * self._embedding_scale
        rotations = {id(rope): rope.at(inputs.positions) for rope in self._ropes}
        for block in self._blocks:
            x = block(x, rotations[id(block.rope)], inputs, cache)
        return self._norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 logits, `[rows, vocabulary]`, for `[rows, hidden_size]`."""
        return self._head(hidden)
