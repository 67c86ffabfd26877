"""`map` of both clients: any iterable in, a result for each item out, and nothing left behind."""

import asyncio
import threading

import pytest

from hocket.client import (
    NO_RETRIES,
    AsyncClient,
    Client,
    Draining,
    FinishReason,
    GenerationFailed,
    InvalidRequest,
    MapResult,
)
from hocket.server.testing.scripted_runner import ScriptedRunner, echo
from hocket.server.testing.serving import ScriptedModel, serving
from service.document_calls import answer

TEXTS = [f"text {number}" for number in range(150)]


class Mapping:
    """Runs a whole job with either client."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def run(self, app, items, **options) -> list[MapResult]:
        if self.kind == "asyncio":
            async with AsyncClient(app.address, retry=NO_RETRIES) as client:
                return [result async for result in client.map(items, **options)]

        def blocking() -> list[MapResult]:
            with Client(app.address, retry=NO_RETRIES) as client:
                return list(client.map(items, **options))

        return await asyncio.to_thread(blocking)


@pytest.fixture(params=["asyncio", "blocking"])
def mapping(request) -> Mapping:
    return Mapping(request.param)


async def test_each_text_has_its_answer(mapping):
    async with serving() as app:
        results = await mapping.run(app, TEXTS, in_order=True, window=5)
    assert [result.text.encode() for result in results] == [echo(t.encode()) for t in TEXTS]
    assert [(result.id, result.index) for result in results] == [
        (str(number), number) for number in range(150)
    ]
    assert {result.finish_reason for result in results} == {FinishReason.END_OF_TEXT}
    assert all(result.usage.completion_tokens for result in results)


async def test_pairs_keep_their_ids_and_come_as_they_are_done(mapping):
    async with serving() as app:
        results = await mapping.run(app, ((text.upper(), text) for text in TEXTS))
    assert {result.id: result.text.encode() for result in results} == {
        text.upper(): echo(text.encode()) for text in TEXTS
    }


async def test_messages_make_a_conversation_of_each_item(mapping):
    async with serving() as app:
        (plain,) = await mapping.run(app, ["hi"])
        (chat,) = await mapping.run(app, ["hi"], messages=[])
        (both,) = await mapping.run(app, ["hi"], messages=[{"role": "system", "content": "x"}])
    assert [echo(b"hi"), echo(b"xhi")] == [chat.text.encode(), both.text.encode()]
    tokens = [each.usage.prompt_tokens for each in (plain, chat, both)]
    assert tokens[0] < tokens[1] < tokens[2]  # its roles are tokens, too


async def test_texts_are_cut_and_tokenized(mapping):
    async with serving() as app:
        (cut,) = await mapping.run(app, ["Ünö. Düö."], op="split")
        (tokenized,) = await mapping.run(app, ["ab"], op="tokenize", add_special_tokens=True)
    assert [piece.text for piece in cut.pieces] == ["Ünö. ", "Düö."]
    assert [(token.start_byte, token.end_byte) for token in tokenized.tokens][-2:] == [
        (0, 1),
        (1, 2),
    ]


@pytest.mark.usefixtures("logged")
async def test_each_text_is_transformed_as_a_document_of_its_own(mapping):
    """The same target as that of `transform`; or, whole, one segment."""
    texts = ["One. Two!\n\nThree?", "", "Call `f()` now.", " RAISE. Two."]
    async with serving(ScriptedModel(ScriptedRunner(answer))) as app:
        results = await mapping.run(
            app, texts, op="transform", in_order=True, instruction="Do: ", max_tokens=300
        )
        async with AsyncClient(app.address, retry=NO_RETRIES) as client:
            for text, result in zip(texts, results, strict=True):
                async with client.transform(text, instruction="Do: ") as stream:
                    document = await stream.result()
                assert document.text == result.text
                assert len(document.segments) == result.segments
                assert len(document.failed) == result.failed_segments
        (whole,) = await mapping.run(
            app, ["One. Two."], op="transform", template="{segment}", segmentation="whole"
        )
        (failed,) = await mapping.run(app, ["RAISE"], op="transform", rewrite=True)
    assert (whole.text, whole.segments) == ("<One. Two.>", 1)
    assert isinstance(failed.error, GenerationFailed)
    assert [each.failed_segments for each in results] == [0, 0, 0, 1]


async def test_an_item_that_fails_has_its_error(mapping):
    async with serving() as app:
        one, bad, empty, two = await mapping.run(app, ["one", "RAISE", "", "two"], in_order=True)
        with pytest.raises(GenerationFailed):
            await mapping.run(app, ["one", "RAISE", "two"], stop_on_error=True)
    assert isinstance(bad.error, GenerationFailed)
    assert isinstance(empty.error, InvalidRequest)
    assert (one.error, two.error) == (None, None)


async def test_no_items_are_no_results(mapping):
    async with serving() as app:
        assert await mapping.run(app, []) == []


async def test_what_the_iterable_raises_is_raised(mapping):
    def items():
        yield "one"
        raise LookupError("no more")

    async with serving() as app:
        with pytest.raises(LookupError, match="no more"):
            await mapping.run(app, items())
        with pytest.raises((TypeError, ValueError)):
            await mapping.run(app, [3])
        await asyncio.sleep(0)
        assert app._admission.statistics().in_progress == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"op": "sing"}, ValueError),
        ({"op": "split", "model": "x"}, TypeError),
        ({"op": "tokenize", "max_tokens": 3}, TypeError),
        ({"token_ids": [1]}, TypeError),
        ({"paragraphs": True}, TypeError),
        ({"rewrite": True}, TypeError),
        ({"op": "transform"}, TypeError),
        ({"op": "transform", "rewrite": True, "instruction": "x"}, TypeError),
        ({"op": "transform", "rewrite": True, "protected_ranges": [(0, 1)]}, TypeError),
        ({"op": "transform", "rewrite": True, "messages": []}, TypeError),
        ({"op": "transform", "translate_to": ["Latin", "Greek"]}, TypeError),
        ({"op": "transform", "rewrite": True, "segmentation": "words"}, ValueError),
        ({"seed": -1}, ValueError),
    ],
)
async def test_a_wrong_option_is_told_before_anything_is_sent(mapping, options, error):
    async with serving() as app:
        with pytest.raises(error):
            await mapping.run(app, ["x"], **options)


async def test_a_start_that_is_refused_is_raised(mapping):
    async with serving() as app:
        with pytest.raises(InvalidRequest) as caught:
            await mapping.run(app, ["x"], window=1_000, temperature=99)
    assert {violation.field for violation in caught.value.violations} == {
        "start.window",
        "start.generate.sampling.temperature",
    }


@pytest.mark.parametrize("is_async", [False, True])
async def test_items_are_taken_no_faster_than_there_is_room(is_async):
    """Twice the window of them at most have no result."""
    taken, most = [0], []

    def items():
        for text in TEXTS:
            taken[0] += 1
            yield text

    async def async_items():
        for item in items():
            yield item

    async with serving() as app, AsyncClient(app.address, retry=NO_RETRIES) as client:
        stream = client.map(async_items() if is_async else items(), window=4)
        count = 0
        async for _ in stream:
            most.append(taken[0] - count)
            count += 1
    assert count == 150
    assert max(most) <= 2 * 4 + 1


@pytest.mark.parametrize("is_block", [False, True], ids=["loop", "block"])
async def test_leaving_ends_the_job(settled, logged, is_block):
    """Though its iterable never ends, nor says anything more."""
    left = asyncio.Event()

    async def items():
        try:
            yield "one"
            await asyncio.Event().wait()
        finally:
            left.set()

    async with serving() as app, AsyncClient(app.address, retry=NO_RETRIES) as client:
        if is_block:
            async with client.map(items()) as results:
                assert (await anext(aiter(results))).text.encode() == echo(b"one")
        else:
            async for result in client.map(items()):
                assert result.text.encode() == echo(b"one")
                break
        async with asyncio.timeout(10):
            await left.wait()
        await settled(app, lambda: any(line["event"] == "rpc" for line in logged))
    assert [line["code"] for line in logged if line["event"] == "rpc"] == ["CANCELLED"]


async def test_leaving_ends_a_blocking_job(settled, logged):
    """And gRPC's thread takes nothing more."""
    threads = set()

    def items():
        while True:
            threads.add(threading.current_thread())
            yield "one"

    def blocking(address) -> None:
        with Client(address, retry=NO_RETRIES) as client:
            for result in client.map(items(), window=2):
                assert result.text.encode() == echo(b"one")
                break

    async with serving() as app:
        await asyncio.to_thread(blocking, app.address)
        await settled(app, lambda: any(line["event"] == "rpc" for line in logged))
    for thread in threads:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
    assert [line["code"] for line in logged if line["event"] == "rpc"] == ["CANCELLED"]


async def test_a_server_that_leaves_ends_the_job(settled):
    """Even one whose iterable waits."""

    async def items():
        yield "one"
        await asyncio.Event().wait()

    async with serving() as app, AsyncClient(app.address, retry=NO_RETRIES) as client:
        results = aiter(client.map(items()))
        await anext(results)
        app.leave()
        with pytest.raises(Draining):
            await anext(results)
