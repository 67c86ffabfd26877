"""`hocket map`: each text of a file is done once, however often the command is given."""

import asyncio
import csv
import json
import socket
from pathlib import Path

import pytest

from hocket.client.__main__ import main
from hocket.server.testing.scripted_runner import ScriptedRunner, echo
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from service.document_calls import answer
from service.turnstile import stepped

COUNT = 150
TEXTS = {f"id {number}": f"text {number}" for number in range(COUNT)}
ANSWERS = {id_: echo(text.encode()).decode() for id_, text in TEXTS.items()}


@pytest.fixture
def texts(tmp_path) -> Path:
    path = tmp_path / "texts.jsonl"
    write_texts(path, TEXTS)
    return path


def write_texts(path: Path, texts: dict[str, str]) -> None:
    lines = [json.dumps({"id": id_, "text": text}) for id_, text in texts.items()]
    path.write_text("\n".join(lines) + "\n")


def records(output: Path) -> list[dict]:
    return [json.loads(line) for line in output.read_text().splitlines()]


def answers(output: Path) -> dict[str, str]:
    """Return the texts by id; each id must stand there once."""
    found = records(output)
    assert len({record["id"] for record in found}) == len(found)
    return {record["id"]: record["text"] for record in found}


@pytest.fixture
def run(tmp_path, texts, capsys):
    """Runs the command in this process; gives its code and what it says."""

    async def run(app, *flags: str, file: Path = texts, output: str = "out.jsonl"):
        address = app if isinstance(app, str) else app.address
        arguments = ["map", str(file), "--output", str(tmp_path / output), "--address", address]
        code = await asyncio.to_thread(main, [*arguments, *flags])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.err

    return run


@pytest.mark.parametrize("flags", [(), ("--in-order",)], ids=["any", "in order"])
async def test_each_text_is_done_once(run, tmp_path, flags):
    async with serving() as app:
        code, errors = await run(app, "--raw", *flags)
        assert code == 0
        assert f"{COUNT}/{COUNT} done  0 failed" in errors
        out = tmp_path / "out.jsonl"
        assert answers(out) == ANSWERS
        assert not flags or list(answers(out)) == list(ANSWERS)
        before = out.read_bytes()
        code, _ = await run(app, "--raw", *flags)  # there is nothing left to do
        assert (code, out.read_bytes()) == (0, before)


async def test_texts_that_were_added_are_done_too(run, tmp_path, texts):
    async with serving() as app:
        await run(app, "--raw")
        with texts.open("a") as file:
            file.write('{"id": "more", "text": "and more"}\n')
        code, _ = await run(app, "--raw")
    assert code == 0
    assert answers(tmp_path / "out.jsonl") == {
        **ANSWERS,
        "more": echo(b"and more").decode(),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda texts: write_texts(texts, {**TEXTS, "id 3": "other"}), "is not what it was"),
        (lambda texts: write_texts(texts, {"id 0": "text 0"}), "is not what it was"),
    ],
    ids=["a text", "its length"],
)
async def test_a_source_that_changed_is_told(run, tmp_path, texts, change, message):
    async with serving() as app:
        await run(app, "--raw")
        change(texts)
        code, errors = await run(app, "--raw")
        assert (code, message in errors) == (2, True)
        code, _ = await run(app, "--raw", "--restart")
        assert code == 0
    left = {json.loads(line)["id"] for line in texts.read_text().splitlines()}
    assert answers(tmp_path / "out.jsonl").keys() == left


async def test_an_output_of_another_job_is_left_alone(run, tmp_path):
    out = tmp_path / "out.jsonl"
    async with serving() as app:
        await run(app, "--raw")
        before = out.read_bytes()
        code, errors = await run(app, "--raw", "--max-tokens", "3")
        assert (code, out.read_bytes()) == (2, before)
        assert "other parameters" in errors
        (tmp_path / "out.jsonl.journal").unlink()
        code, errors = await run(app, "--raw")
        assert (code, out.read_bytes()) == (2, before)
        assert "there already" in errors


