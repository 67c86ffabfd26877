"""The engine's settings. Any thread."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How much one step does, and how many are done side by side.

    Attributes:
        workers: Engines that compute side by side with the same weights, each with a thread of its
            own and an equal part of `runner.num_threads`, `runner.kv_cache_mib`,
            `runner.saved_kv_mib` and `runner.prefix_cache_mib`; each finds only the prefixes that
            it computed itself, and a sequence cannot outgrow the cache of its worker. The bounds of
            a step hold for each. More than one pays where a step cannot keep all cores busy.
        max_num_seqs: Most sequences in the batch.
        max_step_tokens: Most tokens that a step computes; those of a prompt count for more the
            further they look back. Bounds how long an abort waits. At least `max_num_seqs`: each
            stream gets a token in every step, prompts share the rest.
        max_step_ms: Milliseconds that a step may take, by what the model was measured to take at
            start: bounds the gap between tokens that a long prompt may cause. A step of streams
            that takes more than half of this without prompts may take twice as long with them; and
            while more groups (see `narrow_slowdown`) wait for their first token than are being
            written, `max_step_tokens` alone counts. 0: it always does.
        narrow_slowdown: How many times as long as alone a step may take for groups that hold at
            most half as many sequences as the widest: so far does a document give way to a single
            call beside it. A group is a request with its choices, a document, a corpus job, or a
            stream of many requests.
        speculate_up_to: While at most so many sequences run, and none of them reads its prompt,
            tokens are guessed from what stood in the sequence before, and several are verified in
            one step. Changes no text; only where the kernels compute. Takes up to 480 bytes for
            each token of so many sequences, beside `runner.kv_cache_mib`: 4 MiB for one of 8,192
            tokens. 0: never.
        mailbox_kib: Most text and tokens that wait for the reader of one request, in KiB; above it
            the request fails with READER_TOO_SLOW.
        delivery: When a step's outputs reach their readers. `strict`: before the next step begins.
            `overlapped`: while it runs, so that no step waits for them; an abort that they lead to
            takes a step longer.
    """

    workers: Annotated[int, Ge(1), Le(64)] = 1
    max_num_seqs: Annotated[int, Ge(1), Le(1024)] = 32
    max_step_tokens: Annotated[int, Ge(1), Le(65536)] = 512
    max_step_ms: Annotated[float, Ge(0), Le(60_000)] = 30.0
    narrow_slowdown: Annotated[float, Ge(1), Le(1_000)] = 1.5
    speculate_up_to: Annotated[int, Ge(0), Le(1024)] = 1
    mailbox_kib: Annotated[int, Ge(1), Le(65536)] = 1024
    delivery: Literal["strict", "overlapped"] = "strict"

    def __post_init__(self) -> None:
        """Refuse a step in which some sequence would stand still.

        Raises:
            ValueError: A step has fewer tokens than sequences.
        """
        if self.max_step_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_step_tokens is {self.max_step_tokens}, but must be at least max_num_seqs,"
                f" which is {self.max_num_seqs}: each sequence gets a token in every step"
            )
