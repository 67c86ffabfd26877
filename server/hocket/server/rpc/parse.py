"""From protobuf to the engine's own types: field violations are born here and nowhere else.

Two halves, since tokenising takes time: `check` looks at every field on the loop's thread, before
anything is done for the request; `Checked.encode` runs on a text thread and meets the prompt's
length.
"""

import math
import secrets
from dataclasses import dataclass

from hocket.server.catalogue import ServedModel
from hocket.server.engine.commands import Submit
from hocket.server.engine.sampling import SamplingParams
from hocket.server.errors import FieldViolation, InvalidRequest, Reason
from hocket.server.rpc.limits import (
    DEFAULT_MAX_TOKENS,
    MAX_BYTES_PER_TOKEN,
    MAX_MESSAGES,
    REQUEST_ID,
    ROLES,
    Violations,
)
from hocket.server.rpc.parse_options import (
    check_stopping,
    parse_granularity,
    parse_sampling,
    parse_sentences,
    parse_stopping,
)
from hocket.server.text.pieces import Granularity, SentenceOptions
from hocket.server.text.tokenizer import ChatMessage
from hocket.v1 import generation_pb2


def places_of(request: generation_pb2.GenerateRequest) -> int:
    """Return how many places in the batch a request takes.

    Raises:
        InvalidRequest: `output.n` is out of range.
    """
    if not request.output.HasField("n"):
        return 1
    violations = Violations()
    violations.check_range("output.n", request.output.n)
    violations.raise_any()
    return request.output.n


def max_completion_tokens(model: ServedModel) -> int:
    """Return the most tokens that an answer may have: all of the context but one of prompt."""
    return model.limits.max_context_tokens - 1


def max_prompt_tokens(model: ServedModel) -> int:
    """Return the most tokens that a prompt may have: all of the context but one to write."""
    return model.limits.max_context_tokens - 1


