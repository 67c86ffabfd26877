"""A request inside the engine: its choices and where its time goes. Engine thread.

What waits is small: until it starts, a choice shares its prompt and its empty text with the others
of its request.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from hocket.server.engine.commands import (
    Completion,
    Finished,
    RequestOutput,
    Started,
    Submit,
    TextOutput,
    Timings,
)
from hocket.server.engine.endings import Bounds
from hocket.server.engine.resumption import Received
from hocket.server.engine.sequence import Place, Sequence
from hocket.server.errors import HocketError
from hocket.server.text.assembly import TextAssembly
from hocket.server.text.stopping import StopStrings
from hocket.server.text.tokenizer import Tokenizer


def choice_seed(seed: int, choice_index: int) -> int:
    """Return the 64-bit seed of a choice; the first keeps the request's own."""
    if choice_index == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/{choice_index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@dataclass(eq=False, slots=True, kw_only=True)
class Request:
    """A submitted request until its last output.

    Attributes:
        submit: What was asked for.
        tokenizer: The model's.
        stops: What ends its texts, shared by all of them.
        bounds: What may end them.
        received: How much of its text its reader has from a stream that was lost.
        sequences: Its choices that have not ended.
        completions: Those that have.
        texts: Pieces of this step that no output carries yet.
        prompt_sequence: The choice that tells of the prompt.
        is_started: Whether `Started` was handed out.
        started_at: When its first token was computed on.
        cached_tokens: Tokens of the prompt that the choice that started first found in the prefix
            cache.
        prefilled_at: When the prompt of a choice was computed first.
        first_token_at: When its first token was written.
        first_text_at: When its first piece was handed out.
    """

    submit: Submit
    tokenizer: Tokenizer
    stops: StopStrings
    bounds: Bounds
    received: Received
    sequences: list[Sequence] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    texts: list[TextOutput] = field(default_factory=list)
    prompt_sequence: Sequence | None = None
    is_started: bool = False
    started_at: float | None = None
    cached_tokens: int = 0
    prefilled_at: float | None = None
    first_token_at: float | None = None
    first_text_at: float | None = None

    @classmethod
    def of(
        cls,
        submit: Submit,
        tokenizer: Tokenizer,
        *,
        sequence_ids: Iterator[int],
        rank: int,
        max_context: int = sys.maxsize,
    ) -> Self:
        """Return a request with all its choices, none of them started.

        Args:
            submit: What is asked for.
            tokenizer: The model's.
            sequence_ids: Gives each choice its own.
            rank: Where its choices stand in the order of all; see `Scheduler.rank`.
            max_context: Most tokens that prompt and answer may have together.
        """
        stopping = submit.stopping
        stops = StopStrings(stopping.stop) if submit.stops is None else submit.stops
        request = cls(
            submit=submit,
            tokenizer=tokenizer,
            stops=stops,
            bounds=Bounds(
                stopping=stopping,
                end_token_ids=tokenizer.end_token_ids,
                room=max_context - len(submit.prompt_token_ids),
            ),
            received=Received(len(submit.resumed_token_ids), submit.received_bytes),
        )
        barred = tuple(sorted({*stopping.stop_token_ids, *tokenizer.end_token_ids}))
        prompt, assembly = list(submit.prompt_token_ids), request._assembly()
        request.sequences += [
            Sequence(
                sequence_id=next(sequence_ids),
                request_id=submit.request_id,
                group=submit.group or submit.request_id,
                owner=submit.owner,
                choice_index=index,
                rank=rank,
                priority=submit.priority,
                seed=choice_seed(submit.sampling.seed, index),
                sampling=submit.sampling,
                stopping=stopping,
                barred_token_ids=barred,
                token_ids=prompt,
                prompt_length=len(prompt),
                assembly=assembly,
            )
            for index in range(submit.choices)
        ]
        request.prompt_sequence = request.sequences[0]
        if submit.resumed_token_ids:
            (sequence,) = request.sequences
            request.part(sequence)
            sequence.num_resumed = len(submit.resumed_token_ids)
            sequence.place = Place.REPLAYING
        return request

    @property
    def is_replaying(self) -> bool:
        """Whether not all that was written of its text before is written again."""
        return any(sequence.place is Place.REPLAYING for sequence in self.sequences)

    def begin(self, sequence: Sequence, now: float) -> None:
        """Note that a choice is computed on; one that has nothing yet gets a text of its own."""
        if self.started_at is None:
            self.started_at = now
            # Of the prompt one token at least counts as computed, also where more was cached.
            most = sequence.prompt_length - 1
            self.cached_tokens = min(sequence.num_computed, most)
        if not sequence.is_begun:
            self.part(sequence)

    def part(self, sequence: Sequence) -> None:
        """Give a choice a prompt and a text of its own, which so far all that wait share."""
        sequence.is_begun = True
        sequence.token_ids = list(self.submit.prompt_token_ids)
        sequence.assembly = self._assembly()

    def output(self, now: float, *, failure: HocketError | None = None) -> RequestOutput | None:
        """Return what the step brought for it, or None if nothing; ends it where all is done."""
        started = None
        # A request that ends well while it waits has still told first what it is.
        ends_well = failure is None and not self.sequences
        if (self.started_at is not None or ends_well) and not self.is_started:
            self.is_started = True
            started = Started(
                prompt_tokens=len(self.submit.prompt_token_ids), cached_tokens=self.cached_tokens
            )
        texts: tuple[TextOutput, ...] = ()
        if self.is_started:  # what is left of a resumed text may be known before
            texts, self.texts = tuple(self.texts), []
        if texts and self.first_text_at is None:
            self.first_text_at = now
        finished = None if failure or self.sequences else self._finished(now)
        if not (started or texts or finished or failure):
            return None
        return RequestOutput(
            request_id=self.submit.request_id,
            started=started,
            texts=texts,
            finished=finished,
            failure=failure,
        )

    def _assembly(self) -> TextAssembly:
        return TextAssembly(
            self.tokenizer,
            stops=self.stops,
            granularity=self.submit.granularity,
            sentences=self.submit.sentences,
        )

    def _finished(self, now: float) -> Finished:
        arrived = self.submit.arrived
        started = now if self.started_at is None else self.started_at
        prefilled = now if self.prefilled_at is None else self.prefilled_at
        first = self.prompt_sequence
        return Finished(
            completions=tuple(sorted(self.completions, key=lambda completion: completion.index)),
            prompt_tokens=len(self.submit.prompt_token_ids),
            cached_tokens=self.cached_tokens,
            completion_tokens=sum(c.completion_tokens for c in self.completions),
            timings=Timings(
                queue=started - arrived,
                prefill=prefilled - started,
                first_token=_since(arrived, self.first_token_at),
                first_text=_since(arrived, self.first_text_at),
                total=now - arrived,
            ),
            prompt_logprobs=tuple(first.prompt_logprobs) if first else (),
        )


def _since(begin: float, moment: float | None) -> float | None:
    return None if moment is None else moment - begin
