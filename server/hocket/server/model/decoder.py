"""The Llama family: Llama, SmolLM2, Mistral, Qwen2, Qwen3, Gemma 3. Engine thread.

One class; `DecoderConfig` has the switches. Query, key and value projections are one matrix
product, gate and up projections another.
"""

import torch
from torch import Tensor
from torch.nn import functional

from hocket.server.model.attention import Attention
from hocket.server.model.checkpoint import Checkpoint, DecoderConfig
from hocket.server.model.head import OutputHead
from hocket.server.model.inputs import StepInputs
from hocket.server.model.kv_cache import KVCache
from hocket.server.model.layer_reader import LayerReader
from hocket.server.model.layers import activation
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
        self._act = activation(config.activation)
        self._qkv = reader.linear(
            *(f"{attention}.{letter}_proj" for letter in "qkv"), has_bias=config.attention_bias
        )
        self._o = reader.linear(f"{attention}.o_proj", has_bias=config.output_bias)
        self._gate_up = reader.linear(
            f"{mlp}.gate_proj", f"{mlp}.up_proj", has_bias=config.mlp_bias
        )
        self._down = reader.linear(f"{mlp}.down_proj", has_bias=config.mlp_bias)
        self._before_attention = reader.rms_norm(f"{prefix}.input_layernorm", epsilon)
        self._q_norm = self._k_norm = None
        if config.qk_norm:
            self._q_norm = reader.rms_norm(f"{attention}.q_norm", epsilon)
            self._k_norm = reader.rms_norm(f"{attention}.k_norm", epsilon)
        self._after_attention = self._after_mlp = None
        if config.post_norms:
            self._after_attention = reader.rms_norm(f"{prefix}.post_attention_layernorm", epsilon)
            self._before_mlp = reader.rms_norm(f"{prefix}.pre_feedforward_layernorm", epsilon)
            self._after_mlp = reader.rms_norm(f"{prefix}.post_feedforward_layernorm", epsilon)
        else:
            self._before_mlp = reader.rms_norm(f"{prefix}.post_attention_layernorm", epsilon)
        self._attention = Attention(
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            scale=config.query_scale,
            sliding_window=config.sliding_window if is_sliding else None,
        )

    @property
    def rope(self) -> Rope:
        """What its heads are rotated by."""
        return self._rope

    def __call__(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], inputs: StepInputs, cache: KVCache
    ) -> Tensor:
        mixed = self._o(self._attend(self._before_attention(x), rotation, inputs, cache))
        x = x + (self._after_attention(mixed) if self._after_attention else mixed)
        gate, up = self._gate_up(self._before_mlp(x)).chunk(2, dim=-1)
        mixed = self._down(self._act(gate) * up)
        return x + (self._after_mlp(mixed) if self._after_mlp else mixed)

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


class Decoder:
    """A model of the Llama family."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, *, max_positions: int) -> None:
        """Read the weights.

        Args:
            checkpoint: Hyperparameters and weights.
            dtype: Number type to compute in.
            max_positions: Positions that rotary tables are made for.

        Raises:
            StartupError: A tensor is missing or broken.
        """
        config = checkpoint.config
        reader = LayerReader(checkpoint, dtype)
        frequencies = inverse_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        rope = Rope(frequencies, max_positions=max_positions, dtype=dtype)
        local = rope
        if config.rope_local_theta is not None:
            frequencies = inverse_frequencies(config.head_dim, config.rope_local_theta, None)
            local = Rope(frequencies, max_positions=max_positions, dtype=dtype)
        self._embedding = reader.tensor("model.embed_tokens.weight")
        # Rounded to the model's type first, as the original rounds it.
        self._embedding_scale = torch.tensor(config.embedding_scale, dtype=dtype).item()
        self._blocks = [
            _Block(index, config, reader, local if index in config.sliding_layers else rope)
            for index in range(config.num_layers)
        ]
        self._ropes = [rope] if local is rope else [rope, local]
        self._norm = reader.rms_norm("model.norm", config.norm_epsilon)
        head = self._embedding if config.tie_embeddings else reader.tensor("lm_head.weight")
        self._head = OutputHead(head)
        self.parameters = reader.parameters

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
