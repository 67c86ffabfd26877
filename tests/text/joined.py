"""Texts whose characters are made of several code points each."""

from hypothesis import strategies as st

_ACCENTS = "\u0300\u0301\u0308\u0323\u0327\u20d7"
_PEOPLE = "👩👨🧑👧👶"
_TONES = "🏻🏽🏿"
_THINGS = "🚀🌾🎨💻🔧"
_DEVANAGARI = "कखगतदनमरसह"
_BENGALI = "কখগতদনমরসহ"


def _letters(alphabet: str, least: int, most: int) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=most)


def _conjuncts(consonants: str, virama: str, vowels: list[str]) -> st.SearchStrategy[str]:
    joints = st.sampled_from([virama, virama + "\u200d", "\u093c" + virama])
    first = st.tuples(st.sampled_from(consonants), joints).map("".join)
    heads = st.lists(first, max_size=2).map("".join)
    return st.tuples(heads, st.sampled_from(consonants), st.sampled_from(vowels)).map("".join)


# One character each, as readers see it, of 2 to 12 code points; one that follows another does
# not join it.
CHARACTERS = st.one_of(
    st.tuples(_letters("aeouGш日。.!", 1, 1), _letters(_ACCENTS, 1, 4)).map("".join),
    st.lists(
        st.tuples(_letters(_PEOPLE, 1, 1), _letters(_TONES, 0, 1)).map("".join),
        min_size=2, max_size=4,
    ).map("\u200d".join),
    st.tuples(_letters(_PEOPLE, 1, 1), _letters(_TONES, 1, 1), _letters(_THINGS, 1, 1)).map(
        lambda parts: f"{parts[0]}{parts[1]}\u200d{parts[2]}"
    ),
    st.sampled_from(["❤\ufe0f\u200d🔥", "☎\ufe0e", "‼\ufe0f", "1\ufe0f\u20e3", "葛\U000e0100"]),
    st.sampled_from(["🇩🇪", "🇫🇷", "🇯🇵", "🇺🇦", "🇧🇷"]),
    st.just("🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"),
    st.tuples(
        _letters("\u1100\u1109\ua960", 1, 2), _letters("\u1161\u116e\ud7b0", 1, 2),
        _letters("\u11a8\u11ab\ud7cb", 0, 2),
    ).map("".join),
    st.sampled_from(["\u1100가", "가\u11a8", "각\u11a8"]),
    _conjuncts(_DEVANAGARI, "\u094d", ["\u0902", "\u093f", "\u0940\u0902", "\u0947"]),
    _conjuncts(_BENGALI, "\u09cd", ["\u09be", "\u09bf", "\u0982"]),
    st.sampled_from(["\r\n", "กำ", "ກຳ", "ｶﾞ", "\u06005", "க\u0bcdஷ\u0bc1"]),
)  # fmt: skip

GLUE = st.sampled_from(
    ["", "", ". ", "! ", "? ", "。", "！", "।", " ", ", ", "\n", "\n\n", "\n- ", "1. ", "word ",
     "Word", "“", "”", "」", "```\n", "\n```\n", "\n```\n ", "`", "日本", "\u3000", "\u2028"]
)  # fmt: skip

# Any order of what joins, which makes clusters of any length, some without a base.
SOUP = st.text(
    "a. \n\r\t`-1。!क\u094d\u093c\u0301\ufe0f\u200d\u200c👩🏽🇩🇪\u1100\u1161\u11a8가각\u0600ำ\u3000",
    max_size=120,
)


@st.composite
def joined_texts(draw: st.DrawFn) -> tuple[str, frozenset[int]]:
    """Return a text, and the positions that lie inside one of its characters."""
    parts = draw(st.lists(st.tuples(GLUE, CHARACTERS), max_size=50))
    text, inside = "", set()
    for glue, character in parts:
        text += glue
        inside |= {len(text) + offset for offset in range(1, len(character))}
        text += character
    return text + draw(GLUE), frozenset(inside)
