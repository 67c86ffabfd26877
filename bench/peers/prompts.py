"""The prompts of a round: about 110 tokens each, and none like another from its first words on.

No prompt comes twice in a run, so that no side answers from a cache of prefixes.
"""

import itertools

from hocket.server.text.huggingface import HuggingFaceTokenizer

_TOPICS = (
    "lighthouses", "bicycles", "rain", "bread", "chess", "maps", "violins", "honey", "clocks",
    "bridges", "owls", "glass", "tea", "volcanoes", "kites", "salt",
)  # fmt: skip
_QUESTION = (
    "{number}. You are asked to explain {topic} to a group of curious visitors who have never heard"
    " about them. Begin with what everybody can see, go on with how it came to be, and say what is"
    " still unknown. Use short sentences, give one example from daily life and one from history,"
    " avoid lists, avoid numbers, and close with a question that the visitors could take home and"
    " think about in the evening. Please take care to answer it freshly, in your own words, as if"
    " nobody had ever asked you before."
)


class Prompts:
    """A supply of prompts, as token ids."""

    def __init__(self, tokenizer: HuggingFaceTokenizer) -> None:
        self._tokenizer = tokenizer
        self._numbers = itertools.count(1)

    def take(self, streams: int) -> list[list[int]]:
        """Return so many prompts that nobody was asked before."""
        return [self._encode(number) for number in itertools.islice(self._numbers, streams)]

    def _encode(self, number: int) -> list[int]:
        text = _QUESTION.format(number=number, topic=_TOPICS[number % len(_TOPICS)])
        encoding = self._tokenizer.encode(text, add_special=True, parse_special=False)
        return list(encoding.token_ids)
