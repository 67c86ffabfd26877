"""Our few bytes of grpc.health.v1 are those of the published stubs."""

import pytest
from grpc_health.v1 import health_pb2
from hypothesis import given
from hypothesis import strategies as st

from hocket.client import HealthStatus
from hocket.client._health import parse_health_response, serialize_health_request


@given(st.text(max_size=300))
def test_requests_are_the_same_bytes(service: str) -> None:
    """Any name of any length."""
    expected = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    assert serialize_health_request(service) == expected


@pytest.mark.parametrize("name", health_pb2.HealthCheckResponse.ServingStatus.keys())
def test_every_status_is_read(name: str) -> None:
    """By its name."""
    value = health_pb2.HealthCheckResponse.ServingStatus.Value(name)
    data = health_pb2.HealthCheckResponse(status=value).SerializeToString()
    assert parse_health_response(data) is HealthStatus[name]


def test_unknown_fields_are_passed_over() -> None:
    """Of each wire type, before and after ours; an unknown status is UNKNOWN."""
    others = b"\x10\x05" + b"\x19" + bytes(8) + b"\x22\x03abc" + b"\x2d" + bytes(4)
    assert parse_health_response(others + b"\x08\x01" + others) is HealthStatus.SERVING
    assert parse_health_response(b"\x08\x63") is HealthStatus.UNKNOWN


@given(st.binary(max_size=30))
def test_no_bytes_break_the_reading(data: bytes) -> None:
    """Malformed bytes are a ValueError, nothing else, and never an endless loop."""
    try:
        status = parse_health_response(data)
    except ValueError:
        return
    assert isinstance(status, HealthStatus)
