"""The heart of the engine: one step at a time, in plain Python. Engine thread.

    apply commands ▸ drop what expired ▸ schedule ▸ run the model ▸ tokens to text ▸ outputs

`step` is synchronous and deterministic: the same commands and clock give the same outputs, so tests
turn the crank by hand. Nothing here knows torch, asyncio or gRPC.
"""

import hashlib
from collections.abc import Callable, Iterable

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
from hocket.server.engine.isolation import FAULT, execute_isolated
from hocket.server.engine.request import Request
from hocket.server.engine.scheduler import Scheduler, Work
from hocket.server.engine.sequence import Sequence
from hocket.server.engine.statistics import EngineStatistics
from hocket.server.errors import GenerationFailed, HocketError, QueueTimeout
from hocket.server.text.assembly import AssembledPiece, TextAssembly
from hocket.server.text.tokenizer import Tokenizer

# Steps in a row that may bring nothing but faults before the model is held to be broken.
_MOST_BARREN_STEPS = 16


def choice_seed(seed: int, choice_index: int) -> int:
    """Return the 64-bit seed of a choice; the first keeps the request's own."""
    if choice_index == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/{choice_index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


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
    ) -> None:
        """Make an engine.

        Args:
            runner: The model.
            tokenizer: Its tokenizer.
            config: Bounds of a step.
            clock: Seconds of a monotonic clock; the one that `Submit.deadline` was read from.
            on_fault: Told of exceptions that cost one sequence its life, for the log.
        """
        self._runner = runner
        self._tokenizer = tokenizer
        self._clock = clock
        self._on_fault = on_fault
        self._max_context = min(
            runner.limits.max_context_tokens, runner.limits.num_blocks * runner.limits.block_size
        )
        self._scheduler = Scheduler(runner, config)
        self._requests: dict[str, Request] = {}
        self._outputs: list[RequestOutput] = []
        self._next_id = 0
        self._statistics = EngineStatistics(blocks_total=runner.limits.num_blocks)
        self._prefill_tokens = self._decode_tokens = 0
        self._steps = self._finished = self._failed = 0
        self._step_seconds = 0.0
        self._barren_steps = 0

    def step(self, commands: Iterable[Command]) -> StepOutputs:
        """Apply commands, compute one batch, and return what came of it.

        Raises:
            Exception: The model is broken; the engine cannot go on.
        """
        begun = self._clock()
        for command in commands:
            self._apply(command, begun)
        self._expire(begun)
        work = self._scheduler.schedule()
        for item in work:
            request = self._requests[item.sequence.request_id]
            request.started_at = begun if request.started_at is None else request.started_at
        results = self._compute(work)
        now = self._clock()
        for item, result in zip(work, results, strict=True):
            if item.sequence.request_id in self._requests:
                self._take(item, result, now)
        self._collect(now)
        if work:
            self._steps += 1
            self._step_seconds = now - begun
        outputs, self._outputs = tuple(self._outputs), []
        return StepOutputs(
            outputs=outputs, has_work=self._scheduler.has_work, statistics=self._snapshot(now)
        )

    def check_integrity(self) -> None:
        """Raise if the books do not balance: blocks, tables, sequences, requests."""
        self._scheduler.check_integrity()
        held = {id(s) for request in self._requests.values() for s in request.sequences}
        if held != {id(s) for s in (*self._scheduler.waiting, *self._scheduler.running)}:
            raise AssertionError("requests and scheduler hold different sequences. This is a bug.")

    def _apply(self, command: Command, now: float) -> None:
        match command:
            case Submit():
                self._submit(command)
            case Abort(request_id=request_id, reason=reason):
                if request := self._requests.get(request_id):
                    self._end_all(request, reason, now)

    def _submit(self, submit: Submit) -> None:
        if submit.request_id in self._requests:
            raise AssertionError("a request id was submitted twice. This is a bug.")
        if not 0 < len(submit.prompt_token_ids) < self._max_context:
            raise AssertionError("a prompt does not fit the cache. This is a bug.")
        request = Request(submit=submit)
        barred = {*submit.stopping.stop_token_ids, *self._tokenizer.end_token_ids}
        for index in range(submit.choices):
            sequence = Sequence(
                sequence_id=self._next_id,
                request_id=submit.request_id,
                choice_index=index,
                priority=submit.priority,
                seed=choice_seed(submit.sampling.seed, index),
                sampling=submit.sampling,
                stopping=submit.stopping,
                barred_token_ids=tuple(sorted(barred)),
                token_ids=list(submit.prompt_token_ids),
                prompt_length=len(submit.prompt_token_ids),
                assembly=TextAssembly(
                    self._tokenizer,
                    stops=submit.stopping.stop,
                    granularity=submit.granularity,
                    sentences=submit.sentences,
                ),
            )
            self._next_id += 1
            request.sequences.append(sequence)
            self._scheduler.add(sequence)
        request.prompt_sequence = request.sequences[0]
        self._requests[submit.request_id] = request

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
        newcomers = {item.sequence.sequence_id for item in work if item.sequence.num_computed == 0}

        def is_suspect(piece: SequenceSlice) -> bool:
            return piece.sequence_id in newcomers

        slices = [item.sequence.slice(item.count) for item in work]
        results = execute_isolated(
            self._runner, slices, is_suspect=is_suspect, on_fault=self._on_fault
        )
        if results:
            is_barren = all(result.failure == FAULT for result in results)
            self._barren_steps = self._barren_steps + 1 if is_barren else 0
            if self._barren_steps >= _MOST_BARREN_STEPS:
                raise RuntimeError(
                    f"{_MOST_BARREN_STEPS} steps in a row brought nothing but faults"
                )
        return results

    def _take(self, item: Work, result: SliceResult, now: float) -> None:
        """Commit what a slice brought."""
        sequence, request = item.sequence, self._requests[item.sequence.request_id]
        if result.failure is not None:
            self._fail(request, GenerationFailed(result.failure), now)
            return
        self._count(sequence, item.count)
        sequence.note_prompt_logprobs(result.prompt_logprobs)
        sequence.num_computed += item.count
        if request.prefilled_at is None and sequence.num_computed >= sequence.prompt_length:
            request.prefilled_at = now
        if result.token is None:
            return
        try:
            self._append(request, sequence, result.token, now)
        except Exception as error:  # noqa: BLE001 - one text must not take the others with it
            self._on_fault(error)
            self._fail(request, GenerationFailed("text"), now)

    def _append(
        self, request: Request, sequence: Sequence, token: SampledToken, now: float
    ) -> None:
        """Add a drawn token to a sequence and end it if the token does."""
        sequence.token_ids.append(token.token_id)
        if token.logprobs is not None:
            sequence.logprobs.append(token.logprobs)
        if request.first_token_at is None:
            request.first_token_at = now
        stopping = sequence.stopping
        is_end = token.token_id in self._tokenizer.end_token_ids and not stopping.ignore_eos
        is_stop = token.token_id in stopping.stop_token_ids
        if is_end or is_stop:
            self._hand_out(request, sequence, sequence.assembly.push_silent())
            reason = FinishReason.STOP_TOKEN if is_stop else FinishReason.END_OF_TEXT
            self._end(request, sequence, reason, stop_token_id=token.token_id)
            return
        self._hand_out(request, sequence, sequence.assembly.push(token.token_id))
        if sequence.assembly.stop_string is not None:
            self._end(request, sequence, FinishReason.STOP_STRING)
        elif sequence.num_written >= stopping.max_tokens:
            self._end(request, sequence, FinishReason.MAX_TOKENS)
        elif len(sequence.token_ids) >= self._max_context:
            self._end(request, sequence, FinishReason.CONTEXT_FULL)

    def _end(
        self,
        request: Request,
        sequence: Sequence,
        reason: FinishReason,
        *,
        stop_token_id: int | None = None,
    ) -> None:
        """End one choice; what its assembly holds is handed out first."""
        self._hand_out(request, sequence, sequence.assembly.finish())
        stop_string = sequence.assembly.stop_string
        if stop_string is not None and stop_token_id is None:
            reason = FinishReason.STOP_STRING
        self._scheduler.remove(sequence)
        request.sequences.remove(sequence)
        request.completions.append(
            Completion(
                index=sequence.choice_index,
                finish_reason=reason,
                stop_string=stop_string if reason is FinishReason.STOP_STRING else None,
                stop_token_id=stop_token_id,
                completion_tokens=sequence.num_written,
                text_bytes=sequence.assembly.text_bytes,
            )
        )

    def _end_all(self, request: Request, reason: FinishReason, now: float) -> None:
        for sequence in tuple(request.sequences):
            try:
                self._end(request, sequence, reason)
            except Exception as error:  # noqa: BLE001 - one text must not take the others with it
                self._on_fault(error)
                self._fail(request, GenerationFailed("text"), now)
                return

    def _fail(self, request: Request, failure: HocketError, now: float) -> None:
        for sequence in request.sequences:
            self._scheduler.remove(sequence)
        request.sequences.clear()
        del self._requests[request.submit.request_id]
        self._failed += 1
        output = request.output(now, failure=failure)
        self._outputs.extend([output] if output else [])

    def _hand_out(self, request: Request, sequence: Sequence, pieces: list[AssembledPiece]) -> None:
        written = sequence.prompt_length
        for assembled in pieces:
            begin = assembled.first_token
            end = begin + assembled.token_count
            request.texts.append(
                TextOutput(
                    choice_index=sequence.choice_index,
                    piece=assembled.piece,
                    token_ids=tuple(sequence.token_ids[written + begin : written + end]),
                    logprobs=tuple(sequence.logprobs[begin:end]),
                )
            )

    def _collect(self, now: float) -> None:
        for request in tuple(self._requests.values()):
            output = request.output(now)
            if output is None:
                continue
            self._outputs.append(output)
            if output.is_last:
                del self._requests[request.submit.request_id]
                self._finished += 1

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
            waiting_sequences=len(scheduler.waiting),
            blocks_total=scheduler.pool.total,
            blocks_used=scheduler.pool.used,
            saved_blocks=scheduler.saved_blocks,
            prefill_tokens=self._prefill_tokens,
            decode_tokens=self._decode_tokens,
            preemptions=scheduler.preemptions,
            finished_requests=self._finished,
            failed_requests=self._failed,
            last_step_at=now,
        )