async def test_a_text_that_fails_is_recorded_or_stops_the_job(run, tmp_path, texts):
    write_texts(texts, {"a": "one", "b": "RAISE", "c": "two"})
    out = tmp_path / "out.jsonl"
    async with serving() as app:
        code, errors = await run(app, "--raw", "--in-order", "--on-error", "stop")
        assert code == 3
        assert "hocket: 'b' failed: GENERATION_FAILED" in errors
        assert [record["id"] for record in records(out)] == ["a"]
        code, errors = await run(app, "--raw", "--in-order")
    assert code == 3
    assert "3/3 done  1 failed" in errors
    assert [record["id"] for record in records(out)] == ["a", "b", "c"]
    assert records(out)[1]["error"]["reason"] == "GENERATION_FAILED"


async def test_texts_are_cut_and_tokenized(run, tmp_path):
    async with serving() as app:
        assert (await run(app, "--op", "split", output="cut.csv"))[0] == 0
        assert (await run(app, "--op", "tokenize", output="ids.jsonl"))[0] == 0
    with (tmp_path / "cut.csv").open(newline="") as file:
        rows = {row["id"]: json.loads(row["sentences"]) for row in csv.DictReader(file)}
    assert {id_: "".join(each["text"] for each in cut) for id_, cut in rows.items()} == TEXTS
    ids = {record["id"]: record["token_ids"] for record in records(tmp_path / "ids.jsonl")}
    assert ids == {id_: list(text.encode()) for id_, text in TEXTS.items()}


@pytest.mark.usefixtures("logged")
async def test_texts_are_transformed(run, tmp_path, texts):
    """A text of which a segment failed is one that failed, with what came of the others."""
    write_texts(texts, {"a": "One. Two.", "b": "Good. RAISE.", "c": "RAISE."})
    out = tmp_path / "out.jsonl"
    flags = ("--op", "transform", "--instruction", "Do: ", "--in-order")
    async with serving(ScriptedModel(ScriptedRunner(answer))) as app:
        code, errors = await run(app, *flags, "--on-error", "stop")
        assert (code, "'b' failed: 1 of 2 segments" in errors) == (3, True)
        code, errors = await run(app, *flags)
        assert (code, "3/3 done  2 failed" in errors) == (3, True)
        assert [record.get("text") for record in records(out)] == [
            "<One.> <Two.>",
            "<Good.> ",
            None,
        ]
        assert records(out)[1] == {
            "id": "b",
            "text": "<Good.> ",
            "finish_reason": "unknown",
            "segments": 2,
            "failed_segments": 1,
        }
        assert records(out)[2]["error"]["reason"] == "GENERATION_FAILED"
        write_texts(texts, {"a": "One. Two."})
        code, _ = await run(app, *flags, "--whole", output="whole.csv")
        assert code == 0
    with (tmp_path / "whole.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["text"], row["segments"], row["failed_segments"]) == ("<One. Two.>", "1", "0")


async def test_a_model_with_a_template_answers(run, tmp_path, texts):
    write_texts(texts, {"a": "one"})
    async with serving() as app:
        await run(app)
        chat = records(tmp_path / "out.jsonl")[0]["prompt_tokens"]
        await run(app, "--raw", "--restart")
        assert records(tmp_path / "out.jsonl")[0]["prompt_tokens"] < chat


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--raw", "--system", "x"), "--system goes with --chat"),
        (("--raw", "--text-field", "words"), "there is no text in 'words'"),
        (("--raw", "--id-field", "key"), "there is no 'key'"),
        (("--raw", "--output", "/nowhere/out"), "there is no folder"),
        (("--raw", "--patience", "0"), "above 0"),
        (("--op", "transform"), "--op transform goes with a task"),
        (("--rewrite",), "--op transform goes with a task"),
        (("--op", "transform", "--translate-to", "pt", "es"), "one language"),
        (("--op", "transform", "--rewrite", "--source-language", "pt"), "--translate-to"),
    ],
)
async def test_a_wrong_use_is_told_in_one_line(run, flags, message):
    async with serving() as app:
        code, errors = await run(app, *flags, "--quiet")
    assert code == 2
    assert message in errors.splitlines()[-1]


