"""`grpc.health.v1` by hand, since the base install does not bring its stubs. Any thread.

`HealthCheckRequest` has one field, `service`, a string with number 1; `HealthCheckResponse` one,
`status`, an enum with number 1. Declaring them once more would clash with the published stubs in
protobuf's descriptor pool. The format: protobuf's encoding guide.
"""

from hocket.client._types import HealthStatus

_MORE = 0x80
"""The bit of a varint's byte that says that another follows."""

_STATUSES = (
    HealthStatus.UNKNOWN,
    HealthStatus.SERVING,
    HealthStatus.NOT_SERVING,
    HealthStatus.SERVICE_UNKNOWN,
)


def serialize_health_request(service: str) -> bytes:
    """Write `HealthCheckRequest{service}`."""
    name = service.encode()
    return b"\x0a" + _write_varint(len(name)) + name if name else b""


def parse_health_response(data: bytes) -> HealthStatus:
    """Read `HealthCheckResponse{status}`, passing over fields that are not known.

    Raises:
        ValueError: It is malformed.
    """
    status = 0
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        value = 0
        match tag & 7:
            case 0:
                value, position = _read_varint(data, position)
            case 1:
                position += 8
            case 2:
                length, position = _read_varint(data, position)
                position += length
            case 5:
                position += 4
            case _:
                raise ValueError("malformed health response")
        if position > len(data):
            raise ValueError("truncated health response")
        if tag == 1 << 3:
            status = value
    return _STATUSES[status] if status < len(_STATUSES) else HealthStatus.UNKNOWN


def _write_varint(value: int) -> bytes:
    written = bytearray()
    while value >= _MORE:
        written.append(value % _MORE | _MORE)
        value >>= 7
    written.append(value)
    return bytes(written)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("truncated health response")
        byte = data[position]
        position += 1
        value |= (byte % _MORE) << shift
        if byte < _MORE:
            return value, position
    raise ValueError("malformed health response")
