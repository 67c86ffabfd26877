"""What a model is asked: an instruction first, the segment last, the same for all but that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.document.prompts import Prompts, check_tokens, language_name
from hocket.server.document.tasks import (
    Classify,
    FillIn,
    Instruct,
    Rewrite,
    Summarize,
    Translate,
)
from hocket.server.errors import InvalidRequest, Reason
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.testing.serving import ScriptedModel

TASKS = [
    Instruct("Say it louder."),
    Translate(("fr", "German"), "en"),
    Rewrite("plain English"),
    Summarize(3),
    Classify(("good", "bad")),
    FillIn("Louder: {segment}"),
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
@given(text=st.text())
def test_prompts_of_a_variant_differ_by_the_segment_alone(task, text):
    """It stands at their end but for a word, so that all before it is computed once."""
    prompts = Prompts(task)
    for variant in range(len(prompts.variants)):
        model, made = (prompts.prompt(each, variant=variant) for each in ("\0", text))
        for form in ("content", "plain"):
            before, after = getattr(model, form).split("\0")
            assert getattr(made, form) == before + text + after
            assert len(after) <= len("\nNew text:") < len(before) or isinstance(task, FillIn)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Translate(("fr",)), "Translate the text into French. Answer"),
        (Translate(("pt_BR",), "DE"), "from German into Brazilian Portuguese."),
        (Translate(("Klingon",)), "into Klingon."),
        (Rewrite(), "Rewrite the text in other words."),
        (Rewrite(" a pirate's "), "in this style: a pirate's."),
        (Summarize(), "in one sentence."),
        (Summarize(4), "in at most 4 sentences."),
        (Classify(("a", "b c")), "Choose one of: a, b c."),
        (Instruct(" Count the words. "), "Count the words.\n\n"),
    ],
)
def test_presets_say_what_is_wanted(task, said):
    prompt = Prompts(task).prompt("TEXT")
    assert said in prompt.content
    assert said in prompt.plain


def test_each_variant_of_a_translation_asks_for_its_language():
    prompts = Prompts(Translate(("fr", "de")))
    assert prompts.variants == ("fr", "de")
    assert "French" in prompts.prompt("x", variant=0).content
    assert "German" in prompts.prompt("x", variant=1).content


def test_context_stands_before_the_segment():
    prompt = Prompts(Rewrite()).prompt("Three.", context=("One.", "Two."))
    assert prompt.content.endswith("Context: One.\nTwo.\n\nText: Three.")


def test_a_template_is_all_that_is_said():
    prompts = Prompts(FillIn("{language}|{context}|{segment}"), language="de")
    prompt = prompts.prompt("Ja.", context=("Nein.",))
    assert prompt.content == prompt.plain == "German|Nein.|Ja."
    assert prompt.stop == ()


def test_a_model_without_a_template_is_given_a_text_to_go_on_with():
    """It does not know when to stop, and is told."""
    prompt = Prompts(Translate(("fr",))).prompt("Yes.")
    with_chat, without = ScriptedModel(), ScriptedModel(chat_template=None)
    assert prompt.plain.endswith("Text: Yes.\nFrench:")
    assert prompt.encode(without) == tuple(prompt.plain.encode())
    assert prompt.stops_for(without) == ("\n\n", "\nText:")
    told = prompt.encode(with_chat)
    assert told == (ByteTokenizer.USER, *prompt.content.encode(), ByteTokenizer.ASSISTANT)
    assert prompt.stops_for(with_chat) == ()


def test_codes_become_names():
    assert language_name(" PT_br ") == "Brazilian Portuguese"
    assert language_name(" Old Norse ") == "Old Norse"


@pytest.mark.parametrize(
    ("token_ids", "reason"),
    [
        ((), Reason.PROMPT_EMPTY),
        ((1,) * 4_096, Reason.PROMPT_TOO_LONG),
        ((1, 260), Reason.FIELD_INVALID),
    ],
)
def test_tokens_that_a_model_cannot_take_are_refused(token_ids, reason):
    with pytest.raises(InvalidRequest) as refused:
        check_tokens(token_ids, ScriptedModel())
    assert refused.value.reason is reason
    assert check_tokens((1,) * 4_095, ScriptedModel()) == (1,) * 4_095
