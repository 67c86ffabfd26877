"""The calls of the blocking client that work on documents. Any thread."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Unpack

import grpc

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
from hocket.client._sync_documents import SyncDocumentStream


class SyncDocumentCalls:
    """`transform` and `compose`, for a client that has a connection."""

    _settings: CallSettings
    _sleep: Callable[[float], object]

    def _open_connection(self) -> Connection[grpc.Channel]:
        raise NotImplementedError

    @contextmanager
    def transform(
        self,
        text: GivenText | None = None,
        *,
        segments: GivenSegments | None = None,
        timeout: float | None = None,
        **options: Unpack[TransformOptions],
    ) -> Iterator[SyncDocumentStream]:
        """Do the same with each segment of a document; see `AsyncClient.transform`.

        Parts that are still to come are taken by a thread of the stream's own.
        """
        connection = self._open_connection()
        stream = SyncDocumentStream(
            method=methods.TRANSFORM.over(connection.channel.stream_stream),
            request=build_transform_request(options, is_segmented=segments is not None),
            source=build_source(text, segments),
            state=self._settings.stream(connection, timeout),
            sleep=self._sleep,
        )
        with closing(stream):
            yield stream

    @contextmanager
    def compose(
        self,
        task: str,
        *,
        timeout: float | None = None,
        **options: Unpack[ComposeOptions],
    ) -> Iterator[SyncDocumentStream]:
        """Write the sections of a text in parallel; see `AsyncClient.compose`."""
        connection = self._open_connection()
        stream = SyncDocumentStream(
            method=methods.COMPOSE.over(connection.channel.stream_stream),
            request=build_compose_request(task, options),
            source=None,
            state=self._settings.stream(connection, timeout),
            sleep=self._sleep,
        )
        with closing(stream):
            yield stream
