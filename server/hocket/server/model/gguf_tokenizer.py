"""A `tokenizers` backend out of GGUF metadata: byte-level BPE, or SentencePiece BPE with scores.

The keys are those of the GGUF specification, the names of pre-tokenizers llama.cpp's. Runs once,
on the thread that loads the model.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from enum import IntEnum
from itertools import groupby
from math import isfinite
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypeVar

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from hocket.server.errors import StartupError
from hocket.server.text.huggingface import is_backend_fault

_T = TypeVar("_T")
_SPACE = "\u2581"
_CACHE_FORMAT = 1

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA_3 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_2 = _LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {"llama-bpe": _LLAMA_3, "qwen2": _QWEN_2, "tekken": _TEKKEN}
_PRE_TOKENIZERS = frozenset({"default", "gpt-2", "smollm", *_PATTERNS})
# These take a word that stands in the vocabulary whole, without asking the merges.
_WHOLE_WORDS = frozenset({"llama-bpe", "tekken"})


class _TokenType(IntEnum):
    """What a token is, as `tokenizer.ggml.token_type` counts."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def field(metadata: Mapping[str, object], key: str, kind: type[_T], default: _T) -> _T:
    """Return a value of the metadata.

    Raises:
        StartupError: It is of another kind.
    """
    value = metadata.get(key, default)
    if type(value) is not kind:
        raise StartupError(f"the model file is broken: {key} is not of type {kind.__name__}")
    return value


def _values(metadata: Mapping[str, object], key: str, kind: type[_T], size: int) -> list[_T]:
    """Return a list of the metadata, of a known length, or nothing where it is absent."""
    values = field(metadata, key, list, [])
    if values and (len(values) != size or not all(type(value) is kind for value in values)):
        raise StartupError(f"the model file is broken: {key} is not {size} of {kind.__name__}")
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vocabulary:
    """What GGUF metadata says about a tokenizer, checked.

    Attributes:
        model: `gpt2` for byte-level BPE, `llama` for SentencePiece BPE.
        pre_tokenizer: How byte-level BPE divides a text first, by llama.cpp's name.
        tokens: The pieces, in the order of their ids.
        types: What each is.
        merges: Pairs of pieces in the order in which they are joined; may be empty for `llama`.
        scores: One for each piece, the highest is joined first; empty for `gpt2`.
        adds_space: Whether a space is put before a text (`llama`).
    """

    model: str
    pre_tokenizer: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float]
    adds_space: bool

    def of_type(self, *kinds: _TokenType) -> list[str]:
        """Return the tokens of some types."""
        return [token for token, kind in zip(self.tokens, self.types, strict=True) if kind in kinds]

    def digest(self) -> str:
        """Return what tells this vocabulary, and the way it is built, from any other."""
        # Not `asdict`: it copies hundreds of thousands of pieces one by one.
        own = {name.name: getattr(self, name.name) for name in fields(self)}
        described = [_CACHE_FORMAT, tokenizers.__version__, own]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _vocabulary(metadata: Mapping[str, object]) -> _Vocabulary:
    model = field(metadata, "tokenizer.ggml.model", str, "")
    pre_tokenizer = field(metadata, "tokenizer.ggml.pre", str, "default")
    tokens = field(metadata, "tokenizer.ggml.tokens", list, [])
    tokens = _values(metadata, "tokenizer.ggml.tokens", str, len(tokens))
    if model not in {"gpt2", "llama"}:
        raise StartupError(f"the model's tokenizer is of an unsupported kind: {model[:64]!r}")
    if model == "gpt2" and pre_tokenizer not in _PRE_TOKENIZERS:
        raise StartupError(
            f"the model's pre-tokenizer is of an unsupported kind: {pre_tokenizer[:64]!r}"
        )
    if not tokens:
        raise StartupError("the model file is broken: it has no tokenizer.ggml.tokens")
    tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(tokens)]
    if len(set(tokens)) != len(tokens):
        raise StartupError("the model file is broken: tokenizer.ggml.tokens repeats a token")
    merges = field(metadata, "tokenizer.ggml.merges", list, [])
    scores = _values(metadata, "tokenizer.ggml.scores", float, len(tokens))
    if not (merges or (model == "llama" and scores)):
        raise StartupError("the model file is broken: its tokenizer has no merges")
    if not all(isfinite(score) for score in scores):
        raise StartupError("the model file is broken: tokenizer.ggml.scores are not finite")
    return _Vocabulary(
        model=model,
        pre_tokenizer=pre_tokenizer if model == "gpt2" else "",
        tokens=tokens,
        types=_values(metadata, "tokenizer.ggml.token_type", int, len(tokens))
        or [_TokenType.NORMAL.value] * len(tokens),
        merges=_values(metadata, "tokenizer.ggml.merges", str, len(merges)),
        scores=[] if merges else scores,
        adds_space=field(metadata, "tokenizer.ggml.add_space_prefix", bool, True),
    )


