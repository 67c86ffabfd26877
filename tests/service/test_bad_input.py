"""Every field at its limits passes, beyond them it is refused by name before any work."""

import math

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from hocket.v1 import generation_pb2, generation_pb2_grpc, text_pb2, text_pb2_grpc

NAN, INFINITY = math.nan, math.inf

# Path of the field, values that pass, values that do not.
SCALARS = [
    ("sampling.temperature", [0, 10], [-0.01, 10.01, NAN, INFINITY]),
    ("sampling.top_k", [0, 260], [261, 4_294_967_295]),
    ("sampling.top_p", [1e-6, 1], [0, -1, 1.01, NAN]),
    ("sampling.min_p", [0, 1], [-0.01, 1.01, NAN]),
    ("sampling.repetition_penalty", [1e-2, 10], [0, 9e-3, -1, 10.1, NAN, INFINITY]),
    ("sampling.presence_penalty", [-2, 2], [-2.1, 2.1, NAN]),
    ("sampling.frequency_penalty", [-2, 2], [-2.1, 2.1, NAN]),
    ("stopping.max_tokens", [1, 4_095], [0, 4_096, 4_294_967_295]),
    ("stopping.min_tokens", [0, 5], [4_096]),
    ("output.n", [1, 16], [0, 17]),
    ("output.logprobs", [0, 20], [21]),
    ("output.prompt_logprobs", [0, 20], [21]),
    ("output.granularity", [0, 4], [99]),
    ("output.sentences.min_chars", [0, 200], [201]),
    ("output.sentences.max_chars", [40, 2_000], [39, 2_001]),
    ("output.sentences.language", ["en", "pt-BR"], ["", "xx", "english"]),
    ("output.sentences.mode", [0, 2], [9]),
    ("output.sentences.quotes", [0, 2], [9]),
    ("priority", [-100, 100], [-101, 101]),
    ("request_id", ["a", "a" * 128], ["a b", "a" * 129, "ü"]),
]


def make(path: str = "", value: object = None) -> generation_pb2.GenerateRequest:
    request = generation_pb2.GenerateRequest(prompt="hi")
    request.stopping.max_tokens = 5
    if path:
        *parents, name = path.split(".")
        message = request
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, name, value)
    return request


async def ask(channel, request) -> tuple[grpc.StatusCode, dict[str, str], str]:
    """Return the status, the violations by field, and the reason."""
    call = generation_pb2_grpc.GenerationServiceStub(channel).Generate(request)
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code(), *details(error)
    return grpc.StatusCode.OK, {}, ""


def details(error: grpc.aio.AioRpcError) -> tuple[dict[str, str], str]:
    metadata = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    fields, reason = {}, ""
    for detail in status.details:
        bad, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
        if detail.Unpack(bad):
            fields = {item.field: item.description for item in bad.field_violations}
        if detail.Unpack(info):
            reason = info.reason
    return fields, reason


@pytest.mark.parametrize(("path", "good", "bad"), SCALARS, ids=[row[0] for row in SCALARS])
async def test_limits(path, good, bad):
    model = ScriptedModel()
    async with serving(model) as app, grpc.aio.insecure_channel(app.address) as channel:
        for value in good:
            code, fields, _ = await ask(channel, make(path, value))
            assert (code, fields) == (grpc.StatusCode.OK, {}), value
        batches = len(model.runner.batches)
        for value in bad:
            code, fields, reason = await ask(channel, make(path, value))
            assert code is grpc.StatusCode.INVALID_ARGUMENT, value
            assert list(fields) == [path]
            assert reason == "FIELD_INVALID"
        assert len(model.runner.batches) == batches, "work was done for a bad request"


def _token_ids(*values):
    request = generation_pb2.GenerateRequest()
    request.tokens.token_ids.extend(values)
    return request


def _chat(*messages):
    request = generation_pb2.GenerateRequest()
    request.chat.SetInParent()
    for role, content in messages:
        request.chat.messages.add(role=role, content=content)
    return request


def _stopping(**fields):
    request = make()
    for name, values in fields.items():
        getattr(request.stopping, name).extend(values)
    return request


def _bias(entries):
    request = make()
    for token_id, value in entries.items():
        request.sampling.logit_bias[token_id] = value
    return request


def _budget(seconds: int, nanos: int = 0):
    request = make()
    request.time_budget.seconds, request.time_budget.nanos = seconds, nanos
    return request


