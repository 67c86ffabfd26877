"""The calls of the asyncio client that work on documents. The loop thread of its client."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Unpack

import grpc.aio

from hocket.client import _methods as methods
from hocket.client._calls import CallSettings
from hocket.client._channel import Connection
from hocket.client._document_options import ComposeOptions, TransformOptions
from hocket.client._document_requests import (
    GivenSegments,
    GivenText,
    build_compose_request,
    build_source,
    build_transform_request,
)
from hocket.client._document_types import GivenSegment
from hocket.client._documents import DocumentStream


class DocumentCalls:
    """`transform` and `compose`, for a client that has a connection."""

    _settings: CallSettings
    _sleep: Callable[[float], Awaitable[object]]

    def _open_connection(self) -> Connection[grpc.aio.Channel]:
        raise NotImplementedError

    @asynccontextmanager
    async def transform(
        self,
        text: GivenText | AsyncIterable[str] | None = None,
        *,
        segments: GivenSegments | AsyncIterable[GivenSegment | str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - becomes the call's deadline
        **options: Unpack[TransformOptions],
    ) -> AsyncIterator[DocumentStream]:
        """Do the same with each segment of a document, all in parallel, and follow it.

        Leaving the block cancels what is still being written.

        Args:
            text: The document: whole, or in parts that are sent as they come. Parts that are not
                async are taken on the loop, so that they must not block.
            segments: The document as the caller cut it, in place of a text.
            timeout: Seconds that the whole may take, retries included.
            **options: See `TransformOptions`; one of them is the task.

        Raises:
            TypeError: There is not exactly one document and one task, or an option is unknown.
            ValueError: A value cannot be sent.
        """
        connection = self._open_connection()
        async with DocumentStream(
            method=methods.TRANSFORM.over(connection.channel.stream_stream),
            request=build_transform_request(options, is_segmented=segments is not None),
            source=build_source(text, segments),
            state=self._settings.stream(connection, timeout),
            sleep=self._sleep,
        ) as stream:
            yield stream

    @asynccontextmanager
    async def compose(
        self,
        task: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - becomes the call's deadline
        **options: Unpack[ComposeOptions],
    ) -> AsyncIterator[DocumentStream]:
        """Write the sections of a text in parallel, and follow it.

        Leaving the block cancels what is still being written.

        Args:
            task: What the text is about, and all that every section should know.
            timeout: Seconds that the whole may take, retries included.
            **options: See `ComposeOptions`.

        Raises:
            TypeError: An option is unknown or of a wrong type.
            ValueError: A value cannot be sent.
        """
        connection = self._open_connection()
        async with DocumentStream(
            method=methods.COMPOSE.over(connection.channel.stream_stream),
            request=build_compose_request(task, options),
            source=None,
            state=self._settings.stream(connection, timeout),
            sleep=self._sleep,
        ) as stream:
            yield stream
