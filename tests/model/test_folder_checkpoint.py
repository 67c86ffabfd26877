"""A Hugging Face folder is read as it was meant, or refused with one clear line."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hocket.server.model.checkpoint import tensor_shapes
from hocket.server.model.config import ModelSourceConfig, RunnerConfig
from hocket.server.model.folder_checkpoint import FolderCheckpoint
from hocket.server.model.folder_config import decoder_config
from hocket.server.model.loading import load_model
from model.hostility import refused
from model.test_vocabulary import write_folder

pytestmark = pytest.mark.torch

RUNNER = RunnerConfig(
    dtype="float32", kv_cache_mib=1, saved_kv_mib=0, num_threads=1, max_context_tokens=16
)
LLAMA = {
    "model_type": "llama",
    "vocab_size": 259,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
CONFIGS = {
    "llama": LLAMA,
    "mistral": {**LLAMA, "model_type": "mistral", "sliding_window": 4},
    "qwen2": {**LLAMA, "model_type": "qwen2"},
    "qwen3": {**LLAMA, "model_type": "qwen3", "head_dim": 6},
    "gemma3_text": {**LLAMA, "model_type": "gemma3_text", "head_dim": 4, "sliding_window": 4},
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 259,
        "n_embd": 8,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 64,
    },
}
BOMB = "cposix\nsystem\n(S'touch {}'\ntR."


def weights(config: dict[str, object]) -> dict[str, torch.Tensor]:
    """Return tensors as `transformers` stores them: GPT-2's matrices have their inputs first."""
    generator = torch.Generator().manual_seed(0)
    turned = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    return {
        name: torch.randn(shape[::-1] if name.endswith(turned) else shape, generator=generator)
        for name, shape in tensor_shapes(decoder_config(config, "config.json"))
    }


def write(
    path: Path, config: object = LLAMA, tensors: dict[str, torch.Tensor] | None = None
) -> Path:
    """Write a folder with a tokenizer and return it."""
    folder = write_folder(path, config=config)
    save_file(weights(LLAMA) if tensors is None else tensors, folder / "model.safetensors")
    return folder


def load(path: Path) -> None:
    load_model(ModelSourceConfig(model=str(path)), RUNNER, lambda *_: None)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_sound_folder_is_a_model(tmp_path, config):
    load(write(tmp_path, config, weights(config)))


