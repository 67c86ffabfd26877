"""A status becomes an error of ours, whole."""

import asyncio
from dataclasses import replace

import grpc
import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from client.fake_server import rich_status, trailers_of
from hocket import client as public
from hocket.client import (
    AsyncClient,
    ClientError,
    Draining,
    FieldViolation,
    InternalError,
    Overloaded,
    ResourceExhausted,
    StatusError,
    TransportError,
    _methods,
)
from hocket.client._errors import CLASS_OF_REASON, error_of_call, error_of_status
from hocket.v1 import error_pb2

CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
CODE_OF_REASON = {
    "FIELD_INVALID": "INVALID_ARGUMENT",
    "PROMPT_EMPTY": "INVALID_ARGUMENT",
    "PROMPT_TOO_LONG": "INVALID_ARGUMENT",
    "MODEL_NOT_FOUND": "NOT_FOUND",
    "REQUEST_ID_IN_USE": "ALREADY_EXISTS",
    "FEATURE_DISABLED": "UNIMPLEMENTED",
    "TOKEN_INVALID": "UNAUTHENTICATED",
    "OPERATION_FORBIDDEN": "PERMISSION_DENIED",
    "QUEUE_FULL": "RESOURCE_EXHAUSTED",
    "READER_TOO_SLOW": "RESOURCE_EXHAUSTED",
    "SERVER_DRAINING": "UNAVAILABLE",
    "MODEL_LOADING": "UNAVAILABLE",
    "QUEUE_TIMEOUT": "DEADLINE_EXCEEDED",
    "GENERATION_FAILED": "INTERNAL",
    "ENGINE_FAILED": "UNAVAILABLE",
    "INTERNAL": "INTERNAL",
}


def test_every_reason_on_the_wire_has_its_class() -> None:
    """The table is the wire enum, no more and no less, and all its classes are public."""
    names = {
        name.removeprefix("ERROR_REASON_")
        for name in error_pb2.ErrorReason.DESCRIPTOR.values_by_name
    }
    assert set(CLASS_OF_REASON) == names - {"UNSPECIFIED"} == set(CODE_OF_REASON)
    assert {cls.__name__ for cls in CLASS_OF_REASON.values()} <= set(public.__all__)


@pytest.mark.parametrize("reason", sorted(CODE_OF_REASON))
async def test_every_reason_arrives_as_its_class(server, client, reason) -> None:
    """Over the wire, with metadata, for a stream and for one request of many."""
    code = grpc.StatusCode[CODE_OF_REASON[reason]]
    status = rich_status(code, reason, message="told", metadata={"key": "value"})
    server.refuse(status, pushback_ms=-1)
    with pytest.raises(CLASS_OF_REASON[reason]) as caught:
        await client.generate("Hello")
    for error in (caught.value, error_of_status(status)):
        assert type(error) is CLASS_OF_REASON[reason]
        assert (error.code, error.reason, error.message) == (code.name, reason, "told")
        assert dict(error.metadata) == {"key": "value"}
        assert str(error) == f"{reason}: told"


@given(st.sampled_from(CODES), st.text(min_size=1, max_size=20).filter(str.isidentifier))
def test_an_unknown_reason_falls_back_by_its_code(code: grpc.StatusCode, suffix: str) -> None:
    """A newer server's reason is of the class that knows its code, and keeps its name."""
    reason = f"NEW_{suffix}"
    error = error_of_status(rich_status(code, reason))
    assert isinstance(error, StatusError)
    assert (error.code, error.reason) == (code.name, reason)
    for known, known_code in CODE_OF_REASON.items():
        if known_code == code.name:
            assert issubclass(CLASS_OF_REASON[known], type(error))


@given(st.sampled_from(CODES), st.text(max_size=20))
def test_a_foreign_domain_is_not_believed(code: grpc.StatusCode, message: str) -> None:
    """Another system's reason of the same name is not ours."""
    status = rich_status(code, "READER_TOO_SLOW", domain="elsewhere", message=message)
    error = error_of_call(code.name, message, trailers_of(status))
    assert type(error) is not CLASS_OF_REASON["READER_TOO_SLOW"]


def test_unavailable_without_our_word_is_a_transport_error() -> None:
    """GRPC and proxies say UNAVAILABLE when nobody answered."""
    error = error_of_call("UNAVAILABLE", "failed to connect", ())
    assert isinstance(error, TransportError)
    assert "failed to connect" in str(error)


