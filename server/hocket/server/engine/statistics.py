"""The engine's numbers, as frozen snapshots made by the engine's thread and read by any."""

from dataclasses import dataclass


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
        preemptions: Sequences put aside for want of blocks.
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
    preemptions: int = 0
    finished_requests: int = 0
    failed_requests: int = 0
    last_step_at: float = 0.0
