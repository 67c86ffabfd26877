"""What the splitter looks at, counted: a character costs the same however much is held."""

import re
import sys

import pytest

from hocket.server.text import markup, quotations, runs, sentences, softcuts, terminators
from hocket.server.text.pieces import QuotePolicy, SentenceMode, SentenceOptions
from hocket.server.text.sentences import SentenceSplitter, split_text


class Counted:
    """A pattern that tells how many characters it looked at."""

    def __init__(self, pattern, work):
        self._pattern, self._work = pattern, work
        self.pattern = pattern.pattern

    def search(self, text, start=0, end=sys.maxsize):
        found = self._pattern.search(text, start, end)
        self._work.append((found.end() if found else min(end, len(text))) - start + 1)
        return found

    def match(self, text, start=0, end=sys.maxsize):
        found = self._pattern.match(text, start, end)
        self._work.append(found.end() - start + 1 if found else 1)
        return found

    def fullmatch(self, text, start=0, end=sys.maxsize):
        self._work.append(min(end, len(text)) - start + 1)
        return self._pattern.fullmatch(text, start, end)

    def finditer(self, text, start=0, end=sys.maxsize):
        self._work.append(min(end, len(text)) - start + 1)
        return self._pattern.finditer(text, start, end)

    def findall(self, text, start=0, end=sys.maxsize):
        self._work.append(min(end, len(text)) - start + 1)
        return self._pattern.findall(text, start, end)


@pytest.fixture
def work(monkeypatch):
    """What all patterns of the splitter look at, in characters."""
    work = []
    counted = {}
    for module in (sentences, runs, markup, quotations, softcuts, terminators):
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                counted[value] = counted.get(value) or Counted(value, work)
                monkeypatch.setattr(module, name, counted[value])
    for module, name in [
        (sentences, "_rules"), (sentences, "_either"), (markup, "_anything_but"),
        (runs, "_patterns"), (markup, "_closing"),
    ]:  # fmt: skip
        make = getattr(module, name)
        make = getattr(make, "__wrapped__", make)

        def counting(*args, make=make, **kwargs):
            made = make(*args, **kwargs)
            if not isinstance(made, tuple):
                return Counted(made, work)
            return tuple(Counted(x, work) if isinstance(x, re.Pattern) else x for x in made)

        monkeypatch.setattr(module, name, counting)
    shown = {
        key: counted.get(value) or Counted(value, work)
        for key, value in terminators.SHOWS_MORE.items()
    }
    monkeypatch.setattr(terminators, "SHOWS_MORE", shown)
    monkeypatch.setattr(sentences, "SHOWS_MORE", shown)
    return work


SLOW = {
    "letters": "x",
    "words": "word ",
    "spaces": " ",
    "lines": "\n",
    "carriage returns": "\r\n",
    "items": "* a\n",
    "periods": ".",
    "spaced periods": ". ",
    "wide terminators": "。",
    "closed terminators": '."',
    "closers": "a." + ")" * 400,
    "notes": "a." + "[1]" * 100,
    "periods before notes": "a" + "." * 200 + "[1]" * 60,
    "open notes": "a.[1[",
    "single letters": "a. ",
    "numbers": "1. ",
    "titles": "Mr. ",
    "no letters": "! 1",
    "quotations": "“a. ",
    "open quotation": "“no end. ",
    "dashes": "a. " + "- " * 200,
    "openers": "a. " + "(" * 400,
    "long words": "a. " + "b" * 400,
    "apostrophes": "a. " + "b'" * 200,
    "indented": " " * 400 + "a",
    "backticks": "`",
    "tildes": "\n~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~",
    "inline code": "`a. b` ",
    "inline code that begins like a block": "\n```a. b``` ",
    "tags": '<a b="',
}


@pytest.mark.parametrize("paragraphs", [False, True])
@pytest.mark.parametrize("name", [*SLOW, "code", "closed code", "lines of code", "opened"])
def test_a_character_costs_the_same_however_much_is_held(work, name, paragraphs):
    """Character by character, nothing is read again and again while a piece is open."""
    text = {
        "code": "```\n" + "x" * 4000,
        "opened": "```" + "x" * 4000,
        "closed code": "```\nx\n```\n" + " " * 4000,
        "lines of code": "```\n" + "x = y\n" * 800,
    }.get(name) or (SLOW[name] * 4000)[:4000]
    for max_chars in (500, 2000):
        options = SentenceOptions(
            mode=SentenceMode.CAREFUL, quotes=QuotePolicy.HOLD, max_chars=max_chars, min_chars=200
        )
        work.clear()
        splitter = SentenceSplitter(options, paragraphs=paragraphs)
        for character in text:
            splitter.push(character)
        assert sum(work) < 25 * len(text)


@pytest.mark.parametrize("name", SLOW)
def test_a_whole_text_costs_as_much_for_each_character_as_its_tenth(work, name):
    """Twice the text, twice the work: nothing is read again for a later piece."""
    text = (SLOW[name] * 40_000)[:40_000]
    split_text(text[:4_000], SentenceOptions())
    tenth = sum(work)
    work.clear()
    split_text(text, SentenceOptions())
    assert sum(work) < 12 * tenth + 1_000
