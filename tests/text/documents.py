"""Documents of many scripts and shapes, and ways to cut them."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from hocket.server.text.pieces import QuotePolicy, SentenceMode, SentenceOptions
from hocket.server.text.segments import Segment, Segmenter
from text.joined import CHARACTERS, GLUE

# The Universal Declaration of Human Rights, as far as its tenth article: free to reproduce.
_TEXTS = Path(__file__).parent / "data/udhr"
# Latin, Cyrillic, Arabic, Devanagari, Chinese characters, Thai.
SCRIPTS = ["en", "ru", "ar", "hi", "zh", "th"]

# What is kept of a text, and so must be found whole wherever it stands alone.
VERBATIM = [
    "`x. y()`", "``a`b``", "https://a.b/c_(d)?e=1&f#g", "www.example.org/x", "mailto:a.b+c@d-e.org",
    "{x}", "{{ x }}", "${x}", "%s", "%(name)s", "%1$d", "{user.name!r:>10}", "{% if x %}",
    '<a href="x. Y">', "</b>", "<br/>", "<!-- no. No -->", "<code>x. Y</code>", "&nbsp;", "&#39;",
    "$x^2 + y. Z$", "$$a$$", r"\(a + b. C\)", r"\[x\]", r"\begin{align}a. B\end{align}",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
]  # fmt: skip
FRAGMENTS = [
    *VERBATIM, "```\n", "\n```\n", "\n```py\nx. Y = 1\n```\n", "~~~", "`", "$", "{", "<", "\\(",
    "\r\n", "\r\n\r\n", "\n\n\n", "\n", " \n \n ", "\t", "\u00a0", "\u2028", "\ufeff", "...", "5",
    "\n- item", "\n  goes on", "\n* ", "\n1. ", "\n12. ", "\n# Heading\n", "\n| a | b |", "\n---\n",
    "\n> said", "word ", "Word. ", "Mr. ", "слово. ", "Да! ", "كلمة؟ ", "शब्द। ", "字。", "「", "」",
    "ไทย ", "👩🏽\u200d🚀", "e\u0301", "\u0301", "[[0]]", "⟦1⟧",
]  # fmt: skip
DOCUMENTS = st.lists(
    st.one_of(st.sampled_from(FRAGMENTS), GLUE, CHARACTERS, st.text(max_size=3)), max_size=50
).map(lambda parts: "".join(parts).encode("utf-8", "ignore").decode())
OPTIONS = st.builds(
    SentenceOptions,
    language=st.sampled_from(["en", "ru", "ar", "hi", "zh"]),
    mode=st.sampled_from(SentenceMode),
    quotes=st.sampled_from(QuotePolicy),
    min_chars=st.sampled_from([0, 0, 20]),
    max_chars=st.sampled_from([40, 60, 500]),
)


def paragraphs_of(script: str) -> list[str]:
    """Return the paragraphs of a real text."""
    text = (_TEXTS / f"{script}.txt").read_text(encoding="utf-8")
    return text.rstrip("\n").split("\n\n")


def document(script: str, count: int, *, line_break: str = "\n") -> str:
    """Return a document of so many paragraphs, each at least a sentence, in rough company."""
    code = f"```{line_break}x. Y = 1{line_break}{line_break}```{line_break}"
    blank = f"{line_break} \t{line_break}"
    company = ["", "", f"👩🏽\u200d🚀{line_break}", blank, f"---{line_break}", code]
    parts = itertools.islice(itertools.cycle(paragraphs_of(script)), count)
    return "".join(
        f"{part}{line_break}{line_break}{company[index % len(company)]}"
        for index, part in enumerate(parts)
    )


def segmented(segmenter: Segmenter, text: str, cuts: list[int]) -> tuple[list[Segment], str]:
    """Return the segments of a text that comes in parts, and its last gap."""
    bounds = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    segments = [
        segment
        for start, end in itertools.pairwise(bounds)
        for segment in segmenter.push(text[start:end])
    ]
    last, gap = segmenter.finish()
    return segments + last, gap


def spent(work: Callable[[str], object], text: str) -> float:
    """Return the processor time that work on a text takes, in seconds; the least of two."""
    took = []
    for _ in range(2):
        begun = time.thread_time()
        work(text)
        took.append(time.thread_time() - begun)
    return min(took)
