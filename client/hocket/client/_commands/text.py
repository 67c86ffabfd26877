"""`hocket tokenize` and `hocket split`: a text's tokens, and its sentences."""

import argparse

from hocket.client import QuotePolicy, SentenceMode, SentenceOptions
from hocket.client._commands.connection import add_connection_flags, add_json_flag, make_client
from hocket.client._commands.output import print_json, printable, read_text, wants_json


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both commands."""
    tokenize = commands.add_parser("tokenize", help="show the tokens of a text")
    tokenize.add_argument("input", metavar="TEXT", help="the text; - reads standard input")
    tokenize.add_argument("--model", default="", help="served model (default: the server's)")
    tokenize.add_argument("--count", action="store_true", help="show only how many there are")
    tokenize.add_argument(
        "--add-special-tokens", action="store_true", help="put the begin-of-text token in front"
    )
    tokenize.add_argument(
        "--parse-special-tokens", action="store_true", help="read special-token texts as tokens"
    )
    add_json_flag(tokenize)
    add_connection_flags(tokenize)
    tokenize.set_defaults(run=_tokenize)

    split = commands.add_parser("split", help="cut a text into sentences")
    split.add_argument("input", metavar="TEXT", help="the text; - reads standard input")
    split.add_argument("--paragraphs", action="store_true", help="cut at paragraphs instead")
    add_sentence_flags(split)
    add_json_flag(split)
    add_connection_flags(split)
    split.set_defaults(run=_split)


def add_sentence_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `SentenceOptions`."""
    group = parser.add_argument_group("sentences")
    group.add_argument("--language", help="ISO 639-1 code, such as en or ja (default: en)")
    group.add_argument("--mode", choices=list(SentenceMode), help="how early an end is believed")
    group.add_argument("--quotes", choices=list(QuotePolicy), help="whether quotations are cut")
    group.add_argument("--min-chars", type=int, help="shorter sentences join the next one")
    group.add_argument("--max-chars", type=int, help="longer sentences are cut softly")


def sentence_options(arguments: argparse.Namespace) -> SentenceOptions:
    """Return what those flags say."""
    return SentenceOptions(
        language=arguments.language,
        mode=None if arguments.mode is None else SentenceMode(arguments.mode),
        quotes=None if arguments.quotes is None else QuotePolicy(arguments.quotes),
        min_chars=arguments.min_chars,
        max_chars=arguments.max_chars,
    )


def _tokenize(arguments: argparse.Namespace) -> int:
    text = read_text(arguments.input)
    with make_client(arguments) as client:
        tokens = client.tokenize(
            text,
            model=arguments.model,
            add_special_tokens=arguments.add_special_tokens,
            parse_special_tokens=arguments.parse_special_tokens,
        )
    as_json = wants_json(arguments.json)
    if arguments.count:
        if as_json:
            print_json({"count": len(tokens)})
        else:
            print(len(tokens))
        return 0
    encoded = text.encode()
    for token in tokens:
        piece = encoded[token.start_byte : token.end_byte].decode(errors="replace")
        if as_json:
            print_json(
                {
                    "id": token.id,
                    "start_byte": token.start_byte,
                    "end_byte": token.end_byte,
                    "text": piece,
                }
            )
        else:
            print(f"{token.id:>8}  {token.start_byte:>6}-{token.end_byte:<6}  {piece!r}")
    return 0


def _split(arguments: argparse.Namespace) -> int:
    text = read_text(arguments.input)
    with make_client(arguments) as client:
        pieces = client.split_sentences(
            text, paragraphs=arguments.paragraphs, options=sentence_options(arguments)
        )
    as_json = wants_json(arguments.json)
    for index, piece in enumerate(pieces):
        if as_json:
            print_json(piece)
        else:
            print(f"[{index + 1}] {piece.kind:<13} {printable(piece.text).strip()}")
    return 0
