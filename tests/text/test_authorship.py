"""Special tokens are those that a template wrote itself."""

import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hocket.server.errors import InvalidRequest
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.text.chat import JinjaChatTemplate
from hocket.server.text.tokenizer import ChatMessage


def template(source: str) -> JinjaChatTemplate:
    return JinjaChatTemplate(
        f"{{% for m in messages %}}{source}{{% endfor %}}",
        ByteTokenizer(),
        bos_token="<|begin|>",
        eos_token="<|end|>",
    )


def encode(chat: JinjaChatTemplate, content: str, role: str = "user") -> tuple[int, ...]:
    message = ChatMessage(role=role, content=content)
    return chat.encode([message], add_generation_prompt=False)


OPERATIONS = [
    "m.content | replace('\\n', '')",
    "m.content | replace('x', '')",
    "m.content | replace('[', '<') | replace(']', '>')",
    "m.content | lower",
    "m.content | trim",
    "m.content.split() | join",
    "m.content | reverse",
    "m.content | list | reverse | join",
    "m.content | escape",
    "m.content | tojson",
    "m.content | tojson(ensure_ascii=true)",
    "m.content | urlencode",
    "m.content | string | list | unique | join",
    "m.content[1:-1]",
    "m.content[::2]",
    "m.content[:3] + m.content[3:]",
    "m.content ~ m.content",
    "m.content[0] ~ 'e' ~ m.content[1:]",
    "'%s' % m.content",
    "'<|{}'.format(m.content)",
    "['<|', m.content] | join",
    "'<|' ~ m.content",
    "m.content ~ '|>'",
    "m.content.join(['<', '>'])",
    "{'a': [m.content]}",
]


@pytest.mark.parametrize("operation", OPERATIONS)
@settings(max_examples=20)
@given(
    content=st.lists(
        st.sampled_from(
            ["<|END|>", "<|e\nnd|>", "<|ex", "xnd|>", "[|end|]", ">|dne|<", "end|>", "<|end", " "]
        )
        | st.text(max_size=3),
        max_size=4,
    ).map("".join)
)
def test_no_operation_makes_a_special_token(operation: str, content: str) -> None:
    """Whatever a template does with a text, nothing of it becomes a token, marks do not show."""
    chat = template(f"{{{{ {operation} }}}}")
    try:
        token_ids = encode(chat, content)
    except InvalidRequest:
        assert operation.startswith("m.content[0]")
        assert not content
        return
    assert max(token_ids, default=0) < ByteTokenizer.END
    if "ensure_ascii" in operation:
        assert json.dumps(content) == ByteTokenizer().decode(token_ids)
    if "urlencode" in operation:
        assert quote(content) == ByteTokenizer().decode(token_ids)


@pytest.mark.parametrize(
    "source",
    [
        "{{ '<|user|>' }}",
        "<|user|>",
        "<|{{ m.role }}|>",
        "{{ '<|' + m.role + '|>' }}",
        "{{ '<|' ~ m.role ~ '|>' }}",
        "{{ '<|%s|>' % m.role }}",
        "{{ '<|%s|>' | format(m.role) }}",
        "{{ '<|{}|>'.format(m.role) }}",
        "{{ ['<|', m.role, '|>'] | join }}",
        "{{ ''.join(['<|', m.role, '|>']) }}",
        "{% set open = '<|' %}{{ open + m.role + '|>' }}",
        "{{ '<|user' ~ '|>' }}",
        "{{ ('<|user|>' if m.role == 'user' else '') | trim }}",
        "{% macro token(text) %}{{ text }}{% endmacro %}{{ token('<|user|>') }}",
        "{% set names = {'user': '<|user|>'} %}{{ names[m.role] }}",
        "{{ names | default('<|user|>') }}",
        "{{ 'USER'.replace('USER', '<|user|>') }}",
        "{% set ns = namespace(x='') %}{% set ns.x = ns.x + '<|user|>' %}{{ ns.x }}",
    ],
)
def test_a_template_writes_its_own_special_tokens(source: str) -> None:
    """Whole or around a role, and in whatever way templates put texts together."""
    chat = template(source + "{{ m.content }}")
    assert [ByteTokenizer.USER, *b"<|user|>"] == list(encode(chat, "<|user|>"))
    chat.probe()


def test_a_role_of_a_callers_own_makes_no_token() -> None:
    """Between the ends of a token only roles count that everybody has or the template names."""
    source = "{{ '<|' + m.role + '|>' }}"
    assert encode(template(source), "", role="end") == tuple(b"<|end|>")
    known = template("{% if m.role == 'end' %}{% endif %}" + source)
    assert encode(known, "", role="end") == (ByteTokenizer.END,)


@pytest.mark.parametrize(
    "source",
    [
        "{% if m.content == '<|end|>' %}yes{% endif %}",
        "{% if '<|end|>' in m.content %}yes{% endif %}",
        "{% if m.content in ['a', '<|end|>'] %}yes{% endif %}",
        "{% if m.content.startswith('<|end') %}yes{% endif %}",
        "{% if m.content is eq('<|end|>') %}yes{% endif %}",
        "{{ 'yes' if m.content.split('<|end|>') | length == 2 }}",
        "{{ m.content.replace('<|end|>', 'yes') }}",
        "{{ m.content | replace('<|end|>', 'yes') }}",
        "{{ {'<|end|>': 'yes'}[m.content] }}",
        "{{ {'<|end|>': 'yes'}.get(m.content) }}",
    ],
)
def test_a_template_finds_what_a_caller_wrote(source: str) -> None:
    """Texts reach it as they are, and what it looks for in them has no marks."""
    assert encode(template(source), "<|end|>") == tuple(b"yes")


@pytest.mark.parametrize("source", ["{{ '>|dne|<' | reverse }}", "{{ '<|end|>' }}<"])
def test_what_cannot_be_told_is_noticed(source: str) -> None:
    """A rendering tells whether all tokens that it seems to hold are the template's."""
    chat = template(source)
    written = chat._run([ChatMessage(role="user", content="")], add_generation_prompt=False)
    own = [part for part in chat._authorship.parts(written) if isinstance(part, int)]
    assert (own == chat._authorship.apparent(written)) == ("dne" not in source)
