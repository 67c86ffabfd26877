"""From `TransformStart` to what a document needs: its field violations are born here. Loop thread.

Fields are named as a caller of the stream sees them, from `start` on. Nothing of the message is
kept.
"""

from dataclasses import dataclass

from hocket.server.catalogue import Served, ServedTranslator
from hocket.server.document.config import DocumentConfig
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
from hocket.server.document.transform import TransformPlan
from hocket.server.errors import InvalidRequest
from hocket.server.rpc.limits import (
    MAX_INSTRUCTION_CHARS,
    MAX_LABEL_CHARS,
    MAX_LABELS,
    MAX_LANGUAGE_CHARS,
    MAX_SPANS,
    MAX_STYLE_CHARS,
    MAX_TARGETS,
    MAX_TERM_CHARS,
    MAX_TERMS,
    RANGES,
    Violations,
)
from hocket.server.rpc.parse_options import parse_sentences
from hocket.server.rpc.parse_translations import check_translation, in_language_of
from hocket.server.rpc.parse_writing import (
    CheckedWriting,
    check_known,
    check_words,
    check_writing,
)
from hocket.server.text.pieces import SentenceOptions
from hocket.server.text.protection import Protection
from hocket.server.text.segments import Segmentation, Segmenter
from hocket.server.translation.protocol import Pair
from hocket.v1 import document_pb2

