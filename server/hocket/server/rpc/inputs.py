"""What a text continues, out of protobuf: a prompt, a conversation or token ids.

Checked and copied on the loop's thread, which counts before it looks through anything; turned into
token ids on a text thread.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hocket.server.catalogue import ServedModel
from hocket.server.errors import InvalidRequest
from hocket.server.rpc.limits import MAX_BYTES_PER_TOKEN, MAX_MESSAGES, ROLES, Violations
from hocket.server.text.tokenizer import ChatMessage
from hocket.v1 import generation_pb2


@dataclass(frozen=True, slots=True)
class Input:
    """A checked input.

    Attributes:
        field: The path that its tokens are complained about under.
    """

    field: str
    _encode: Callable[[], tuple[int, ...]]

    def encode(self) -> tuple[int, ...]:
        """Return its tokens. Text thread.

        Raises:
            InvalidRequest: The tokenizer or the chat template refuses it.
        """
        try:
            return self._encode()
        except InvalidRequest as error:
            # The tokenizer does not know under which name its text came.
            raise InvalidRequest.of(self.field, error.violations[0].description) from error


def max_prompt_tokens(model: ServedModel) -> int:
    """Return the most tokens that a prompt may have: all of the context but one to write."""
    return model.limits.max_context_tokens - 1


def parse_input(
    request: generation_pb2.GenerateRequest, model: ServedModel, violations: Violations
) -> Input:
    """Return what is continued. Loop thread."""
    match request.WhichOneof("input"):
        case "prompt":
            return _prompt(request, model, violations)
        case "tokens":
            return _tokens(request.tokens, model, violations)
        case "chat":
            most = model.limits.max_context_tokens * MAX_BYTES_PER_TOKEN
            found, size = parse_chat(request.chat, model, violations)
            if size > most:
                violations.add_too_long(
                    found.field, size // MAX_BYTES_PER_TOKEN, max_prompt_tokens(model)
                )
            return found
        case _:
            violations.add("input", "one of prompt, chat and tokens must be set")
            return Input("input", tuple)


def parse_chat(
    chat: generation_pb2.ChatInput, model: ServedModel, violations: Violations
) -> tuple[Input, int]:
    """Return a conversation and the characters in it. Loop thread."""
    name = "chat.messages"
    messages: tuple[ChatMessage, ...] = ()
    if 1 <= len(chat.messages) <= MAX_MESSAGES:
        messages = tuple(
            ChatMessage(role=message.role, content=message.content) for message in chat.messages
        )
    else:
        violations.add(name, f"must have from 1 to {MAX_MESSAGES} values")
    for index, message in enumerate(messages):
        if message.role not in ROLES:
            violations.add(f"{name}[{index}].role", f"must be one of {', '.join(ROLES)}")
    template = model.chat_template
    if template is None:
        violations.add("chat", "this model has no chat template")
    opens = not chat.HasField("add_generation_prompt") or chat.add_generation_prompt

    def encode() -> tuple[int, ...]:
        if template is None:
            raise AssertionError("a conversation without a template was let in. This is a bug.")
        return template.encode(messages, add_generation_prompt=opens)

    return Input(name, encode), sum(len(message.content) for message in messages)


def _prompt(
    request: generation_pb2.GenerateRequest, model: ServedModel, violations: Violations
) -> Input:
    text, parse_special = request.prompt, request.parse_special_tokens
    if len(text) > model.limits.max_context_tokens * MAX_BYTES_PER_TOKEN:
        violations.add_too_long(
            "prompt", len(text) // MAX_BYTES_PER_TOKEN, max_prompt_tokens(model)
        )

    def encode() -> tuple[int, ...]:
        # Begin-of-text alone is no prompt.
        return model.tokenizer.encode(
            text, add_special=bool(text), parse_special=parse_special
        ).token_ids

    return Input("prompt", encode)


def _tokens(tokens: generation_pb2.TokenInput, model: ServedModel, violations: Violations) -> Input:
    name, most, size = "tokens.token_ids", max_prompt_tokens(model), model.limits.vocabulary_size
    token_ids: tuple[int, ...] = ()
    if len(tokens.token_ids) > most:
        violations.add_too_long(name, len(tokens.token_ids), most)
    else:
        token_ids = tuple(tokens.token_ids)
    if token_ids and max(token_ids) >= size:  # the quick way round; few callers go on to the slow
        stray = next(index for index, token_id in enumerate(token_ids) if token_id >= size)
        violations.add(f"{name}[{stray}]", f"must be below {size}")
    return Input(name, lambda: token_ids)
