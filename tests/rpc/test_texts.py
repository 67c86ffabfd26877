"""`TextService`: bounded, in slices, and in nobody's way."""

import asyncio
import threading
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.catalogue import ServedModel
from hocket.server.errors import InvalidRequest, Overloaded
from hocket.server.executors import ExecutorConfig, Executors
from hocket.server.rpc import slices
from hocket.server.rpc.text_work import text_admission
from hocket.server.rpc.texts import TextService
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.text.pieces import SentenceOptions
from hocket.server.text.sentences import split_text
from hocket.server.text.tokenizer import Encoding
from hocket.v1 import text_pb2
from rpc.repeated import TOO_MANY, fill, repeated_fields
from rpc.served import Caller, catalogue_of, served_model

MOST = 262_144
METHODS = {
    method.name: method.input_type
    for method in text_pb2.DESCRIPTOR.services_by_name["TextService"].methods
    if not method.client_streaming
}


class Rooms:
    """The service with what it needs, and the slices that it ran."""

    def __init__(self, model: ServedModel | None = None, *, most: int = MOST) -> None:
        self.executors = Executors(ExecutorConfig(text_threads=1))
        self.door = text_admission(most, lambda: 0.0)
        self.ran = 0
        self._news = asyncio.Event()
        run_aside = self.executors.run_aside

        async def counted(work: Any) -> Any:
            self.ran += 1
            self._news.set()
            return await run_aside(work)

        self.executors.run_aside = counted  # type: ignore[method-assign]
        self.service = TextService(
            catalogue=catalogue_of(model or served_model()),
            admission=self.door,
            executors=self.executors,
            corpora=None,  # type: ignore[arg-type] - its calls have a service test
            max_message_bytes=most,
        )

    async def wait_ran(self, count: int) -> None:
        """Wait until so many slices were asked for."""
        while self.ran < count:
            self._news.clear()
            await self._news.wait()

    async def ask(self, method: str, request: Any, connection: str = "a") -> Any:
        return await getattr(self.service, method)(request, Caller(connection))


@pytest.fixture
async def rooms():
    rooms = Rooms()
    yield rooms
    assert rooms.door.statistics().in_progress == 0
    assert await rooms.executors.close(10)


class Gated(ByteTokenizer):
    """A tokenizer that tells when it was asked, and answers once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.may_answer = threading.Event()

    def encode(self, text: str, **kwargs: Any) -> Encoding:
        self.asked.set()
        assert self.may_answer.wait(20)
        return super().encode(text, **kwargs)


@pytest.fixture
async def gated():
    tokenizer = Gated()
    rooms = Rooms(served_model(tokenizer))
    yield rooms, tokenizer
    tokenizer.may_answer.set()
    assert await rooms.executors.close(10)


async def violations(rooms: Rooms, method: str, request: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        await rooms.ask(method, request)
    return {item.field: item.description for item in caught.value.violations}


async def test_no_prompt_waits_for_a_text(gated):
    """However many texts there are: prompts have slots of their own."""
    rooms, tokenizer = gated
    request = text_pb2.TokenizeRequest(text="a")
    flood = [asyncio.create_task(rooms.ask("Tokenize", request)) for _ in range(8)]
    await asyncio.to_thread(tokenizer.asked.wait, 20)
    async with asyncio.timeout(20):
        assert await rooms.executors.run_text(lambda: "a prompt") == "a prompt"
    assert not any(task.done() for task in flood)
    tokenizer.may_answer.set()
    assert [len(response.tokens) for response in await asyncio.gather(*flood)] == [1] * 8


async def test_what_a_connection_may_ask_for_at_once_is_bounded_in_bytes(gated):
    """A refusal names whose bound was met and what it counts; others are let in meanwhile."""
    rooms, tokenizer = gated
    large = text_pb2.CountTokensRequest(texts=["a" * (MOST - 100)])
    accepted = [asyncio.create_task(rooms.ask("CountTokens", large)) for _ in range(2)]
    await rooms.wait_ran(2)
    small = text_pb2.CountTokensRequest(texts=["a"])
    room = [asyncio.create_task(rooms.ask("CountTokens", small)) for _ in range(2)]
    await rooms.wait_ran(4)
    with pytest.raises(Overloaded) as caught:
        await rooms.ask("CountTokens", small)
    assert caught.value.metadata["scope"] == "connection"
    assert "texts" in caught.value.message
    other = asyncio.create_task(rooms.ask("CountTokens", small, connection="b"))
    await rooms.wait_ran(5)
    tokenizer.may_answer.set()
    await asyncio.gather(*accepted, *room, other)
    assert rooms.door.statistics().in_progress == 0


@pytest.mark.parametrize("kib", [16, 4_096, 16_384])
def test_the_longest_message_is_let_in(kib):
    """Whatever the server's limit, and two of them at once."""
    door = text_admission(kib * 1024, lambda: 0.0)
    places = 1 + kib * 1024 // 65_536
    for _ in range(2):
        door.enter_nowait("a", places)
    with pytest.raises(Overloaded):
        door.enter_nowait("a", 1)


