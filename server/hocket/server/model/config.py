"""How a model is found and how it is run, as settings. Plain values; importing this needs no torch.

Any thread.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, MultipleOf


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSourceConfig:
    """Which model is served and where its weights come from.

    Attributes:
        model: A name that `hocket models` lists, the path of a GGUF file or of a folder, or a hub
            id such as `owner/name`.
        cache_dir: Folder that keeps pulled weights. Empty: `hocket` in the user's cache folder.
        model_dir: Folder that is searched for weights before anything is pulled. Empty: none.
        accept_licenses: Models whose terms have been read and accepted, by name.
        allow_hub: Whether a hub id may be fetched from the hub; what is cached is always found.
        allow_pull: Whether the weights of a named model are pulled when they are absent.
    """

    model: str = "smollm2"
    cache_dir: str = ""
    model_dir: str = ""
    accept_licenses: tuple[str, ...] = ()
    allow_hub: bool = True
    allow_pull: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerConfig:
    """How a decoder model is run.

    Attributes:
        device: Where the model is computed. `auto`: `cuda` where torch finds such a device, unless
            the kernels are asked for by name; else `cpu`.
        dtype: Number type of weights and cache in memory. `auto`: whichever the device computes
            faster with.
        kernels: Who computes. `native`: kernels that are compiled once, for x86-64 processors with
            AVX-512, its BF16 and its VNNI. `torch`: torch alone. `auto`: the kernels where they can
            be had.
        quantization: Whether the kernels compute with int8 weights. `auto`: if that leaves the
            perplexity of this very model within 1 % of bfloat16, which is measured once.
        block_size_tokens: Tokens in a KV block.
        kv_cache_mib: Memory for the KV cache of running sequences, in MiB.
        saved_kv_mib: Memory for the KV blocks of preempted sequences, in MiB; 0 recomputes them.
        prefix_cache_mib: Memory for copies of computed tokens, in MiB, so that sequences that begin
            with the same tokens need not compute them again; 0 turns it off. Callers with
            credentials of different names share nothing.
        num_threads: Threads that compute. 0: one for each physical core, or fewer, down to four,
            where a trial at start shows that these are faster; several workers share the cores
            without a trial.
        max_context_tokens: Most tokens of a sequence, prompt and completion. 0: the model's own
            bound.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    kernels: Literal["auto", "native", "torch"] = "auto"
    quantization: Literal["auto", "none", "int8"] = "auto"
    block_size_tokens: Annotated[int, Ge(8), Le(1024), MultipleOf(8)] = 64
    kv_cache_mib: Annotated[int, Ge(1), Le(1_048_576)] = 1024
    saved_kv_mib: Annotated[int, Ge(0), Le(1_048_576)] = 512
    prefix_cache_mib: Annotated[int, Ge(0), Le(1_048_576)] = 256
    num_threads: Annotated[int, Ge(0), Le(1024)] = 0
    max_context_tokens: Annotated[int, Ge(0), Le(10_000_000)] = 0
