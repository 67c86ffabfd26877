"""Prompts: made here, of a given length, or read from a file."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path

from hocket.client import AsyncClient, GenerationOptions, Message

TOPICS = (
    "lighthouses", "bicycles", "rain", "bread", "chess", "maps", "violins", "honey", "clocks",
    "bridges", "owls", "glass", "tea", "volcanoes", "kites", "salt",
)  # fmt: skip
QUESTION = (
    "{number}. You are asked to explain {topic} to a group of curious visitors who have never heard"
    " about them. Begin with what everybody can see, go on with how it came to be, and say what is"
    " still unknown. Use short sentences, give one example from daily life and one from history,"
    " avoid lists, avoid numbers, and close with a question that the visitors could take home and"
    " think about in the evening. Please take care to answer it freshly, in your own words, as if"
    " nobody had ever asked you before."
)


def fresh() -> Iterator[str]:
    """Yield texts of about 105 tokens without end, none like another from its first words on.

    So no cache of prefixes answers for the model.
    """
    for number in count(1):
        yield QUESTION.format(topic=TOPICS[number % len(TOPICS)], number=number)


def questions(number: int) -> list[str]:
    """Return the first so many of the fresh texts."""
    return take(fresh(), number)


def take(texts: Iterator[str], number: int) -> list[str]:
    """Return the next so many texts."""
    return list(islice(texts, number))


def of_length(token_ids: Sequence[int], length: int) -> list[int]:
    """Return exactly so many tokens: those given, from the start again as often as need be."""
    return list(islice(cycle(token_ids), length))


async def tokens_of(
    client: AsyncClient, texts: Sequence[str], length: int | None = None
) -> list[list[int]]:
    """Return the token ids of each text, cut or repeated to a length if one is given."""
    found = [[token.id for token in await client.tokenize(text)] for text in texts]
    return found if length is None else [of_length(ids, length) for ids in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a request continues.

    Attributes:
        text: A text; None where `options` hold token ids or messages instead.
        options: What the file says beside it.
    """

    text: str | None = None
    options: GenerationOptions


def from_file(file: Path) -> list[Prompt]:
    """Read one prompt from each line of JSON.

    A line is a string, or an object with `prompt`, `token_ids` or `messages` (`role`, `content`),
    and `max_tokens` if it is to have a bound of its own.

    Raises:
        ValueError: A line is something else, or there is none.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    found = [
        _prompt(json.loads(line), number)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not found:
        raise ValueError(f"{file} holds no prompt")
    return found


def _prompt(line: object, number: int) -> Prompt:
    text, options = None, GenerationOptions()
    match line:
        case str() | {"prompt": str()}:
            text = line["prompt"] if isinstance(line, dict) else str(line)
        case {"token_ids": list(ids)}:
            options["token_ids"] = [int(token) for token in ids]
        case {"messages": list(turns)}:
            options["messages"] = [Message(role=t["role"], content=t["content"]) for t in turns]
        case _:
            raise ValueError(f"line {number} has neither prompt, token_ids nor messages")
    if isinstance(line, dict) and "max_tokens" in line:
        options["max_tokens"] = int(line["max_tokens"])
    return Prompt(text=text, options=options)
