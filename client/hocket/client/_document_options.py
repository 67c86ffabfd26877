"""The keyword arguments of documents. Any thread; types alone."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from hocket.client._document_types import Parallel, Section, Segmentation, SegmentOrder
from hocket.client._types import Granularity, SentenceOptions


class WritingOptions(TypedDict, total=False):
    """What `transform` and `compose` have in common. Absent or None leaves a value to the server.

    Attributes:
        model: Name of a served model; the server's default if absent.
        granularity: In which pieces the text of a segment arrives.
        order: In which order segments come back.
        window: Most segments, variants counted, that are worked on at once.
        temperature: Divides the logits; 0 always takes the likeliest token.
        top_k: Keeps the k likeliest tokens.
        top_p: Keeps the fewest likeliest tokens whose probabilities reach this sum.
        min_p: Keeps tokens at least this many times as likely as the likeliest.
        seed: Makes a sampled document repeatable.
        repetition_penalty: Weakens tokens of prompt and answer, by division.
        presence_penalty: Weakens tokens of the answer, once.
        frequency_penalty: Weakens tokens of the answer, each time.
        logit_bias: Added to the logits of these token ids.
        max_tokens: Most tokens to write for each segment.
        min_tokens: Fewest tokens before the model may end a segment.
        stop: Ends a segment before one of these strings.
        stop_token_ids: Ends a segment at one of these tokens.
        ignore_eos: Writes on past the model's own end.
        priority: Lower values run first; -100 to 100.
        time_budget: Most seconds to spend on the server; what is unfinished then ends there.
        request_id: Names the request; made by the client if absent.
    """

    model: str | None
    granularity: Granularity | Literal["token", "sentence"] | None
    order: SegmentOrder | Literal["in_order", "as_completed", "interleaved"] | None
    window: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | None
    max_tokens: int | None
    min_tokens: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    ignore_eos: bool | None
    priority: int | None
    time_budget: float | None
    request_id: str | None


class TaskOptions(TypedDict, total=False):
    """What is done with each segment of a text: exactly one task, and how.

    Attributes:
        instruction: Task: what the model is told to do with each segment.
        template: Task: a prompt with `{segment}` in it, and perhaps `{context}` and `{language}`.
        translate_to: Task: one language or several, by name or code; each is a variant.
        source_language: The language of the text, for `translate_to`.
        rewrite: Task: the same in other words, in this style; True for any.
        summarize: Task: shorter, in at most so many sentences; True for the server's default.
        classify: Task: which of these labels fits.
        segmentation: What a segment is; for a text.
        context_segments: Source segments before each one that the model is shown with it.
        protect: Keeps code, URLs, placeholders and the like as they are.
        protected_terms: Kept wherever they stand.
        cache: Takes segments from the server's cache, and keeps them there.
    """

    instruction: str | None
    template: str | None
    translate_to: str | Sequence[str] | None
    source_language: str | None
    rewrite: str | bool | None
    summarize: int | bool | None
    classify: Sequence[str] | None
    segmentation: Segmentation | Literal["sentences", "paragraphs", "whole"] | None
    context_segments: int | None
    protect: bool | None
    protected_terms: Sequence[str] | None
    cache: bool | None


class TransformOptions(WritingOptions, TaskOptions, total=False):
    """The keyword arguments of `transform`; see `TaskOptions`, too.

    Attributes:
        sentences: How sentences are cut, and the language of the text.
        protected_ranges: Spans of the text that are kept: where each begins and ends, in UTF-8
            bytes.
    """

    sentences: SentenceOptions | None
    protected_ranges: Sequence[tuple[int, int]] | None


class ComposeOptions(WritingOptions, total=False):
    """The keyword arguments of `compose`, beside the task.

    Attributes:
        sections: What to write; the model drafts an outline if there are none.
        max_sections: Most sections of an outline that the model drafts.
        parallel: Whether sections are written in parallel.
        join: A last prompt over all sections, whose answer is one more section.
    """

    sections: Sequence[Section | str] | None
    max_sections: int | None
    parallel: Parallel | Literal["auto", "always", "never"] | None
    join: str | None
