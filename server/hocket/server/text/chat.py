"""A conversation to tokens, by the model's own template. Any thread, several at once.

Templates are programs that come with weights, written in Jinja as `transformers` renders it. They
run in a sandbox: nothing but the conversation is reachable, nothing can be changed, and what they
write is bounded. Their running time is not: a template is trusted as far as its weights are.

What a caller writes never becomes a special token. Before the template runs, a character that no
text holds is put inside every special-token text in the messages, and inside every beginning or
end of one, so that parts do not add up to one either; the rendered text is cut at the special
tokens that are left, which are the template's own, and the character is taken out again.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from datetime import UTC, datetime
from itertools import pairwise, product
from typing import Protocol

import jinja2
from jinja2.ext import Extension, LoopControlExtension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hocket.server.errors import InvalidRequest, StartupError
from hocket.server.text.literals import any_of
from hocket.server.text.tokenizer import ChatMessage, Tokenizer

_FIELD = "chat.messages"
_NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
_COMMON_ROLES = frozenset({"system", "user", "assistant", "tool"})
_MOST_EXTRA_CHARS = 1_000_000
_MOST_IN_POWER = 10_000
_MOST_REASON_CHARS = 200


class SpecialTokenizer(Tokenizer, Protocol):
    """A tokenizer that can tell its special tokens and write them among ordinary text."""

    @property
    def special_token_texts(self) -> Mapping[str, int]:
        """How special tokens are written."""
        ...

    def encode_parts(self, parts: Sequence[str | int]) -> tuple[int, ...]:
        """Turn ordinary texts and special tokens into the tokens of one text."""
        ...


class _TemplateRefused(Exception):
    """A template called `raise_exception`."""


class _TooLong(Exception):
    """A template wrote more than its bound."""


class _Generation(Extension):
    """`{% generation %}` marks what a model is trained to write; here it only groups."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own form

    def parse(self, parser: Parser) -> list[Node]:
        """Return what is inside the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox in which nothing can be multiplied without bound."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: object, right: object
    ) -> object:
        """Compute a product or a power whose result is not large."""
        for one, other in ((left, right), (right, left)):
            if operator == "**":
                large = isinstance(one, int | float) and abs(one) > _MOST_IN_POWER
            else:
                large = (
                    isinstance(one, Sized)
                    and isinstance(other, int)
                    and len(one) * other > _MOST_EXTRA_CHARS
                )
            if large:
                raise jinja2.exceptions.SecurityError("too large a product")
        return super().call_binop(context, operator, left, right)


def _raise_exception(message: str) -> None:
    raise _TemplateRefused(message)


def _to_json(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - the signature that templates know
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002 - the signature that templates know
) -> str:
    """Write JSON as `transformers` does: characters as they are, nothing escaped for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _joined(parts: Iterable[str], *, most_chars: int) -> str:
    taken: list[str] = []
    for part in parts:
        taken.append(part)
        most_chars -= len(part)
        if most_chars < 0:
            raise _TooLong
    return "".join(taken)


def _local_now() -> datetime:
    return datetime.now(tz=UTC).astimezone()