def backend_from_gguf(
    metadata: Mapping[str, object], *, cache_file: Path | None = None
) -> tokenizers.Tokenizer:
    """Build the backend of a GGUF model's tokenizer.

    Args:
        metadata: The file's metadata as plain Python values.
        cache_file: Where the finished backend is kept, so that large vocabularies load faster the
            next time. What it holds is used only if it was made of the same metadata; a file
            that cannot be read or written is no error.

    Raises:
        StartupError: Something is missing, broken, or of a kind that is not supported.
    """
    vocabulary = _vocabulary(metadata)
    digest = vocabulary.digest() if cache_file else ""
    if cache_file is not None:
        with suppress(OSError, ValueError, StartupError):
            found, _, description = cache_file.read_text(encoding="utf-8").partition("\n")
            if found == digest:
                return _guarded(lambda: tokenizers.Tokenizer.from_str(description))
    backend = _guarded(lambda: _build(vocabulary))
    if cache_file is not None:
        with suppress(OSError):
            _write_whole(cache_file, f"{digest}\n{backend.to_str()}")
    return backend


def _guarded(build: Callable[[], tokenizers.Tokenizer]) -> tokenizers.Tokenizer:
    try:
        return build()
    except StartupError:
        raise
    except BaseException as error:
        if is_backend_fault(error):
            raise StartupError(f"the model's tokenizer cannot be built: {error}") from error
        raise


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        unfinished = Path(file.name)
        try:
            file.write(text)
            file.close()
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def _build(vocabulary: _Vocabulary) -> tokenizers.Tokenizer:
    build = _build_byte_level if vocabulary.model == "gpt2" else _build_sentencepiece
    backend = build(vocabulary)
    # One kind after the other: a token that was added once keeps its kind.
    backend.add_special_tokens(
        [
            tokenizers.AddedToken(token, normalized=False, special=True)
            for token in vocabulary.of_type(_TokenType.CONTROL, _TokenType.UNKNOWN)
        ]
    )
    backend.add_tokens(
        [
            tokenizers.AddedToken(token, normalized=False, special=False)
            for token in vocabulary.of_type(_TokenType.USER_DEFINED)
        ]
    )
    return backend


def _build_byte_level(vocabulary: _Vocabulary) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=_ids(vocabulary),
            merges=list(_listed_merges(vocabulary)),
            ignore_merges=vocabulary.pre_tokenizer in _WHOLE_WORDS,
        )
    )
    if vocabulary.pre_tokenizer == "qwen2":
        backend.normalizer = normalizers.NFC()
    pattern = _PATTERNS.get(vocabulary.pre_tokenizer)
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern is not None:
        first = pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([first, by_bytes])
    elif vocabulary.pre_tokenizer == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, by_bytes])
    else:
        backend.pre_tokenizer = by_bytes
    backend.decoder = decoders.ByteLevel()
    return backend


def _build_sentencepiece(vocabulary: _Vocabulary) -> tokenizers.Tokenizer:
    unknown = vocabulary.of_type(_TokenType.UNKNOWN)
    has_bytes = bool(vocabulary.of_type(_TokenType.BYTE))
    merges = _listed_merges(vocabulary) if vocabulary.merges else _scored_merges(vocabulary)
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=_ids(vocabulary),
            merges=list(merges),
            unk_token=unknown[0] if unknown else None,
            fuse_unk=True,
            byte_fallback=has_bytes,
        )
    )
    spaces = normalizers.Replace(" ", _SPACE)
    backend.normalizer = (
        normalizers.Sequence([normalizers.Prepend(_SPACE), spaces])
        if vocabulary.adds_space
        else spaces
    )
    parts = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if vocabulary.adds_space:
        parts.append(decoders.Strip(" ", 1, 0))
    backend.decoder = decoders.Sequence(parts)
    return backend


def _ids(vocabulary: _Vocabulary) -> dict[str, int]:
    return {token: token_id for token_id, token in enumerate(vocabulary.tokens)}


def _listed_merges(vocabulary: _Vocabulary) -> Iterator[tuple[str, str]]:
    for merge in vocabulary.merges:
        left, space, right = merge.partition(" ")
        if not (left and space and right):
            raise StartupError("the model file is broken: a merge is not a pair of tokens")
        yield left, right


def _scored_merges(vocabulary: _Vocabulary) -> Iterator[tuple[str, str]]:
    """Derive the pairs that SentencePiece would join, best score first.

    Every way to divide a piece into two pieces is a pair with the piece's score. Among pairs of
    one score, longer left halves come first, as in `transformers`' conversion.
    """
    joined = {_TokenType.NORMAL, _TokenType.USER_DEFINED}
    ids = {
        token: token_id
        for token_id, token in enumerate(vocabulary.tokens)
        if vocabulary.types[token_id] in joined
    }
    by_score = sorted(ids, key=lambda token: -vocabulary.scores[ids[token]])
    for _, tokens in groupby(by_score, key=lambda token: vocabulary.scores[ids[token]]):
        pairs = [
            (token[:at], token[at:])
            for token in tokens
            for at in range(1, len(token))
            if token[:at] in ids and token[at:] in ids
        ]
        pairs.sort(key=lambda pair: (-len(pair[0]), -len(pair[1]), ids[pair[0]], ids[pair[1]]))
        yield from pairs
