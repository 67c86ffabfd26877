"""hocket's client: `AsyncClient` for asyncio, `Client` for programs that block.

Importing it brings grpcio and protobuf, nothing else.
"""

from hocket.client._channel import Tls, service_config
from hocket.client._client import AsyncClient
from hocket.client._corpus import MapStream
from hocket.client._corpus_state import MapItem, MapOperation, MapOptions, MapResult
from hocket.client._errors import (
    ClientError,
    DeadlineExceeded,
    Draining,
    DuplicateRequest,
    EngineFailed,
    FieldViolation,
    Forbidden,
    GenerationFailed,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    NotReady,
    Overloaded,
    QueueTimeout,
    ReaderTooSlow,
    ResourceExhausted,
    StatusError,
    StreamError,
    TransportError,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from hocket.client._events import (
    Answer,
    Delta,
    Event,
    Finished,
    GenerationResult,
    Sentence,
    Started,
)
from hocket.client._many import ManyStream
from hocket.client._many_state import ManyEvent, ManyResult
from hocket.client._requests import GenerationOptions
from hocket.client._retry import NO_RETRIES, RetryPolicy
from hocket.client._stream import GenerationStream
from hocket.client._sync import Client
from hocket.client._sync_corpus import SyncMapStream
from hocket.client._sync_many import SyncManyStream
from hocket.client._sync_stream import SyncGenerationStream
from hocket.client._types import (
    Completion,
    DrainStatus,
    FinishReason,
    Granularity,
    HealthStatus,
    Message,
    Model,
    ModelLimits,
    PieceKind,
    QuotePolicy,
    SentenceMode,
    SentenceOptions,
    TextPiece,
    Timings,
    Token,
    TokenLogprobs,
    TopLogprob,
    Usage,
)
from hocket.client._version import __version__

__all__ = [
    "NO_RETRIES",
    "Answer",
    "AsyncClient",
    "Client",
    "ClientError",
    "Completion",
    "DeadlineExceeded",
    "Delta",
    "DrainStatus",
    "Draining",
    "DuplicateRequest",
    "EngineFailed",
    "Event",
    "FieldViolation",
    "FinishReason",
    "Finished",
    "Forbidden",
    "GenerationFailed",
    "GenerationOptions",
    "GenerationResult",
    "GenerationStream",
    "Granularity",
    "HealthStatus",
    "InternalError",
    "InvalidRequest",
    "ManyEvent",
    "ManyResult",
    "ManyStream",
    "MapItem",
    "MapOperation",
    "MapOptions",
    "MapResult",
    "MapStream",
    "Message",
    "Model",
    "ModelLimits",
    "ModelNotFound",
    "NotFound",
    "NotReady",
    "Overloaded",
    "PieceKind",
    "QueueTimeout",
    "QuotePolicy",
    "ReaderTooSlow",
    "ResourceExhausted",
    "RetryPolicy",
    "Sentence",
    "SentenceMode",
    "SentenceOptions",
    "Started",
    "StatusError",
    "StreamError",
    "SyncGenerationStream",
    "SyncManyStream",
    "SyncMapStream",
    "TextPiece",
    "Timings",
    "Tls",
    "Token",
    "TokenLogprobs",
    "TopLogprob",
    "TransportError",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "Usage",
    "__version__",
    "service_config",
]
