"""One model in the forms that the peers read, written from the GGUF file that hocket serves.

A Hugging Face folder in bfloat16, and GGUF files with other types of matrices. Both are written
once and kept, beside the environments.
"""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

from bench.machine import ROOT
from hocket.server.model.checkpoint import DecoderConfig, tensor_shapes
from hocket.server.model.config import ModelSourceConfig
from hocket.server.model.gguf_checkpoint import GgufCheckpoint
from hocket.server.model.gguf_tokenizer import backend_from_gguf
from hocket.server.model.registry import resolve
from hocket.server.model.vocabulary import tokenizer_from_gguf
from hocket.server.text.huggingface import HuggingFaceTokenizer

MODEL = "smollm2"
FOLDER = ROOT / ".venv-peers" / "weights"
_TYPES = {
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}


def original() -> Path:
    """Return the GGUF file that hocket serves, pulled first if need be."""
    return resolve(ModelSourceConfig(model=MODEL)).path


def tokenizer() -> HuggingFaceTokenizer:
    """Return the model's tokenizer as hocket has it."""
    return tokenizer_from_gguf(GgufCheckpoint(original()).metadata)


def gguf_file(kind: str) -> Path:
    """Return the model as GGUF with matrices of a type: `f16` or `q8_0`; vectors are float32."""
    target = FOLDER / f"{MODEL}-{kind}.gguf"
    if not target.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        _write_gguf(original(), part, *_TYPES[kind])
        part.rename(target)
    return target


def huggingface_folder() -> Path:
    """Return the model as a Hugging Face folder: configuration, bfloat16 weights, tokenizer."""
    target = FOLDER / f"{MODEL}-bfloat16"
    config_file = target / "config.json"
    if not config_file.exists():
        target.mkdir(parents=True, exist_ok=True)
        checkpoint = GgufCheckpoint(original())
        tensors = {
            name: checkpoint.tensor(name).to(torch.bfloat16).contiguous()
            for name, _ in tensor_shapes(checkpoint.config)
        }
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        backend = backend_from_gguf(checkpoint.metadata)
        backend.save(str(target / "tokenizer.json"))
        (target / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}), encoding="utf-8"
        )
        config_file.write_text(  # last: it says that the folder is whole
            json.dumps(_llama_config(checkpoint.config), indent=2), encoding="utf-8"
        )
    return target


def _llama_config(config: DecoderConfig) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": config.activation,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "max_position_embeddings": config.max_context_tokens,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": sorted(config.eos_token_ids),
    }


def _write_gguf(
    source: Path, target: Path, kind: gguf.GGMLQuantizationType, file_type: gguf.LlamaFileType
) -> None:
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for name, entry in reader.fields.items():
        if name.startswith("GGUF.") or name in {"general.architecture", "general.file_type"}:
            continue
        if entry.types[0] is gguf.GGUFValueType.ARRAY:
            writer.add_array(name, entry.contents())
        else:
            writer.add_key_value(name, entry.contents(), entry.types[0])
    writer.add_file_type(file_type)
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        values = values.astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(tensor.name, values)
        else:
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
