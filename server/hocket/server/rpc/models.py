"""`ModelService`: which models are served, and what they can do. Loop thread."""

from hocket.server.catalogue import Catalogue, Served, ServedModel, ServedTranslator
from hocket.server.errors import NotReady
from hocket.server.rpc.inputs import max_prompt_tokens
from hocket.server.rpc.limits import MAX_CHOICES, MAX_LOGPROBS, MAX_STOP_STRINGS
from hocket.server.rpc.parse import max_completion_tokens
from hocket.server.rpc.status import Context
from hocket.v1 import model_pb2, model_pb2_grpc


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """Tells of the served models."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def ListModels(
        self, _request: model_pb2.ListModelsRequest, _context: Context
    ) -> model_pb2.ListModelsResponse:
        """List all models, the default first."""
        models = self._catalogue.all()
        if not models:
            raise NotReady
        return model_pb2.ListModelsResponse(models=[_message(model) for model in models])

    async def GetModel(
        self, request: model_pb2.GetModelRequest, _context: Context
    ) -> model_pb2.GetModelResponse:
        """Describe one model."""
        return model_pb2.GetModelResponse(model=_message(self._catalogue.find_any(request.name)))


def _message(model: Served) -> model_pb2.Model:
    description = model.description
    message = model_pb2.Model(
        name=description.name,
        architecture=description.architecture,
        dtype=description.dtype,
        parameters=description.parameters,
        license=description.license,
        digest=description.digest,
    )
    if isinstance(model, ServedTranslator):
        message.capabilities.translate = True
        for source, target in sorted(model.interpreter.facts.pairs):
            message.directions.add(source_language=source, target_language=target)
    else:
        _describe(model, message)
    return message


def _describe(model: ServedModel, message: model_pb2.Model) -> None:
    """Say what a language model can do, and within which limits."""
    message.vocabulary_size = model.limits.vocabulary_size
    message.limits.CopyFrom(
        model_pb2.ModelLimits(
            max_context_tokens=model.limits.max_context_tokens,
            max_prompt_tokens=max_prompt_tokens(model),
            max_completion_tokens=max_completion_tokens(model),
            max_choices=MAX_CHOICES,
            max_logprobs=MAX_LOGPROBS,
            max_stop_strings=MAX_STOP_STRINGS,
        )
    )
    message.capabilities.CopyFrom(
        model_pb2.ModelCapabilities(
            generate=True, chat=model.chat_template is not None, tokenize=True
        )
    )