_MOST_SECONDS = 315_576_000_000  # of a google.protobuf.Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A request whose fields are good; only its prompt is not tokenised yet.

    Attributes:
        request_id: Given or made.
        model: Who answers.
        arrived: When it had been read, in seconds of the monotonic clock.
        deadline: When it is no longer wanted, of the same clock.
    """

    request: generation_pb2.GenerateRequest
    request_id: str
    model: ServedModel
    sampling: SamplingParams
    choices: int
    granularity: Granularity
    sentences: SentenceOptions
    arrived: float
    deadline: float | None

    def encode(self) -> Submit:
        """Tokenise the prompt and return what the engine takes. Text thread.

        Raises:
            InvalidRequest: The prompt is empty, too long, or refused by the chat template.
        """
        token_ids = self._prompt()
        most = max_prompt_tokens(self.model)
        if not token_ids:
            raise InvalidRequest(
                FieldViolation(field=self._input_field, description="must hold at least one token"),
                reason=Reason.PROMPT_EMPTY,
            )
        if len(token_ids) > most:
            raise _too_long(self._input_field, len(token_ids), most)
        room = self.model.limits.max_context_tokens - len(token_ids)
        stopping = self.request.stopping
        # What was asked for may reach past the context, which then ends the text and says so.
        is_set = stopping.HasField("max_tokens")
        max_tokens = stopping.max_tokens if is_set else min(DEFAULT_MAX_TOKENS, room)
        return Submit(
            request_id=self.request_id,
            prompt_token_ids=token_ids,
            sampling=self.sampling,
            stopping=parse_stopping(stopping, max_tokens=max_tokens),
            choices=self.choices,
            granularity=self.granularity,
            sentences=self.sentences,
            priority=self.request.priority,
            arrived=self.arrived,
            deadline=self.deadline,
        )

    @property
    def _input_field(self) -> str:
        return {"chat": "chat.messages", "tokens": "tokens.token_ids"}.get(
            self.request.WhichOneof("input") or "", "prompt"
        )

    def _prompt(self) -> tuple[int, ...]:
        request, model = self.request, self.model
        match request.WhichOneof("input"):
            case "tokens":
                return tuple(request.tokens.token_ids)
            case "chat":
                template = model.chat_template
                if template is None:
                    raise InvalidRequest.of("chat", "this model has no chat template")
                chat = request.chat
                opens = not chat.HasField("add_generation_prompt") or chat.add_generation_prompt
                messages = [
                    ChatMessage(role=message.role, content=message.content)
                    for message in chat.messages
                ]
                return template.encode(messages, add_generation_prompt=opens)
            case _:
                encoding = model.tokenizer.encode(
                    request.prompt,
                    add_special=bool(request.prompt),
                    parse_special=request.parse_special_tokens,
                )
                return encoding.token_ids


def check(
    request: generation_pb2.GenerateRequest,
    model: ServedModel,
    *,
    arrived: float,
    remaining: float | None,
) -> Checked:
    """Check every field of a request before any work is done for it. Loop thread.

    Args:
        request: As it came.
        model: Who would answer.
        arrived: When it had been read, in seconds of the monotonic clock.
        remaining: Seconds until the call's own deadline; None without one.

    Raises:
        InvalidRequest: With all violations of all fields.
    """
    violations = Violations()
    if request.request_id and not REQUEST_ID.fullmatch(request.request_id):
        violations.add("request_id", "must be 1 to 128 characters of A-Z a-z 0-9 - _ . :")
    _check_input(request, model, violations)
    size = model.limits.vocabulary_size
    sampling = parse_sampling(
        request.sampling,
        request.output,
        vocabulary_size=size,
        fresh_seed=secrets.randbits(64),
        violations=violations,
    )
    check_stopping(
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
    violations.raise_any()
    return Checked(
        request=request,
        request_id=request.request_id or secrets.token_hex(16),
        model=model,
        sampling=sampling,
        choices=choices,
        granularity=granularity,
        sentences=sentences,
        arrived=arrived,
        deadline=deadline,
    )


def _check_input(  # noqa: C901 - one branch for each kind of input
    request: generation_pb2.GenerateRequest, model: ServedModel, violations: Violations
) -> None:
    most = max_prompt_tokens(model)
    most_bytes = model.limits.max_context_tokens * MAX_BYTES_PER_TOKEN
    match request.WhichOneof("input"):
        case None:
            violations.add("input", "one of prompt, chat and tokens must be set")
        case "prompt":
            if len(request.prompt) > most_bytes:
                raise _too_long("prompt", len(request.prompt) // MAX_BYTES_PER_TOKEN, most)
        case "tokens":
            token_ids = request.tokens.token_ids
            if len(token_ids) > most:
                raise _too_long("tokens.token_ids", len(token_ids), most)
            size = model.limits.vocabulary_size
            stray = next((i for i, token in enumerate(token_ids) if token >= size), None)
            if stray is not None:
                violations.add(f"tokens.token_ids[{stray}]", f"must be below {size}")
        case "chat":
            messages = request.chat.messages
            if not 1 <= len(messages) <= MAX_MESSAGES:
                violations.add("chat.messages", f"must have from 1 to {MAX_MESSAGES} values")
            for index, message in enumerate(messages[:MAX_MESSAGES]):
                if message.role not in ROLES:
                    violations.add(
                        f"chat.messages[{index}].role", f"must be one of {', '.join(ROLES)}"
                    )
            total = sum(len(message.content) for message in messages)
            if total > most_bytes:
                raise _too_long("chat.messages", total // MAX_BYTES_PER_TOKEN, most)
            if model.chat_template is None:
                violations.add("chat", "this model has no chat template")


def _deadline(
    request: generation_pb2.GenerateRequest,
    arrived: float,
    remaining: float | None,
    violations: Violations,
) -> float | None:
    times = [] if remaining is None else [remaining]
    if request.HasField("time_budget"):
        budget = request.time_budget.seconds + request.time_budget.nanos * 1e-9
        if not (0 < budget < math.inf) or request.time_budget.seconds > _MOST_SECONDS:
            violations.add("time_budget", "must be above 0")
        times.append(budget)
    return arrived + min(times) if times else None


def _too_long(name: str, count: int, most: int) -> InvalidRequest:
    return InvalidRequest(
        FieldViolation(field=name, description=f"has at least {count} tokens, more than {most}"),
        reason=Reason.PROMPT_TOO_LONG,
        metadata={"prompt_tokens": str(count), "max_prompt_tokens": str(most)},
    )
