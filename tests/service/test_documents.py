"""Whole documents over the wire: rebuilt byte for byte, in three orders, whatever ends early."""

import asyncio
import contextlib

import grpc
import pytest

from document.scripted_writer import ScriptedWriter
from document.stories import DONE, piece
from hocket.server.document.job import Place
from hocket.server.errors import GenerationFailed
from hocket.server.rpc import documents
from hocket.v1 import document_pb2, generation_pb2, options_pb2
from service.document_calls import (
    ORDERS,
    Request,
    Seen,
    call_of,
    calling,
    cancel,
    given,
    is_quiet,
    parts,
    seen_of,
    send,
    start,
)
from service.raw_calls import end_of, reason_of, stub_of

SOURCE = (
    "  Der Hund bellt. Die Katze schläft!\n\n# Kapitel\n\n- eins\n- zwei\n\n"
    "これは犬です。猫です。\r\nهذا كلب. وهذه قطة؟\n```\ncode();\n```\nEnde gut.  \n"
)
REASON = options_pb2.FinishReason


@pytest.mark.parametrize("segmentation", [1, 2], ids=["sentences", "paragraphs"])
async def test_a_document_comes_back_whole_in_every_order(segmentation, settled):
    async with calling() as (app, channel):
        stories = {}
        for name, order in ORDERS.items():
            for size in (3, 1_000):
                call = call_of(channel)
                cut = [SOURCE[at : at + size] for at in range(0, len(SOURCE), size)]
                await send(
                    call, start(segmentation=segmentation, order=order, window=3), *parts(*cut)
                )
                stories[name, size] = seen = await seen_of(call)
                assert seen.end.code == "OK"
                seen.check(SOURCE)
        first = stories["in_order", 1_000]
        assert first.finished.segments >= 6
        assert list(first.texts) == sorted(first.texts)
        for place, text in first.texts.items():
            begin, end = first.ranges[place]
            assert text == f"<{SOURCE.encode()[begin:end].decode()}>"
        for seen in stories.values():
            assert first.texts == seen.texts
            assert first.gaps == seen.gaps
            assert list(first.finished.target_bytes) == list(seen.finished.target_bytes)
        await settled(app, lambda: is_quiet(app))


async def test_a_segment_is_what_the_same_prompt_alone_gives():
    """Which is a conversation of one message: the instruction, and under it the segment."""
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(call, start(instruction="Say it."), *parts("One. Two."))
        seen = await seen_of(call)
        for index, text in enumerate(("One.", "Two.")):
            request = generation_pb2.GenerateRequest()
            request.chat.messages.add(role="user", content=f"Say it.\n\n{text}")
            end = await end_of(stub_of(channel).Generate(request))
            alone = "".join(event.sentence.text for event in end.events)
            assert seen.texts[index, 0] == alone == f"<{text}>"


async def test_what_was_written_is_taken_from_the_cache_unless_that_is_not_wanted():
    """The same document comes back, and says so; in other words or without the cache, anew."""
    source = "One. Two. One."
    async with calling() as (_, channel):

        async def told(**fields) -> Seen:
            call = call_of(channel)
            await send(call, start(**fields), *parts(source))
            seen = await seen_of(call)
            seen.check(source)
            return seen

        first = await told(window=1)
        assert [first.ends[i, 0].is_cached for i in range(3)] == [False, False, True]
        again = await told()
        assert again.finished.cached == 3
        assert again.texts == first.texts
        assert again.finished.usage.ByteSize() == 0
        assert not again.ends[0, 0].HasField("timings")
        for fields in ({"cache": False}, {"instruction": "Else: "}, {"context_segments": 1}):
            assert (await told(window=1, **fields)).finished.cached < 3
        sampled = await told(sampling={"temperature": 1})
        assert sampled.finished.cached == 0


async def test_there_may_be_no_cache():
    async with calling(document={"cache_mib": 0}) as (_, channel):
        call = call_of(channel)
        await send(call, start(), *parts("One. One. One."))
        seen = await seen_of(call)
    assert (seen.finished.segments, seen.finished.cached) == (3, 0)


async def test_all_ranges_of_the_target_are_told_in_order():
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(call, start(), *parts(SOURCE))
        seen = await seen_of(call)
    assert all(end.HasField("target") for end in seen.ends.values())


async def test_given_segments_and_their_gaps_come_back():
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(
            call,
            start(segmentation=document_pb2.SEGMENTATION_GIVEN),
            given("Eins"),
            given(" zwei ", "\n--\n"),
        )
        seen = await seen_of(call)
    assert seen.texts == {(0, 0): "<Eins>", (1, 0): "<zwei>"}
    seen.check("Eins\n-- zwei ".replace("--", "--\n"))


async def test_each_language_is_a_variant(written_by):
    writer = written_by(ScriptedWriter())
    for segment in range(2):
        for variant in range(2):
            writer.say(Place(segment, variant), piece(f"{segment}{variant}"), DONE)
    async with calling() as (_, channel):
        call = call_of(channel)
        translate = document_pb2.Translate(target_languages=["de", "fr"])
        await send(call, start(translate=translate), *parts("One. Two."))
        seen = await seen_of(call)
    assert list(seen.started.variants) == ["de", "fr"]
    assert seen.texts == {(0, 0): "00", (0, 1): "01", (1, 0): "10", (1, 1): "11"}
    seen.check("One. Two.")