@pytest.mark.parametrize(
    ("request_", "field", "reason"),
    [
        (generation_pb2.GenerateRequest(), "input", "FIELD_INVALID"),
        (generation_pb2.GenerateRequest(prompt=""), "prompt", "PROMPT_EMPTY"),
        (_token_ids(), "tokens.token_ids", "PROMPT_EMPTY"),
        (_token_ids(1, 2, 260), "tokens.token_ids[2]", "FIELD_INVALID"),
        (_token_ids(*[1] * 4_096), "tokens.token_ids", "PROMPT_TOO_LONG"),
        (generation_pb2.GenerateRequest(prompt="x" * 4_096), "prompt", "PROMPT_TOO_LONG"),
        (generation_pb2.GenerateRequest(prompt="x" * 300_000), "prompt", "PROMPT_TOO_LONG"),
        (_chat(), "chat.messages", "FIELD_INVALID"),
        (_chat(("robot", "hi")), "chat.messages[0].role", "FIELD_INVALID"),
        (_chat(*[("user", "a")] * 1_025), "chat.messages", "FIELD_INVALID"),
        (_chat(("user", "x" * 5_000)), "chat.messages", "PROMPT_TOO_LONG"),
        (_stopping(stop=[""]), "stopping.stop[0]", "FIELD_INVALID"),
        (_stopping(stop=["a", "x" * 257]), "stopping.stop[1]", "FIELD_INVALID"),
        (_stopping(stop=["a"] * 17), "stopping.stop", "FIELD_INVALID"),
        (_stopping(stop_token_ids=[260]), "stopping.stop_token_ids[0]", "FIELD_INVALID"),
        (_stopping(stop_token_ids=[1] * 65), "stopping.stop_token_ids", "FIELD_INVALID"),
        (_bias({260: 1.0}), "sampling.logit_bias[260]", "FIELD_INVALID"),
        (_bias({1: 101.0}), "sampling.logit_bias[1]", "FIELD_INVALID"),
        (_bias({1: NAN}), "sampling.logit_bias[1]", "FIELD_INVALID"),
        (_budget(0), "time_budget", "FIELD_INVALID"),
        (_budget(-1), "time_budget", "FIELD_INVALID"),
        (_budget(400_000_000_000), "time_budget", "FIELD_INVALID"),
        (_budget(-1, 2_000_000_000), "time_budget.nanos", "FIELD_INVALID"),
    ],
)
async def test_bad_requests_are_refused_by_name(request_, field, reason):
    model = ScriptedModel()
    async with serving(model) as app, grpc.aio.insecure_channel(app.address) as channel:
        batches = len(model.runner.batches)
        code, fields, told = await ask(channel, request_)
        assert (code, told) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
        assert list(fields) == [field]
        assert len(model.runner.batches) == batches


async def test_all_violations_are_told_at_once():
    """Those of the places that a request takes, and a prompt that is too long, among them."""
    request = make()
    request.prompt = "x" * 300_000
    request.output.n = 0
    request.sampling.temperature = 99
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        code, fields, reason = await ask(channel, request)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_TOO_LONG")
    assert set(fields) == {"prompt", "output.n", "sampling.temperature"}


async def test_min_tokens_are_written_although_max_tokens_is_unset():
    """The default gives way to what was asked for."""
    request = generation_pb2.GenerateRequest(prompt="hi")
    request.stopping.min_tokens = 600
    model = ScriptedModel()
    async with serving(model) as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        *_, last = [response async for response in stub.Generate(request)]
    assert last.finished.completions[0].completion_tokens >= 600


async def test_what_could_not_be_answered_is_refused_before_any_work():
    """By the field that asks for too much, and the log knows it too."""
    request = make()
    request.prompt = "x" * 400
    request.output.prompt_logprobs = 20
    model = ScriptedModel()
    settings = loopback_settings(listener={"max_message_kib": 64})
    async with serving(model, settings) as app, grpc.aio.insecure_channel(app.address) as channel:
        batches = len(model.runner.batches)
        code, fields, _ = await ask(channel, request)
        assert (code, list(fields)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            ["output.prompt_logprobs"],
        )
        assert "65536" in fields["output.prompt_logprobs"]
        assert len(model.runner.batches) == batches
        request.prompt = "x" * 100
        assert (await ask(channel, request))[0] is grpc.StatusCode.OK


async def test_special_token_text_in_a_prompt_is_ordinary_text():
    model = ScriptedModel()
    async with serving(model) as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateRequest(prompt="<|end|>")
        assert (await stub.Generate(request).read()).started.prompt_tokens == len("<|end|>")
        request.parse_special_tokens = True
        assert (await stub.Generate(request).read()).started.prompt_tokens == 1


async def test_text_service_bounds():
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = text_pb2_grpc.TextServiceStub(channel)
        for call, request, field in [
            (stub.Detokenize, text_pb2.DetokenizeRequest(token_ids=[260]), "token_ids[0]"),
            (stub.CountTokens, text_pb2.CountTokensRequest(texts=["a"] * 1_025), "texts"),
            (stub.Tokenize, text_pb2.TokenizeRequest(text="a" * 262_145), "text"),
            (
                stub.SplitSentences,
                text_pb2.SplitSentencesRequest(text="a", options={"max_chars": 1}),
                "options.max_chars",
            ),
        ]:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert list(details(caught.value)[0]) == [field]
