"""From protobuf to the engine's own types: field violations are born here and nowhere else.

Two halves, since tokenising takes time: `check` looks at every field on the loop's thread, before
anything is done for the request, and keeps nothing of the message; `Checked.encode` runs on a text
thread and meets the prompt's length and what the answer may weigh.
"""

import dataclasses
import secrets
from dataclasses import dataclass
from typing import Self

from hocket.server.catalogue import ServedModel
from hocket.server.engine.commands import Submit
from hocket.server.engine.endings import Bounds
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.errors import FieldViolation, InvalidRequest, Reason
from hocket.server.rpc.inputs import Input, max_prompt_tokens, parse_input
from hocket.server.rpc.limits import REQUEST_ID, Violations
from hocket.server.rpc.parse_options import (
    default_max_tokens,
    parse_budget,
    parse_granularity,
    parse_sampling,
    parse_sentences,
    parse_stopping,
)
from hocket.server.rpc.resume import LostStream, can_resume, check_received, parse_resume
from hocket.server.rpc.resume_tokens import Bond
from hocket.server.rpc.weights import finished_bytes, piece_bytes
from hocket.server.text.assembly import TextAssembly
from hocket.server.text.pieces import Granularity, SentenceOptions
from hocket.server.text.stopping import StopStrings
from hocket.v1 import generation_pb2