async def test_results_come_while_the_caller_still_writes():
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(call, start(), *parts("One. Two"), ends=False)
        kinds = [(await call.read()).WhichOneof("event") for _ in range(3)]
        assert kinds == ["started", "segment_started", "piece"]
        await send(call, *parts(".\n"))
        end = await end_of(call)
    assert end.events[-1].finished.segments == 2


async def test_a_segment_that_fails_ends_alone_with_its_own_status(written_by, logged, settled):
    writer = written_by(ScriptedWriter())
    writer.say(Place(0), piece("a"), GenerationFailed())
    writer.say(Place(1), ValueError("hush"))
    writer.say(Place(2), piece("c"), DONE)
    async with calling() as (app, channel):
        call = call_of(channel)
        await send(call, start(request_id="d"), *parts("One. Two. Three."))
        seen = await seen_of(call)
        await settled(app, lambda: is_quiet(app))
    seen.check("One. Two. Three.")
    assert (seen.finished.failed, seen.end.code) == (2, "OK")
    assert [reason_of(seen.ends[i, 0].status) for i in range(3)] == ["GENERATION_FAILED"] * 2 + [""]
    assert seen.ends[0, 0].finish_reason == REASON.Value("FINISH_REASON_UNSPECIFIED")
    assert "hush" not in str(seen.end.events)
    (bug,) = [line for line in logged if line["event"] == "bug"]
    assert (bug["request_id"], bug["segment"]) == ("d", 1)


async def test_a_segment_is_cancelled_known_or_not(written_by):
    writer = written_by(ScriptedWriter())
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(
            call, start(window=2), cancel(3), *parts("One. Two. Three. Four. Five."), ends=False
        )
        await writer.wait_for(lambda: len(writer.begun) == 2)
        await send(call, cancel(0), cancel(1, variant=7))
        for index in (1, 2, 4):
            writer.say(Place(index), DONE)
        seen = await seen_of(call)
    reasons = [end.finish_reason for _, end in sorted(seen.ends.items())]
    cancelled, done = options_pb2.FINISH_REASON_CANCELLED, options_pb2.FINISH_REASON_END_OF_TEXT
    assert reasons == [cancelled, done, done, cancelled, done]
    assert [Place(index) for index in (0, 1, 2, 4)] == writer.begun
    assert seen.finished.incomplete == 2
    seen.check("One. Two. Three. Four. Five.")


async def test_one_line_tells_of_a_document(logged):
    async with calling() as (_, channel):
        call = call_of(channel, metadata=(("x-request-id", "mine"),))
        await send(call, start(request_id="d"), *parts("One. Two."))
        seen = await seen_of(call)
        assert dict(await call.trailing_metadata())["x-request-id"] == "d"
    (line,) = [line for line in logged if line["event"] == "rpc"]
    usage = seen.finished.usage
    assert (line["method"], line["code"]) == ("Transform", "OK")
    assert (line["request_id"], line["correlation_id"], line["model"]) == ("d", "mine", "scripted")
    assert line["prompt_tokens"] == usage.prompt_tokens > 0
    assert line["completion_tokens"] == usage.completion_tokens > 0
    assert line["sentences"] == 2
    assert line["ttfs_ms"] is not None


async def test_an_id_in_use_is_refused():
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(call, start(request_id="x"), ends=False)
        await call.read()
        other = call_of(channel)
        await send(other, start(request_id="x"))
        end = await end_of(other)
        assert (end.code, end.reason) == ("ALREADY_EXISTS", "REQUEST_ID_IN_USE")
        await call.done_writing()
        assert (await end_of(call)).code == "OK"


async def test_no_id_of_a_caller_is_the_name_of_a_segment():
    """Nor is any that begins with the document's own."""
    async with calling() as (_, channel):
        others = []
        for name in ("d.0.0", "d.0"):
            request = generation_pb2.GenerateRequest(request_id=name, prompt="On and on")
            request.stopping.ignore_eos, request.stopping.max_tokens = True, 3_000
            others.append(stub_of(channel).Generate(request))
            await others[-1].read()
        call = call_of(channel)
        await send(call, start(request_id="d"), *parts("One. Two."))
        seen = await seen_of(call)
        for other in others:
            other.cancel()
    assert (seen.finished.failed, seen.end.code) == (0, "OK")


async def test_a_document_of_too_many_messages_is_refused(monkeypatch):
    monkeypatch.setattr(documents, "_MOST_PARTS", 3)
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(call, start(), *parts(*["One. "] * 4))
        end = await end_of(call)
    assert end.code == "INVALID_ARGUMENT"
    kinds = [event.WhichOneof("event") for event in end.events]
    assert kinds.count("segment_finished") == 2  # the third was still open


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([], "start"),
        (parts("One."), "start"),
        ([Request()], "start"),
        ([start(), start()], "start"),
        ([start(), Request()], "action"),
        ([start(), given("One.")], "segment"),
        ([start(segmentation=document_pb2.SEGMENTATION_GIVEN), *parts("One.")], "text"),
        ([start(), *parts("a" * 700_000, "b" * 700_000)], "text"),
    ],
    ids=["nothing", "text first", "empty first", "twice", "empty", "given", "text", "long"],
)
async def test_what_is_no_document_is_refused(requests, field, settled):
    async with calling(document={"max_mib": 1}) as (app, channel):
        call = call_of(channel)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await send(call, *requests)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await call.read() is not grpc.aio.EOF:
                pass
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details().startswith(f"{field}: ")
        await settled(app, lambda: is_quiet(app))
