"""A request inside the engine: its choices and where its time goes. Engine thread."""

from dataclasses import dataclass, field

from hocket.server.engine.commands import (
    Completion,
    Finished,
    RequestOutput,
    Started,
    Submit,
    TextOutput,
    Timings,
)
from hocket.server.engine.sequence import Sequence
from hocket.server.errors import HocketError


@dataclass(eq=False, slots=True, kw_only=True)
class Request:
    """A submitted request until its last output.

    Attributes:
        submit: What was asked for.
        sequences: Its choices that have not ended.
        completions: Those that have.
        texts: Pieces of this step that no output carries yet.
        is_started: Whether `Started` was handed out.
        started_at: When its first token was computed on.
        prefilled_at: When the prompt of a choice was computed first.
        first_token_at: When its first token was written.
        first_text_at: When its first piece was handed out.
    """

    submit: Submit
    sequences: list[Sequence] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    texts: list[TextOutput] = field(default_factory=list)
    prompt_sequence: Sequence | None = None
    is_started: bool = False
    started_at: float | None = None
    prefilled_at: float | None = None
    first_token_at: float | None = None
    first_text_at: float | None = None

    def output(self, now: float, *, failure: HocketError | None = None) -> RequestOutput | None:
        """Return what the step brought for it, or None if nothing; ends it where all is done."""
        started = None
        # A request that ends well while it waits has still told first what it is.
        ends_well = failure is None and not self.sequences
        if (self.started_at is not None or ends_well) and not self.is_started:
            self.is_started = True
            started = Started(prompt_tokens=len(self.submit.prompt_token_ids), cached_tokens=0)
        if self.texts and self.first_text_at is None:
            self.first_text_at = now
        finished = None if failure or self.sequences else self._finished(now)
        texts, self.texts = tuple(self.texts), []
        if not (started or texts or finished or failure):
            return None
        return RequestOutput(
            request_id=self.submit.request_id,
            started=started,
            texts=texts,
            finished=finished,
            failure=failure,
        )

    def _finished(self, now: float) -> Finished:
        arrived = self.submit.arrived
        started = now if self.started_at is None else self.started_at
        prefilled = now if self.prefilled_at is None else self.prefilled_at
        first = self.prompt_sequence
        return Finished(
            completions=tuple(sorted(self.completions, key=lambda completion: completion.index)),
            prompt_tokens=len(self.submit.prompt_token_ids),
            cached_tokens=0,
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
