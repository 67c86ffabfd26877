"""From a task and a segment to what the model is asked. Pure.

The instruction comes first and the segment last, so that all prompts of one document and variant
begin with the same tokens, which the prefix cache copies. They are short, since small models follow
short ones best: an instruction, what to answer with, and the segment under it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hocket.server.catalogue import ServedModel
from hocket.server.document.form import Form
from hocket.server.document.tasks import (
    Classify,
    FillIn,
    Instruct,
    Rewrite,
    Summarize,
    Task,
    Translate,
    variants_of,
)
from hocket.server.errors import FieldViolation, InvalidRequest, Reason
from hocket.server.text.tokenizer import ChatMessage

# Models follow names better than codes.
_LANGUAGES: Final = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech",
    "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French", "gu": "Gujarati",
    "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ka": "Georgian", "kk": "Kazakh",
    "km": "Khmer", "kn": "Kannada", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian",
    "ml": "Malayalam", "mr": "Marathi", "ms": "Malay", "my": "Burmese", "nb": "Norwegian",
    "ne": "Nepali", "nl": "Dutch", "no": "Norwegian", "pa": "Punjabi", "pl": "Polish",
    "pt": "Portuguese", "pt-br": "Brazilian Portuguese", "ro": "Romanian", "ru": "Russian",
    "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili",
    "ta": "Tamil", "te": "Telugu", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian",
    "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
# A model without a chat template does not know when it has answered.
_PLAIN_STOPS: Final = ("\n\n", "\nText:")
_FORM_FIELD: Final = "start.template"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is asked, in both forms.

    Attributes:
        content: What the user says, for models with a chat template.
        plain: What is continued, for others.
        stop: Stop strings that the plain form needs.
    """

    content: str
    plain: str
    stop: tuple[str, ...] = ()

    def stops_for(self, model: ServedModel) -> tuple[str, ...]:
        """Return the stop strings that this prompt needs with a model."""
        return self.stop if model.chat_template is None else ()

    def encode(self, model: ServedModel, *, reserved: int = 0) -> tuple[int, ...]:
        """Return the tokens of the prompt, as the model wants them, however many. Text thread.

        Raises:
            InvalidRequest: The chat template refuses it.
        """
        del reserved  # what does not fit is refused
        if model.chat_template is None:
            return model.tokenizer.encode(
                self.plain, add_special=bool(self.plain), parse_special=False
            ).token_ids
        message = ChatMessage(role="user", content=self.content)
        return model.chat_template.encode((message,), add_generation_prompt=True)


def check_tokens(
    token_ids: Sequence[int], model: ServedModel, *, field: str = "segment"
) -> tuple[int, ...]:
    """Return the tokens of a prompt if the model can take them.

    Raises:
        InvalidRequest: There are none, too many, or some that the model cannot read.
    """
    most = model.limits.max_context_tokens - 1
    if not token_ids:
        raise InvalidRequest(
            FieldViolation(field=field, description="must hold at least one token"),
            reason=Reason.PROMPT_EMPTY,
        )
    if len(token_ids) > most:
        raise InvalidRequest(
            FieldViolation(
                field=field,
                description=f"has at least {len(token_ids)} tokens with its prompt,"
                f" more than {most}",
            ),
            reason=Reason.PROMPT_TOO_LONG,
            metadata={"prompt_tokens": str(len(token_ids)), "max_prompt_tokens": str(most)},
        )
    stray = max(token_ids)
    if stray >= model.limits.vocabulary_size:
        raise InvalidRequest.of(field, f"holds the token {stray}, which the model cannot read")
    return tuple(token_ids)


def language_name(language: str) -> str:
    """Return the English name of a language given by code; what is not known stays as it is."""
    return _LANGUAGES.get(language.strip().casefold().replace("_", "-"), language.strip())


class Prompts:
    """Makes the prompts of one document.

    Attributes:
        task: What is done.
        variants: What each variant is.
    """

    def __init__(self, task: Task, *, language: str = "en") -> None:
        """Make it.

        Args:
            task: What is done with each segment.
            language: Code of the text's language; what `{language}` in a template stands for.

        Raises:
            InvalidRequest: A template is wrong.
        """
        self.task = task
        self.variants = variants_of(task)
        self._language = language_name(language)
        self._form = None
        if isinstance(task, FillIn):
            self._form = Form.parse(task.template, field=_FORM_FIELD)

    def prompt(self, text: str, *, variant: int = 0, context: Sequence[str] = ()) -> Prompt:
        """Return the prompt for a text.

        Args:
            text: A segment, or a part of one.
            variant: Which variant.
            context: Texts before it, nearest last.
        """
        before = "\n".join(context)
        if self._form is not None:
            filled = self._form.fill(segment=text, context=before, language=self._language)
            return Prompt(filled, filled)
        instruction, asked = self._instruction(variant)
        shown = f"Context: {before}\n\nText: {text}" if before else text
        plain = f"Context: {before}\n\nText: {text}" if before else f"Text: {text}"
        if isinstance(self.task, Classify):
            content = f"{instruction}\n\n{plain}\n{asked}:"
        else:
            content = f"{instruction}\n\n{shown}"
        return Prompt(content, f"{instruction}\n\n{plain}\n{asked}:", _PLAIN_STOPS)

    def _instruction(self, variant: int) -> tuple[str, str]:
        """Return what is to be done, and what the answer is called."""
        match self.task:
            case Translate(source_language=source):
                target = language_name(self.variants[variant])
                of = f" from {language_name(source)}" if source else ""
                return (
                    f"Translate the text{of} into {target}. Answer with the translation only.",
                    target,
                )
            case Rewrite(style=style):
                how = f"in this style: {style.strip()}" if style.strip() else "in other words"
                return f"Rewrite the text {how}. Answer with the new text only.", "New text"
            case Summarize(max_sentences=most):
                length = "one sentence" if most == 1 else f"at most {most} sentences"
                return (
                    f"Summarize the text in {length}. Answer with the summary only.",
                    "Summary",
                )
            case Classify(labels=labels):
                among = ", ".join(labels)
                what = f"Classify the text. Choose one of: {among}. Answer with the label only."
                return what, "Label"
            case Instruct(instruction=instruction):
                return instruction.strip(), "Answer"
            case FillIn():
                raise AssertionError("a template needs no instruction. This is a bug.")
