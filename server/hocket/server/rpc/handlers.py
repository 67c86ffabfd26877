"""Puts something around a gRPC handler, whichever of its four kinds it is. Loop thread."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc

from hocket.server.rpc.status import Context

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler  # generic in its stubs alone
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]
Unary = Callable[[Any, Context], Awaitable[Any]]
Stream = Callable[[Any, Context], AsyncIterator[Any]]
Writing = Callable[[Any, Context], Awaitable[None]]


def wrap(
    handler: Handler,
    *,
    unary: Callable[[Unary], Unary],
    stream: Callable[[Stream], Stream | Writing],
    is_raw: bool = False,
) -> Handler:
    """Return a handler with something around it.

    Args:
        handler: Takes one request or a stream of them.
        unary: Wraps a behaviour that returns one response.
        stream: Wraps a behaviour that yields responses; what it makes yields or writes them.
        is_raw: Hand requests over as bytes.
    """
    sent = "stream" if handler.request_streaming else "unary"
    answered = "stream" if handler.response_streaming else "unary"
    behaviour = getattr(handler, f"{sent}_{answered}")
    wrapped = stream(behaviour) if handler.response_streaming else unary(behaviour)
    make: Callable[..., Handler] = getattr(grpc, f"{sent}_{answered}_rpc_method_handler")
    deserializer = None if is_raw else handler.request_deserializer
    return make(wrapped, deserializer, handler.response_serializer)


def each(responses: AsyncIterator[Any]) -> AsyncGenerator[Any]:
    """Return responses as something that can be closed; a generator is that itself."""
    return responses if isinstance(responses, AsyncGenerator) else _generated(responses)


async def _generated(responses: AsyncIterator[Any]) -> AsyncGenerator[Any]:
    async for response in responses:
        yield response