async def test_a_start_that_is_refused_may_be_mended(run, tmp_path):
    async with serving() as app:
        code, errors = await run(app, "--raw", "--temperature", "99", "--quiet")
        assert code == 3
        assert errors.startswith("hocket: FIELD_INVALID: start.generate.sampling.temperature")
        assert (await run(app, "--raw"))[0] == 0
    assert answers(tmp_path / "out.jsonl") == ANSWERS


async def test_an_absent_server_is_given_up(run):
    code, _ = await run("127.0.0.1:1", "--raw", "--patience", "0.1", "--quiet")
    assert code == 4


@pytest.mark.parametrize("is_in_order", [False, True])
async def test_an_output_and_a_journal_cut_anywhere_are_made_whole(
    run, tmp_path, texts, monkeypatch, is_in_order
):
    """A batch for each few texts; then either file is cut, or both."""
    monkeypatch.setattr("hocket.client._map.job._BATCH_ROWS", 2)
    few = dict(list(TEXTS.items())[:8])
    write_texts(texts, few)
    flags = ("--op", "split", *["--in-order"] * is_in_order)
    out, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    async with serving() as app:
        await run(app, *flags)
        whole, told = out.read_bytes(), journal.read_bytes()
        cuts = [(len(whole) * part // 7, len(told)) for part in range(8)]
        cuts += [(len(whole), len(told) * part // 7) for part in range(8)]
        cuts += [(len(whole) * part // 7, len(told) * part // 7) for part in range(8)]
        for out_bytes, told_bytes in cuts:
            out.write_bytes(whole[:out_bytes])
            journal.write_bytes(told[:told_bytes])
            assert (await run(app, *flags))[0] == 0
            found = {record["id"] for record in records(out)}
            assert (len(records(out)), found) == (8, set(few))
            assert not is_in_order or out.read_bytes() == whole


async def test_a_server_that_goes_and_comes_again_is_waited_for(turnstile, run, tmp_path, settled):
    """Its drain fails what it had not begun; none of that is recorded."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = loopback_settings(
        listener={"address": address}, admission={"max_running": 4, "max_waiting": 0}
    )
    async with serving(stepped(turnstile), settings) as app:
        turnstile.close()
        running = asyncio.create_task(run(app, "--raw", "--in-order", "--window", "20"))
        await turnstile.wait_held()
        await turnstile.step(60)
        app.leave()
        turnstile.open()
    async with serving(settings=settings):
        code, errors = await running
    assert (code, "again in" in errors) == (0, True)
    assert list(answers(tmp_path / "out.jsonl").items()) == list(ANSWERS.items())


async def test_parquet_goes_in_and_out(run, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "in.parquet"
    table = arrow.table({"id": list(range(COUNT)), "text": list(TEXTS.values())})
    parquet.write_table(table, file)
    async with serving() as app:
        for op, column in (("split", "sentences"), ("tokenize", "token_ids"), ("generate", "text")):
            flags = ("--op", op, *["--raw"] * (op == "generate"))
            code, _ = await run(app, *flags, file=file, output=f"{op}.parquet")
            assert code == 0
            found = parquet.read_table(tmp_path / f"{op}.parquet").to_pylist()
            assert sorted(row["id"] for row in found) == list(range(COUNT))
            assert all(row[column] and row["error"] is None for row in found)
            before = (tmp_path / f"{op}.parquet").read_bytes()
            assert (await run(app, *flags, file=file, output=f"{op}.parquet"))[0] == 0
            assert before == (tmp_path / f"{op}.parquet").read_bytes()
    assert not list(tmp_path.glob("*.part"))
