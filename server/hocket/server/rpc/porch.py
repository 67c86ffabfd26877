"""Builds the porch: every service behind its interceptors, from the rooms below. Loop thread."""

import time
from collections.abc import Callable

from hocket.server.admission import Admission
from hocket.server.catalogue import Catalogue
from hocket.server.document.config import DocumentConfig
from hocket.server.executors import Executors
from hocket.server.lifecycle import Lifecycle
from hocket.server.rpc.access import Access, AccessConfig, AccessLog, guard
from hocket.server.rpc.boundary import Boundary
from hocket.server.rpc.control import ControlService
from hocket.server.rpc.document_calls import DocumentCalls
from hocket.server.rpc.documents import DocumentService
from hocket.server.rpc.generation import GenerationService
from hocket.server.rpc.generator import Generator
from hocket.server.rpc.health import HealthService
from hocket.server.rpc.keys import Keys
from hocket.server.rpc.listener import SERVICES, Listener, ListenerConfig
from hocket.server.rpc.models import ModelService
from hocket.server.rpc.operation import OperationRooms
from hocket.server.rpc.parse_process import ProcessConfig
from hocket.server.rpc.process import Corpora
from hocket.server.rpc.record import Observers
from hocket.server.rpc.resume_tokens import ResumeConfig, ResumeTokens
from hocket.server.rpc.text_work import text_admission
from hocket.server.rpc.texts import TextService
from hocket.server.rpc.writers import Writers


def build_listener(
    config: ListenerConfig,
    access: AccessConfig,
    document: DocumentConfig,
    process: ProcessConfig,
    resume: ResumeConfig,
    *,
    lifecycle: Lifecycle,
    catalogue: Catalogue,
    admission: Admission,
    executors: Executors,
    leave: Callable[[], float],
    observers: Observers = (),
    clock: Callable[[], float] = time.monotonic,
) -> Listener:
    """Return a server that does not listen yet.

    Args:
        config: Where and how it listens.
        access: Who may call.
        document: How documents are worked through.
        process: How corpus jobs run.
        resume: How lost streams are gone on with.
        lifecycle: The server's state.
        catalogue: The models.
        admission: The door.
        executors: Where text is worked on.
        leave: Begins to drain; returns the seconds until new calls are refused.
        observers: Told of each call that ended.
        clock: The clock that the engines read deadlines by.

    Raises:
        StartupError: The keys file, or the key file of `resume`, cannot be read.
    """
    log = AccessLog(observers)
    max_message_bytes = config.max_message_kib * 1024
    generator = Generator(
        lifecycle=lifecycle,
        catalogue=catalogue,
        admission=admission,
        executors=executors,
        max_message_bytes=max_message_bytes,
        resume_tokens=ResumeTokens.from_config(resume),
        clock=clock,
    )
    writers = Writers(executors, cache_bytes=document.cache_mib << 20, clock=clock)
    calls = DocumentCalls(
        lifecycle=lifecycle, catalogue=catalogue, admission=admission, clock=clock
    )
    documents = DocumentService(
        document,
        calls=calls,
        executors=executors,
        writer_for=writers.writer_for,
        author_for=writers.author_for,
        max_message_bytes=max_message_bytes,
    )
    text_door = text_admission(max_message_bytes, clock)
    rooms = OperationRooms(
        catalogue=catalogue,
        admission=admission,
        generator=generator,
        document=document,
        documents=calls,
        writer_for=writers.writer_for,
        text_admission=text_door,
        executors=executors,
        max_message_bytes=max_message_bytes,
        clock=clock,
    )
    return Listener(
        config,
        generation=GenerationService(
            generator, log, lifecycle, max_per_stream=config.max_generations_per_stream
        ),
        documents=documents,
        texts=TextService(
            catalogue=catalogue,
            admission=text_door,
            executors=executors,
            corpora=Corpora(process, rooms=rooms, lifecycle=lifecycle),
            max_message_bytes=max_message_bytes,
        ),
        models=ModelService(catalogue),
        control=ControlService(
            catalogue=catalogue,
            leave=leave,
            in_progress=lambda: admission.statistics().in_progress,
            abort_document=calls.abort_nowait,
            is_enabled=config.control,
        ),
        health=HealthService(lifecycle, SERVICES),
        interceptors=[
            Access(log, write_seconds=config.write_seconds, clock=clock),
            Boundary(guard(Keys.from_file(access.keys_file))),
        ],
    )
