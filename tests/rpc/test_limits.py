"""The table of bounds says what the comments of the wire contract say."""

import re
from pathlib import Path

import pytest

from hocket.server.rpc import limits
from hocket.server.rpc.limits import RANGES, Range
from hocket.server.rpc.weights import PIECE_TEXT_BYTES, RANGE_BYTES, TOKEN_BYTES
from hocket.v1 import control_pb2, document_pb2, generation_pb2, model_pb2, options_pb2, text_pb2

PROTO = Path(__file__).resolve().parents[2] / "proto" / "hocket" / "v1"


def comments() -> dict[str, str]:
    """Return what is said of each field, by `Message.field`, in one line each."""
    found: dict[str, str] = {}
    for path in PROTO.glob("*.proto"):
        message, lines = "", []
        for line in path.read_text().splitlines():
            if start := re.match(r"message (\w+)", line):
                message = start[1]
            field = re.match(r"\s+(?:optional |repeated )?[\w.<>, ]+? (\w+) = \d+;", line)
            if field and message:
                found[f"{message}.{field[1]}"] = " ".join(lines)
            comment = re.match(r"\s*// ?(.*)", line)
            lines = [*lines, comment[1]] if comment else []
    return found


COMMENTS = comments()
MESSAGES = {
    "sampling": "SamplingOptions",
    "output": "OutputOptions",
    "sentences": "SentenceOptions",
    "transform": "TransformStart",
    "summarize": "Summarize",
    "compose": "ComposeStart",
}

# Constant: the fields whose comments state it, and how.
STATED = {
    "MAX_CHOICES": [("OutputOptions.n", "1 to {}")],
    "MAX_LOGPROBS": [
        ("OutputOptions.logprobs", "0 to {}"),
        ("OutputOptions.prompt_logprobs", "0 to {}"),
    ],
    "MAX_STOP_STRINGS": [("StoppingOptions.stop", "At most {}, of")],
    "MAX_STOP_BYTES": [("StoppingOptions.stop", "1 to {} bytes")],
    "MAX_STOP_TOKENS": [("StoppingOptions.stop_token_ids", "At most {}, each")],
    "MAX_LOGIT_BIASES": [("SamplingOptions.logit_bias", "at most {}.")],
    "MAX_MESSAGES": [("ChatInput.messages", "1 to {}.")],
    "MAX_TEXTS": [("CountTokensRequest.texts", "at most {}, of")],
    "MAX_COUNTED_BYTES": [
        ("CountTokensRequest.texts", "of {} bytes each"),
        ("CountTokensRequest.chat", "at most {} characters"),
    ],
    "MAX_DETOKENIZED": [("DetokenizeRequest.token_ids", "at most {},")],
    "MAX_INSTRUCTION_CHARS": [
        ("TransformStart.instruction", "1 to {} characters"),
        ("TransformStart.template", "1 to {} characters"),
        ("ComposeStart.join", "At most {} characters"),
        ("Section.instruction", "At most {} characters"),
    ],
    "MAX_TARGETS": [("Translate.target_languages", "1 to {}, of")],
    "MAX_LANGUAGE_CHARS": [
        ("Translate.target_languages", "of 1 to {} characters"),
        ("Translate.source_language", "At most {} characters"),
    ],
    "MAX_STYLE_CHARS": [("Rewrite.style", "At most {} characters")],
    "MAX_LABELS": [("Classify.labels", "2 to {}, of")],
    "MAX_LABEL_CHARS": [("Classify.labels", "of 1 to {} characters")],
    "MAX_TERMS": [("TransformStart.protected_terms", "At most {}, of")],
    "MAX_TERM_CHARS": [("TransformStart.protected_terms", "of 1 to {} characters")],
    "MAX_SECTIONS": [("ComposeStart.sections", "At most {}.")],
    "MAX_TITLE_CHARS": [("Section.title", "1 to {} characters")],
    "MAX_SPANS": [("TransformStart.protected_ranges", "At most {};")],
    "MAX_ITEM_ID_BYTES": [("ProcessItem.id", "At most {} bytes")],
    "MAX_ITEM_BYTES": [("ProcessItem.text", "At most {} bytes")],
    "MAX_BUDGET_SECONDS": [("GenerateRequest.time_budget", "up to {} seconds")],
    "DEFAULT_MAX_TOKENS": [("StoppingOptions.max_tokens", "default {},")],
}
UNSTATED = {
    "MAX_NANOS",  # of every google.protobuf.Duration
    "MAX_BYTES_PER_TOKEN",  # only tells early what is found out later anyway
}