def test_shards_are_one_model(tmp_path):
    """Whichever tensor lies in whichever file."""
    folder, whole = write(tmp_path), weights(LLAMA)
    names = sorted(whole)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: whole[name] for name in held}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {name: file for file, held in shards.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    checkpoint = FolderCheckpoint(folder)
    for name, tensor in whole.items():
        assert torch.equal(tensor, checkpoint.tensor(name))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"n": %b}' % (b"9" * 10_000), "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{}", "lacks model_type"),
        (b" " * (17 << 20), "too large"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_broken_configuration_file_is_one_clear_line(tmp_path, content, words):
    """Absent, no JSON, no object, or larger than any such file."""
    folder = write(tmp_path)
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_bytes(content)
    with refused(words):
        FolderCheckpoint(folder)


NAN, INFINITY, ENDLESS = float("nan"), float("inf"), 10**400


def scaled(**values: object) -> dict[str, object]:
    return {"rope_scaling": {"rope_type": "llama3", **values}}


ABSURD: list[tuple[str, dict[str, object], str]] = [
    *(("llama", {"model_type": value}, "model_type") for value in (None, 3, [], {}, True)),
    ("llama", {"model_type": "bert"}, "'bert'; supported are llama"),
    ("llama", {"partial_rotary_factor": 0.5}, "rotates only a part"),
    ("llama", {"partial_rotary_factor": [1]}, "rotates only a part"),
    ("llama", {"rope_parameters": {"partial_rotary_factor": 0.25}}, "rotates only a part"),
    ("llama", {"model_type": "\n\x1b[2J" * 100_000}, "supported are llama"),
    *(("llama", {key: None}, f"lacks {key}") for key in LLAMA if key != "num_key_value_heads"),
    *(("gpt2", {key: None}, f"lacks {key}") for key in CONFIGS["gpt2"]),
    *(
        (kind, {key: value}, key)
        for kind in ("llama", "gpt2")
        for key, default in CONFIGS[kind].items()
        if isinstance(default, int)
        for value in (0, -1, 2**31, 2**63, ENDLESS, 8.0, True, "8", [8], {})
    ),
    *(("llama", {"rms_norm_eps": v}, "") for v in (0, -1.0, NAN, INFINITY, ENDLESS, "1", [])),
    *(("llama", {"rope_theta": v}, "") for v in (0, -1.0, NAN, INFINITY, ENDLESS, "1", [])),
    *(("gpt2", {"layer_norm_epsilon": v}, "") for v in (0, NAN, ENDLESS, "1")),
    ("llama", {"num_hidden_layers": 1025}, "from 1 to 1024"),
    ("llama", {"max_position_embeddings": 10_000_001}, "from 1 to 10000000"),
    ("llama", {"num_attention_heads": 3, "num_key_value_heads": 2}, "3 heads for 2 key"),
    ("llama", {"num_attention_heads": 9}, "has 0 as head_dim"),
    ("llama", {"head_dim": 3}, "odd width"),
    ("llama", {"head_dim": 2**31 - 2}, "in the shape"),
    ("llama", {"hidden_act": "relu"}, "'relu'"),
    ("llama", {"hidden_act": 3}, "hidden_act"),
    ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    ("llama", {"attention_bias": 1}, "attention_bias"),
    ("llama", {"rope_scaling": "long"}, "no object as rope_scaling"),
    ("llama", {"rope_parameters": []}, "no object as rope_parameters"),
    ("llama", {"rope_scaling": {"rope_type": "yarn"}}, "'yarn'"),
    ("llama", {"rope_scaling": {"type": []}}, "stretches its positions"),
    ("llama", {"rope_scaling": {"type": "linear"}}, "lacks factor"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 0}}, "stretched by 0"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": ENDLESS}}, "factor"),
    *(
        (
            "llama",
            scaled(
                factor=8,
                low_freq_factor=low,
                high_freq_factor=high,
                original_max_position_embeddings=context,
            ),
            words,
        )
        for low, high, context, words in (
            (0, 4, 64, "no range of frequencies"),
            (4, 4, 64, "no range of frequencies"),
            (4, 1, 64, "no range of frequencies"),
            (1, 4, 0, "original_max_position_embeddings"),
            (1, NAN, 64, "high_freq_factor"),
        )
    ),
    ("mistral", {"sliding_window": 0}, "sliding_window"),
    ("mistral", {"sliding_window": "4"}, "sliding_window"),
    ("mistral", {"layer_types": "full"}, "layer_types"),
    ("mistral", {"layer_types": ["full_attention"]}, "layer_types"),
    ("mistral", {"layer_types": ["full_attention", "linear_attention"]}, "'linear_attention'"),
    ("mistral", {"layer_types": [[], {}]}, "has a layer of the type"),
    ("gemma3_text", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
    ("gemma3_text", {"query_pre_attn_scalar": ENDLESS}, "query_pre_attn_scalar"),
    ("gemma3_text", {"sliding_window_pattern": 0}, "sliding_window_pattern"),
    ("gemma3_text", {"rope_parameters": {"full_attention": 3}}, "full_attention"),
    ("gemma3_text", {"rope_local_base_freq": 0}, "rotary"),
    ("gpt2", {"n_head": 3}, "a width of 8 for 3 heads"),
    ("gpt2", {"scale_attn_weights": False}, "scales its attention"),
    ("gpt2", {"activation_function": "tanh"}, "'tanh'"),
]


@pytest.mark.parametrize(("kind", "changes", "words"), ABSURD, ids=lambda value: str(value)[:60])
def test_absurd_hyperparameters_are_one_clear_line(tmp_path, kind, changes, words):
    """Absent, of the wrong type, out of reason, or not possible together."""
    with refused(words):
        FolderCheckpoint(write(tmp_path, {**CONFIGS[kind], **changes}))


@pytest.mark.parametrize("kind", CONFIGS)
def test_each_tensor_is_asked_for_when_the_folder_is_opened(tmp_path, kind):
    """Absent or of another shape: nothing is read before it is told."""
    config = CONFIGS[kind]
    folder = write(tmp_path, config)
    for name, tensor in weights(config).items():
        if ".1." in name:  # the second layer is like the first
            continue
        for spoilt in ({}, {name: tensor[..., :-1].contiguous()}, {name: tensor[None]}):
            others = {key: value for key, value in weights(config).items() if key != name}
            save_file({**others, **spoilt}, folder / "model.safetensors")
            with refused(name):
                FolderCheckpoint(folder)


def test_a_tensor_under_two_names_is_told(tmp_path):
    """Which of them counts would be a guess."""
    whole = weights(LLAMA)
    whole["embed_tokens.weight"] = whole["model.embed_tokens.weight"] + 1
    with refused("has the tensor 'model.embed_tokens.weight' twice"):
        FolderCheckpoint(write(tmp_path, tensors=whole))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "weights.pt", "model.ckpt"])
