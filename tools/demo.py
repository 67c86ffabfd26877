"""Start a server, ask it several questions at once and show the sentences as they come.

Then a document goes through it, all its sentences at once.

    python tools/demo.py [--model NAME] [--max-tokens N]

Everything stays on this machine: the server listens on a free loopback port and is drained at the
end. The first run fetches the weights.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from hocket.client import (
    AsyncClient,
    DocumentResult,
    Finished,
    Granularity,
    SegmentFinished,
    SegmentPiece,
    Sentence,
    Started,
)

QUESTIONS = (
    "Why is the sky blue?",
    "What does a lighthouse keeper do all day?",
    "How do bees find their way home?",
    "What makes a good friend?",
    "What is the difference between weather and climate?",
    "Tell me a short story about a fox and a clock.",
    "Why do we have leap years?",
    "How does a bicycle stay upright?",
)
DOCUMENT = Path(__file__).resolve().parent / "texts" / "pride-and-prejudice.txt"
INSTRUCTION = "Rewrite the sentence in simple English."
DOCUMENT_TOKENS = 32  # for each sentence
START_SECONDS = 900  # a slow network may take this long to bring the weights


@dataclass
class Stream:
    """What is known of one answer."""

    number: int
    question: str
    started: float | None = None
    first_sentence: float | None = None
    ended: float | None = None
    sentences: int = 0
    tokens: int = 0


@dataclass
class Stage:
    """Prints what happens, with the time since the questions were sent."""

    colours: bool
    zero: float = field(default_factory=time.perf_counter)

    def now(self) -> float:
        """Return the seconds since the questions were sent."""
        return time.perf_counter() - self.zero

    def say(self, stream: Stream, sentence: int, text: str) -> None:
        """Print one sentence of one stream."""
        label = f"[{stream.number}.{sentence:<2}]"
        if self.colours:
            label = f"\033[{31 + stream.number % 6}m{label}\033[0m"
        print(f"{self.now():6.2f} s  {label} {' '.join(text.split())}", flush=True)


async def ask(client: AsyncClient, stream: Stream, stage: Stage, max_tokens: int) -> None:
    """Ask one question and print its sentences as they arrive."""
    messages = [{"role": "user", "content": stream.question}]
    async with client.stream(
        messages=messages, granularity=Granularity.SENTENCE, max_tokens=max_tokens, temperature=0.0
    ) as events:
        async for event in events:
            match event:
                case Started():
                    stream.started = stage.now()
                case Sentence(text=text) if text.strip():
                    stream.sentences += 1
                    stream.first_sentence = stream.first_sentence or stage.now()
                    stage.say(stream, stream.sentences, text)
                case Finished(usage=usage):
                    stream.tokens = usage.completion_tokens
                    stream.ended = stage.now()


def most_at_once(streams: list[Stream]) -> int:
    """Return how many streams were running at the busiest moment."""
    edges = [(s.started, 1) for s in streams if s.started is not None]
    edges += [(s.ended, -1) for s in streams if s.ended is not None]
    running = most = 0
    for _, step in sorted(edges):
        running += step
        most = max(most, running)
    return most


def summarise(streams: list[Stream], seconds: float) -> None:
    """Print what the streams came to."""
    print("\n stream  first sentence  sentences  tokens  question")
    for stream in streams:
        first = f"{stream.first_sentence:.2f} s" if stream.first_sentence else "none"
        print(
            f"   [{stream.number}]  {first:>14}  {stream.sentences:>9}  {stream.tokens:>6}"
            f"  {stream.question}"
        )
    tokens = sum(stream.tokens for stream in streams)
    print(
        f"\n{len(streams)} streams, {most_at_once(streams)} of them at once:"
        f" {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} tokens per second."
    )


async def transform(client: AsyncClient, stage: Stage) -> DocumentResult:
    """Send a document through and print each sentence that comes of it."""
    texts: dict[int, str] = {}
    async with client.transform(
        DOCUMENT.read_text(encoding="utf-8"),
        instruction=INSTRUCTION,
        granularity=Granularity.SENTENCE,
        max_tokens=DOCUMENT_TOKENS,
        temperature=0.0,
        repetition_penalty=1.1,
    ) as events:
        async for event in events:
            match event:
                case SegmentPiece(segment=segment, text=text):
                    texts[segment] = texts.get(segment, "") + text
                case SegmentFinished(segment=segment, error=error):
                    text = texts.pop(segment, "") if error is None else str(error)
                    print(f"{stage.now():6.2f} s  [{segment + 1:>3}] {' '.join(text.split())}")
        return await events.result()


def is_whole(document: DocumentResult) -> bool:
    """Whether every sentence was written, and gaps and sentences join to the source."""
    source = DOCUMENT.read_bytes()
    parts = [b"" if document.finished is None else document.finished.gap.encode()]
    for segment in reversed(document.segments):
        if segment.source is not None:
            parts.append(source[segment.source.start_byte : segment.source.end_byte])
        parts.append(segment.gap.encode())
    return not document.failed and b"".join(reversed(parts)) == source


def summarise_document(document: DocumentResult, seconds: float) -> None:
    """Print what the document came to."""
    window = 0 if document.started is None else document.started.window
    tokens = 0 if document.finished is None else document.finished.usage.completion_tokens
    print(
        f"\n{len(document.segments)} sentences, up to {window} of them at once:"
        f" {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} tokens per second."
        f" {len(document.failed)} failed.\n"
        f"Gaps and sentences {'join' if is_whole(document) else 'do not join'} to the source."
    )


@contextlib.asynccontextmanager
async def server(model: str) -> AsyncIterator[str]:
    """Run a server on a free loopback port; yield its address once it serves."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, "-m", "hocket.server", "--model", model]
        command += ["--address", "127.0.0.1:0", "--ready-file", str(ready)]
        command += ["--set", "metrics.enabled=false", "--set", "log.level=warning"]
        command += ["--set", "drain.delay_seconds=0"]
        process = subprocess.Popen(command)
        try:
            async with asyncio.timeout(START_SECONDS):
                while not ready.exists():
                    if process.poll() is not None:
                        raise SystemExit(f"the server left with exit code {process.returncode}")
                    await asyncio.sleep(0.05)
            yield json.loads(ready.read_text())["address"]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=30)
            if process.poll() is None:
                process.kill()