def test_the_comments_are_read():
    """A reader that finds nothing would agree with everything."""
    assert COMMENTS["SamplingOptions.min_p"].endswith("0 to 1, default 0 keeps all.")
    assert "Name of a served model" in COMMENTS["TokenizeRequest.model"]


def test_every_bound_is_compared():
    """A constant that is added is stated, or said to be ours alone."""
    constants = {name for name in vars(limits) if re.match("(MAX|DEFAULT)_", name)}
    assert constants == STATED.keys() | UNSTATED


@pytest.mark.parametrize(
    ("name", "field", "phrase"),
    [(name, *place) for name, places in STATED.items() for place in places],
)
def test_a_comment_states_the_bound(name, field, phrase):
    """In figures, as people write them."""
    assert phrase.format(f"{getattr(limits, name):,}") in COMMENTS[field]


def words(bounds: Range) -> str:
    if bounds.is_open:
        return f"Above {bounds.low:,g}, up to {bounds.high:,g}"
    return f"{bounds.low:,g} to {bounds.high:,g}"


@pytest.mark.parametrize("name", RANGES)
def test_a_comment_states_the_range(name):
    """With both ends, and whether the lower one is out."""
    section, _, field = name.rpartition(".")
    assert words(RANGES[name]) in COMMENTS[f"{MESSAGES.get(section, 'GenerateRequest')}.{field}"]


def test_the_names_of_requests_are_as_long_as_is_said():
    """The pattern's own number stands in the comment."""
    (most,) = re.findall(r"\{1,(\d+)\}", limits.REQUEST_ID.pattern)
    assert f"1 to {most} characters" in COMMENTS["GenerateRequest.request_id"]


@pytest.mark.parametrize("role", limits.ROLES)
def test_the_roles_are_named(role):
    """All of them."""
    assert f"`{role}`" in COMMENTS["ChatMessage.role"]


def test_the_shares_of_a_message_are_as_is_said():
    """A token of an answer weighs a 16th of a byte's room, a sentence a seventh for each byte."""
    assert TOKEN_BYTES == 16
    assert "At most a 16th of the server's message limit" in COMMENTS["TokenizeRequest.text"]
    assert RANGE_BYTES / PIECE_TEXT_BYTES == 7
    assert "At most a seventh" in COMMENTS["SplitSentencesRequest.text"]


def test_scalars_with_a_default_may_be_unset():
    """So that the default is told from the value: `optional` stands before each of them."""
    fields = {
        f"{message.name}.{field.name}": field
        for file in (generation_pb2, document_pb2, options_pb2, text_pb2, model_pb2, control_pb2)
        for message in file.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if not field.is_repeated and field.type not in {field.TYPE_MESSAGE, field.TYPE_ENUM}
    }
    defaults = {name for name in fields if re.search(r"\bdefault\b", COMMENTS[name], re.IGNORECASE)}
    named = {"model", "name"}  # empty is no name, so that nothing need be told apart
    assert {"TokenizeRequest.add_special_tokens", "SplitSentencesRequest.paragraphs"} <= defaults
    assert [
        name
        for name in sorted(defaults)
        if not fields[name].has_presence and fields[name].name not in named
    ] == []
