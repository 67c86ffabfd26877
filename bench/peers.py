"""Tokens per second over gRPC against OpenVINO GenAI in process, same weights, turn by turn.

    python -m bench.peers [--streams 1 8 32] [--rounds 5] [--output FILE]

The peer has no server in front: it is given token ids and gives token ids, so the comparison is in
its favour. It runs with float16 and with Q8_0 weights, both written from the same file that hocket
serves; the better of the two counts. Each round gives every side one turn, in changing order; the
figures are medians, and ratios of medians.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import venv
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import gguf
import numpy as np

from bench.load import load
from bench.machine import ROOT, description
from bench.prompts import QUESTION, TOPICS
from bench.serving import server
from hocket.client import AsyncClient
from hocket.server.model.config import ModelSourceConfig
from hocket.server.model.registry import resolve

ENVIRONMENT = ROOT / ".venv-peers"
PINS = ("openvino-genai==2026.4.1.0", "openvino-tokenizers==2026.4.1.0", "numpy==2.4.6")
TYPES = {"f16": gguf.GGMLQuantizationType.F16, "q8_0": gguf.GGMLQuantizationType.Q8_0}

Turn = Callable[[list[list[int]], int], Awaitable[float]]


def peer_python() -> Path:
    """Return the Python that has the peer, making its environment first if need be."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
        clean = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}  # noqa: TID251 - passed on to pip
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PINS], check=True, env=clean)
    return python


def write_weights(source: Path, target: Path, kind: gguf.GGMLQuantizationType) -> None:
    """Write a GGUF file's matrices in another type; vectors become float32."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for name, entry in reader.fields.items():
        if name.startswith("GGUF.") or name in {"general.architecture", "general.file_type"}:
            continue
        if entry.types[0] is gguf.GGUFValueType.ARRAY:
            writer.add_array(name, entry.contents())
        else:
            writer.add_key_value(name, entry.contents(), entry.types[0])
    writer.add_file_type(1 if kind is TYPES["f16"] else 7)
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        values = values.astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(tensor.name, values)
        elif kind is TYPES["f16"]:
            writer.add_tensor(tensor.name, values.astype(np.float16))
        else:
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextlib.contextmanager
def peer(weights: Path) -> Iterator[Turn]:
    """Run the peer's process until the block ends; yield how to give it a turn."""
    script = Path(__file__).with_name("openvino_peer.py")
    process = subprocess.Popen(
        [peer_python(), script, weights], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None or not stdout.readline():
        raise SystemExit("the peer did not start")

    def turn(prompts: list[list[int]], new_tokens: int) -> float:
        stdin.write(json.dumps({"prompts": prompts, "new_tokens": new_tokens}) + "\n")
        stdin.flush()
        answer = json.loads(stdout.readline())
        return float(answer["tokens"] / answer["seconds"])

    try:
        yield lambda prompts, new_tokens: asyncio.to_thread(turn, prompts, new_tokens)
    finally:
        stdin.close()
        process.wait(timeout=60)


async def compare(arguments: argparse.Namespace) -> dict[str, object]:
    """Interleave the turns and return the result."""
    source = resolve(ModelSourceConfig(model="smollm2")).path
    folder = ROOT / ".venv-peers" / "weights"
    peer_python()
    folder.mkdir(exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        sides: dict[str, Turn] = {}
        for name, kind in TYPES.items():
            weights = folder / f"smollm2-{name}.gguf"
            if not weights.exists():
                write_weights(source, weights, kind)
            sides[f"openvino-{name}"] = stack.enter_context(peer(weights))
        tokenizer: AsyncClient | None = None
        for name, settings in {
            "hocket": [],
            "hocket-bfloat16": ["runner.quantization=none"],
        }.items():
            address = await stack.enter_async_context(server("auto", [*settings, *arguments.set]))
            client = await stack.enter_async_context(AsyncClient(address))
            sides[name] = _over_grpc(client)
            tokenizer = client
        if tokenizer is None:
            raise RuntimeError("there is no server")
        results: dict[str, object] = {}
        for streams in arguments.streams:
            texts = [
                QUESTION.format(topic=TOPICS[number % len(TOPICS)], number=number)
                for number in range(streams)
            ]
            prompts = [[token.id for token in await tokenizer.tokenize(text)] for text in texts]
            rates: dict[str, list[float]] = {name: [] for name in sides}
            for turn in sides.values():
                await turn(prompts, 8)  # warms it up
            for number in range(arguments.rounds):
                order = list(itertools.islice(itertools.cycle(sides), number, number + len(sides)))
                for name in order:
                    rates[name].append(await sides[name](prompts, arguments.new_tokens))
            medians = {name: statistics.median(found) for name, found in rates.items()}
            best = max(rate for name, rate in medians.items() if name.startswith("openvino"))
            results[str(streams)] = {
                "ratio": round(medians["hocket"] / best, 2),
                "ratio_bfloat16": round(medians["hocket-bfloat16"] / best, 2),
                "medians": {name: round(rate, 1) for name, rate in medians.items()},
                "rates": {
                    name: [round(rate, 1) for rate in found] for name, found in rates.items()
                },
            }
            print(streams, json.dumps(results[str(streams)]), file=sys.stderr, flush=True)
    return {
        "command": " ".join(["python", "-m", "bench.peers", *sys.argv[1:]]),
        "prompt_tokens": statistics.median(map(len, prompts)),
        "new_tokens": arguments.new_tokens,
        "peer": PINS[0],
        "streams": results,
        "machine": description("torch", "grpcio", "protobuf"),
    }


def _over_grpc(client: AsyncClient) -> Turn:
    async def turn(prompts: list[list[int]], new_tokens: int) -> float:
        return (await load(client, prompts, new_tokens)).rate

    return turn


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], help="a setting of the servers")
    parser.add_argument("--output", type=Path, help="where to write the result as JSON")
    arguments = parser.parse_args()
    text = json.dumps(asyncio.run(compare(arguments)), indent=2) + "\n"
    if arguments.output:
        arguments.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
