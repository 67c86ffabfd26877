"""From keyword arguments to protobuf: what is sent. Any thread; pure functions."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from google.protobuf.duration_pb2 import Duration

from hocket.client._types import (
    Granularity,
    Message,
    QuotePolicy,
    SentenceMode,
    SentenceOptions,
)
from hocket.v1 import generation_pb2, options_pb2, text_pb2

GRANULARITIES = {
    Granularity.TOKEN: options_pb2.GRANULARITY_TOKEN,
    Granularity.SENTENCE: options_pb2.GRANULARITY_SENTENCE,
    Granularity.PARAGRAPH: options_pb2.GRANULARITY_PARAGRAPH,
    Granularity.FULL: options_pb2.GRANULARITY_FULL,
}
_SENTENCE_MODES = {
    SentenceMode.EAGER: options_pb2.SENTENCE_MODE_EAGER,
    SentenceMode.CAREFUL: options_pb2.SENTENCE_MODE_CAREFUL,
}
_QUOTE_POLICIES = {
    QuotePolicy.SPLIT: options_pb2.QUOTE_POLICY_SPLIT,
    QuotePolicy.HOLD: options_pb2.QUOTE_POLICY_HOLD,
}

_SAMPLING_FIELDS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)
_STOPPING_FIELDS = ("max_tokens", "min_tokens", "ignore_eos")
_OUTPUT_FIELDS = ("n", "logprobs", "prompt_logprobs")


class GenerationOptions(TypedDict, total=False):
    """The keyword arguments of a generation. Absent or None leaves a value to the server.

    The server checks ranges and names every field that it does not accept; its defaults stand in
    `options.proto`.

    Attributes:
        messages: A conversation, in place of a prompt.
        token_ids: Token ids, in place of a prompt.
        model: Name of a served model; the server's default if absent.
        granularity: In which pieces the text arrives.
        sentences: How sentences are cut.
        parse_special_tokens: Reads special-token texts in the prompt as those tokens.
        add_generation_prompt: Opens the assistant's turn after the last message.
        temperature: Divides the logits; 0 always takes the likeliest token.
        top_k: Keeps the k likeliest tokens.
        top_p: Keeps the fewest likeliest tokens whose probabilities reach this sum.
        min_p: Keeps tokens at least this many times as likely as the likeliest.
        seed: Makes a sampled text repeatable.
        repetition_penalty: Weakens tokens of prompt and answer, by division.
        presence_penalty: Weakens tokens of the answer, once.
        frequency_penalty: Weakens tokens of the answer, each time.
        logit_bias: Added to the logits of these token ids.
        max_tokens: Most tokens to write.
        min_tokens: Fewest tokens before the model may end the text.
        stop: Ends the text before one of these strings.
        stop_token_ids: Ends the text at one of these tokens.
        ignore_eos: Writes on past the model's own end.
        n: How many answers to write.
        logprobs: Reports log probabilities, and those of this many likeliest tokens.
        prompt_logprobs: The same for the prompt.
        priority: Lower values run first; -100 to 100.
        time_budget: Most seconds to spend on the server; the text ends there.
        request_id: Names the request; made by the client if absent.
    """

    messages: Sequence[Message | Mapping[str, str]] | None
    token_ids: Sequence[int] | None
    model: str | None
    granularity: Granularity | Literal["token", "sentence", "paragraph", "full"] | None
    sentences: SentenceOptions | None
    parse_special_tokens: bool | None
    add_generation_prompt: bool | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | None
    max_tokens: int | None
    min_tokens: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    ignore_eos: bool | None
    n: int | None
    logprobs: int | None
    prompt_logprobs: int | None
    priority: int | None
    time_budget: float | None
    request_id: str | None


def make_request_id() -> str:
    """Return an id that nobody else uses."""
    return uuid.uuid4().hex


def select_given(options: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Return the options that are not None.

    Raises:
        TypeError: One of them is not known.
    """
    unknown = options.keys() - set(known)
    if unknown:
        raise TypeError(f"unknown option: {', '.join(sorted(unknown))}")
    return {key: value for key, value in options.items() if value is not None}


