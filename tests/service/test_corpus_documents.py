"""Items of a corpus as documents: each comes back as the same text alone would, joined."""

import asyncio

import pytest

from hocket.server.errors import GenerationFailed
from hocket.server.testing.scripted_runner import ScriptedRunner
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from hocket.v1 import document_pb2, options_pb2
from service import document_calls
from service.corpus_calls import done, item, job, refusal, results, start, violations
from service.document_calls import answer, calling, is_quiet, parts, seen_of, send
from service.raw_calls import end_of, reason_of
from service.turnstile import stepped

TEXTS = [
    "One. Two!\n\n  Three?  ",
    "",
    " \n ",
    "Der Hund bellt. Die Katze schläft!\n\n# Kapitel\n\n- eins\n- zwei\n",
    "これは犬です。猫です。",
    "Call `f()` and {name} now. Good.",
]


def transforming(**fields) -> document_pb2.TransformStart:
    if not fields.keys() & {"translate", "classify", "rewrite", "summarize", "template"}:
        fields.setdefault("instruction", "Do: ")
    return document_pb2.TransformStart(**fields)


@pytest.mark.parametrize("segmentation", [1, 2], ids=["sentences", "paragraphs"])
async def test_an_item_is_the_target_of_the_same_document(segmentation):
    """Byte for byte, gaps and protected spans included, whatever the window."""
    fields = {"segmentation": segmentation, "window": 2, "protected_terms": ["Katze"]}
    async with calling() as (app, channel):
        end = await done(
            app, start(transform=transforming(**fields), in_order=True), *map(item, TEXTS)
        )
        assert end.kinds() == ["started", *["result"] * len(TEXTS), "finished"]
        for text, result in zip(TEXTS, results(end), strict=True):
            call = document_calls.call_of(channel)
            await send(call, document_calls.start(**fields), *parts(text))
            seen = await seen_of(call)
            target = "".join(seen.gaps[place] + seen.texts[place] for place in sorted(seen.texts))
            assert result.transformed.text == target + seen.finished.gap
            assert result.transformed.segments == seen.finished.segments
            assert result.transformed.failed_segments == 0
            assert result.transformed.finish_reason == options_pb2.FINISH_REASON_END_OF_TEXT
    assert [result.transformed.segments > 0 for result in results(end)] == [
        bool(text.strip()) for text in TEXTS
    ]


async def test_a_job_has_the_tokens_of_its_items_and_one_line(logged):
    async with calling() as (app, _):
        end = await done(app, start(transform=transforming()), item("One. Two."), item("Three."))
    finished = end.events[-1].finished
    for name in ("prompt_tokens", "completion_tokens"):
        spent = sum(getattr(each.transformed.usage, name) for each in results(end))
        assert getattr(finished.usage, name) == spent > 0
    (line,) = [line for line in logged if line["event"] == "rpc"]
    assert (line["method"], line["items"], line["failed_items"]) == ("Process", 2, None)
    assert line["completion_tokens"] == finished.usage.completion_tokens


async def test_items_share_the_cache_with_all_documents():
    async with calling() as (app, channel):
        call = document_calls.call_of(channel)
        await send(call, document_calls.start(granularity=2), *parts("One. Two."))
        await seen_of(call)
        end = await done(app, start(transform=transforming()), item("Two. One. Two."))
        (result,) = results(end)
        assert result.transformed.text == "<Two.> <One.> <Two.>"
        assert result.transformed.usage.completion_tokens == 0
        end = await done(app, start(transform=transforming(cache=False)), item("Two."))
        assert results(end)[0].transformed.usage.completion_tokens > 0


async def test_an_item_may_be_one_segment():
    async with calling() as (app, _):
        end = await done(
            app,
            start(transform=transforming(segmentation=3), in_order=True),
            *map(item, (" One. Two.\n", "", "\n")),
        )
        labels = await done(
            app,
            start(transform=transforming(segmentation=3, classify={"labels": ["a", "b"]})),
            item("One. Two."),
        )
    whole = [(each.transformed.text, each.transformed.segments) for each in results(end)]
    assert whole == [(" <One. Two.>\n", 1), ("", 0), ("\n", 0)]
    assert results(labels)[0].transformed.text in {"a", "b"}


async def test_of_several_targets_only_the_first_is_written():
    async with calling() as (app, _):
        both, one = [
            await done(
                app,
                start(transform=transforming(translate={"target_languages": names}, cache=False)),
                item("One."),
            )
            for names in (["Latin", "Greek"], ["Latin"])
        ]
    assert results(both)[0] == results(one)[0]


