"""OpenVINO GenAI's continuous batching, as a process of its own: prompts in, tokens out, no server.

    python bench/peers/openvino_engine.py WEIGHTS.gguf

Runs in an environment of its own. Reads a JSON line {"prompts": [[ids]], "new_tokens": n} and
answers {"seconds": s, "streams": [[[seconds, [ids]], ...], ...]}: when which tokens of each stream
were there, from the moment before the first prompt was handed in. The first line it writes says
that it is ready.
"""

import json
import sys
import time

import numpy as np
import openvino
import openvino_genai


def turn(
    pipeline: openvino_genai.ContinuousBatchingPipeline, prompts: list[list[int]], new_tokens: int
) -> dict[str, object]:
    """Answer all prompts together, step by step."""
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = new_tokens
    config.ignore_eos = True
    config.do_sample = False
    inputs = [openvino.Tensor(np.array([ids], dtype=np.int64)) for ids in prompts]
    streams: list[list[tuple[float, list[int]]]] = [[] for _ in prompts]
    begun = time.perf_counter()
    handles = [pipeline.add_request(index, ids, config) for index, ids in enumerate(inputs)]
    while pipeline.has_non_finished_requests():
        pipeline.step()
        now = time.perf_counter() - begun
        for handle, stream in zip(handles, streams, strict=True):
            if handle.can_read():
                stream += [(now, out.generated_ids) for out in handle.read().values()]
    return {"seconds": time.perf_counter() - begun, "streams": streams}


def main() -> None:
    """Serve turns until standard input ends."""
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_seqs = 64
    scheduler.cache_size = 2
    scheduler.enable_prefix_caching = False
    pipeline = openvino_genai.ContinuousBatchingPipeline(sys.argv[1], scheduler, "CPU")
    print(json.dumps({"version": openvino_genai.__version__}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(turn(pipeline, asked["prompts"], asked["new_tokens"])), flush=True)


if __name__ == "__main__":
    main()
