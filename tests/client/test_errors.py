"""A status becomes an error of ours, whole."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.fake_server import rich_status, trailers_of
from hocket import client as public
from hocket.client import ClientError, FieldViolation, StatusError, TransportError
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
    [("250", 0.25, False), ("0", 0.0, False), ("-1", None, True), ("soon", None, True)],
)
def test_pushback_goes_before_retry_info(pushback, retry_after, is_forbidden) -> None:
    """Negative and unreadable pushbacks forbid, as gRFC A6 has it."""
    status = rich_status(grpc.StatusCode.UNAVAILABLE, "MODEL_LOADING", retry_delay_seconds=9)
    error = error_of_call("UNAVAILABLE", "no", trailers_of(status, pushback))
    assert error.retry_after == retry_after
    assert error.is_retry_forbidden == is_forbidden
    assert error.has_pushback != is_forbidden
