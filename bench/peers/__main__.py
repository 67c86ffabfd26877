"""hocket against its peers: same machine, same weights, turn by turn.

    python -m bench.peers [--streams 1 8 32] [--rounds 5] [--sides NAME ...] [--output FILE]

Peers are installed into environments of their own at the top of the checkout, the first time. One
that cannot be installed or started is shown as absent, with the reason. Progress goes to standard
error, a Markdown table to standard output, everything that was measured into the file.
"""

import argparse
import asyncio
from collections.abc import Callable

from bench.command import deliver, origin, run, serving_parser
from bench.peers import hocket_peer
from bench.peers.calibration import measured
from bench.peers.compare import Comparison, compare, start_all
from bench.peers.figures import figures, ratios, table
from bench.peers.llamacpp_peer import LlamaCpp
from bench.peers.openvino_peer import OpenVino
from bench.peers.peer import Peer
from bench.peers.vllm_peer import Vllm
from bench.peers.weights import tokenizer
from bench.prompts import fresh

PEERS: dict[str, Callable[[], Peer]] = {
    "openvino-f16": lambda: OpenVino("f16"),
    "openvino-q8_0": lambda: OpenVino("q8_0"),
    "vllm-bfloat16": Vllm,
    "llamacpp-q8_0": lambda: LlamaCpp("q8_0"),
    "llamacpp-q4_1": lambda: LlamaCpp("q4_1"),
}
USUAL = ["hocket", "hocket-bfloat16", "hocket-torch", *PEERS]


async def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Start the sides, let them take their turns, and return the result."""
    sides = [
        PEERS[name]() if name in PEERS else hocket_peer.Hocket(name, arguments.set)
        for name in arguments.sides
    ]
    comparison, encode = Comparison(), tokenizer().encode
    prompts = (
        list(encode(text, add_special=True, parse_special=False).token_ids) for text in fresh()
    )
    try:
        present = await start_all(sides, comparison)
        before = await asyncio.to_thread(measured)
        for streams in arguments.streams if present else []:
            await compare(
                present,
                comparison,
                prompts,
                streams=streams,
                rounds=arguments.rounds,
                new_tokens=arguments.new_tokens,
            )
        after = await asyncio.to_thread(measured)
    finally:
        for side in sides:
            await side.stop()
    rivals = [side.name for side in present if side.rivals]
    ours = [side.name for side in present if isinstance(side, hocket_peer.Hocket)]
    results: dict[str, object] = {}
    for streams, turns in comparison.turns.items():
        found = {name: figures(taken) for name, taken in turns.items()}
        results[str(streams)] = {
            "ratios": ratios(
                found,
                [name for name in rivals if name in found],
                [name for name in ours if name in found],
            ),
            "sides": found,
        }
    return {
        **origin("bench.peers", "torch", "grpcio", "protobuf"),
        "rounds": arguments.rounds,
        "prompt_tokens": comparison.prompt_tokens,
        "new_tokens": arguments.new_tokens,
        "sides": {side.name: side.version for side in sides},
        "rivals": rivals,
        "absent": comparison.absent,
        "streams": results,
        "idle_cpu": round(comparison.idle_cpu, 3),
        "calibration_gflops": {"before": before, "after": after},
        "calibration_drift": round(after / before - 1, 3),
    }


def main() -> None:
    """Run as a command."""
    parser = serving_parser(__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--sides", nargs="+", choices=[*hocket_peer.SIDES, *PEERS], default=USUAL, metavar="NAME",
        help=f"of {', '.join([*hocket_peer.SIDES, *PEERS])}",
    )  # fmt: skip
    arguments = parser.parse_args()
    result = run(measure(arguments))
    deliver(result, arguments, is_printed=False)
    print(table(result))


if __name__ == "__main__":
    main()
