"""Programs that use the client as its documentation says; mypy must accept them."""

from collections.abc import AsyncIterator
from typing import assert_type

from hocket.client import (
    AsyncClient,
    Client,
    ClientError,
    DocumentEvent,
    DocumentResult,
    Event,
    Finished,
    GenerationOptions,
    GenerationResult,
    GivenSegment,
    HealthStatus,
    InvalidRequest,
    MapResult,
    Message,
    Model,
    RetryPolicy,
    Section,
    SegmentFinished,
    Sentence,
    SentenceOptions,
    TextPiece,
    Tls,
    Token,
    TransformOptions,
)


async def stream_sentences() -> None:
    """Follow one answer."""
    retry = RetryPolicy(max_attempts=2)
    async with (
        AsyncClient("127.0.0.1:50051", timeout=60, retry=retry) as client,
        client.stream("Once", max_tokens=64, granularity="sentence") as stream,
    ):
        async for event in stream:
            assert_type(event, Event)
            match event:
                case Sentence(text=text):
                    assert_type(text, str)
                case Finished(usage=usage):
                    assert_type(usage.completion_tokens, int)
                case _:
                    pass
        assert_type(await stream.result(), GenerationResult)


async def follow_text() -> str:
    """Join the pieces of an answer to a conversation."""
    messages = (Message(role="user", content="Hello"), {"role": "assistant", "content": "Hi"})
    async with (
        AsyncClient("localhost:50051", token=lambda: "secret", tls=Tls()) as client,
        client.stream(messages=messages, sentences=SentenceOptions(language="en")) as stream,
    ):
        return "".join([text async for text in stream.text()])


async def many() -> None:
    """Submit several and read them as they come."""
    options: GenerationOptions = {"temperature": 0.7, "max_tokens": 32}
    async with AsyncClient("localhost:50051") as client, client.generate_many() as stream:
        assert_type(await stream.submit("a", **options), str)
        stream.close_sending()
        async for request_id, event in stream:
            assert_type(request_id, str)
            assert_type(event, Event | ClientError)


async def documents() -> None:
    """Transform a document that is still being made, and compose a text."""
    options: TransformOptions = {"translate_to": ["pt", "es"], "order": "interleaved"}

    async def parts() -> AsyncIterator[str]:
        yield "One. "

    async with AsyncClient("localhost:50051") as client:
        async with client.transform(parts(), **options) as stream:
            async for event in stream:
                assert_type(event, DocumentEvent)
                if isinstance(event, SegmentFinished) and event.error is not None:
                    stream.cancel_segment(event.segment, event.variant)
            assert_type(await stream.result(), DocumentResult)
        async with client.transform(segments=[GivenSegment(text="One."), "Two."], rewrite=True):
            pass
        async with client.compose("x", sections=["A", Section(title="B")], join="End.") as text:
            assert_type(text.document().text, str)


async def corpus() -> None:
    """Do the same with many texts."""
    async with AsyncClient("localhost:50051") as client:
        async for result in client.map(["a", ("id", "b")], window=8, max_tokens=32):
            assert_type(result, MapResult)
            assert_type(result.error, ClientError | None)
        async for result in client.map(["a"], op="transform", translate_to="pt", max_tokens=32):
            assert_type(result.failed_segments, int)


def blocking() -> None:
    """Do the same without asyncio."""
    with Client("localhost:50051") as client:
        assert_type(client.list_models(), tuple[Model, ...])
        assert_type(client.tokenize("x"), tuple[Token, ...])
        assert_type(client.split_sentences("x"), tuple[TextPiece, ...])
        assert_type(client.check_health(), HealthStatus)
        try:
            assert_type(client.generate(token_ids=[1, 2]), GenerationResult)
        except InvalidRequest as error:
            assert_type([violation.field for violation in error.violations], list[str])
        with client.stream("x") as stream:
            for event in stream:
                assert_type(event, Event)
        with client.transform(["One. ", "Two."], instruction="x", window=4) as document:
            assert_type(document.result().texts, tuple[str, ...])