def max_completion_tokens(model: ServedModel) -> int:
    """Return the most tokens that an answer may have: all of the context but one of prompt."""
    return model.limits.max_context_tokens - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A request whose fields are good; only its input is not tokenised yet.

    Attributes:
        request_id: Given or made.
        model: Who answers.
        owner: Who asks.
        input: What is continued.
        sampling: How tokens are drawn.
        stopping: When the text ends; `max_tokens` holds only if `has_max_tokens`.
        has_max_tokens: Whether the caller set it.
        choices: How many answers; each takes a place in the batch.
        granularity: In which pieces text is handed out.
        sentences: How sentences are cut, where that is asked for.
        priority: Lower runs first.
        arrived: When it had been read, in seconds of the monotonic clock.
        deadline: When it is no longer wanted, of the same clock.
        max_message_bytes: The longest message that can be sent.
        bond: What a token for going on with its stream is bound to; None where none can be.
        lost: What the caller has of a stream that is gone on with.
    """

    request_id: str
    model: ServedModel
    owner: str
    input: Input
    sampling: SamplingParams
    stopping: StoppingParams
    has_max_tokens: bool
    choices: int
    granularity: Granularity
    sentences: SentenceOptions
    priority: int
    arrived: float
    deadline: float | None
    max_message_bytes: int
    bond: Bond | None = None
    lost: LostStream | None = None

    def with_seed(self, seed: int) -> Self:
        """Return the same, drawn as another seed has it."""
        return dataclasses.replace(self, sampling=dataclasses.replace(self.sampling, seed=seed))

    def encode(self) -> Submit:
        """Tokenise the input and return what the engine takes. Text thread.

        Raises:
            InvalidRequest: The input is empty, too long, or refused by the chat template; or what
                is told of its tokens, or of those written, might not fit into a message; or the
                stream that is gone on with cannot have come so far.
        """
        token_ids = self.input.encode()
        if not token_ids:
            raise InvalidRequest(
                FieldViolation(field=self.input.field, description="must hold at least one token"),
                reason=Reason.PROMPT_EMPTY,
            )
        size = self.model.limits.vocabulary_size
        if max(token_ids) >= size:
            # Some tokenizers know tokens that their model has no embedding for.
            stray = next(token_id for token_id in token_ids if token_id >= size)
            raise InvalidRequest.of(
                self.input.field, f"holds the token {stray}, which the model cannot read"
            )
        violations = Violations()
        most = max_prompt_tokens(self.model)
        if len(token_ids) > most:
            violations.add_too_long(self.input.field, len(token_ids), most)
            violations.raise_any()
        room = self.model.limits.max_context_tokens - len(token_ids)
        stopping = self.stopping
        if not self.has_max_tokens:
            max_tokens = default_max_tokens(stopping.min_tokens, room)
            stopping = dataclasses.replace(stopping, max_tokens=max_tokens)
        # More may be asked for than the context has room for, which then ends the text and says so.
        self._weigh(len(token_ids), min(stopping.max_tokens, room), violations)
        stops = StopStrings(stopping.stop)
        if self.lost is not None:
            self._check_received(self.lost, stopping, stops, room, violations)
        violations.raise_any()
        return Submit(
            request_id=self.request_id,
            owner=self.owner,
            prompt_token_ids=token_ids,
            sampling=self.sampling,
            stopping=stopping,
            stops=stops,
            choices=self.choices,
            granularity=self.granularity,
            sentences=self.sentences,
            priority=self.priority,
            arrived=self.arrived,
            deadline=self.deadline,
            is_resumable=self.bond is not None,
            resumed_token_ids=self.lost.token_ids if self.lost else (),
            received_bytes=self.lost.text_bytes if self.lost else 0,
        )

    def _check_received(
        self,
        lost: LostStream,
        stopping: StoppingParams,
        stops: StopStrings,
        room: int,
        violations: Violations,
    ) -> None:
        """Note where the caller cannot have what it says it has."""
        tokenizer = self.model.tokenizer
        bounds = Bounds(stopping=stopping, end_token_ids=tokenizer.end_token_ids, room=room)
        assembly = TextAssembly(
            tokenizer, stops=stops, granularity=self.granularity, sentences=self.sentences
        )
        check_received(lost, bounds, assembly, violations)

    def _weigh(self, prompt_tokens: int, max_tokens: int, violations: Violations) -> None:
        """Note an answer that might not fit into a message."""
        tokenizer, sampling = self.model.tokenizer, self.sampling
        if sampling.prompt_logprobs is not None:
            weight = finished_bytes(tokenizer, prompt_tokens, sampling.prompt_logprobs)
            self._weigh_field("output.prompt_logprobs", weight, violations)
        weight = piece_bytes(
            tokenizer, max_tokens, sampling.logprobs, self.granularity, self.sentences
        )
        name = "stopping.max_tokens" if sampling.logprobs is None else "output.logprobs"
        self._weigh_field(name, weight, violations)

    def _weigh_field(self, name: str, weight: int, violations: Violations) -> None:
        most = self.max_message_bytes
        if weight > most:
            violations.add(
                name,
                f"must be less for so many tokens: the answer may take {weight} bytes,"
                f" a message at most {most}",
            )


def check(
    request: generation_pb2.GenerateRequest,
    model: ServedModel,
    *,
    owner: str = "",
    arrived: float,
    remaining: float | None,
    max_message_bytes: int,
) -> Checked:
    """Check every field of a request before any work is done for it. Loop thread.

    Args:
        request: As it came.
        model: Who would answer.
        owner: Who asks; empty where nobody needs a name.
        arrived: When it had been read, in seconds of the monotonic clock.
        remaining: Seconds until the call's own deadline; None without one.
        max_message_bytes: The longest message that can be sent.

    Raises:
        InvalidRequest: With all violations of all fields.
    """
    violations = Violations()
    if request.request_id and not REQUEST_ID.fullmatch(request.request_id):
        violations.add("request_id", "must be 1 to 128 characters of A-Z a-z 0-9 - _ . :")
    parsed = parse_input(request, model, violations)
    size = model.limits.vocabulary_size
    sampling = parse_sampling(
        request.sampling,
        request.output,
        vocabulary_size=size,
        fresh_seed=secrets.randbits(64),
        violations=violations,
    )
    stopping, max_tokens = parse_stopping(
        request.stopping,
        vocabulary_size=size,
        max_completion_tokens=max_completion_tokens(model),
        violations=violations,
    )
    granularity = parse_granularity(request.output.granularity, violations)
    sentences = parse_sentences(request.output.sentences, "output.sentences", violations)
    if request.HasField("priority"):
        violations.check_range("priority", request.priority)
    choices = request.output.n if request.output.HasField("n") else 1
    violations.check_range("output.n", choices)
    deadline = _deadline(request, arrived, remaining, violations)
    is_resumable = can_resume(sampling, choices, granularity)
    lost = parse_resume(request, model, violations, is_possible=is_resumable)
    violations.raise_any()
    return Checked(
        request_id=request.request_id or secrets.token_hex(16),
        model=model,
        owner=owner,
        input=parsed,
        sampling=sampling,
        stopping=stopping,
        has_max_tokens=max_tokens is not None,
        choices=choices,
        granularity=granularity,
        sentences=sentences,
        priority=request.priority,
        arrived=arrived,
        deadline=deadline,
        max_message_bytes=max_message_bytes,
        bond=Bond.of(request, model.description, owner) if is_resumable else None,
        lost=lost,
    )


def _deadline(
    request: generation_pb2.GenerateRequest,
    arrived: float,
    remaining: float | None,
    violations: Violations,
) -> float | None:
    times = [] if remaining is None else [remaining]
    if request.HasField("time_budget"):
        times.append(parse_budget(request.time_budget, violations))
    return arrived + min(times) if times else None