def test_violations_are_named() -> None:
    """Each field with what is wrong."""
    fields = (("sampling.top_p", "must be above 0"), ("prompt", "must not be empty"))
    error = error_of_status(
        rich_status(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", violations=fields)
    )
    assert error.violations == tuple(
        FieldViolation(field=field, description=description) for field, description in fields
    )


@given(st.binary(max_size=60), st.text(max_size=10))
def test_malformed_trailers_never_break_the_decoding(details: bytes, pushback: str) -> None:
    """Whatever a proxy does to trailers, the code and message remain."""
    trailers = (("grpc-status-details-bin", details), ("grpc-retry-pushback-ms", pushback))
    error = error_of_call("RESOURCE_EXHAUSTED", "full", trailers)
    assert isinstance(error, ClientError)
    assert error.message == "full"


@pytest.mark.parametrize(
    ("pushback", "retry_after", "is_forbidden"),
    [
        ("250", 0.25, False),
        ("0", 0.0, False),
        ("-1", None, True),
        ("soon", None, True),
        ("1_000", None, True),
        ("2147483648", None, True),
        ("9" * 400, None, True),
    ],
)
def test_pushback_goes_before_retry_info(pushback, retry_after, is_forbidden) -> None:
    """Negative and unreadable pushbacks forbid, as gRFC A6 has it."""
    status = rich_status(grpc.StatusCode.UNAVAILABLE, "MODEL_LOADING", retry_delay_seconds=9)
    error = error_of_call("UNAVAILABLE", "no", trailers_of(status, pushback))
    assert error.retry_after == retry_after
    assert error.is_retry_forbidden == is_forbidden
    assert error.has_pushback != is_forbidden


CLASS_OF_CODE = {
    "CANCELLED": "StatusError",
    "UNKNOWN": "StatusError",
    "INVALID_ARGUMENT": "InvalidRequest",
    "DEADLINE_EXCEEDED": "DeadlineExceeded",
    "NOT_FOUND": "NotFound",
    "ALREADY_EXISTS": "DuplicateRequest",
    "PERMISSION_DENIED": "Forbidden",
    "RESOURCE_EXHAUSTED": "ResourceExhausted",
    "FAILED_PRECONDITION": "StatusError",
    "ABORTED": "StatusError",
    "OUT_OF_RANGE": "StatusError",
    "UNIMPLEMENTED": "Unsupported",
    "INTERNAL": "InternalError",
    "UNAVAILABLE": "TransportError",
    "DATA_LOSS": "StatusError",
    "UNAUTHENTICATED": "Unauthenticated",
}


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
async def test_every_code_arrives_without_details(server, client, sync_client, code) -> None:
    """A proxy's status has none. Both clients make the same error of it, with its message."""

    async def fail(context):
        await context.abort(code, "from a proxy", (("grpc-retry-pushback-ms", "-1"),))

    server.failures.extend([fail, fail])
    with pytest.raises(ClientError) as caught:
        await client.list_models()
    with pytest.raises(ClientError) as blocking:
        await asyncio.to_thread(sync_client.list_models)
    for error in (caught.value, blocking.value):
        assert type(error).__name__ == CLASS_OF_CODE[code.name]
        assert error.message == "from a proxy"
        assert getattr(error, "code", "UNAVAILABLE") == code.name


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
@pytest.mark.parametrize("key", ["x-envoy-overloaded", "x-envoy-ratelimited"])
async def test_a_proxy_that_sheds_load_is_an_overload(server, client, sleeps, code, key) -> None:
    """Circuit breakers and rate limits pass, so that the call is made again."""

    async def shed(context):
        await context.abort(code, "upstream overflow", ((key, "true"),))

    server.failures.append(shed)
    await client.list_models()
    assert sleeps == [0.2]
    error = error_of_call(code.name, "upstream overflow", ((key, "true"),))
    assert isinstance(error, Overloaded)
    assert (error.code, error.reason, error.retry_after) == (code.name, "", None)


def test_a_proxys_mark_changes_no_word_of_the_servers() -> None:
    """Our own reason goes first, and other codes have nothing to do with load."""
    mark = ("x-envoy-overloaded", "true")
    draining = trailers_of(rich_status(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING"))
    assert isinstance(error_of_call("UNAVAILABLE", "no", (*draining, mark)), Draining)
    assert type(error_of_call("INTERNAL", "no", (mark,))) is InternalError


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
def test_any_retry_delay_is_read(seconds: int, nanos: int) -> None:
    """Also one that no duration may have; a negative one is none."""
    status = rich_status(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    info = error_details_pb2.RetryInfo()
    info.retry_delay.seconds, info.retry_delay.nanos = seconds, nanos
    status.details.add().Pack(info)
    assert error_of_status(status).retry_after == max(0.0, seconds + nanos / 1e9)


async def test_an_answer_over_the_size_limit_is_not_asked_for_again(server, sleeps) -> None:
    """GRPC itself says RESOURCE_EXHAUSTED, and it would be as long the next time."""
    options = [("grpc.max_receive_message_length", 100)]
    async with AsyncClient(server.address, options=options, sleep=sleeps.wait) as client:
        with pytest.raises(ResourceExhausted) as caught:
            await client.tokenize("x" * 200)
    assert type(caught.value) is ResourceExhausted
    assert sleeps == []


async def test_an_answer_that_does_not_parse_is_an_internal_error(
    server, client, sync_client, monkeypatch
) -> None:
    """From both clients, for one answer and for a stream."""

    def break_(name):
        def parse(data: bytes) -> None:
            raise ValueError("malformed")

        monkeypatch.setattr(_methods, name, replace(getattr(_methods, name), parse=parse))

    break_("LIST_MODELS")
    break_("GENERATE")
    for ask in (client.list_models, lambda: client.generate("Hello")):
        with pytest.raises(InternalError):
            await ask()
    for ask in (sync_client.list_models, lambda: sync_client.generate("Hello")):
        with pytest.raises(InternalError):
            await asyncio.to_thread(ask)


@pytest.mark.parametrize("token", ["secret\n", "s\u00e9cret"])
async def test_a_token_that_no_header_carries_is_refused(server, token) -> None:
    """Before anything is sent, and without repeating it."""
    async with AsyncClient(server.address, token=token) as client:
        with pytest.raises(ValueError, match="printable ASCII") as caught:
            await client.list_models()
        with pytest.raises(ValueError, match="printable ASCII"):
            await client.generate("Hello")
    assert "cret" not in str(caught.value)
    assert server.metadata == []


async def test_a_service_name_that_no_message_carries_is_refused(client, sync_client) -> None:
    """A lone surrogate is no text."""
    with pytest.raises(ValueError, match="surrogates"):
        await client.check_health("\ud800")
    with pytest.raises(ValueError, match="surrogates"):
        sync_client.check_health("\ud800")
