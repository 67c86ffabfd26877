"""The engine's numbers, as frozen snapshots made by the engine's thread and read by any."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatistics:
    """The engine at the end of a step. Counters only grow.

    Attributes:
        steps: Steps that computed something.
        step_seconds: How long the last of them took.
        running_sequences: Sequences in the batch.
        waiting_sequences: Sequences that wait to start or to resume.
        blocks_total: KV blocks in all.
        blocks_used: KV blocks that hold tokens.
        saved_blocks: Blocks of preempted sequences kept aside.
        prefix_chunks_total: Chunks that the prefix cache can keep.
        prefix_chunks_used: Chunks that it keeps.
        prefix_queried_tokens: Tokens of sequences that started and looked for their prefix.
        prefix_hit_tokens: Of these, how many they found.
        prefill_tokens: Prompt tokens computed.
        decode_tokens: Tokens written.
        draft_tokens: Guesses that were computed in the hope that they would be written.
        accepted_tokens: Those of them that were right.
        preemptions: Sequences put aside, for want of blocks or in the place of others.
        yields: Of these, those that gave their place to a group that had less.
        finished_requests: Requests that ended well.
        failed_requests: Requests that failed.
        last_step_at: When the last step ended, in seconds of the monotonic clock.
    """

    steps: int = 0
    step_seconds: float = 0.0
    running_sequences: int = 0
    waiting_sequences: int = 0
    blocks_total: int = 0
    blocks_used: int = 0
    saved_blocks: int = 0
    prefix_chunks_total: int = 0
    prefix_chunks_used: int = 0
    prefix_queried_tokens: int = 0
    prefix_hit_tokens: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    preemptions: int = 0
    yields: int = 0
    finished_requests: int = 0
    failed_requests: int = 0
    last_step_at: float = 0.0


def total(snapshots: Sequence[EngineStatistics]) -> EngineStatistics:
    """Return the numbers of several engines as if they were one: sums, and the newest times."""
    newest = max(snapshots, key=lambda snapshot: snapshot.last_step_at)
    sums = {
        each.name: sum(getattr(snapshot, each.name) for snapshot in snapshots)
        for each in fields(EngineStatistics)
        if isinstance(getattr(newest, each.name), int)
    }
    return replace(newest, **sums)