class JinjaChatTemplate:
    """A chat template in Jinja."""

    def __init__(
        self,
        source: str,
        tokenizer: SpecialTokenizer,
        *,
        bos_token: str,
        eos_token: str,
        now: Callable[[], datetime] = _local_now,
    ) -> None:
        """Compile a template.

        Args:
            source: The template.
            tokenizer: Turns what it writes into tokens.
            bos_token: How the begin-of-text token is written; empty if there is none.
            eos_token: How the end-of-text token is written; empty if there is none.
            now: Tells the time to templates that write a date.

        Raises:
            StartupError: The source is no template.
        """
        environment = _Environment(
            trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _Generation]
        )
        del environment.globals["lipsum"]
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: now().strftime(form)
        try:
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            where = f" in line {line}" if line else ""
            raise StartupError(f"the model's chat template is broken{where}: {error}") from error
        self._source = source
        self._tokenizer = tokenizer
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        # A text of one character cannot be broken, so that as a special token it is never read.
        special = [text for text in tokenizer.special_token_texts if len(text) > 1]
        self._special = re.compile(any_of(special))
        self._occurrence = re.compile(f"(?={any_of(special)})")
        # Ends and beginnings of one character are left: what they lack has two or more, or
        # stands in the template.
        sizes = [(text, size) for text in special for size in range(2, len(text))]
        self._tails = frozenset(text[-size:] for text, size in sizes)
        self._heads = frozenset(text[:size] for text, size in sizes)
        self._longest = max(map(len, special), default=0)

    def encode(
        self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool
    ) -> tuple[int, ...]:
        """Turn a conversation into tokens.

        Nothing is added to what the template writes, which includes the begin-of-text token where
        the model wants one.

        Raises:
            InvalidRequest: The template refuses the conversation or fails on it, or writes more
                than a million characters beyond what it was given.
        """
        return self._tokenizer.encode_parts(
            self._render(messages, add_generation_prompt=add_generation_prompt)
        )

    def _render(
        self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool
    ) -> list[str | int]:
        """Return ordinary text and the template's special tokens, in order."""
        written = [self._source, *(part for m in messages for part in (m.role, m.content))]
        mark = _absent_mark(written)
        rendered = self._run(
            [
                {
                    "role": self._disarm_role(message.role, mark),
                    "content": self._disarm(message.content, mark),
                }
                for message in messages
            ],
            mark=mark,
            most_chars=_MOST_EXTRA_CHARS + 3 * sum(map(len, written)),
            add_generation_prompt=add_generation_prompt,
        )
        ids = self._tokenizer.special_token_texts
        parts: list[str | int] = []
        start = 0
        for match in self._special.finditer(rendered):
            parts += [rendered[start : match.start()].replace(mark, ""), ids[match.group()]]
            start = match.end()
        return [*parts, rendered[start:].replace(mark, "")]

    def _run(
        self,
        messages: list[dict[str, str]],
        *,
        mark: str,
        most_chars: int,
        add_generation_prompt: bool,
    ) -> str:
        output = self._template.generate(
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self._tokens,
        )
        try:
            return _joined(output, most_chars=most_chars)
        except _TemplateRefused as error:
            reason = str(error).replace(mark, "")[:_MOST_REASON_CHARS]
            raise InvalidRequest.of(
                _FIELD, f"the model's chat template refuses this conversation: {reason}"
            ) from error
        except _TooLong as error:
            raise InvalidRequest.of(_FIELD, "the model's chat template writes too much") from error
        except Exception as error:
            raise InvalidRequest.of(
                _FIELD, "the model's chat template fails on this conversation"
            ) from error

    def _disarm_role(self, role: str, mark: str) -> str:
        """Break a role also where the template might build a special token around it.

        Templates write `'<|' + role + '|>'`. Roles that they compare with stay as they are.
        """
        if role in _COMMON_ROLES or f"'{role}'" in self._source or f'"{role}"' in self._source:
            return role
        return role[:1] + mark + self._disarm(role[1:], mark)

    def _disarm(self, text: str, mark: str) -> str:
        """Put a mark inside everything from which a special token's text might come."""
        cuts = {match.start() + 1 for match in self._occurrence.finditer(text)}
        # White space at the edges may be trimmed away by the template.
        first, last = len(text) - len(text.lstrip()), len(text.rstrip())
        for size in range(2, min(self._longest, last - first + 1)):
            if text[first : first + size] in self._tails:
                cuts.add(first + 1)
            if text[last - size : last] in self._heads:
                cuts.add(last - size + 1)
        return mark.join(text[start:end] for start, end in pairwise([0, *sorted(cuts), len(text)]))


def _absent_mark(texts: Sequence[str]) -> str:
    """Return the first sequence of noncharacters that no text holds."""
    return next(mark for mark in _marks() if not any(mark in text for text in texts))


def _marks() -> Iterator[str]:
    size = 1
    while True:
        yield from map("".join, product(_NONCHARACTERS, repeat=size))
        size += 1
