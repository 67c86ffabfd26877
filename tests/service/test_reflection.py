"""Generic clients learn what is served, by either name of reflection."""

import contextlib

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2

from hocket.server.rpc.listener import SERVICES
from hocket.server.testing.serving import loopback_settings, serving

V1, V1ALPHA = "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"
FOREVER = {"delay_seconds": 0.0, "grace_seconds": 3_600.0}

Question = reflection_pb2.ServerReflectionRequest


def open_stream(channel: grpc.aio.Channel, name: str) -> grpc.aio.StreamStreamCall:
    """Begin a call with nothing but the wire's names, as a client of another language would."""
    return channel.stream_stream(
        f"/{name}/ServerReflectionInfo",
        request_serializer=Question.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()


async def ask(
    app, name: str, *questions: Question
) -> list[reflection_pb2.ServerReflectionResponse]:
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = open_stream(channel, name)
        for question in questions:
            await call.write(question)
        await call.done_writing()
        return [answer async for answer in call]


@pytest.fixture(params=[V1, V1ALPHA])
def name(request) -> str:
    return request.param


async def test_every_service_is_told_of_and_can_be_looked_up(name):
    """All that is listed has a file: clients ask for each listed name in turn."""
    async with serving() as app:
        (answer,) = await ask(app, name, Question(list_services=""))
        listed = [service.name for service in answer.list_services_response.service]
        assert sorted([*SERVICES, "grpc.health.v1.Health", V1ALPHA]) == listed
        files = await ask(app, name, *(Question(file_containing_symbol=one) for one in listed))
    for one, found in zip(listed, files, strict=True):
        parsed = [
            descriptor_pb2.FileDescriptorProto.FromString(raw)
            for raw in found.file_descriptor_response.file_descriptor_proto
        ]
        services = {f"{file.package}.{service.name}" for file in parsed for service in file.service}
        assert one in services
        names = {file.name for file in parsed}
        assert {needed for file in parsed for needed in file.dependency} <= names


async def test_what_does_not_exist_is_not_found_and_the_stream_goes_on(name):
    async with serving() as app:
        unknown, nothing, known = await ask(
            app,
            name,
            Question(file_containing_symbol="hocket.v1.Nobody"),
            Question(),
            Question(file_containing_symbol="hocket.v1.GenerateRequest"),
        )
    assert grpc.StatusCode.NOT_FOUND.value[0] == unknown.error_response.error_code
    assert unknown.original_request.file_containing_symbol == "hocket.v1.Nobody"
    assert grpc.StatusCode.INVALID_ARGUMENT.value[0] == nothing.error_response.error_code
    assert known.HasField("file_descriptor_response")


async def test_both_names_answer_with_the_same_bytes():
    questions = [
        Question(host="h", list_services="x"),
        Question(file_by_filename="hocket/v1/generation.proto"),
        Question(file_containing_symbol="hocket.v1.TextService.Tokenize"),
        Question(all_extension_numbers_of_type="hocket.v1.GenerateRequest"),
        Question(file_by_filename="nothing.proto"),
    ]
    async with serving() as app:
        assert await ask(app, V1, *questions) == await ask(app, V1ALPHA, *questions)


async def test_reflection_can_be_switched_off(name):
    settings = loopback_settings(listener={"reflection": False})
    async with serving(settings=settings) as app:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(app, name)
    assert grpc.StatusCode.UNIMPLEMENTED is caught.value.code()


async def test_a_malformed_question_ends_its_stream_alone(name):
    async with serving() as app, grpc.aio.insecure_channel(app.address) as channel:
        raw = channel.stream_stream(f"/{name}/ServerReflectionInfo")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw(iter([b"\xff\xff"])).read()
        assert grpc.StatusCode.INVALID_ARGUMENT is caught.value.code()
        assert len(await ask(app, name, Question(list_services=""))) == 1


async def test_an_open_stream_does_not_hold_up_the_departure(name):
    """The grace is an hour; the server leaves although its caller has not hung up."""
    async with contextlib.AsyncExitStack() as stack:
        async with serving(settings=loopback_settings(drain=FOREVER)) as app:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(app.address))
            call = open_stream(channel, name)
            await call.write(Question(list_services=""))
            await call.read()
        assert await call.read() == grpc.aio.EOF
        assert grpc.StatusCode.OK is await call.code()
