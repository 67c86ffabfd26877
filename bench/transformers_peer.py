"""The baseline of `baseline.py`: `transformers.generate`, one request after the other.

A process of its own, so that its threads do not meet the server's. Reads one line of JSON for each
turn from standard input (`{"prompts": [[token ids]], "new_tokens": 128}`) and answers with one line
(`{"seconds": [...], "tokens": [[...]]}`), one entry for each prompt.
"""

import json
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging


def main() -> None:
    """Load the weights named by the arguments (file, dtype, threads) and answer turns."""
    file, dtype, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=getattr(torch, dtype)
    ).eval()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        turn = json.loads(line)
        seconds, tokens = [], []
        for prompt in turn["prompts"]:
            ids = torch.tensor([prompt])
            begun = time.perf_counter()
            with torch.inference_mode():
                written = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    min_new_tokens=turn["new_tokens"],
                    max_new_tokens=turn["new_tokens"],
                    pad_token_id=0,
                )
            seconds.append(time.perf_counter() - begun)
            tokens.append(written[0, len(prompt) :].tolist())
        print(json.dumps({"seconds": seconds, "tokens": tokens}), flush=True)


if __name__ == "__main__":
    main()
