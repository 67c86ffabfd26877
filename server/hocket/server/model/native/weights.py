"""A model of the Llama family in the kernels' form, for any number of decoders. Engine thread.

Read and packed once; afterwards nothing writes to it, so several threads may compute with it.
"""

import torch
from torch import Tensor

from hocket.server.model.checkpoint import Checkpoint, DecoderConfig
from hocket.server.model.native.arena import Arena
from hocket.server.model.native.library import LayerStruct, LinearStruct
from hocket.server.model.native.packing import PackedLinear
from hocket.server.model.rope import inverse_frequencies


class NativeWeights:
    """Packed weights and rotary tables.

    Attributes:
        config: The model's hyperparameters.
        layers: One for each block, without the addresses of keys and values.
        embedding: Address of `[vocabulary, hidden_size]` bfloat16.
        norm: Address of the last norm's weights, float32.
        head: The output head.
        parameters: How many numbers the weights hold.
    """

    def __init__(self, checkpoint: Checkpoint, *, max_positions: int, is_int8: bool) -> None:
        """Read and pack the weights.

        Raises:
            StartupError: A tensor is missing or broken.
        """
        config = checkpoint.config
        self.config = config
        self.parameters = 0
        self._checkpoint = checkpoint
        self._is_int8 = is_int8
        self._kept: list[object] = []
        self._arena = Arena()
        rotations = {
            is_local: self._keep(_rotation(config, max_positions, is_local=is_local))
            for is_local in {index in config.sliding_layers for index in range(config.num_layers)}
        }
        self.layers = (LayerStruct * config.num_layers)()
        for index in range(config.num_layers):
            self._fill(self.layers[index], index)
            self.layers[index].rotation = rotations[index in config.sliding_layers]
        embedding = self._tensor("model.embed_tokens.weight")
        head = embedding if config.tie_embeddings else self._tensor("lm_head.weight")
        self.embedding = self._keep(embedding.to(torch.bfloat16))
        self.norm = self._keep(self._tensor("model.norm.weight").float())
        self.head = self._linear_of(head)

    def _fill(self, layer: LayerStruct, index: int) -> None:
        config = self.config
        prefix = f"model.layers.{index}"
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        layer.qkv = self._linear(
            *(f"{attention}.{letter}_proj" for letter in "qkv"), has_bias=config.attention_bias
        )
        layer.output = self._linear(f"{attention}.o_proj", has_bias=config.output_bias)
        layer.gate_up = self._linear(
            f"{mlp}.gate_proj", f"{mlp}.up_proj", has_bias=config.mlp_bias, is_gated=True
        )
        layer.down = self._linear(f"{mlp}.down_proj", has_bias=config.mlp_bias)
        layer.before_attention = self._norm(f"{prefix}.input_layernorm")
        if config.post_norms:
            layer.after_attention = self._norm(f"{prefix}.post_attention_layernorm")
            layer.before_mlp = self._norm(f"{prefix}.pre_feedforward_layernorm")
            layer.after_mlp = self._norm(f"{prefix}.post_feedforward_layernorm")
        else:
            layer.before_mlp = self._norm(f"{prefix}.post_attention_layernorm")
        if config.qk_norm:
            layer.q_norm = self._norm(f"{attention}.q_norm")
            layer.k_norm = self._norm(f"{attention}.k_norm")
        if index in config.sliding_layers:
            layer.window = config.sliding_window or 0

    def _tensor(self, name: str) -> Tensor:
        tensor = self._checkpoint.tensor(name)
        self.parameters += tensor.numel()
        return tensor

    def _norm(self, name: str) -> int:
        return self._keep(self._tensor(f"{name}.weight").float())

    def _linear(self, *names: str, has_bias: bool, is_gated: bool = False) -> LinearStruct:
        weight = torch.cat([self._tensor(f"{name}.weight") for name in names])
        bias = torch.cat([self._tensor(f"{name}.bias") for name in names]) if has_bias else None
        return self._linear_of(weight, bias, is_gated=is_gated)

    def _linear_of(
        self, weight: Tensor, bias: Tensor | None = None, *, is_gated: bool = False
    ) -> LinearStruct:
        packed = PackedLinear(
            weight, bias, arena=self._arena, is_int8=self._is_int8, is_gated=is_gated
        )
        self._kept.append(packed)
        return packed.struct

    def _keep(self, tensor: Tensor) -> int:
        tensor = tensor.contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()


def _rotation(config: DecoderConfig, positions: int, *, is_local: bool) -> Tensor:
    """Return `[positions, head_dim]`: cosines, then sines, of each half."""
    theta, scaling = config.rope_theta, config.rope_scaling
    if is_local and config.rope_local_theta is not None:
        theta, scaling = config.rope_local_theta, None
    frequencies = inverse_frequencies(config.head_dim, theta, scaling)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)
