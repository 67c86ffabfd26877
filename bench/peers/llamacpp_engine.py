"""llama.cpp's server, as a process of its own.

    python bench/peers/llamacpp_engine.py WEIGHTS.gguf PORT

Runs in an environment of its own, until standard input ends.
"""

import os
import sys

import xllamacpp

_SEQUENCES = 64
_CONTEXT_TOKENS = 512  # for each sequence


def main() -> None:
    """Serve until standard input ends."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = sys.argv[1]
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(sys.argv[2])
    parameters.n_parallel = _SEQUENCES
    parameters.n_ctx = _SEQUENCES * _CONTEXT_TOKENS
    parameters.n_gpu_layers = 0
    parameters.cpuparams.n_threads = os.cpu_count()
    parameters.cpuparams_batch.n_threads = os.cpu_count()
    server = xllamacpp.Server(parameters)
    print("listening on", server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
