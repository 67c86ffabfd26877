"""Tokenizers and chat templates out of model files: GGUF metadata and Hugging Face folders.

What a file says is not trusted: whatever is missing or of the wrong kind ends the load with one
clear line. Runs once, on the thread that loads the model.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import tokenizers

from hocket.server.errors import StartupError
from hocket.server.model.gguf_tokenizer import backend_from_gguf, field
from hocket.server.text.chat import JinjaChatTemplate
from hocket.server.text.huggingface import HuggingFaceTokenizer, is_backend_fault

_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
# Ends of a turn that older files do not declare.
_END_TEXTS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>")


def tokenizer_from_gguf(
    metadata: Mapping[str, object], *, cache_file: Path | None = None
) -> HuggingFaceTokenizer:
    """Build the tokenizer of a GGUF model.

    Args:
        metadata: The file's metadata as plain Python values.
        cache_file: Where the finished tokenizer is kept; see `backend_from_gguf`.

    Raises:
        StartupError: Something is missing, broken, or of a kind that is not supported.
    """
    backend = backend_from_gguf(metadata, cache_file=cache_file)
    special = {
        token.content: token_id
        for token_id, token in backend.get_added_tokens_decoder().items()
        if token.special
    }
    ends = {special[text] for text in _END_TEXTS if text in special}
    ends |= {token_id for key in _END_KEYS if (token_id := _id(metadata, key)) is not None}
    is_sentencepiece = metadata["tokenizer.ggml.model"] == "llama"
    opens = is_sentencepiece or metadata.get("tokenizer.ggml.pre") in {"llama-bpe", "tekken"}
    return HuggingFaceTokenizer(
        backend,
        bos_token_id=_id(metadata, "bos_token_id"),
        end_token_ids=frozenset(ends),
        add_bos=field(metadata, "tokenizer.ggml.add_bos_token", bool, opens),
    )


def tokenizer_from_folder(path: Path) -> HuggingFaceTokenizer:
    """Build the tokenizer of a Hugging Face folder from its `tokenizer.json`.

    Texts end with the tokenizer's own end token and those of `generation_config.json`, or of
    `config.json` where that is absent.

    Raises:
        StartupError: A file is missing, broken, or of a kind that is not supported.
    """
    file = path / "tokenizer.json"
    if not file.is_file():
        raise StartupError(f"the model folder has no tokenizer.json: {path}")
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
        first_ids = backend.encode("", add_special_tokens=True).ids[:1]
    except BaseException as error:
        if is_backend_fault(error):
            raise StartupError(f"{file} cannot be read: {error}") from error
        raise
    named = _named_tokens(path)
    bos_token_id = _id_of(backend, named.get("bos_token"))
    ends = _declared_ends(path)
    end_token_id = _id_of(backend, named.get("eos_token"))
    adds_bos = _read_json(path / "tokenizer_config.json").get("add_bos_token")
    if not isinstance(adds_bos, bool):
        adds_bos = bos_token_id is not None and first_ids == [bos_token_id]
    return HuggingFaceTokenizer(
        backend,
        bos_token_id=bos_token_id,
        end_token_ids=ends if end_token_id is None else ends | {end_token_id},
        add_bos=adds_bos,
    )


def chat_template_source(origin: Mapping[str, object] | Path) -> str | None:
    """Return the chat template of GGUF metadata or of a folder; None if there is none.

    Raises:
        StartupError: What stands in its place is no text.
    """
    if not isinstance(origin, Path):
        return field(origin, "tokenizer.chat_template", str, "") or None
    file = origin / "chat_template.jinja"
    if file.is_file():
        return _read_text(file)
    template = _read_json(origin / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        by_name = {
            entry.get("name"): entry.get("template")
            for entry in template
            if isinstance(entry, dict)
        }
        template = by_name.get("default")
    if template is not None and not isinstance(template, str):
        raise StartupError(f"the model folder's chat template is not a text: {origin}")
    return template or None


def chat_template(
    origin: Mapping[str, object] | Path, tokenizer: HuggingFaceTokenizer
) -> JinjaChatTemplate | None:
    """Compile the chat template of GGUF metadata or of a folder; None if there is none.

    Raises:
        StartupError: It is no template, or fails on a greeting.
    """
    source = chat_template_source(origin)
    if source is None:
        return None
    if isinstance(origin, Path):
        named = _named_tokens(origin)
        bos_token, eos_token = named.get("bos_token", ""), named.get("eos_token", "")
    else:
        bos_token, eos_token = (
            "" if token_id is None else tokenizer.token_text(token_id)
            for token_id in (_id(origin, "bos_token_id"), _id(origin, "eos_token_id"))
        )
    template = JinjaChatTemplate(source, tokenizer, bos_token=bos_token, eos_token=eos_token)
    template.probe()
    return template


def _id(metadata: Mapping[str, object], name: str) -> int | None:
    token_id = field(metadata, f"tokenizer.ggml.{name}", int, -1)
    return None if token_id == -1 else token_id


def _id_of(backend: tokenizers.Tokenizer, text: str | None) -> int | None:
    return None if text is None else backend.token_to_id(text)


def _named_tokens(path: Path) -> dict[str, str]:
    """Return how the folder's begin- and end-of-text tokens are written."""
    named: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        content = _read_json(path / name)
        for key in ("bos_token", "eos_token"):
            token = content.get(key)
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str):
                named[key] = text
    return named


def _declared_ends(path: Path) -> frozenset[int]:
    for name in ("generation_config.json", "config.json"):
        declared = _read_json(path / name).get("eos_token_id")
        token_ids = declared if isinstance(declared, list) else [declared]
        if declared is not None:
            if not all(type(token_id) is int for token_id in token_ids):
                raise StartupError(f"eos_token_id in {path / name} is not a token id")
            return frozenset(token_ids)
    return frozenset()


def _read_json(path: Path) -> dict[str, object]:
    """Return a JSON object; an absent file is an empty one."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise StartupError(f"{path} is not JSON") from error
    if not isinstance(content, dict):
        raise StartupError(f"{path} is not a JSON object")
    return content


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{path} cannot be read") from error
