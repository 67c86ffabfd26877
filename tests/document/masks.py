"""A small stand-in for `text.protection.mask`."""

import re
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Part:
    before: str
    text: str


@dataclass(frozen=True)
class Masked:
    source: str
    spans: tuple
    text: str

    def unmask(self, written):
        found = re.findall(r"\[\[(\d+)\]\]", written)
        if sorted(map(int, found)) != list(range(len(self.spans))):
            return None
        kept = [self.source[start:end] for start, end in self.spans]
        return re.sub(r"\[\[(\d+)\]\]", lambda mask: kept[int(mask[1])], written)

    def parts(self):
        edges = [0, *(edge for span in self.spans for edge in span), len(self.source)]
        parts, done = [], 0
        for start, end in list(pairwise(edges))[::2]:
            core = re.search(r"\w.*\S|\w", self.source[start:end], re.DOTALL)
            if core:
                begin = start + core.start()
                parts.append(Part(self.source[done:begin], core[0]))
                done = start + core.end()
        return tuple(parts), self.source[done:]


def mask(text, spans):
    shown, done = "", 0
    for number, (start, end) in enumerate(spans):
        shown += f"{text[done:start]}[[{number}]]"
        done = end
    return Masked(text, tuple(spans), shown + text[done:])
