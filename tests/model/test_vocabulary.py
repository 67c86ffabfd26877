"""Tokenizers and chat templates come out of model files as their makers meant them."""

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from hocket.server.errors import StartupError
from hocket.server.model.vocabulary import (
    chat_template,
    chat_template_source,
    tokenizer_from_folder,
    tokenizer_from_gguf,
)
from hocket.server.text.tokenizer import ChatMessage
from model.test_gguf_tokenizer import CHATML, byte_level_metadata, sentencepiece_metadata


def test_the_specification_s_defaults_hold() -> None:
    """What a file does not say follows its kind of tokenizer."""
    sentencepiece = tokenizer_from_gguf(sentencepiece_metadata())
    assert {2, sentencepiece.special_token_texts["<end_of_turn>"]} == sentencepiece.end_token_ids
    begins = sentencepiece.encode("a", add_special=True, parse_special=False).token_ids
    assert begins[0] == 1
    byte_level = tokenizer_from_gguf(byte_level_metadata())
    assert 1 not in byte_level.encode("a", add_special=True, parse_special=False).token_ids
    told = tokenizer_from_gguf(byte_level_metadata(add_bos_token=True))
    assert told.encode("a", add_special=True, parse_special=False).token_ids[0] == 1
    assert {2} == byte_level.end_token_ids


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "bert"},
        {"model": 3},
        {"model": None},
        {"pre": "unheard-of"},
        {"tokens": None},
        {"tokens": []},
        {"tokens": "abc"},
        {"tokens": ["a", 1]},
        {"tokens": ["a", "a"], "token_type": None},
        {"token_type": [1]},
        {"token_type": ["1"] * 273},
        {"merges": None},
        {"merges": ["a"]},
        {"merges": ["a "]},
        {"merges": ["never seen"]},
        {"merges": [7]},
        {"eos_token_id": "2"},
        {"eos_token_id": 10**6},
        {"bos_token_id": 2.0},
        {"add_bos_token": 1},
    ],
    ids=str,
)
def test_broken_metadata_ends_the_start_with_one_line(changes: dict[str, object]) -> None:
    """Whatever is missing, of the wrong kind or length, or contradictory is told at once."""
    with pytest.raises(StartupError) as caught:
        tokenizer_from_gguf(byte_level_metadata(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"scores": None}, {"scores": [0.0]}, {"scores": [float("nan")] * 275}]
)
def test_broken_scores_end_the_start(changes: dict[str, object]) -> None:
    """Without merges, scores are needed, all of them and finite."""
    with pytest.raises(StartupError):
        tokenizer_from_gguf(sentencepiece_metadata(**changes))


def write_folder(path: Path, **files: object) -> Path:
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))},
            merges=[],
        )
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text) for text in ("<s>", "</s>", "<|end|>")])
    if files.pop("post_processor", False):
        backend.post_processor = processors.TemplateProcessing(
            "<s> $A", special_tokens=[("<s>", 256)]
        )
    backend.save(str(path / "tokenizer.json"))
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (path / f"{name}.json").write_text(text)
    return path


NAMES = {"bos_token": "<s>", "eos_token": {"content": "</s>"}}


def test_a_folder_names_its_tokens(tmp_path: Path) -> None:
    """The begin token and all end tokens are found wherever the folder declares them."""
    path = write_folder(
        tmp_path,
        special_tokens_map=NAMES,
        tokenizer_config={"add_bos_token": True, "chat_template": CHATML},
        generation_config={"eos_token_id": [258]},
        config={"eos_token_id": 0},
    )
    tokenizer = tokenizer_from_folder(path)
    assert (256, {257, 258}) == (tokenizer.bos_token_id, tokenizer.end_token_ids)
    assert tokenizer.encode("a", add_special=True, parse_special=False).token_ids[0] == 256
    assert chat_template_source(path) == CHATML


@pytest.mark.parametrize("adds", [True, False])
def test_a_post_processor_tells_whether_a_text_begins_with_a_token(
    tmp_path: Path, adds: bool
) -> None:
    """Where the configuration says nothing, the tokenizer itself does."""
    path = write_folder(
        tmp_path, tokenizer_config=NAMES, config={"eos_token_id": 258}, post_processor=adds
    )
    tokenizer = tokenizer_from_folder(path)
    begins = tokenizer.encode("a", add_special=True, parse_special=False).token_ids[0]
    assert adds == (begins == 256)
    assert {257, 258} == tokenizer.end_token_ids


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": "{"},
        {"tokenizer_config": "[]"},
        {"tokenizer_config": "[" * 100_000},
        {"generation_config": {"eos_token_id": "two"}},
        {"generation_config": {"eos_token_id": [True]}},
        {"config": {"eos_token_id": 5000}},
        {"tokenizer": "{}"},
        {"tokenizer": '{"model": {"type": "BPE"'},
    ],
    ids=lambda files: str(files)[:60],
)
def test_a_broken_folder_ends_the_start(tmp_path: Path, files: dict[str, object]) -> None:
    """Files that are no JSON, no object, or contradict each other are told in one line."""
    with pytest.raises(StartupError) as caught:
        tokenizer_from_folder(write_folder(tmp_path, **files))
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_ends_the_start(tmp_path: Path) -> None:
    """The line names the file."""
    with pytest.raises(StartupError, match=r"tokenizer\.json"):
        tokenizer_from_folder(tmp_path)


def test_chat_templates_are_found(tmp_path: Path) -> None:
    """In metadata, in a list by name, in a file of their own, or nowhere."""
    assert chat_template_source(byte_level_metadata()) == CHATML
    assert chat_template_source({}) is None
    with pytest.raises(StartupError):
        chat_template_source({"tokenizer.chat_template": 3})
    named = [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]
    path = write_folder(tmp_path, tokenizer_config={"chat_template": named})
    assert chat_template_source(path) == "d"
    (path / "tokenizer_config.json").write_text('{"chat_template": {}}')
    with pytest.raises(StartupError):
        chat_template_source(path)
    (path / "chat_template.jinja").write_text("of its own")
    assert chat_template_source(path) == "of its own"
    (path / "chat_template.jinja").unlink()
    (path / "tokenizer_config.json").unlink()
    assert chat_template_source(path) is None


def test_a_template_is_compiled_with_its_model_s_tokens(tmp_path: Path) -> None:
    """Begin and end tokens that a template names are those of its model."""
    source = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    path = write_folder(tmp_path, tokenizer_config={**NAMES, "chat_template": source})
    metadata = {**byte_level_metadata(), "tokenizer.chat_template": source}
    for origin, tokenizer in (
        (path, tokenizer_from_folder(path)),
        (metadata, tokenizer_from_gguf(metadata)),
    ):
        compiled = chat_template(origin, tokenizer)
        token_ids = compiled.encode(
            [ChatMessage(role="user", content="a")], add_generation_prompt=True
        )
        assert token_ids[0] == tokenizer.bos_token_id
        assert token_ids[-1] in tokenizer.end_token_ids
        assert len(token_ids) == 3
    assert chat_template({}, tokenizer_from_gguf(byte_level_metadata())) is None
