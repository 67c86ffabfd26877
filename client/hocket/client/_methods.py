"""The methods that this client calls: names, and how messages are written and read. Any thread.

The generated stubs are typed for asyncio alone; these serve blocking channels as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from hocket.client._health import parse_health_response
from hocket.client._types import HealthStatus
from hocket.v1 import control_pb2, document_pb2, generation_pb2, model_pb2, text_pb2

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
RequestT_co = TypeVar("RequestT_co", covariant=True)
ResponseT_contra = TypeVar("ResponseT_contra", contravariant=True)
MulticallableT = TypeVar("MulticallableT")
MulticallableT_co = TypeVar("MulticallableT_co", covariant=True)
RequestMessageT = TypeVar("RequestMessageT", bound=Message)
ResponseMessageT = TypeVar("ResponseMessageT", bound=Message)


class CallKind(Protocol[RequestT_co, ResponseT_contra, MulticallableT_co]):
    """One of a channel's four functions that make a method callable, such as `unary_stream`."""

    def __call__(
        self,
        method: str,
        *,
        request_serializer: Callable[[RequestT_co], bytes],
        response_deserializer: Callable[[bytes], ResponseT_contra],
    ) -> MulticallableT_co: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Generic[RequestT, ResponseT]):
    """One method of a service.

    Attributes:
        path: Its full name, with both slashes.
        serialize: Writes a request.
        parse: Reads a response.
    """

    path: str
    serialize: Callable[[RequestT], bytes]
    parse: Callable[[bytes], ResponseT]

    def over(self, kind: CallKind[RequestT, ResponseT, MulticallableT]) -> MulticallableT:
        """Make it callable over the channel that `kind` belongs to."""
        return kind(self.path, request_serializer=self.serialize, response_deserializer=self.parse)


def _method(
    path: str, request: type[RequestMessageT], response: type[ResponseMessageT]
) -> Method[RequestMessageT, ResponseMessageT]:
    return Method(
        path=f"/hocket.v1.{path}", serialize=request.SerializeToString, parse=response.FromString
    )


GENERATE = _method(
    "GenerationService/Generate", generation_pb2.GenerateRequest, generation_pb2.GenerateResponse
)
GENERATE_MANY = _method(
    "GenerationService/GenerateMany",
    generation_pb2.GenerateManyRequest,
    generation_pb2.GenerateManyResponse,
)
TRANSFORM = _method(
    "DocumentService/Transform", document_pb2.TransformRequest, document_pb2.TransformResponse
)
COMPOSE = _method(
    "DocumentService/Compose", document_pb2.ComposeRequest, document_pb2.ComposeResponse
)
TOKENIZE = _method("TextService/Tokenize", text_pb2.TokenizeRequest, text_pb2.TokenizeResponse)
DETOKENIZE = _method(
    "TextService/Detokenize", text_pb2.DetokenizeRequest, text_pb2.DetokenizeResponse
)
COUNT_TOKENS = _method(
    "TextService/CountTokens", text_pb2.CountTokensRequest, text_pb2.CountTokensResponse
)
SPLIT_SENTENCES = _method(
    "TextService/SplitSentences", text_pb2.SplitSentencesRequest, text_pb2.SplitSentencesResponse
)
PROCESS = _method("TextService/Process", text_pb2.ProcessRequest, text_pb2.ProcessResponse)
LIST_MODELS = _method(
    "ModelService/ListModels", model_pb2.ListModelsRequest, model_pb2.ListModelsResponse
)
GET_MODEL = _method("ModelService/GetModel", model_pb2.GetModelRequest, model_pb2.GetModelResponse)
ABORT = _method("ControlService/Abort", control_pb2.AbortRequest, control_pb2.AbortResponse)
DRAIN = _method("ControlService/Drain", control_pb2.DrainRequest, control_pb2.DrainResponse)

HEALTH_CHECK: Method[bytes, HealthStatus] = Method(
    path="/grpc.health.v1.Health/Check",
    serialize=bytes,
    parse=parse_health_response,
)
HEALTH_WATCH: Method[bytes, HealthStatus] = Method(
    path="/grpc.health.v1.Health/Watch",
    serialize=bytes,
    parse=parse_health_response,
)
