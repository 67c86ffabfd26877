"""Translators beside the model, over the wire: whole documents, refusals, cancels, and leaving."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from hocket.client import AsyncClient, InvalidRequest, SegmentFinished
from hocket.client.__main__ import main
from hocket.server.app import App
from hocket.server.lifecycle import ServerState
from hocket.server.testing.scripted_runner import ScriptedRunner
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from hocket.v1 import (
    document_pb2,
    document_pb2_grpc,
    generation_pb2,
    model_pb2,
    model_pb2_grpc,
    options_pb2,
    text_pb2,
    text_pb2_grpc,
)
from running_app import app_of, running
from service.document_calls import (
    ORDERS,
    answer,
    call_of,
    cancel,
    is_quiet,
    parts,
    seen_of,
    send,
    start,
)
from service.raw_calls import end_of, reason_of, stub_of
from translation.made_up import Upper

SOURCE = (
    "  One dog. Two {cats}!\n\n# Three\n\n- four\n- five at https://a.example/x\n"
    "```\ncode();\n```\nSix.  \n"
)
NAME = "upper"
TO_PT = {"model": NAME, "translate": {"target_languages": ["pt"]}}


@asynccontextmanager
async def translating(translator: Upper, **sections) -> AsyncIterator[tuple[App, grpc.aio.Channel]]:
    """Serve a translator beside a model that puts prompts into brackets."""
    model = ScriptedModel(ScriptedRunner(answer))
    async with (
        asyncio.timeout(20),
        serving(model, loopback_settings(**sections), {NAME: translator}) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        try:
            yield app, channel
        finally:
            translator.open()


@pytest.mark.parametrize("segmentation", [1, 2], ids=["sentences", "paragraphs"])
async def test_a_document_comes_back_whole_in_every_order(segmentation, settled):
    upper = Upper()
    async with translating(upper) as (app, channel):
        stories = {}
        for name, order in ORDERS.items():
            call = call_of(channel)
            asked = start(**TO_PT, segmentation=segmentation, order=order, window=3, cache=False)
            await send(call, asked, *parts(SOURCE[:20], SOURCE[20:]))
            stories[name] = seen = await seen_of(call)
            assert seen.end.code == "OK"
            seen.check(SOURCE)
        first = stories["in_order"]
        assert first.texts[0, 0].startswith("[ONE DOG.]")
        whole = "".join(first.texts.values())
        assert "[TWO] {cats}!" in whole
        assert "https://a.example/x" in whole
        assert "code" not in "".join(asked[0] for asked in upper.asked)
        assert all(seen.texts == first.texts for seen in stories.values())
        assert (first.started.model, first.finished.usage.ByteSize()) == (NAME, 0)
        await settled(app, lambda: is_quiet(app))
    assert upper.is_closed
    assert upper.most <= 2


async def test_several_targets_are_variants_and_the_cache_knows_them():
    upper = Upper(frozenset({("en", "pt"), ("en", "es")}))
    async with translating(upper) as (_, channel):
        for cached in (0, 4):
            call = call_of(channel)
            languages = {"target_languages": ["pt", "Spanish"]}
            await send(call, start(model=NAME, translate=languages), *parts("One. Two."))
            seen = await seen_of(call)
            seen.check("One. Two.")
            assert list(seen.started.variants) == ["pt", "Spanish"]
            assert seen.finished.cached == cached
    assert sorted(upper.asked) == [
        (text, "en", target) for text in ("One.", "Two.") for target in ("es", "pt")
    ]


async def test_a_sentence_that_fails_disturbs_no_other(logged):
    async with translating(Upper()) as (_, channel):
        call = call_of(channel)
        await send(call, start(**TO_PT), *parts("One. A bad one. Three."))
        seen = await seen_of(call)
    assert (seen.end.code, seen.finished.failed) == ("OK", 1)
    assert reason_of(seen.ends[1, 0].status) == "GENERATION_FAILED"
    assert [seen.texts[index, 0] for index in (0, 2)] == ["[ONE.]", "[THREE.]"]
    assert "secret" not in str(seen.ends[1, 0])
    faults = [line for line in logged if line["event"] == "a fault in a translator"]
    assert [str(line["exc_info"]) for line in faults] == ["secret"]


async def test_a_segment_is_cancelled_though_its_thread_is_busy(settled):
    upper = Upper(is_open=False)
    async with translating(upper) as (app, channel):
        call = call_of(channel)
        await send(call, start(**TO_PT), *parts("One. Two. Three. "), ends=False)
        await upper.reached.wait()
        await send(call, cancel(0))
        ended = None
        while ended is None or not ended.HasField("segment_finished"):
            ended = await call.read()  # while every thread is held
        assert ended.segment_finished.segment == 0
        assert ended.segment_finished.finish_reason == options_pb2.FINISH_REASON_CANCELLED
        upper.open()
        end = await end_of(call)
        assert end.events[-1].finished.incomplete == 1
        await settled(app, lambda: is_quiet(app))


async def test_the_time_budget_ends_a_document_though_threads_are_busy():
    upper = Upper(is_open=False)
    async with translating(upper) as (_, channel):
        call = call_of(channel)
        await send(call, start(**TO_PT, time_budget={"nanos": 50_000_000}), *parts("One. Two."))
        seen = await seen_of(call)
        assert seen.finished.is_partial
        assert seen.finished.incomplete == 2
        upper.open()


async def test_who_leaves_leaves_nothing_behind(settled):
    upper = Upper(is_open=False)
    async with translating(upper) as (app, channel):
        call = call_of(channel)
        await send(call, start(**TO_PT), *parts("One. Two. Three. Four. Five."))
        await upper.reached.wait()
        call.cancel()
        await settled(app, lambda: is_quiet(app))
        upper.open()
        again = call_of(channel)
        await send(again, start(**TO_PT), *parts("Six."))
        assert (await seen_of(again)).texts == {(0, 0): "[SIX.]"}
    assert "Five." not in [asked[0] for asked in upper.asked]


async def test_what_is_left_at_the_end_of_the_grace_is_told_why():
    upper = Upper(is_open=False)
    async with translating(upper, drain={"grace_seconds": 0.1}) as (app, channel):
        call = call_of(channel)
        await send(call, start(**TO_PT), *parts("One. Two."))
        await upper.reached.wait()
        app.leave()
        await app.lifecycle.wait_for(ServerState.STOPPED)
        end = await end_of(call)
        upper.open()
    assert (end.code, end.reason) == ("UNAVAILABLE", "SERVER_DRAINING")


async def test_the_death_of_the_engine_ends_documents_that_do_not_need_it():
    """The process is leaving: nobody is left to wait for a thread."""
    upper = Upper(is_open=False)
    settings = loopback_settings(translator={"translators": [f"{NAME}=x"]})
    app = app_of(settings=settings, load_translator=lambda _spec: upper)
    async with running(app) as task:
        await app.lifecycle.wait_for(ServerState.SERVING)
        async with grpc.aio.insecure_channel(app.address) as channel:
            call = call_of(channel)
            await send(call, start(**TO_PT), *parts("One. Two."))
            await upper.reached.wait()
            app._fail(RuntimeError("the engine died"))
            end = await end_of(call)
            upper.open()
        assert (end.code, end.reason) == ("UNAVAILABLE", "ENGINE_FAILED")
        assert await task == 1


async def test_an_accepted_document_finishes_while_the_server_drains():
    upper = Upper(is_open=False)
    async with translating(upper) as (app, channel):
        call = call_of(channel)
        await send(call, start(**TO_PT), *parts("One. Two."))
        await upper.reached.wait()
        app.leave()
        await app.lifecycle.wait_for(ServerState.DRAINING)
        upper.open()
        seen = await seen_of(call)
    assert seen.end.code == "OK"
    seen.check("One. Two.")


async def test_one_id_is_of_one_request_whoever_works_on_it():
    upper = Upper(is_open=False)
    async with translating(upper, listener={"control": True}) as (app, channel):
        call = call_of(channel)
        await send(call, start(**TO_PT, request_id="same"), *parts("One."))
        await upper.reached.wait()
        for other in (start(**TO_PT, request_id="same"), start(request_id="same")):
            second = call_of(channel)
            await send(second, other, *parts("One."))
            assert (await end_of(second)).code == "ALREADY_EXISTS"
        request = generation_pb2.GenerateRequest(request_id="same", prompt="hi")
        assert (await end_of(stub_of(channel).Generate(request))).code == "ALREADY_EXISTS"
        async with AsyncClient(app.address) as client:
            assert await client.abort("same")
        seen = await seen_of(call)
        assert seen.ends[0, 0].finish_reason == options_pb2.FINISH_REASON_ABORTED
        upper.open()


async def test_the_catalogue_tells_what_it_can_do():
    async with translating(Upper()) as (app, channel):
        stub = model_pb2_grpc.ModelServiceStub(channel)
        models = (await stub.ListModels(model_pb2.ListModelsRequest())).models
        assert [model.name for model in models] == ["scripted", NAME]
        assert not models[0].capabilities.translate
        found = (await stub.GetModel(model_pb2.GetModelRequest(name=NAME))).model
        assert found == models[1]
        assert (found.architecture, found.dtype, found.digest) == ("capitals", "int8", "1")
        assert found.capabilities == model_pb2.ModelCapabilities(translate=True)
        assert not found.HasField("limits")
        async with AsyncClient(app.address) as client:
            model = await client.get_model(NAME)
        assert model.can_translate
        assert not model.can_generate
        assert model.directions == (("en", "pt"), ("es", "en"), ("pt", "en"))


async def _refusals(channel: grpc.aio.Channel, model: str) -> dict[str, grpc.aio.Call]:
    """Ask a model for all that only a language model can do."""
    texts, item = text_pb2_grpc.TextServiceStub(channel), text_pb2.ProcessItem(id="1", text="hi")
    generate = generation_pb2.GenerateRequest(model=model, prompt="hi")
    compose = document_pb2_grpc.DocumentServiceStub(channel).Compose()
    await compose.write(
        document_pb2.ComposeRequest(start=document_pb2.ComposeStart(model=model, task="Write."))
    )
    calls = {
        "generate": stub_of(channel).Generate(generate),
        "tokenize": texts.Tokenize(text_pb2.TokenizeRequest(model=model, text="hi")),
        "detokenize": texts.Detokenize(text_pb2.DetokenizeRequest(model=model, token_ids=[1])),
        "count": texts.CountTokens(text_pb2.CountTokensRequest(model=model, texts=["hi"])),
        "compose": compose,
    }
    for name, work in (
        ("generate", {"generate": {"model": model}}),
        ("tokenize", {"tokenize": {"model": model}}),
    ):
        calls[f"process {name}"] = process = texts.Process()
        await process.write(text_pb2.ProcessRequest(start=text_pb2.ProcessStart(**work)))
        await process.write(text_pb2.ProcessRequest(item=item))
    return calls


async def _refusal(call: grpc.aio.Call) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call.read() if hasattr(call, "read") else call)
    return caught.value.code().name, caught.value.details() or ""


async def test_a_translator_is_refused_for_anything_else_before_any_work():
    upper = Upper()
    fields = {"compose": "start.model", "process generate": "start.generate.model",
              "process tokenize": "start.tokenize.model"}  # fmt: skip
    async with translating(upper) as (_, channel):
        for name, call in (await _refusals(channel, NAME)).items():
            code, message = await _refusal(call)
            assert code == "INVALID_ARGUMENT", name
            assert message.startswith(f"{fields.get(name, 'model')}: upper is a translator"), name
        for name, call in (await _refusals(channel, "nobody")).items():
            assert (await _refusal(call))[0] == "NOT_FOUND", name
    assert upper.asked == []


async def test_the_client_sends_a_document_through_and_hears_what_is_wrong():
    async with translating(Upper()) as (app, _), AsyncClient(app.address) as client:
        async with client.transform("One. Two.", translate_to="pt", model=NAME) as stream:
            ends = [event async for event in stream if isinstance(event, SegmentFinished)]
            assert stream.document().text == "[ONE.] [TWO.]"
        assert len(ends) == 2
        for wrong in ({"translate_to": "de"}, {"rewrite": "plain"}):
            with pytest.raises(InvalidRequest, match="upper"):
                async with client.transform("One.", model=NAME, **wrong) as stream:
                    await anext(aiter(stream))


async def test_the_command_line_translates_a_file(tmp_path):
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("One dog.\n\nTwo cats.\n")
    async with translating(Upper()) as (app, _):
        flags = ["--model", NAME, "--translate-to", "pt", "--output", str(target)]
        code = await asyncio.to_thread(
            main, ["transform", str(source), "--address", app.address, *flags, "--text"]
        )
    assert (code, target.read_text()) == (0, "[ONE DOG.]\n\n[TWO CATS.]\n")


async def test_a_corpus_goes_through_a_translator():
    """Each item as a document of its own."""
    async with translating(Upper()) as (app, _), AsyncClient(app.address) as client:
        items = [("a", "One dog. Two cats."), ("b", "Three.")]
        found = {
            result.id: result.text
            async for result in client.map(items, op="transform", model=NAME, translate_to=["pt"])
        }
    assert found == {"a": "[ONE DOG.] [TWO CATS.]", "b": "[THREE.]"}
