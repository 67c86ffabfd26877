"""Readers that never read cost bounded memory, and nobody else a byte or a step."""

import asyncio
import contextlib
from collections import defaultdict

import pytest

from hocket.client import AsyncClient, Granularity
from hocket.server.engine.batch import Batch, StepResult
from hocket.server.engine.commands import RequestOutput
from hocket.server.engine.mailbox import Mailbox, weight
from hocket.server.testing.scripted_runner import ScriptedRunner, echo
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from hocket.v1 import generation_pb2, options_pb2
from service import raw_http2

GENERATE = "/hocket.v1.GenerationService/Generate"
NEVER_READERS = 8
MAILBOX_KIB = 16
WIDE = 2**20
EXHAUSTED = b"grpc-status\x018"  # RESOURCE_EXHAUSTED, as a literal in a header block


class Diary(ScriptedRunner):
    """Writes down in which steps each sequence was computed, by its prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[str, list[int]] = defaultdict(list)
        self._prompts: dict[int, str] = {}

    def execute(self, batch: Batch) -> StepResult:
        for piece in batch.slices:
            if piece.start == 0:
                self._prompts[piece.sequence_id] = bytes(piece.token_ids).decode()
            self.steps[self._prompts[piece.sequence_id]].append(len(self.batches))
        return super().execute(batch)


class Scales:
    """Weighs each mailbox after every output that is put into it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heaviest = 0
        self.largest_output = 0
        put = Mailbox.put

        def weighed(mailbox: Mailbox, output: RequestOutput) -> None:
            put(mailbox, output)
            self.heaviest = max(self.heaviest, mailbox.waiting_bytes)
            output_bytes = sum(weight(text) for text in output.texts)
            self.largest_output = max(self.largest_output, output_bytes)
            kept = sum(weight(text) for text in mailbox._texts)
            assert kept == mailbox.waiting_bytes  # what is told is what is held

        monkeypatch.setattr(Mailbox, "put", weighed)


def endless(name: str) -> bytes:
    request = generation_pb2.GenerateRequest(prompt=name)
    request.stopping.ignore_eos, request.stopping.max_tokens = True, 4_000
    request.output.granularity = options_pb2.GRANULARITY_TOKEN
    return request.SerializeToString()


def is_bystander(prompt: str) -> bool:
    return prompt.startswith("by")


async def test_those_beside_them_lose_no_byte_and_no_step(monkeypatch, settled):
    """Each bystander is computed in every step from its first to its last, as if it were alone."""
    scales, diary = Scales(monkeypatch), Diary()
    settings = loopback_settings(
        engine={"mailbox_kib": MAILBOX_KIB, "max_num_seqs": 32}, admission={"max_running": 32}
    )
    async with contextlib.AsyncExitStack() as stack:
        app = await stack.enter_async_context(serving(ScriptedModel(diary), settings))
        shut = await stack.enter_async_context(
            raw_http2.connected(
                app.address, (raw_http2.INITIAL_WINDOW_SIZE, 0), (raw_http2.HEADER_TABLE_SIZE, 0)
            )
        )
        streams = range(1, 2 * NEVER_READERS, 2)
        for stream in streams:
            shut.call(stream, GENERATE, endless(f"never {stream}"))
        await shut.receive_each(streams, raw_http2.END_HEADERS)

        client = await stack.enter_async_context(AsyncClient(app.address))
        prompts = [f"bystander {index}." for index in range(24)]
        rounds = [prompts[start : start + 8] for start in range(0, len(prompts), 8)]
        for some in rounds:
            results = await asyncio.gather(
                *(client.generate(prompt, granularity=Granularity.TOKEN) for prompt in some)
            )
            assert [result.text for result in results] == [echo(p.encode()).decode() for p in some]

        for prompt in prompts:
            first, *_, last = steps = diary.steps[prompt]
            answer = len(echo(prompt.encode())) + 1  # and the token that ends it
            assert len(steps) == answer
            assert last - first + 1 == answer
        beside = {step for prompt in prompts for step in diary.steps[prompt]}
        assert all(beside & set(diary.steps[f"never {stream}"]) for stream in streams)

        # The engine goes on only as far as their mailboxes go.
        await settled(app, lambda: app.statistics().running_sequences == 0)
        assert scales.largest_output < 1_024
        assert MAILBOX_KIB * 1_024 - scales.largest_output < scales.heaviest <= MAILBOX_KIB * 1_024
        assert app.statistics().blocks_used == 0

        # Whoever reads at last is told why there is no more.
        shut.widen(0, WIDE)
        for stream in streams:
            shut.widen(stream, WIDE)
        for frame in (await shut.receive_each(streams, raw_http2.END_STREAM)).values():
            assert EXHAUSTED in frame.payload
            assert f"more than {MAILBOX_KIB * 1_024} bytes".encode() in frame.payload
        await settled(app, lambda: app._admission.statistics().in_progress == 0)


async def test_a_reader_that_stops_and_goes_on_gets_the_same_text(settled):
    """What gathered meanwhile comes merged, every byte of it, sentence ends included."""
    prompt = "Slow. And then? " * 8
    request = generation_pb2.GenerateRequest(prompt=prompt)
    request.output.granularity = options_pb2.GRANULARITY_TOKEN
    model = ScriptedModel()
    async with contextlib.AsyncExitStack() as stack:
        app = await stack.enter_async_context(serving(model))
        slow = await stack.enter_async_context(
            raw_http2.connected(app.address, (raw_http2.INITIAL_WINDOW_SIZE, 0))
        )
        slow.call(1, GENERATE, request.SerializeToString())
        await slow.receive(raw_http2.HEADERS, 1)
        await settled(app, lambda: app.statistics().running_sequences == 0)
        raw = b""
        while True:
            slow.widen(1, 7)  # a trickle, much smaller than a message
            frame = await slow.receive(stream=1)
            if frame.flags & raw_http2.END_STREAM:
                break
            raw += frame.payload
        assert b"grpc-status\x010" in frame.payload
    responses = list(_messages(raw))
    deltas = [r.delta for r in responses if r.WhichOneof("event") == "delta"]
    answer = echo(prompt.encode())
    assert "".join(delta.text for delta in deltas).encode() == answer
    assert sum(len(delta.token_ids) for delta in deltas) == len(answer) + 1
    assert len(deltas) < len(answer) / 4
    assert responses[-1].WhichOneof("event") == "finished"


async def test_a_reader_that_hangs_up_gives_its_place_back(settled):
    async with serving(ScriptedModel()) as app:
        async with raw_http2.connected(app.address, (raw_http2.INITIAL_WINDOW_SIZE, 0)) as shut:
            shut.call(1, GENERATE, endless("never"))
            await shut.receive(raw_http2.HEADERS, 1)
            await settled(app, lambda: app._admission.statistics().in_progress == 1)
        await settled(app, lambda: app._admission.statistics().in_progress == 0)
        await settled(app, lambda: app.statistics().running_sequences == 0)
        async with AsyncClient(app.address) as client:
            assert (await client.generate("after")).text == echo(b"after").decode()


def _messages(raw: bytes):
    while raw:
        end = 5 + int.from_bytes(raw[1:5], "big")
        yield generation_pb2.GenerateResponse.FromString(raw[5:end])
        raw = raw[end:]
