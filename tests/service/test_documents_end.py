"""A document that ends by a message, after which its segments can still be cancelled."""

from document.scripted_writer import ScriptedWriter
from document.stories import DONE
from hocket.server.document.job import Place
from hocket.v1 import document_pb2, options_pb2
from service.document_calls import Request, call_of, calling, cancel, parts, seen_of, send, start

END = Request(end=document_pb2.EndDocument())


async def test_the_end_is_the_end_and_cancels_may_follow(written_by):
    writer = written_by(ScriptedWriter())
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(call, start(), *parts("One. Two."), END, ends=False)
        await writer.wait_for(lambda: len(writer.begun) == 2)
        await send(call, cancel(1), *parts(" Three."), END, ends=False)
        writer.say(Place(0), DONE)
        seen = await seen_of(call)
    assert [seen.ends[index, 0].finish_reason for index in (0, 1)] == [
        options_pb2.FINISH_REASON_END_OF_TEXT,
        options_pb2.FINISH_REASON_CANCELLED,
    ]
    seen.check("One. Two.")


async def test_what_follows_the_end_hides_no_cancel(written_by):
    """Whatever else comes behind it is ignored, one by one."""
    writer = written_by(ScriptedWriter())
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(call, start(), *parts("One. Two."), END, ends=False)
        await writer.wait_for(lambda: len(writer.begun) == 2)
        await send(call, *parts(" Three."), start(), Request(), END, cancel(1), ends=False)
        await writer.wait_for(lambda: Place(1) in writer.closed)
        writer.say(Place(0), DONE)
        seen = await seen_of(call)
    assert seen.ends[1, 0].finish_reason == options_pb2.FINISH_REASON_CANCELLED
    seen.check("One. Two.")


async def test_without_a_text_the_document_is_empty():
    async with calling() as (_, channel):
        call = call_of(channel)
        await send(call, start(), END, ends=False)
        seen = await seen_of(call)
    assert (seen.finished.segments, seen.end.code) == (0, "OK")
