"""Which writer works on a document: a language model or a translator. Loop thread.

Segments go through a cache, whoever writes them.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from hocket.server.catalogue import ServedTranslator
from hocket.server.document.cache import SegmentCache
from hocket.server.document.caching import CachingWriter
from hocket.server.document.compose import Author
from hocket.server.document.generating import GeneratingWriter
from hocket.server.document.prompts import Prompts
from hocket.server.document.sections import SectionWriter
from hocket.server.document.translating import TranslatingWriter
from hocket.server.document.voice import WritingOptions
from hocket.server.document.writer import Writer
from hocket.server.executors import Executors
from hocket.server.rpc.parse_compositions import CheckedComposition
from hocket.server.rpc.parse_documents import CheckedTransform
from hocket.server.rpc.parse_writing import CheckedWriting
from hocket.server.text.pieces import SentenceOptions


class Writers:
    """Makes the writers of documents, which share one cache."""

    def __init__(
        self,
        executors: Executors,
        *,
        cache_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it.

        Args:
            executors: Where prompts are tokenised.
            cache_bytes: Memory for what was written; 0 for no cache.
            clock: The clock that the engines read deadlines by.
        """
        self._executors = executors
        self._cache = SegmentCache(cache_bytes) if cache_bytes else None
        self._clock = clock

    def writer_for(self, checked: CheckedTransform, *, group: str = "") -> Writer:
        """Return what writes a document.

        Args:
            checked: The document.
            group: What it shares its part of the batch with; empty for nothing but itself.
        """
        model, writing = checked.model, checked.writing
        options = replace(_options(writing, checked.sentences), group=group)
        writer: TranslatingWriter | GeneratingWriter
        if isinstance(model, ServedTranslator):
            writer = TranslatingWriter(
                model,
                checked.pairs,
                options,
                run_text=self._executors.run_text,
                clock=self._clock,
            )
        else:
            writer = GeneratingWriter(
                model,
                Prompts(checked.task, language=checked.sentences.language),
                options,
                run_text=self._executors.run_text,
                clock=self._clock,
            )
        if self._cache is None or not checked.may_cache:
            return writer
        return CachingWriter(writer, self._cache, key=writer.key, owner=writing.owner)

    def author_for(self, checked: CheckedComposition) -> Author:
        """Return what drafts and writes a text in sections; none of it is cached."""
        return SectionWriter(
            checked.model,
            _options(checked.writing, checked.sentences),
            task=checked.task,
            join=checked.join,
            run_text=self._executors.run_text,
            clock=self._clock,
        )


def _options(writing: CheckedWriting, sentences: SentenceOptions) -> WritingOptions:
    return WritingOptions(
        request_id=writing.request_id,
        owner=writing.owner,
        sampling=writing.sampling,
        is_seed_given=writing.is_seed_given,
        stopping=writing.stopping,
        has_max_tokens=writing.has_max_tokens,
        granularity=writing.granularity,
        sentences=sentences,
        priority=writing.priority,
        deadline=writing.deadline,
    )
