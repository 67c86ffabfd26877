"""One choice of a request while the engine works on it. Engine thread."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from hocket.server.engine.batch import SampleRequest, SequenceSlice
from hocket.server.engine.blocks import BlockTable
from hocket.server.engine.commands import Logprobs
from hocket.server.engine.counts import TokenCounts
from hocket.server.engine.drafts import Drafts
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.text.assembly import TextAssembly


class Place(Enum):
    """Where a sequence stands."""

    REPLAYING = "replaying"  # what was written of it before is written again
    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(eq=False, slots=True, kw_only=True)
class Sequence:
    """Tokens known and tokens computed: a step lets the second catch up with the first.

    There are no phases. A new sequence knows its prompt and has computed nothing; a decoding one
    knows one token more than it has computed; one that was put aside without its blocks has
    everything to compute again.

    Attributes:
        sequence_id: Unique in the process; grows with arrival.
        request_id: Whose choice it is.
        group: Which sequences it shares its seats with.
        owner: Who asked for it.
        choice_index: Which choice.
        rank: Lower runs first; equal ones in the order of their ids.
        priority: Of its request; lower is more urgent.
        seed: Fixes its random draws, together with their positions.
        barred_token_ids: End and stop tokens, which must not come before `min_tokens`.
        token_ids: Prompt, then written tokens.
        prompt_length: How many of them are the prompt.
        num_resumed: How many of them were written before, of a stream that was lost.
        num_computed: How many of them the cache holds.
        copied_until: How many of its tokens come as copies of what others computed; it runs and
            computes none while `num_computed` is below.
        num_saved: Blocks kept aside for it while it waits.
        is_begun: Whether its tokens and its text are its own, and not those of all that wait.
        table: Its hot blocks.
        assembly: Turns its written tokens into text.
        counts: Of its tokens, as far as penalties asked for them; a preemption leaves them alone.
        drafts: Guesses at what it will write.
        logprobs: Of its written tokens that were not handed out yet, if they were asked for.
        prompt_logprobs: Of its prompt from the second token on, if they were asked for.
    """

    sequence_id: int
    request_id: str
    choice_index: int
    rank: int
    seed: int
    sampling: SamplingParams
    stopping: StoppingParams
    barred_token_ids: tuple[int, ...]
    token_ids: list[int]
    prompt_length: int
    assembly: TextAssembly
    group: str
    priority: int = 0
    owner: str = ""
    num_resumed: int = 0
    place: Place = Place.WAITING
    num_computed: int = 0
    copied_until: int = 0
    num_saved: int = 0
    is_begun: bool = False
    table: BlockTable = field(default_factory=BlockTable)
    counts: TokenCounts = field(default_factory=TokenCounts)
    drafts: Drafts = field(default_factory=Drafts)
    logprobs: list[Logprobs] = field(default_factory=list)
    prompt_logprobs: list[Logprobs] = field(default_factory=list)

    @property
    def num_pending(self) -> int:
        """Known tokens that are not computed; at least one while it runs."""
        return len(self.token_ids) - self.num_computed

    @property
    def num_written(self) -> int:
        """Tokens written."""
        return len(self.token_ids) - self.prompt_length

    @property
    def is_unproven(self) -> bool:
        """Whether it never got a token."""
        return self.num_written == self.num_resumed

    @property
    def is_decoding(self) -> bool:
        """Whether only its last written token is left to compute."""
        return self.num_pending == 1 and self.num_written > 0

    @property
    def is_copying(self) -> bool:
        """Whether it gets copies of computed tokens before it computes any."""
        return self.num_computed < self.copied_until

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether it tells of its prompt: the first choice does, for all."""
        return self.sampling.prompt_logprobs is not None and self.choice_index == 0

    @property
    def order(self) -> tuple[int, int]:
        """Sorts sequences: what is lower runs first."""
        return self.rank, self.sequence_id

    def note_prompt_logprobs(self, found: Iterable[Logprobs]) -> None:
        """Keep the log probabilities of the tokens that follow those just computed.

        Computed a second time after a preemption, they replace themselves.
        """
        for position, logprobs in enumerate(found, start=self.num_computed):
            if position < self.prompt_length - 1:
                self.prompt_logprobs[position : position + 1] = [logprobs]

    def slice(self, count: int, drafts: tuple[int, ...] = ()) -> SequenceSlice:
        """Return its next `count` tokens as work for a step, with drafts if these are the last."""
        end = self.num_computed + count
        is_last = end == len(self.token_ids)
        wants_prompt = self.sampling.prompt_logprobs if self.wants_prompt_logprobs else None
        if self.num_computed >= self.prompt_length - 1:
            wants_prompt = None
        return SequenceSlice(
            sequence_id=self.sequence_id,
            token_ids=[*self.token_ids[self.num_computed : end], *drafts],
            start=self.num_computed,
            prompt_length=self.prompt_length,
            block_table=self.table.blocks,
            samples=self._sample_requests(1 + len(drafts)) if is_last else (),
            prompt_logprobs=wants_prompt,
            next_token_id=None if is_last else self.token_ids[end],
        )

    def _sample_requests(self, count: int) -> tuple[SampleRequest, ...]:
        """Return requests for the next tokens; where there are counts, for one alone."""
        if self.sampling.needs_counts:
            self.counts.catch_up(self.token_ids, self.prompt_length)
        return tuple(
            SampleRequest(
                params=self.sampling,
                seed=self.seed,
                position=position,
                prompt_length=self.prompt_length,
                banned_token_ids=(
                    self.barred_token_ids
                    if position - self.prompt_length < self.stopping.min_tokens
                    else ()
                ),
                counts=self.counts if self.sampling.needs_counts else None,
            )
            for position in range(len(self.token_ids), len(self.token_ids) + count)
        )
