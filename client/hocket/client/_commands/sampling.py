"""The flags of `hocket generate` and `hocket chat` that say how and what to write."""

import argparse

from hocket.client import GenerationOptions
from hocket.client._commands.connection import positive_seconds


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """Add them. Ranges and defaults are the server's."""
    parser.add_argument("--model", help="served model (default: the server's)")
    group = parser.add_argument_group("sampling")
    group.add_argument("--max-tokens", type=int, help="most tokens to write")
    group.add_argument("--temperature", type=float, help="0 always takes the likeliest token")
    group.add_argument("--top-k", type=int, help="keep the k likeliest tokens")
    group.add_argument("--top-p", type=float, help="keep tokens up to this sum of probability")
    group.add_argument("--min-p", type=float, help="keep tokens this likely beside the likeliest")
    group.add_argument("--seed", type=int, help="make the text repeatable")
    group.add_argument("--repetition-penalty", type=float, help="weaken tokens that were there")
    group.add_argument("--presence-penalty", type=float, help="weaken tokens written before")
    group.add_argument("--frequency-penalty", type=float, help="the same, each time")
    group.add_argument(
        "--stop", action="append", metavar="TEXT", help="end before this; repeatable"
    )
    group.add_argument("--ignore-eos", action="store_true", help="write on past the model's end")
    group.add_argument("--priority", type=int, help="lower values run first; -100 to 100")
    group.add_argument(
        "--time-budget", type=positive_seconds, metavar="SECONDS", help="end the text after this"
    )


def sampling_options(arguments: argparse.Namespace) -> GenerationOptions:
    """Return what those flags say."""
    return GenerationOptions(
        model=arguments.model,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        seed=arguments.seed,
        repetition_penalty=arguments.repetition_penalty,
        presence_penalty=arguments.presence_penalty,
        frequency_penalty=arguments.frequency_penalty,
        stop=arguments.stop,
        ignore_eos=arguments.ignore_eos or None,
        priority=arguments.priority,
        time_budget=arguments.time_budget,
    )