def build_generate_request(
    prompt: str | None, options: GenerationOptions
) -> generation_pb2.GenerateRequest:
    """Make the request of one generation; its `request_id` stays empty if none was given.

    Raises:
        TypeError: There is not exactly one input, or an option is unknown or of a wrong type.
        ValueError: A value cannot be sent, such as a negative seed.
    """
    given = select_given(options, GenerationOptions.__annotations__)
    request = generation_pb2.GenerateRequest(
        request_id=given.get("request_id", ""),
        model=given.get("model", ""),
        parse_special_tokens=given.get("parse_special_tokens", False),
        priority=given.get("priority"),
    )
    _set_input(request, prompt, given)
    request.sampling.CopyFrom(build_sampling(given))
    request.stopping.CopyFrom(build_stopping(given))
    request.output.CopyFrom(options_pb2.OutputOptions(**_select(given, _OUTPUT_FIELDS)))
    if "granularity" in given:
        request.output.granularity = GRANULARITIES[Granularity(given["granularity"])]
    if "sentences" in given:
        request.output.sentences.CopyFrom(build_sentence_options(given["sentences"]))
    if "time_budget" in given:
        request.time_budget.CopyFrom(build_duration(given["time_budget"]))
    return request


def build_split_request(
    text: str, *, paragraphs: bool, options: SentenceOptions | None
) -> text_pb2.SplitSentencesRequest:
    """Make the request that cuts a text."""
    return text_pb2.SplitSentencesRequest(
        text=text,
        paragraphs=paragraphs,
        options=None if options is None else build_sentence_options(options),
    )


def _set_input(
    request: generation_pb2.GenerateRequest, prompt: str | None, given: Mapping[str, Any]
) -> None:
    messages: Iterable[Message | Mapping[str, str]] | None = given.get("messages")
    token_ids: Sequence[int] | None = given.get("token_ids")
    if sum(value is not None for value in (prompt, messages, token_ids)) != 1:
        raise TypeError("give exactly one of prompt, messages and token_ids")
    if prompt is not None:
        request.prompt = prompt
    elif messages is not None:
        request.chat.CopyFrom(
            generation_pb2.ChatInput(
                messages=[_build_message(message) for message in messages],
                add_generation_prompt=given.get("add_generation_prompt"),
            )
        )
    else:
        request.tokens.CopyFrom(generation_pb2.TokenInput(token_ids=token_ids))


def _build_message(message: Message | Mapping[str, str]) -> generation_pb2.ChatMessage:
    if isinstance(message, Message):
        return generation_pb2.ChatMessage(role=message.role, content=message.content)
    if message.keys() != {"role", "content"}:
        raise TypeError("a message has the keys role and content")
    return generation_pb2.ChatMessage(role=message["role"], content=message["content"])


def build_sampling(given: Mapping[str, Any]) -> options_pb2.SamplingOptions:
    """Make what says how tokens are drawn."""
    return options_pb2.SamplingOptions(
        **_select(given, _SAMPLING_FIELDS), logit_bias=given.get("logit_bias")
    )


def build_stopping(given: Mapping[str, Any]) -> options_pb2.StoppingOptions:
    """Make what says when a text ends."""
    stop = given.get("stop", ())
    return options_pb2.StoppingOptions(
        **_select(given, _STOPPING_FIELDS),
        stop=(stop,) if isinstance(stop, str) else stop,
        stop_token_ids=given.get("stop_token_ids", ()),
    )


def build_sentence_options(options: SentenceOptions) -> options_pb2.SentenceOptions:
    """Make what says how a text is cut."""
    built = options_pb2.SentenceOptions(
        language=options.language, min_chars=options.min_chars, max_chars=options.max_chars
    )
    if options.mode is not None:
        built.mode = _SENTENCE_MODES[SentenceMode(options.mode)]
    if options.quotes is not None:
        built.quotes = _QUOTE_POLICIES[QuotePolicy(options.quotes)]
    return built


def build_duration(seconds: float) -> Duration:
    """Make a duration.

    Raises:
        ValueError: It is no number of seconds.
    """
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1_000_000_000))
    return duration


def _select(given: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    return {field: given[field] for field in fields if field in given}
