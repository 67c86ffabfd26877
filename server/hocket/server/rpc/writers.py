"""Which writer works on a document: a language model, behind the cache of segments. Loop thread."""

import time
from collections.abc import Callable

from hocket.server.catalogue import ServedModel
from hocket.server.document.cache import SegmentCache
from hocket.server.document.caching import CachingWriter
from hocket.server.document.generating import GeneratingWriter
from hocket.server.document.prompts import Prompts
from hocket.server.document.voice import WritingOptions
from hocket.server.document.writer import Writer
from hocket.server.executors import Executors
from hocket.server.rpc.parse_documents import CheckedTransform


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

    def writer_for(self, model: ServedModel, checked: CheckedTransform) -> Writer:
        """Return what writes a document."""
        options = WritingOptions(
            request_id=checked.request_id,
            owner=checked.owner,
            sampling=checked.sampling,
            is_seed_given=checked.is_seed_given,
            stopping=checked.stopping,
            has_max_tokens=checked.has_max_tokens,
            granularity=checked.granularity,
            sentences=checked.sentences,
            priority=checked.priority,
            deadline=checked.deadline,
        )
        writer = GeneratingWriter(
            model,
            Prompts(checked.task, language=checked.sentences.language),
            options,
            run_text=self._executors.run_text,
            clock=self._clock,
        )
        if self._cache is None or not checked.may_cache:
            return writer
        return CachingWriter(writer, self._cache, key=writer.key, owner=checked.owner)
