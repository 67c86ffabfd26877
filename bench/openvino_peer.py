"""OpenVINO GenAI as a peer: prompts in, tokens out, continuous batching in process, no server.

    python bench/openvino_peer.py WEIGHTS.gguf

Runs in an environment of its own. Reads a JSON line {"prompts": [[ids]], "new_tokens": n} and
answers {"tokens": n, "seconds": s}; the first line it writes says that it is ready.
"""

import json
import sys
import time

import numpy as np
import openvino
import openvino_genai


def main() -> None:
    """Serve turns until standard input ends."""
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_seqs = 64
    scheduler.cache_size = 2
    scheduler.enable_prefix_caching = False
    pipeline = openvino_genai.ContinuousBatchingPipeline(sys.argv[1], scheduler, "CPU")
    print(json.dumps({"version": openvino_genai.__version__}), flush=True)
    for line in sys.stdin:
        turn = json.loads(line)
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = turn["new_tokens"]
        config.ignore_eos = True
        config.do_sample = False
        prompts = [openvino.Tensor(np.array([ids], dtype=np.int64)) for ids in turn["prompts"]]
        begun = time.perf_counter()
        answers = pipeline.generate(prompts, [config] * len(prompts))
        seconds = time.perf_counter() - begun
        tokens = sum(len(answer.m_generation_ids[0]) for answer in answers)
        print(json.dumps({"tokens": tokens, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
