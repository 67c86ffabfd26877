"""A conversation to tokens, by the model's own template. Any thread, several at once.

Templates are programs that come with weights, written in Jinja as `transformers` renders it. They
run in a `Sandbox` that bounds what they write, make, do and take: an operator chose the model, but
did not write its template.

What a caller writes never becomes a special token, whatever the template does with it: a special
token is one that the template wrote itself, see `Authorship`. Texts reach the template as they are.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from jinja2 import Template, TemplateError

from hocket.server.errors import InvalidRequest, StartupError
from hocket.server.text.authorship import Authorship
from hocket.server.text.budget import Budget, TooMuch
from hocket.server.text.sandbox import Sandbox
from hocket.server.text.tokenizer import ChatMessage, Tokenizer

_FIELD: Final = "chat.messages"
_MOST_EXTRA_CHARS: Final = 1_000_000
_MOST_MADE_CHARS: Final = 4_000_000
_MOST_COPIES: Final = 32
_MOST_OPERATIONS: Final = 200_000
_MOST_SECONDS: Final = 2.0
_MOST_REASON_CHARS: Final = 200
_MOST_DATE_CHARS: Final = 100
_DATE_WIDTH: Final = re.compile(r"%[^%a-zA-Z]*\d")
_PROBE: Final = (ChatMessage(role="user", content="Hello"),)


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


def _raise_exception(message: object) -> None:
    raise _TemplateRefused(message)


def _joined(parts: Iterable[str], *, most_chars: int) -> str:
    taken: list[str] = []
    for part in parts:
        taken.append(part)
        most_chars -= len(part)
        if most_chars < 0:
            raise TooMuch("too much is written")
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
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """Compile a template.

        Args:
            source: The template.
            tokenizer: Turns what it writes into tokens.
            bos_token: How the begin-of-text token is written; empty if there is none.
            eos_token: How the end-of-text token is written; empty if there is none.
            now: Tells the time to templates that write a date.
            clock: Tells how long the thread that renders has worked, in seconds.

        Raises:
            StartupError: The source is no template.
        """

        def strftime_now(form: str) -> str:
            if len(form) > _MOST_DATE_CHARS or _DATE_WIDTH.search(form):
                raise TooMuch("too long a date")
            return now().strftime(form)

        self._sandbox = Sandbox({"raise_exception": _raise_exception, "strftime_now": strftime_now})
        self._authorship = Authorship(tokenizer.special_token_texts)
        try:
            program = self._sandbox.parse(source)
            self._authorship.mark_template(program)
            self._template: Template = self._sandbox.from_string(self._sandbox.rewrite(program))
        except (TemplateError, RecursionError, MemoryError, SyntaxError) as error:
            raise _broken(error) from error
        self._source_chars = len(source)
        self._tokenizer = tokenizer
        self._clock = clock
        tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._tokens = {name: self._authorship.mark(text) for name, text in tokens.items()}

    def probe(self) -> None:
        """Render a greeting, so that what is wrong with a template is known before anyone calls.

        Raises:
            StartupError: The template fails on it, or writes special tokens in a way in which
                they cannot be told from a caller's text. To refuse it is its right.
        """
        try:
            written = self._run(_PROBE, add_generation_prompt=True)
        except _TemplateRefused:
            return
        except Exception as error:
            raise _broken(error) from error
        own = [part for part in self._authorship.parts(written) if isinstance(part, int)]
        if own != self._authorship.apparent(written):
            raise _broken("its special tokens cannot be told from a caller's text")

    def encode(
        self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool
    ) -> tuple[int, ...]:
        """Turn a conversation into tokens.

        Nothing is added to what the template writes, which includes the begin-of-text token where
        the model wants one.

        Raises:
            InvalidRequest: The template refuses the conversation or fails on it, writes more than
                a million characters beyond what it was given, or goes beyond its budget.
        """
        return self._tokenizer.encode_parts(
            self._render(messages, add_generation_prompt=add_generation_prompt)
        )

    def _render(
        self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool
    ) -> list[str | int]:
        """Return ordinary text and the template's special tokens, in order."""
        try:
            written = self._run(messages, add_generation_prompt=add_generation_prompt)
        except _TemplateRefused as error:
            reason = self._authorship.unmarked(str(error))[:_MOST_REASON_CHARS]
            raise InvalidRequest.of(
                _FIELD, f"the model's chat template refuses this conversation: {reason}"
            ) from error
        except TooMuch as error:
            raise InvalidRequest.of(
                _FIELD, f"the model's chat template does too much on this conversation: {error}"
            ) from error
        except Exception as error:
            raise InvalidRequest.of(
                _FIELD, "the model's chat template fails on this conversation"
            ) from error
        return self._authorship.parts(written)

    def _run(self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool) -> str:
        written = [text for message in messages for text in (message.role, message.content)]
        if any(map(self._authorship.is_forged, written)):
            raise ValueError("a text holds the marks of the template")
        given = sum(map(len, written))
        budget = Budget(
            chars=_MOST_MADE_CHARS + _MOST_COPIES * given,
            operations=_MOST_OPERATIONS + given,
            seconds=_MOST_SECONDS,
            clock=self._clock,
        )
        with self._sandbox.spending(budget):
            output = self._template.generate(
                messages=[{"role": m.role, "content": m.content} for m in messages],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._tokens,
            )
            return _joined(output, most_chars=_MOST_EXTRA_CHARS + 3 * (given + self._source_chars))


def _broken(reason: Exception | str) -> StartupError:
    line = getattr(reason, "lineno", None)
    where = f" in line {line}" if line else ""
    told = str(reason).partition("\n")[0][:_MOST_REASON_CHARS]
    return StartupError(f"the model's chat template is broken{where}: {told}")