async def demo(model: str, max_tokens: int) -> int:
    """Run the demonstration and return its exit code."""
    async with server(model) as address:
        print(f"\nServing {model} on {address}. Asking {len(QUESTIONS)} questions at once.\n")
        streams = [Stream(number, question) for number, question in enumerate(QUESTIONS, start=1)]
        for stream in streams:
            print(f"           [{stream.number}]   {stream.question}")
        print(flush=True)
        stage = Stage(colours=sys.stdout.isatty() and "NO_COLOR" not in os.environ)  # noqa: TID251 - a script
        async with AsyncClient(address) as client:
            async with asyncio.TaskGroup() as group:
                for stream in streams:
                    group.create_task(ask(client, stream, stage, max_tokens))
            summarise(streams, stage.now())
            print(f"\nNow the beginning of Pride and Prejudice. {INSTRUCTION}\n", flush=True)
            stage.zero = time.perf_counter()
            document = await transform(client, stage)
            summarise_document(document, stage.now())
    return 0 if all(stream.sentences for stream in streams) and is_whole(document) else 1


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(
        description="See a real model answer several questions at once."
    )
    parser.add_argument(
        "--model", default="smollm2", help="which model to serve (default: %(default)s)"
    )
    parser.add_argument("--max-tokens", type=int, default=120, help="most tokens of an answer")
    arguments = parser.parse_args()
    return asyncio.run(demo(arguments.model, arguments.max_tokens))


if __name__ == "__main__":
    sys.exit(main())
