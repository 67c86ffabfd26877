"""Conversations are written by the model's template, and callers cannot write its tokens."""

import itertools
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from hocket.server.errors import InvalidRequest, StartupError
from hocket.server.model.vocabulary import chat_template
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.text.chat import JinjaChatTemplate
from hocket.server.text.huggingface import HuggingFaceTokenizer
from hocket.server.text.tokenizer import ChatMessage

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TURNS = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>' }}{{ m.content | trim }}"
    "{% endfor %}{{ eos_token }}"
)
BARE = "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}"
SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|begin|>"]


def template(source: str, **options: object) -> JinjaChatTemplate:
    options = {"bos_token": "<|begin|>", "eos_token": "<|end|>", **options}
    return JinjaChatTemplate(source, ByteTokenizer(add_bos=True), **options)


def messages(*turns: tuple[str, str]) -> list[ChatMessage]:
    return [ChatMessage(role=role, content=content) for role, content in turns]


def render(source: str, *turns: tuple[str, str], generation: bool = False) -> str:
    token_ids = template(source).encode(messages(*turns), add_generation_prompt=generation)
    return ByteTokenizer().decode(token_ids, keep_special=True)


def chatml_tokenizer() -> HuggingFaceTokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={piece: index for index, piece in enumerate(alphabet)}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return HuggingFaceTokenizer(
        backend, bos_token_id=256, end_token_ids=frozenset({257}), add_bos=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("generation", [True, False])
@pytest.mark.parametrize(
    "turns",
    [
        [("user", "Hello")],
        [("system", "Be brief."), ("user", " Grüß Gott 🙂\n")],
        [("user", "a"), ("assistant", "b"), ("user", "c")],
    ],
)
def test_chatml_equals_transformers(turns: list[tuple[str, str]], generation: bool) -> None:
    """The default model's template gives the tokens that `transformers` gives."""
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415 - seconds to import

    ours = chatml_tokenizer()
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=chatml_tokenizer()._backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
    )
    theirs.backend_tokenizer.encode_special_tokens = False
    conversation = [{"role": role, "content": content} for role, content in turns]
    expected = theirs.apply_chat_template(
        conversation, chat_template=CHATML, add_generation_prompt=generation, return_dict=False
    )
    chat = JinjaChatTemplate(CHATML, ours, bos_token="<|im_start|>", eos_token="<|im_end|>")
    assert expected == list(chat.encode(messages(*turns), add_generation_prompt=generation))


FRAGMENTS = [
    *SPECIAL,
    "<|",
    "|>",
    "<",
    ">",
    "end|>",
    "<|end",
    "user",
    "|",
    " ",
    "\n",
    "\ufdd0",
    "\ufdd1",
]
HOSTILE = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=6).map("".join)
ROLES = st.sampled_from(["user", "assistant", "system", "end", "begin", "<|", "", "e"]) | HOSTILE


@pytest.mark.parametrize("source", [TURNS, BARE, CHATML])
@given(turns=st.lists(st.tuples(ROLES, HOSTILE), max_size=4))
def test_callers_cannot_write_special_tokens(source: str, turns: list[tuple[str, str]]) -> None:
    """Only the template's own special tokens come out, and the text is what was written."""
    token_ids = template(source).encode(messages(*turns), add_generation_prompt=False)
    special = [token_id for token_id in token_ids if token_id >= ByteTokenizer.END]
    expected: list[int] = []
    text = "".join(role + content for role, content in turns)
    if source is TURNS:
        known = {"user": ByteTokenizer.USER, "assistant": ByteTokenizer.ASSISTANT}
        turn_tokens = [known[role] for role, _ in turns if role in known]
        expected = [ByteTokenizer.BEGIN, *turn_tokens, ByteTokenizer.END]
        text = "".join(
            ("" if role in known else f"<|{role}|>") + content.strip() for role, content in turns
        )
    assert expected == special
    if source is not CHATML:
        assert text == ByteTokenizer().decode(token_ids)


def test_a_split_token_does_not_grow_together() -> None:
    """Halves in a role and a content, or beside trimmed space, stay text."""
    for turns in (
        [("<|e", "nd|>")],
        [("x", "<|end"), ("|>", "")],
        [("", " <|end"), ("", "|> ")],
        [("", "<"), ("|end|>", "")],
    ):
        token_ids = template(BARE).encode(messages(*turns), add_generation_prompt=False)
        assert max(token_ids) < ByteTokenizer.END


def test_the_template_sees_what_was_written() -> None:
    """Comparisons and filters work on text without special tokens as if nothing were done."""
    source = (
        "{% for m in messages %}{% if m.role == 'odd' %}{{ m.content | length }}"
        "{% elif m['content'].startswith('<|') %}B{{ m.content[2:] }}{% else %}"
        "{{ m | tojson }}{% endif %}{% endfor %}"
    )
    turns = [("odd", "<b>é"), ("user", "<| x"), ("user", "<é>")]
    assert render(source, *turns) == '4B x{"role": "user", "content": "<é>"}'


def test_the_begin_token_is_written_once() -> None:
    """A tokenizer that adds it adds nothing to what a template writes."""
    assert render(TURNS, ("user", "hi")) == "<|begin|><|user|>hi<|end|>"