async def test_who_leaves_ends_at_the_next_slice(rooms):
    """A text that takes many slices is not cut any further once its call is cancelled."""
    request = text_pb2.SplitSentencesRequest(text="Ab. " * (MOST // 28))
    whole = Rooms()
    await whole.ask("SplitSentences", request)
    assert whole.ran > 3
    assert await whole.executors.close(10)
    call = asyncio.create_task(rooms.ask("SplitSentences", request))
    await rooms.wait_ran(1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await rooms.executors.run_aside(lambda: None)  # the thread is free again
    assert rooms.ran == 2


async def test_others_get_their_turn_between_slices(rooms):
    """A short text that comes second is answered first."""
    long = text_pb2.SplitSentencesRequest(text="Ab. " * (MOST // 28))
    first = asyncio.create_task(rooms.ask("SplitSentences", long))
    await rooms.wait_ran(1)
    await rooms.ask("SplitSentences", text_pb2.SplitSentencesRequest(text="Ab."))
    assert not first.done()
    await first


TEXTS = st.text("aé.。!?\n -1`|🙂\u0301", max_size=60)


def run(work: slices.Slices[Any]) -> Any:
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


@given(TEXTS, st.booleans())
def test_slices_change_nothing_of_sentences(text, paragraphs):
    """Their ranges are those of the text cut in one go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "SPLIT_CHARS", 3)
        request = text_pb2.SplitSentencesRequest(text=text, paragraphs=paragraphs)
        options = SentenceOptions(max_chars=40)
        ranges = run(slices.split(request, options)).ranges
    pieces = split_text(text, options, paragraphs=paragraphs)
    assert [(item.start_byte, item.end_byte) for item in ranges] == [
        (piece.start_byte, piece.end_byte) for piece in pieces
    ]


@given(TEXTS, st.booleans(), st.booleans())
def test_slices_change_nothing_of_tokens(text, add, parse):
    """Neither of those told, nor of those counted, nor of the text made of them."""
    tokenizer = ByteTokenizer(add_bos=True)
    text += "<|user|>"
    encoding = tokenizer.encode(text, add_special=add, parse_special=parse, offsets=True)
    flags = {"add_special_tokens": add, "parse_special_tokens": parse}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "TOKENS", 3)
        patch.setattr(slices, "COUNT_CHARS", 3)
        told = run(slices.tokenize(tokenizer, text_pb2.TokenizeRequest(text=text, **flags))).tokens
        count_request = text_pb2.CountTokensRequest(texts=[text, "", text], **flags)
        counts = run(slices.count_tokens(tokenizer, count_request, None)).counts
        ids = text_pb2.DetokenizeRequest(token_ids=encoding.token_ids, keep_special_tokens=add)
        whole = run(slices.detokenize(tokenizer, ids, most_bytes=MOST)).text
    assert [(item.id, (item.start_byte, item.end_byte)) for item in told] == list(
        zip(encoding.token_ids, encoding.byte_ranges, strict=True)
    )
    added = int(add)
    assert counts == [len(told), added, len(told)]
    assert whole == tokenizer.decode(encoding.token_ids, keep_special=add)


async def test_a_conversation_is_counted_as_it_would_be_continued(rooms):
    """Its count comes last."""
    request = text_pb2.CountTokensRequest(texts=["abc"])
    request.chat.messages.add(role="user", content="hello")
    response = await rooms.ask("CountTokens", request)
    assert response.counts == [3, 1 + 5 + 1]
    request.chat.add_generation_prompt = False
    assert (await rooms.ask("CountTokens", request)).counts == [3, 1 + 5]
    request.chat.messages.add(role="robot", content="hello")
    assert list(await violations(rooms, "CountTokens", request)) == ["chat.messages[1].role"]


FIELDS = [
    (method, path)
    for method, descriptor in METHODS.items()
    for path in repeated_fields(descriptor)
    if method != "Detokenize"  # takes a million, the test below
]


@pytest.mark.parametrize(("method", "path"), FIELDS)
async def test_too_many_values_are_refused_before_any_work(rooms, method, path):
    """By name."""
    request = getattr(text_pb2, f"{method}Request")()
    fill(request, path, TOO_MANY)
    assert next(iter(await violations(rooms, method, request))) == ".".join(path)
    assert rooms.ran == 0


async def test_too_many_tokens_are_refused_before_any_work(rooms):
    """One more than a million, whatever they are."""
    request = text_pb2.DetokenizeRequest(token_ids=[2**31] * (1_048_576 + 1))
    assert list(await violations(rooms, "Detokenize", request)) == ["token_ids"]
    assert rooms.ran == 0


async def test_an_unknown_token_is_named(rooms):
    """By its place among all, in whichever slice it lies."""
    request = text_pb2.DetokenizeRequest(token_ids=[1] * (slices.TOKENS + 5) + [260, 261])
    place = slices.TOKENS + 5
    assert list(await violations(rooms, "Detokenize", request)) == [f"token_ids[{place}]"]


@pytest.mark.parametrize(("method", "share"), [("Tokenize", 16), ("SplitSentences", 7)])
async def test_a_text_whose_answer_might_not_fit_is_refused_before_any_work(rooms, method, share):
    """The refusal names the field and its bound."""
    make = getattr(text_pb2, f"{method}Request")
    most = MOST // 14 * 2 if share == 7 else MOST // share
    found = await violations(rooms, method, make(text="é" * (most // 2 + 1)))
    assert list(found) == ["text"]
    assert f"at most {most} bytes" in found["text"]
    assert rooms.ran == 0
    heaviest = "a" * most if method == "Tokenize" else "|\n" * (most // 2)
    assert (await rooms.ask(method, make(text=heaviest))).ByteSize() <= MOST


@pytest.mark.parametrize("text", ["a。", "|\n", "\n-", "#\n", "a\n\n", "1.\n", "```\n", ".\n\n"])
@pytest.mark.parametrize("paragraphs", [False, True])
def test_a_sentence_takes_two_bytes_on_average(text, paragraphs):
    """The shortest there are; the bound of a text to be cut rests on it."""
    pieces = split_text(text * 500, SentenceOptions(max_chars=40), paragraphs=paragraphs)
    assert 2 * len(pieces) <= len((text * 500).encode())


class Swelling(ByteTokenizer):
    """Makes three tokens of a byte, as a tokenizer does that rewrites what it is given."""

    def encode(self, text: str, **kwargs: Any) -> Encoding:
        return super().encode(text * 3, **kwargs)


class Stuttering(ByteTokenizer):
    """Has a token of a thousand bytes."""

    def token_bytes(self, token_id: int) -> bytes:
        return b"x" * 1_000 if token_id == 1 else super().token_bytes(token_id)

    def decode(self, *args: Any, **kwargs: Any) -> str:
        raise AssertionError("the text was made")


async def test_an_answer_that_does_not_fit_all_the_same_is_refused_by_name():
    """The last net: no answer goes out that gRPC would not send."""
    rooms = Rooms(served_model(Swelling()))
    request = text_pb2.TokenizeRequest(text="a" * (MOST // 16))
    assert list(await violations(rooms, "Tokenize", request)) == ["text"]
    assert await rooms.executors.close(10)


async def test_tokens_whose_text_does_not_fit_are_refused_before_it_is_made():
    """As soon as their bytes are known to be too many."""
    rooms = Rooms(served_model(Stuttering()))
    request = text_pb2.DetokenizeRequest(token_ids=[1] * 10 * slices.TOKENS)
    assert list(await violations(rooms, "Detokenize", request)) == ["token_ids"]
    assert rooms.ran == 1
    assert await rooms.executors.close(10)


def test_every_answer_of_the_text_service_was_thought_of():
    """A method whose answer grows with its request has a bound that a test knows.

    Each repeated or text field of an answer is listed here with the field that bounds it.
    """
    grown = {
        f"{message.name}.{field.name}"
        for message in text_pb2.DESCRIPTOR.message_types_by_name.values()
        if message.name.endswith("Response")
        for field in message.fields
        if field.is_repeated or field.type == FieldDescriptor.TYPE_STRING
    }
    assert grown == {
        "TokenizeResponse.tokens",  # text
        "DetokenizeResponse.text",  # token_ids
        "CountTokensResponse.counts",  # one for each of at most 1,024 texts
        "SplitSentencesResponse.ranges",  # text
        "SplitSentencesResponse.language",  # of a table
    }