def test_pickles_are_refused_and_never_opened(tmp_path, name):
    """Alone in a folder, named by an index, or asked for by their path."""
    folder, victim = write(tmp_path), tmp_path / "victim"
    (folder / "model.safetensors").unlink()
    (folder / name).write_text(BOMB.format(victim))
    with refused("pickled weights only, which are never read"):
        load(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with refused("not a .safetensors file"):
        load(folder)
    with refused("neither a folder nor a .gguf file"):
        load(folder / name)
    for disguise in ("model.safetensors", "model.gguf"):
        (folder / "model.safetensors.index.json").unlink(missing_ok=True)
        (folder / disguise).write_text(BOMB.format(victim))
        with refused("not a sound"):
            load(folder if disguise == "model.safetensors" else folder / disguise)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ({}, "lists no weights"),
        ({"weight_map": {}}, "lists no weights"),
        ({"weight_map": ["one.safetensors"]}, "lists no weights"),
        ({"weight_map": {"lm_head.weight": "two.safetensors"}}, "No such file"),
        ({"weight_map": {"another": "model.safetensors"}}, "lacks the tensor 'another'"),
        *(
            ({"weight_map": {"lm_head.weight": stray}}, "not a .safetensors file beside it")
            for stray in (
                "../outside/model.safetensors",
                "/etc/model.safetensors",
                "below/model.safetensors",
                "..\\model.safetensors",
                "..",
                "",
                ".safetensors",
                "model.safetensors\n",
                "model\x00.safetensors",
                "pytorch_model.bin",
                "x" * 300 + ".safetensors",
                3,
                None,
                [],
                {},
            )
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_broken_index_is_one_clear_line(tmp_path, index, words):
    """No index leads out of its folder, to a file that is absent, or to one of another kind."""
    (tmp_path / "outside").mkdir()
    write(tmp_path / "outside")
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder)
    text = index if isinstance(index, str) else json.dumps(index)
    (folder / "model.safetensors.index.json").write_text(text)
    with refused(words):
        FolderCheckpoint(folder)


def test_a_tensor_in_two_shards_is_told(tmp_path):
    """Which of them counts would be a guess."""
    folder = write(tmp_path)
    save_file(weights(LLAMA), folder / "copy.safetensors")
    index = {"model.norm.weight": "model.safetensors", "lm_head.weight": "copy.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with refused("twice"):
        FolderCheckpoint(folder)


def test_a_folder_without_weights_or_tokenizer_is_one_clear_line(tmp_path):
    """The line names the file that is missing or broken."""
    folder = write(tmp_path)
    for content, words in (("", "tokenizer.json"), ('{"model": {', "tokenizer.json")):
        (folder / "tokenizer.json").write_text(content)
        with refused(words):
            load(folder)
    (folder / "tokenizer.json").unlink()
    with refused("no tokenizer.json"):
        load(folder)
    (folder / "model.safetensors").unlink()
    with refused("no model.safetensors"):
        load(folder)