_SEGMENTATIONS = {
    document_pb2.SEGMENTATION_UNSPECIFIED: Segmentation.SENTENCES,
    document_pb2.SEGMENTATION_SENTENCES: Segmentation.SENTENCES,
    document_pb2.SEGMENTATION_PARAGRAPHS: Segmentation.PARAGRAPHS,
    document_pb2.SEGMENTATION_GIVEN: Segmentation.GIVEN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedTransform:
    """A document that may come, whose fields are good.

    Attributes:
        model: Who writes.
        writing: How its segments are written and come back.
        segmentation: What a segment is.
        sentences: How sentences are cut.
        task: What is done with each.
        pairs: For a translator, the direction of each variant.
        context_segments: So many segments before each one are shown with it.
        protects: Whether code, addresses and the like are kept.
        protected_ranges: What else is kept, in bytes of the document.
        protected_terms: What else is kept wherever it stands.
        may_cache: Whether segments may be taken from the cache and kept there.
    """

    model: Served
    writing: CheckedWriting
    segmentation: Segmentation
    sentences: SentenceOptions
    task: Task
    pairs: tuple[Pair, ...]
    context_segments: int
    protects: bool
    protected_ranges: tuple[tuple[int, int], ...]
    protected_terms: tuple[str, ...]
    may_cache: bool

    @property
    def variants(self) -> tuple[str, ...]:
        """What each variant is: the target languages, or one empty name."""
        return variants_of(self.task)

    def plan(self, config: DocumentConfig, *, max_message_bytes: int) -> TransformPlan:
        """Return how the document is worked through, within the bounds of the server."""
        return TransformPlan(
            order=self.writing.order,
            window=self.writing.window,
            variants=len(self.variants),
            context_segments=self.context_segments,
            max_segments=config.max_segments,
            max_bytes=config.max_mib << 20,
            max_gap_bytes=max_message_bytes // 2,
        )

    def segmenter(self) -> Segmenter:
        """Return what cuts the document. Text thread: a thousand terms take a while."""
        protection = Protection(
            finds_kinds=self.protects, terms=self.protected_terms, ranges=self.protected_ranges
        )
        return Segmenter(self.segmentation, self.sentences, protection)


def check_transform(
    start: document_pb2.TransformStart,
    model: Served,
    *,
    owner: str = "",
    arrived: float,
    remaining: float | None,
    max_window: int,
) -> CheckedTransform:
    """Check every field before any work is done.

    Args:
        start: As it came.
        model: Who would write.
        owner: Who asks; empty where nobody needs a name.
        arrived: When it had been read, in seconds of the monotonic clock.
        remaining: Seconds until the call's own deadline; None without one.
        max_window: The widest window.

    Raises:
        InvalidRequest: With all violations of all fields.
    """
    all_violations, violations = Violations(), Violations()
    writing = check_writing(
        start,
        model,
        owner=owner,
        arrived=arrived,
        remaining=remaining,
        max_window=max_window,
        violations=violations,
    )
    check_known("segmentation", start.segmentation, _SEGMENTATIONS, violations)
    violations.check_range(
        "context_segments", start.context_segments, RANGES["transform.context_segments"]
    )
    segmentation = _SEGMENTATIONS.get(start.segmentation, Segmentation.SENTENCES)
    sentences = parse_sentences(start.sentences, "sentences", violations)
    ranges = _ranges(start, segmentation, violations)
    terms = _terms(start, violations)
    task = _task(start, violations)
    pairs: tuple[Pair, ...] = ()
    if isinstance(model, ServedTranslator):
        pairs = check_translation(start, task, model, violations)
        is_stated = start.sentences.HasField("language")
        sentences = in_language_of(pairs, sentences, is_stated=is_stated)
    violations.move_to(all_violations, "start")
    all_violations.raise_any()
    return CheckedTransform(
        model=model,
        writing=writing,
        segmentation=segmentation,
        sentences=sentences,
        task=task,
        pairs=pairs,
        context_segments=start.context_segments,
        protects=start.protect if start.HasField("protect") else True,
        protected_ranges=ranges,
        protected_terms=terms,
        may_cache=start.cache if start.HasField("cache") else True,
    )


def _ranges(
    start: document_pb2.TransformStart, segmentation: Segmentation, violations: Violations
) -> tuple[tuple[int, int], ...]:
    name = "protected_ranges"
    if not violations.check_count(name, len(start.protected_ranges), MAX_SPANS):
        return ()
    if start.protected_ranges and segmentation is Segmentation.GIVEN:
        violations.add(name, "must have no values where segments are given")
    ranges = tuple((each.start_byte, each.end_byte) for each in start.protected_ranges)
    before = -1
    for index, (begin, end) in enumerate(ranges):
        if begin >= end or begin <= before:
            violations.add(
                f"{name}[{index}]",
                "must hold a byte at least, apart from and behind the one before",
            )
            break  # the first that is wrong; those behind it may be right
        before = end
    return ranges


def _terms(start: document_pb2.TransformStart, violations: Violations) -> tuple[str, ...]:
    name = "protected_terms"
    if not violations.check_count(name, len(start.protected_terms), MAX_TERMS):
        return ()
    for index, term in enumerate(start.protected_terms):
        violations.check_chars(f"{name}[{index}]", term, MAX_TERM_CHARS, least=1)
    return tuple(start.protected_terms)


def _task(start: document_pb2.TransformStart, violations: Violations) -> Task:
    match start.WhichOneof("task"):
        case "instruction":
            check_words("instruction", start.instruction, MAX_INSTRUCTION_CHARS, violations)
            return Instruct(start.instruction)
        case "template":
            return _template(start.template, violations)
        case "translate":
            return _translate(start.translate, violations)
        case "rewrite":
            violations.check_chars("rewrite.style", start.rewrite.style, MAX_STYLE_CHARS)
            return Rewrite(start.rewrite.style)
        case "summarize":
            options = start.summarize
            most = options.max_sentences if options.HasField("max_sentences") else 1
            violations.check_range("summarize.max_sentences", most)
            return Summarize(most)
        case "classify":
            return _classify(start.classify, violations)
        case _:
            violations.add(
                "task",
                "one of instruction, template, translate, rewrite, summarize and classify must be"
                " set",
            )
            return Rewrite()


def _template(template: str, violations: Violations) -> Task:
    violations.check_chars("template", template, MAX_INSTRUCTION_CHARS, least=1)
    if 1 <= len(template) <= MAX_INSTRUCTION_CHARS:
        try:
            Form.parse(template, field="template")
        except InvalidRequest as error:
            violations.found += error.violations
    return FillIn(template)


def _translate(options: document_pb2.Translate, violations: Violations) -> Task:
    name = "translate.target_languages"
    targets: tuple[str, ...] = ()
    if 1 <= len(options.target_languages) <= MAX_TARGETS:
        targets = tuple(options.target_languages)
    else:
        violations.add(name, f"must have from 1 to {MAX_TARGETS} values")
    for index, language in enumerate(targets):
        check_words(f"{name}[{index}]", language, MAX_LANGUAGE_CHARS, violations)
    source = options.source_language
    violations.check_chars("translate.source_language", source, MAX_LANGUAGE_CHARS)
    return Translate(targets or ("",), source)


def _classify(options: document_pb2.Classify, violations: Violations) -> Task:
    name = "classify.labels"
    labels: tuple[str, ...] = ()
    if 2 <= len(options.labels) <= MAX_LABELS:  # noqa: PLR2004 - there must be a choice
        labels = tuple(options.labels)
    else:
        violations.add(name, f"must have from 2 to {MAX_LABELS} values")
    seen: set[str] = set()
    for index, label in enumerate(labels):
        check_words(f"{name}[{index}]", label, MAX_LABEL_CHARS, violations)
        if label in seen:
            violations.add(f"{name}[{index}]", "must differ from those before it")
        seen.add(label)
    return Classify(labels)
