"""The heart of the engine: one step at a time, in plain Python. Engine thread.

    apply commands ▸ drop what expired ▸ schedule ▸ run the model ▸ tokens to text ▸ outputs

`step` is synchronous and deterministic: the same commands and clock give the same outputs, so tests
turn the crank by hand. Nothing here knows torch, asyncio or gRPC.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count

from hocket.server.engine.batch import ModelRunner, SampledToken, SequenceSlice, SliceResult
from hocket.server.engine.commands import (
    Abort,
    Command,
    Completion,
    FinishReason,
    RequestOutput,
    StepOutputs,
    Submit,
    TextOutput,
)
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.isolation import Isolation
from hocket.server.engine.plan import Work
from hocket.server.engine.request import Request
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.engine.scheduler import Scheduler
from hocket.server.engine.sequence import Place, Sequence
from hocket.server.engine.statistics import EngineStatistics
from hocket.server.errors import GenerationFailed, HocketError, QueueTimeout
from hocket.server.text.assembly import AssembledPiece
from hocket.server.text.tokenizer import Tokenizer

_CANARY_ID = -1  # no other sequence has it
_CANARY_TOKEN = 0  # every vocabulary has it

# Of lost texts, in one step: a millisecond or two of work.
_REPLAYED_TOKENS = 256


class EngineCore:
    """Runs many requests on one model, a step at a time."""

    def __init__(
        self,
        runner: ModelRunner,
        tokenizer: Tokenizer,
        config: EngineConfig,
        clock: Callable[[], float],
        *,
        on_fault: Callable[[Exception], None] = lambda _: None,
        on_setback: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """Make an engine.

        Args:
            runner: The model.
            tokenizer: Its tokenizer.
            config: Bounds of a step.
            clock: Seconds of a monotonic clock; the one that `Submit.deadline` was read from.
            on_fault: Told of exceptions that may cost a sequence its life, for the log.
            on_setback: Told of those that cost nobody anything but time.
        """
        self._runner = runner
        self._tokenizer = tokenizer
        self._clock = clock
        self._on_fault = on_fault
        self._max_context = min(
            runner.limits.max_context_tokens, runner.limits.num_blocks * runner.limits.block_size
        )
        self._scheduler = Scheduler(runner, config, on_setback)
        self._isolation = Isolation(runner, self._scheduler.pool, _canary(tokenizer), on_fault)
        self._requests: dict[str, Request] = {}
        self._replaying: deque[Request] = deque()
        self._outputs: list[RequestOutput] = []
        self._sequence_ids = count()
        self._statistics = EngineStatistics(blocks_total=runner.limits.num_blocks)
        self._prefill_tokens = self._decode_tokens = 0
        self._draft_tokens = self._accepted_tokens = 0
        self._steps = self._finished = self._failed = 0
        self._step_seconds = 0.0

    def step(self, commands: Iterable[Command]) -> StepOutputs:
        """Apply commands, compute one batch, and return what came of it.

        Raises:
            Exception: The model is broken; the engine cannot go on.
        """
        begun = self._clock()
        for command in commands:
            self._apply(command, begun)
        self._expire(begun)
        self._replay(begun)
        work = self._scheduler.schedule()
        for item in work:
            self._requests[item.sequence.request_id].begin(item.sequence, begun)
        results = self._compute(work)
        now = self._clock()
        for item, result in zip(work, results, strict=True):
            if item.sequence.request_id in self._requests:
                self._take(item, result, now)
        self._isolation.settle()
        self._collect(now)
        if work:
            self._steps += 1
            self._step_seconds = now - begun
        outputs, self._outputs = tuple(self._outputs), []
        return StepOutputs(
            outputs=outputs,
            has_work=self._scheduler.has_work or bool(self._replaying),
            statistics=self._snapshot(now),
        )

    def check_integrity(self) -> None:
        """Raise if the books do not balance: blocks, tables, sequences, requests."""
        self._scheduler.check_integrity()
        requests = [each for each in self._requests.values() if not each.is_replaying]
        held = {id(s) for request in requests for s in request.sequences}
        if held != {id(s) for s in (*self._scheduler.seats.waiting, *self._scheduler.running)}:
            raise AssertionError("requests and scheduler hold different sequences. This is a bug.")

    def _apply(self, command: Command, now: float) -> None:
        match command:
            case Submit():
                self._submit(command, now)
            case Abort():
                if request := self._requests.get(command.request_id):
                    untold = len(request.texts)
                    self._end_all(request, command.reason, now)
                    if command.is_cut and request.submit.is_resumable:
                        del request.texts[untold:]

    def _submit(self, submit: Submit, now: float) -> None:
        """Let a request in; one that cannot be fails alone, since the slip is ours."""
        try:
            request = self._begin(submit)
        except Exception as error:  # noqa: BLE001 - one request must not take the others with it
            self._on_fault(error)
            failure = GenerationFailed("submit")
            if namesake := self._requests.get(submit.request_id):
                self._fail(namesake, failure, now)  # both have one reader, who is told once
            else:
                self._failed += 1
                self._outputs.append(RequestOutput(request_id=submit.request_id, failure=failure))
            return
        self._requests[submit.request_id] = request
        if request.is_replaying:
            self._replaying.append(request)
            return
        for sequence in request.sequences:
            self._scheduler.add(sequence)

    def _begin(self, submit: Submit) -> Request:
        if submit.request_id in self._requests:
            raise AssertionError("a request id was submitted twice. This is a bug.")
        if not 0 < len(submit.prompt_token_ids) < self._max_context:
            raise AssertionError("a prompt does not fit the cache. This is a bug.")
        return Request.of(
            submit,
            self._tokenizer,
            sequence_ids=self._sequence_ids,
            rank=self._scheduler.rank(submit.priority),
            max_context=self._max_context,
        )

    def _replay(self, now: float) -> None:
        """Write lost texts again, as many of their known tokens as a step has time for."""
        budget = _REPLAYED_TOKENS
        while self._replaying and budget:
            request = self._replaying[0]
            if request.is_replaying:
                budget -= self._replay_part(request, budget, now)
            if not request.is_replaying:
                self._replaying.popleft()

    def _replay_part(self, request: Request, most: int, now: float) -> int:
        """Write some tokens of a lost text again; behind the last one it waits, or has ended."""
        (sequence,) = request.sequences
        token_ids = request.submit.resumed_token_ids[sequence.num_written :][:most]
        try:
            for token_id in token_ids:
                if not request.sequences:
                    raise AssertionError("a text goes on behind its end. This is a bug.")  # noqa: TRY301 - told like any other
                sequence.token_ids.append(token_id)
                if completion := self._write(request, sequence, token_id):
                    self._end(request, sequence, completion)
        except Exception as error:  # noqa: BLE001 - one text must not take the others with it
            self._on_fault(error)
            self._fail(request, GenerationFailed("text"), now)
        if request.sequences and sequence.num_written == sequence.num_resumed:
            sequence.place = Place.WAITING
            self._scheduler.add(sequence)
        return len(token_ids)

    def _expire(self, now: float) -> None:
        for request in tuple(self._requests.values()):
            deadline = request.submit.deadline
            if deadline is None or now < deadline:
                continue
            if request.started_at is None:
                self._fail(request, QueueTimeout(), now)
            else:
                self._end_all(request, FinishReason.TIME_BUDGET, now)

    def _compute(self, work: list[Work]) -> list[SliceResult]:
        unproven = {item.sequence.sequence_id for item in work if item.sequence.is_unproven}

        def is_suspect(piece: SequenceSlice) -> bool:
            return piece.sequence_id in unproven

        return self._isolation.execute(
            [item.sequence.slice(item.count, item.drafts) for item in work], is_suspect
        )

    def _take(self, item: Work, result: SliceResult, now: float) -> None:
        """Commit what a slice brought."""
        sequence, request = item.sequence, self._requests[item.sequence.request_id]
        if result.failure is not None:
            self._fail(request, GenerationFailed(result.failure), now)
            return
        self._count(sequence, item.count)
        sequence.note_prompt_logprobs(result.prompt_logprobs)
        sequence.num_computed += item.count
        self._scheduler.prefixes.keep(sequence, item.count)
        if request.prefilled_at is None and sequence.num_computed >= sequence.prompt_length:
            request.prefilled_at = now
        self._note_drafts(item, result)
        for index, token in enumerate(result.tokens):
            if index > 0:  # the draft in the place of the token before it was right
                sequence.num_computed += 1
                self._scheduler.prefixes.keep(sequence, 1)
                self._decode_tokens += 1
            try:
                completion = self._append(request, sequence, token, now)
            except Exception as error:  # noqa: BLE001 - one text must not take the others with it
                self._on_fault(error)
                self._fail(request, GenerationFailed("text"), now)
                return
            if completion is not None:
                self._end(request, sequence, completion)
                return

    def _append(
        self, request: Request, sequence: Sequence, token: SampledToken, now: float
    ) -> Completion | None:
        """Add a drawn token to a sequence; return how it ended if the token ended it."""
        sequence.token_ids.append(token.token_id)
        if token.logprobs is not None:
            sequence.logprobs.append(token.logprobs)
        if request.first_token_at is None:
            request.first_token_at = now
        return self._write(request, sequence, token.token_id)

    def _write(self, request: Request, sequence: Sequence, token_id: int) -> Completion | None:
        """Make text of a sequence's newest token; return how the sequence ended if it did."""
        pieces, ending = request.bounds.push(sequence.assembly, token_id)
        self._hand_out(request, sequence, pieces)
        if ending is None:
            return None
        return self._complete(request, sequence, ending.reason, stop_token_id=ending.stop_token_id)

    def _complete(
        self,
        request: Request,
        sequence: Sequence,
        reason: FinishReason,
        *,
        stop_token_id: int | None = None,
    ) -> Completion:
        """Hand out what the assembly of a choice holds, and tell how the choice ended."""
        self._hand_out(request, sequence, sequence.assembly.finish())
        stop_string = sequence.assembly.stop_string
        if stop_string is not None and stop_token_id is None:
            reason = FinishReason.STOP_STRING
        return Completion(
            index=sequence.choice_index,
            finish_reason=reason,
            stop_string=stop_string if reason is FinishReason.STOP_STRING else None,
            stop_token_id=stop_token_id,
            completion_tokens=sequence.num_written,
            text_bytes=sequence.assembly.text_bytes,
        )

    def _end(self, request: Request, sequence: Sequence, completion: Completion) -> None:
        """Take a choice out; what raises here concerns the blocks of all, and is nobody's own."""
        self._scheduler.remove(sequence)
        request.sequences.remove(sequence)
        request.completions.append(completion)

    def _end_all(self, request: Request, reason: FinishReason, now: float) -> None:
        if request.is_replaying:  # its reader has all of that
            self._replay_part(request, sys.maxsize, now)
        for sequence in tuple(request.sequences):
            try:
                completion = self._complete(request, sequence, reason)
            except Exception as error:  # noqa: BLE001 - one text must not take the others with it
                self._on_fault(error)
                self._fail(request, GenerationFailed("text"), now)
                return
            self._end(request, sequence, completion)

    def _fail(self, request: Request, failure: HocketError, now: float) -> None:
        for sequence in request.sequences:
            self._scheduler.remove(sequence)
        request.sequences.clear()
        del self._requests[request.submit.request_id]
        self._failed += 1
        output = request.output(now, failure=failure)
        self._outputs.extend([output] if output else [])

    def _hand_out(self, request: Request, sequence: Sequence, pieces: list[AssembledPiece]) -> None:
        for piece in pieces:
            assembled = request.received.rest_of(piece)
            if assembled is None:
                continue
            begin = sequence.prompt_length + assembled.first_token
            request.texts.append(
                TextOutput(
                    choice_index=sequence.choice_index,
                    piece=assembled.piece,
                    token_ids=tuple(sequence.token_ids[begin : begin + assembled.token_count]),
                    logprobs=tuple(sequence.logprobs[: assembled.token_count]),
                )
            )
            # They are many times as heavy as text, and pieces take them in order.
            del sequence.logprobs[: assembled.token_count]

    def _collect(self, now: float) -> None:
        for request in tuple(self._requests.values()):
            output = request.output(now)
            if output is None:
                continue
            self._outputs.append(output)
            if output.is_last:
                del self._requests[request.submit.request_id]
                self._finished += 1

    def _note_drafts(self, item: Work, result: SliceResult) -> None:
        if item.drafts:
            drafted, accepted = len(item.drafts), len(result.tokens) - 1
            item.sequence.drafts.note(drafted, accepted)
            self._draft_tokens += drafted
            self._accepted_tokens += accepted

    def _count(self, sequence: Sequence, count: int) -> None:
        decoded = 1 if sequence.is_decoding else 0
        self._decode_tokens += decoded
        self._prefill_tokens += count - decoded

    def _snapshot(self, now: float) -> EngineStatistics:
        scheduler = self._scheduler
        return EngineStatistics(
            steps=self._steps,
            step_seconds=self._step_seconds,
            running_sequences=len(scheduler.running),
            waiting_sequences=scheduler.seats.num_waiting + len(self._replaying),
            blocks_total=scheduler.pool.total,
            blocks_used=scheduler.pool.used,
            saved_blocks=scheduler.saved_blocks,
            prefix_chunks_total=scheduler.prefixes.index.total,
            prefix_chunks_used=scheduler.prefixes.index.used,
            prefix_queried_tokens=scheduler.prefixes.queried_tokens,
            prefix_hit_tokens=scheduler.prefixes.hit_tokens,
            prefill_tokens=self._prefill_tokens,
            decode_tokens=self._decode_tokens,
            draft_tokens=self._draft_tokens,
            accepted_tokens=self._accepted_tokens,
            preemptions=scheduler.preemptions,
            yields=scheduler.yields,
            finished_requests=self._finished,
            failed_requests=self._failed,
            last_step_at=now,
        )


def _canary(tokenizer: Tokenizer) -> Sequence:
    """Return a sequence of one token, by which a model shows that it still computes."""
    submit = Submit(
        request_id="",
        prompt_token_ids=(_CANARY_TOKEN,),
        sampling=SamplingParams(),
        stopping=StoppingParams(max_tokens=1),
    )
    request = Request.of(submit, tokenizer, sequence_ids=iter((_CANARY_ID,)), rank=0)
    return request.sequences[0]