@pytest.mark.usefixtures("logged")
@pytest.mark.parametrize(
    "broken", [{"One."}, {"Two."}, {"One.", "Two."}], ids=["first", "last", "all"]
)
async def test_a_segment_that_fails_is_counted_and_all_of_them_fail_the_item(broken):
    """What came of the others is in the text, between the gaps."""
    async with calling() as (app, _):
        text = " ".join("RAISE." if each in broken else each for each in ("One.", "Two."))
        end = await done(
            app, start(transform=transforming(), in_order=True), item(text), item("A.")
        )
    failed, whole = results(end)
    assert whole.transformed.text == "<A.>"
    if len(broken) == 2:
        assert reason_of(failed.error) == GenerationFailed.reason.value
        assert end.events[-1].finished.failed == 1
        return
    assert end.events[-1].finished.failed == 0
    written = failed.transformed
    assert (written.segments, written.failed_segments) == (2, 1)
    assert written.text == ("<One.> " if "Two." in broken else " <Two.>")
    assert (written.finish_reason == options_pb2.FINISH_REASON_UNSPECIFIED) == ("Two." in broken)


async def test_an_item_that_fails_disturbs_no_other():
    texts = {"one": "One.", "long": "word " * 2_000, "two": "Two.", "huge": "x" * 262_145}
    async with calling() as (app, _):
        end = await done(
            app,
            start(transform=transforming(segmentation=3), in_order=True),
            *(item(text, name) for name, text in texts.items()),
        )
    one, prompt, two, huge = results(end)
    assert (one.transformed.text, two.transformed.text) == ("<One.>", "<Two.>")
    assert reason_of(prompt.error) == "PROMPT_TOO_LONG"
    assert reason_of(huge.error) == "FIELD_INVALID"
    assert violations(prompt.error) == violations(huge.error) == {"item.text"}


async def test_all_that_is_wrong_with_a_start_is_told_at_once():
    bad = document_pb2.TransformStart(
        request_id="mine", protected_ranges=[{"start_byte": 0, "end_byte": 1}], window=33, order=9
    )
    bad.sampling.temperature = 99
    async with serving() as app:
        status = await refusal(app, start(transform=bad), item("x"))
    assert reason_of(status) == "FIELD_INVALID"
    names = ("request_id", "protected_ranges", "window", "order", "sampling.temperature", "task")
    assert violations(status) == {f"start.transform.{name}" for name in names}


async def test_a_time_budget_gives_what_there_is():
    """And says so; it is of each item alone, and begins when that does."""
    request = transforming(window=1)
    request.time_budget.FromMilliseconds(30)
    model = ScriptedModel(ScriptedRunner(lambda _: b"a " * 1_500))
    async with asyncio.timeout(20), serving(model) as app:
        end = await done(app, start(transform=request), item("One. Two. Three."))
    (result,) = results(end)
    assert result.transformed.finish_reason == options_pb2.FINISH_REASON_TIME_BUDGET
    assert result.transformed.segments == 3
    assert len(result.transformed.text) < 3 * 2_999


async def test_a_caller_that_leaves_leaves_nothing(turnstile, settled):
    async with serving(stepped(turnstile, script=answer)) as app:
        turnstile.close()
        requests = [start(transform=transforming()), *map(item, TEXTS)]
        async with job(app, *requests, ends=False) as call:
            assert (await call.read()).HasField("started")
            await settled(app, lambda: app._driver.in_progress > 5)
            call.cancel()
            turnstile.open()
            await settled(app, lambda: is_quiet(app))


async def test_a_drain_refuses_what_waits_at_the_door(turnstile, settled):
    """What is inside is written to its end."""
    settings = loopback_settings(
        admission={"max_running": 1, "max_waiting": 0}, drain={"grace_seconds": 3_600}
    )
    async with asyncio.timeout(20), serving(stepped(turnstile, script=answer), settings) as app:
        turnstile.close()
        requests = [start(transform=transforming(), in_order=True), *map(item, ("One. Two.", "A."))]
        async with job(app, *requests) as call:
            await settled(app, lambda: app._driver.in_progress == 1)
            app.leave()
            async for _ in app.lifecycle.states():
                if app.lifecycle.is_leaving:
                    break
            turnstile.open()
            end = await end_of(call)
    one, other = results(end)
    assert one.transformed.text == "<One.> <Two.>"
    assert reason_of(other.error) == "SERVER_DRAINING"
