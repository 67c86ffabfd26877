"""What may be asked of a translator that is no language model. Loop thread.

Whatever it could not obey is refused by name, before any work.
"""

from dataclasses import replace

from hocket.server.catalogue import ServedTranslator
from hocket.server.document.tasks import Task, Translate
from hocket.server.rpc.limits import Violations
from hocket.server.text.languages import resolve_language
from hocket.server.text.pieces import SentenceOptions
from hocket.server.translation.languages import code_of, in_words, sources_of
from hocket.server.translation.protocol import Pair
from hocket.v1 import document_pb2


def check_translation(
    start: document_pb2.TransformStart,
    task: Task,
    model: ServedTranslator,
    violations: Violations,
) -> tuple[Pair, ...]:
    """Return the direction of each variant; to be used only if there are no violations.

    Where the caller names no source it is the language that sentences are cut by, if that is named,
    or else the one that there is a way from.

    Args:
        start: As it came.
        task: What is to be done.
        model: Who would do it.
        violations: Notes what is wrong.
    """
    name = model.description.name
    if start.context_segments:
        violations.add("context_segments", f"must be 0 for {name}, a translator")
    asked = start.WhichOneof("task")
    if not isinstance(task, Translate) or asked is None:
        if asked is not None:
            violations.add(asked, f"must be translate for {name}, a translator")
        return ()
    pairs = model.interpreter.facts.pairs
    stated = start.sentences.language if start.sentences.HasField("language") else ""
    found = []
    for index, target in enumerate(task.target_languages):
        sources = sources_of(pairs, target)
        source = code_of(task.source_language or stated)
        if not source and len(sources) == 1:
            (source,) = sources
        if not source and sources:
            field = "translate.source_language"
            violations.add(field, f"must be set; into {target} {name} knows {', '.join(sources)}")
        elif source not in sources:
            field = f"translate.target_languages[{index}]"
            violations.add(field, f"must be one that {name} knows: {in_words(pairs)}")
        found.append((source, code_of(target)))
    return tuple(found)


def in_language_of(
    pairs: tuple[Pair, ...], sentences: SentenceOptions, *, is_stated: bool
) -> SentenceOptions:
    """Return how sentences are cut: by the rules of the source, unless others were asked for."""
    sources = {source for source, _ in pairs}
    if is_stated or len(sources) != 1:
        return sentences
    try:
        return replace(sentences, language=resolve_language(*sources))
    except ValueError:
        return sentences
