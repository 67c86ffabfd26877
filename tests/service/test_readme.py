"""What the README shows works as it is shown, but for the server's address."""

import asyncio
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from google.protobuf import json_format

from client.fake_documents import serving_documents
from hocket.client.__main__ import main
from hocket.server.rpc.listener import ListenerConfig
from hocket.server.testing.scripted_runner import ScriptedRunner, echo
from hocket.server.testing.serving import ScriptedModel, serving
from hocket.v1 import generation_pb2
from service.document_calls import answer

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
QUESTIONS = [code for code in PYTHON if '"content"' in code]
DOCUMENTS = [code for code in PYTHON if ".transform(" in code]
CORPORA = [code for code in PYTHON if ".map(" in code]
SHELL = [
    shlex.split(line, comments=True)
    for language, code in BLOCKS
    if language == "sh"
    for line in code.replace("\\\n", " ").splitlines()
]
ADDRESS = ListenerConfig().address

# A command stands at the start of a line or of inline code.
COMMANDS = sorted(set(re.findall(r"(?:^|`)hocket ([a-z]+)", README, re.MULTILINE)))
LINES = [line for line in SHELL if line[:1] == ["hocket"]]


async def run(*arguments: str, said: str = "") -> str:
    """Run Python with these arguments; return what it writes. It must succeed without a word."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate(said.encode())
    assert process.returncode == 0, errors.decode()
    return output.decode()


def sentences(question: str) -> list[str]:
    """Return what the scripted model answers, one sentence a piece."""
    return re.findall(r"\S.*?[.!?](?=\s|$)", echo(question.encode()).decode())


def test_the_readme_shows_something():
    """The patterns above find what a reader sees."""
    assert (len(PYTHON), len(QUESTIONS), len(DOCUMENTS), len(CORPORA)) == (4, 2, 1, 1)
    assert {"serve", "models", "generate", "chat", "transform", "compose"} <= set(COMMANDS)
    assert all(ADDRESS in code for code in PYTHON)


@pytest.mark.parametrize("code", QUESTIONS, ids=["client", "stubs"])
async def test_each_python_snippet_prints_the_sentences_of_an_answer(code):
    (question,) = set(re.findall(r'"content": "([^"]+)"', code))
    async with serving() as app:
        written = await run("-W", "error", "-c", code.replace(ADDRESS, app.address))
    expected = [f"{index} {text}" for index, text in enumerate(sentences(question))]
    assert written.splitlines() == expected


async def test_the_document_snippet_prints_the_document():
    """Gaps as they were; the service is a fake that writes in capitals."""
    (code,) = DOCUMENTS
    async with serving_documents() as fake:
        written = await run("-W", "error", "-c", code.replace(ADDRESS, fake.address))
    assert written == "IT RAINS.\n\nIT HAS RAINED FOR DAYS. I STAY AT HOME.\n"


async def test_the_corpus_snippet_prints_what_came_of_each_text():
    """In order; the model puts segments into brackets."""
    (code,) = CORPORA
    async with serving(ScriptedModel(ScriptedRunner(answer))) as app:
        written = await run("-W", "error", "-c", code.replace(ADDRESS, app.address))
    assert written == "0 <It rains.> <It has rained for days.>\n1 <I stay at home.>\n"


@pytest.mark.parametrize("line", [line for line in LINES if line[1] == "map"], ids=shlex.join)
async def test_each_map_command_does_the_texts_of_a_file(line, tmp_path, monkeypatch):
    """One text; a table has a head."""
    monkeypatch.chdir(tmp_path)
    output = Path(line[line.index("--output") + 1])
    heads = {".jsonl": '{"text": "It rains."}', ".csv": "text\nIt rains.", ".txt": "It rains."}
    Path(line[2]).write_text(heads[Path(line[2]).suffix])
    async with serving() as app:
        await run("-m", "hocket.client", *line[1:], "--address", app.address, "--quiet")
    assert len(output.read_text().splitlines()) == 1 + (output.suffix == ".csv")


@pytest.mark.parametrize(
    "line", [line for line in LINES if line[1] in {"transform", "compose"}], ids=shlex.join
)
async def test_each_document_command_ends_well(line, tmp_path, monkeypatch):
    """With a document of its name; a target is saved for each language."""
    monkeypatch.chdir(tmp_path)
    if line[1] == "transform":
        (tmp_path / line[2]).write_text("It rains. I stay.\n")
    async with serving_documents() as fake:
        written = await run("-m", "hocket.client", *line[1:], "--address", fake.address)
    assert json.loads(written.splitlines()[-1])["event"] == "finished"
    if "--output" in line:
        names = {path.name for path in tmp_path.iterdir()}
        several = {"translated.pt.txt", "translated.es.txt"}
        assert names == {"report.txt"} | (several if "es" in line else {"translated.txt"})


@pytest.mark.parametrize(
    "line", [line for line in LINES if line[1] == "generate"], ids=lambda line: " ".join(line[:2])
)
async def test_hocket_generate_answers_each_question_in_json_lines_when_piped(line):
    questions = line[2:]
    async with serving() as app:
        written = await run("-m", "hocket.client", *line[1:], "--address", app.address)
    events = [json.loads(text) for text in written.splitlines()]
    for number, question in enumerate(questions, start=1):
        own = [event for event in events if event["prompt"] == number]
        assert own[0]["event"] == "started"
        assert own[-1]["event"] == "finished"
        told = [event["text"].strip() for event in own if event["event"] == "sentence"]
        assert told == sentences(question)


async def test_hocket_chat_answers_what_is_typed():
    (line,) = [line for line in LINES if line[1] == "chat"]
    async with serving() as app:
        written = await run(
            "-m", "hocket.client", *line[1:], "--address", app.address, said="Hi?\n"
        )
    assert echo(b"Hi?").decode() in written


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_that_is_named_exists(command, capsys):
    with pytest.raises(SystemExit) as caught:
        sys.exit(main([command, "--help"]))
    assert caught.value.code == 0
    assert f"usage: hocket {command}" in capsys.readouterr().out


NAMED_FLAGS = sorted(set(re.findall(r"hocket ([a-z]+)[^`\n#]*? (--[a-z-]+)", README)))


@pytest.mark.parametrize(("command", "flag"), NAMED_FLAGS)
def test_each_flag_that_is_named_exists(command, flag, capsys):
    with pytest.raises(SystemExit):
        sys.exit(main([command, "--help"]))
    assert re.search(rf"(?<![\w-]){flag}(?![\w-])", capsys.readouterr().out)


def test_the_generic_client_asks_for_a_method_that_exists():
    """The JSON is a request of the method that the line names."""
    (line,) = [line for line in SHELL if line[:1] == ["grpcurl"]]
    address, method = line[-2:]
    assert address == ADDRESS
    service, _, name = method.rpartition("/")
    file = generation_pb2.DESCRIPTOR
    found = file.services_by_name[service.removeprefix(f"{file.package}.")].methods_by_name[name]
    request = generation_pb2.GenerateRequest()
    assert found.input_type == request.DESCRIPTOR
    json_format.Parse(line[line.index("-d") + 1], request)
    assert request.chat.messages


@pytest.mark.parametrize(
    "target", [line[1] for line in SHELL if line[:1] == ["make"]] + ["setup", "ci"]
)
def test_each_make_target_that_is_named_exists(target):
    """Those of the README, and the two that CONTRIBUTING.md begins with."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^):#]+)\)", README))))
def test_each_file_that_is_linked_exists(path):
    assert (ROOT / path).exists()
