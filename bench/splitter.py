"""What the streaming splitter costs, and how far it lags behind the text.

    python -m bench.splitter

Lag: characters received beyond a sentence's last visible one when it is handed out, character by
character. Cost: microseconds for each character, whole texts and character by character.
"""

import json
import statistics
import sys
import time
from pathlib import Path

from bench.command import deliver, origin, parser
from hocket.server.text.pieces import PieceKind, SentenceMode, SentenceOptions
from hocket.server.text.sentences import SentenceSplitter, split_text

# What costs most if it is looked at again with each character: long lines of code, runs of
# terminators, terminators without end.
DENSE = {
    "code": "```\n" + "x" * 20_000,
    "periods": "." * 20_000,
    "spaced_periods": ". " * 10_000,
    "wide_terminators": "。" * 20_000,
    "white_space": " " * 20_000,
    "single_letters": "a. " * 7_000,
}
RULES = Path(__file__).resolve().parents[1] / "tests/text/data/english_golden_rules.json"


def lags(text: str, options: SentenceOptions) -> list[int]:
    """Return the lag of each sentence of a text that comes one character at a time."""
    splitter, found, end = SentenceSplitter(options), [], 0
    for received, character in enumerate(text, start=1):
        for piece in splitter.push(character):
            if piece.kind in {PieceKind.SENTENCE, PieceKind.PARAGRAPH_END}:
                found.append(received - end - len(piece.text.rstrip()))
            end += len(piece.text)
    return found


def cost(
    text: str, options: SentenceOptions, *, by_character: bool, paragraphs: bool = False
) -> float:
    """Return microseconds for each character, the best of three."""
    best = float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        if by_character:
            splitter = SentenceSplitter(options, paragraphs=paragraphs)
            for character in text:
                splitter.push(character)
            splitter.finish()
        else:
            split_text(text, options, paragraphs=paragraphs)
        best = min(best, time.perf_counter() - begun)
    return best / len(text) * 1e6


def main() -> int:
    """Measure both modes and print them as JSON; exit 1 if a bound is missed."""
    arguments = parser(__doc__).parse_args()
    rules = json.loads(RULES.read_text(encoding="utf-8"))
    prose = " ".join(rule["text"] for rule in rules)
    result: dict[str, object] = origin("bench.splitter")
    is_good = True
    for mode in SentenceMode:
        options = SentenceOptions(mode=mode)
        measured = sorted(lags(prose, options))
        median = statistics.median(measured)
        high = measured[int(len(measured) * 0.95)]
        streamed = cost(prose * 8, options, by_character=True)
        result[mode.value] = {
            "lag_p50_chars": median,
            "lag_p95_chars": high,
            "microseconds_per_char_streamed": round(streamed, 3),
            "microseconds_per_char_whole": round(cost(prose * 8, options, by_character=False), 3),
        }
        if mode is SentenceMode.EAGER:
            is_good = median <= 2 and high <= 8 and streamed <= 2  # noqa: PLR2004 - the bounds
    result["microseconds_per_char_streamed_of_dense_text"] = {
        f"{name}{'_in_paragraphs' if paragraphs else ''}": round(
            cost(text, SentenceOptions(), by_character=True, paragraphs=paragraphs), 3
        )
        for name, text in DENSE.items()
        for paragraphs in (False, True)
    }
    megabyte = "no end in sight " * 65_536
    begun = time.perf_counter()
    split_text(megabyte, SentenceOptions())
    result["seconds_per_megabyte_without_a_period"] = round(time.perf_counter() - begun, 3)
    deliver(result, arguments)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