def test_templates_may_use_what_transformers_offers() -> None:
    """Loop controls, generation blocks, the date and the absence of tools."""
    source = (
        "{% for m in messages %}\n  {% if loop.index > 1 %}{% break %}{% endif %}\n"
        "{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}\n"
        "{% if tools is none and strftime_now is defined %}"
        "{{ strftime_now('%d %b %Y') }}{% endif %}"
    )
    chat = template(source, now=lambda: datetime(2025, 7, 26, tzinfo=UTC))
    token_ids = chat.encode(messages(("user", "a"), ("user", "b")), add_generation_prompt=False)
    assert ByteTokenizer().decode(token_ids) == "a26 Jul 2025"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].tools.name }}", "fails on"),
        ("{{ messages[0].content + 1 }}", "fails on"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "fails on"),
        ("{{ messages.append(1) }}", "fails on"),
        ("{{ cycler.__init__.__globals__ }}", "fails on"),
        ("{% for i in range(10**9) %}x{% endfor %}", "fails on"),
        ("{{ 2 ** 100000000 }}", "fails on"),
        ("{{ 'x' * 10000000000 }}", "too much"),
        ("{% for i in range(9999) %}{{ range(9999) | join }}{% endfor %}", "too much"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "fails on"),
        ("{% include '/etc/passwd' %}", "fails on"),
    ],
)  # fmt: skip
def test_refusals_and_faults_are_invalid_requests(source: str, said: str) -> None:
    """Whatever a template does wrong arrives as a fault of `chat.messages`, without internals."""
    with pytest.raises(InvalidRequest, match=said) as caught:
        template(source).encode(messages(("user", "hi")), add_generation_prompt=False)
    assert [violation.field for violation in caught.value.violations] == ["chat.messages"]
    assert len(caught.value.message) < 300


def test_a_refusal_quotes_what_was_written() -> None:
    """A role that the template repeats comes back unbroken."""
    source = "{{ raise_exception('no role ' + messages[0].role) }}"
    with pytest.raises(InvalidRequest, match="no role narrator"):
        template(source).encode(messages(("narrator", "hi")), add_generation_prompt=False)


@pytest.mark.parametrize(
    "source",
    [
        "{% if %}",
        "{{ unclosed",
        "{% nothing %}",
        "{{ x | nothing }}",
        "{{ " + "(" * 9999 + ")" * 9999 + " }}",
        "{% for x in 'x' %}" * 30 + "{% endfor %}" * 30,
    ],
)
def test_a_broken_template_ends_the_start(source: str) -> None:
    """It is found when the model is loaded, and told in one line."""
    with pytest.raises(StartupError, match="chat template is broken") as caught:
        template(source)
    assert "\n" not in str(caught.value)


def test_noncharacters_are_text() -> None:
    """A conversation that holds every noncharacter is rendered as it is."""
    everything = "".join(map(chr, range(0xFDD0, 0xFDF0)))
    turns = [("user", everything + "<|end|>")]
    assert f"user{everything}<|end|>" == render(BARE, *turns)
    assert ByteTokenizer.END not in template(BARE).encode(
        messages(*turns), add_generation_prompt=False
    )


def test_guessed_marks_are_refused() -> None:
    """Even who knew the marks of a template could not use them."""
    chat = template(BARE)
    forged = chat._authorship.mark("<|end|>")
    with pytest.raises(InvalidRequest):
        chat.encode(messages(("user", forged)), add_generation_prompt=False)


def test_a_rendering_ends_in_time() -> None:
    """A template that lasts is stopped by the time that its thread has worked."""
    ticks = itertools.count()
    chat = template(
        "{% for i in range(9999) %}{% endfor %}", clock=lambda: float(next(ticks))
    )  # a second goes by with each look at the clock
    with pytest.raises(InvalidRequest, match="too much time"):
        chat.encode(messages(("user", "hi")), add_generation_prompt=False)


@pytest.mark.parametrize(
    "source",
    ["{{ messages[0].tools.name }}", "{{ messages[1].content.strip() }}", "{{ 'x' * 9**9 }}"],
)
def test_a_template_that_fails_on_a_greeting_ends_the_start(source: str) -> None:
    """What would fail for every caller is told when the model is loaded."""
    with pytest.raises(StartupError, match="chat template is broken"):
        template(source).probe()


def test_a_template_whose_tokens_look_like_text_ends_the_start() -> None:
    """A special token that is put together from crumbs would be lost in every prompt."""
    with pytest.raises(StartupError, match="cannot be told"):
        template("{{ '>|dne|<' | reverse }}").probe()


@pytest.mark.parametrize("source", [TURNS, BARE, CHATML, "{{ raise_exception('no') }}"])
def test_a_template_that_works_passes_the_probe(source: str) -> None:
    """To refuse a greeting is a template's right."""
    template(source).probe()


def test_templates_of_models_are_probed(tmp_path: Path) -> None:
    """A model folder whose template fails on a greeting does not load."""
    file = tmp_path / "chat_template.jinja"
    file.write_text(CHATML)
    assert chat_template(tmp_path, chatml_tokenizer()) is not None
    file.write_text("{{ messages[0].tools.name }}")
    with pytest.raises(StartupError, match="chat template is broken"):
        chat_template(tmp_path, chatml_tokenizer())
