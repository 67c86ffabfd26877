"""A server made of the generated stubs whose answers each test writes itself."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hocket.v1 import (
    control_pb2,
    control_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    options_pb2,
    text_pb2,
    text_pb2_grpc,
)

Behaviour = Callable[[object, grpc.aio.ServicerContext], AsyncIterator[object]]


def started(**fields) -> generation_pb2.GenerateResponse:
    fields = {"prompt_tokens": 3, "seed": 7, "model": "fake"} | fields
    return generation_pb2.GenerateResponse(started=generation_pb2.Started(**fields))


def sentence(text: str, index: int, *, start_byte: int = 0, choice_index: int = 0):
    return generation_pb2.GenerateResponse(
        sentence=generation_pb2.Sentence(
            choice_index=choice_index,
            index=index,
            text=text,
            start_byte=start_byte,
            end_byte=start_byte + len(text.encode()),
            kind=options_pb2.PIECE_KIND_SENTENCE,
            token_ids=[index],
        )
    )


def delta(text: str, *, choice_index: int = 0):
    return generation_pb2.GenerateResponse(
        delta=generation_pb2.Delta(choice_index=choice_index, text=text)
    )


def finished(reason: int = options_pb2.FINISH_REASON_END_OF_TEXT, choices: int = 1):
    message = generation_pb2.Finished(
        completions=[
            generation_pb2.Completion(index=index, finish_reason=reason, completion_tokens=5)
            for index in range(choices)
        ],
        usage=options_pb2.Usage(prompt_tokens=3, completion_tokens=5 * choices),
    )
    message.timings.total.FromMilliseconds(1500)
    message.timings.first_sentence.FromMilliseconds(250)
    return generation_pb2.GenerateResponse(finished=message)


def whole_answer(*texts: str) -> list[generation_pb2.GenerateResponse]:
    return [started(), *(sentence(text, index) for index, text in enumerate(texts)), finished()]


def rich_status(
    code: grpc.StatusCode,
    reason: str,
    *,
    message: str = "no",
    metadata: dict[str, str] | None = None,
    violations: tuple[tuple[str, str], ...] = (),
    retry_delay_seconds: float | None = None,
    domain: str = "hocket",
) -> status_pb2.Status:
    details = [error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)]
    if violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
                    for field, text in violations
                ]
            )
        )
    if retry_delay_seconds is not None:
        info = error_details_pb2.RetryInfo()
        info.retry_delay.FromMilliseconds(round(retry_delay_seconds * 1000))
        details.append(info)
    packed = []
    for detail in details:
        any_detail = any_pb2.Any()
        any_detail.Pack(detail)
        packed.append(any_detail)
    return status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message, details=packed)


def trailers_of(status: status_pb2.Status, pushback_ms: int | str | None = None):
    trailers = [("grpc-status-details-bin", status.SerializeToString())]
    if pushback_ms is not None:
        trailers.append(("grpc-retry-pushback-ms", str(pushback_ms)))
    return tuple(trailers)


class FakeServer:
    """Answers each call with the next behaviour that a test put in, then with the default one.

    Attributes:
        address: Where it listens.
        behaviours: What the next calls to generation do.
        requests: Every generation request that has arrived.
        metadata, seconds_left: Metadata of every generation call, and time until its deadline.
        arrived: Set whenever a generation call has arrived.
        left: Set when a generation handler was cancelled.
    """

    def __init__(self) -> None:
        self.address = ""
        self.behaviours: deque[Behaviour] = deque()
        self.requests: list[generation_pb2.GenerateRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.seconds_left: list[float | None] = []
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()
        self.failures: deque[Callable[[grpc.aio.ServicerContext], Awaitable[None]]] = deque()
        self.calls: list[object] = []
        self.health: dict[str, list[int]] = {"": [1]}

    def answer(self, *messages, hang: bool = False) -> None:
        """Let the next call send these, and then end, or hang until it is cancelled."""

        async def behave(request, context):
            for message in messages:
                yield message
            if hang:
                await asyncio.Event().wait()

        self.behaviours.append(behave)

    def refuse(
        self, status: status_pb2.Status, *, pushback_ms: int | str | None = None, after=()
    ) -> None:
        """Let the next call send `after` and then fail with this status."""

        async def behave(request, context):
            for message in after:
                yield message
            await context.abort(
                grpc.StatusCode[code_pb2.Code.Name(status.code)],
                status.message,
                trailers_of(status, pushback_ms),
            )

        self.behaviours.append(behave)

    async def run(self, request, context) -> AsyncIterator[object]:
        self.arrived.set()
        self.metadata.append(dict(context.invocation_metadata()))
        self.seconds_left.append(context.time_remaining())
        behave = self.behaviours.popleft() if self.behaviours else None
        try:
            if behave is None:
                for message in whole_answer("One. ", "Two."):
                    yield message
            else:
                async for message in behave(request, context):
                    yield message
        except (asyncio.CancelledError, GeneratorExit):
            self.left.set()
            raise

    async def unary(self, request, context) -> None:
        """Note a unary call, failing it if a test asked for that."""
        self.calls.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.failures:
            await self.failures.popleft()(context)

    def refuse_unary(self, status: status_pb2.Status, *, pushback_ms: int | None = None) -> None:
        async def behave(context):
            await context.abort(
                grpc.StatusCode[code_pb2.Code.Name(status.code)],
                status.message,
                trailers_of(status, pushback_ms),
            )

        self.failures.append(behave)


class _Generation(generation_pb2_grpc.GenerationServiceServicer):
    def __init__(self, server: FakeServer) -> None:
        self.server = server

    async def Generate(self, request, context):
        self.server.requests.append(request)
        async for message in self.server.run(request, context):
            yield message

    async def GenerateMany(self, request_iterator, context):
        """Answer each request with its own prompt; `fail` fails, `hang` waits to be cancelled."""
        server = self.server
        if server.behaviours:
            async for message in server.run(request_iterator, context):
                yield message
            return
        server.arrived.set()
        server.metadata.append(dict(context.invocation_metadata()))
        many = generation_pb2.GenerateManyResponse
        hanging: list[str] = []
        try:
            async for action in request_iterator:
                if action.WhichOneof("action") == "cancel":
                    name = action.cancel.request_id
                    hanging.remove(name)
                    reason = options_pb2.FINISH_REASON_CANCELLED
                    yield many(request_id=name, finished=finished(reason).finished)
                    continue
                request = action.generate
                server.requests.append(request)
                name = request.request_id
                if request.prompt == "fail":
                    status = rich_status(
                        grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_delay_seconds=0.5
                    )
                    yield many(request_id=name, failed=status)
                    continue
                yield many(request_id=name, started=started().started)
                if request.prompt == "hang":
                    hanging.append(name)
                    continue
                text = request.prompt or request.chat.messages[-1].content
                yield many(request_id=name, sentence=sentence(text, 0).sentence)
                yield many(request_id=name, finished=finished().finished)
            # A cancelled call ends the iteration just as half-close does; only a write can tell.
            for name in hanging:
                yield many(request_id=name, finished=finished().finished)
        except (asyncio.CancelledError, GeneratorExit):
            server.left.set()
            raise


class _Texts(text_pb2_grpc.TextServiceServicer):
    def __init__(self, server: FakeServer) -> None:
        self.server = server

    async def Tokenize(self, request, context):
        await self.server.unary(request, context)
        size = len(request.text.encode())
        tokens = [text_pb2.Token(id=i, start_byte=i, end_byte=i + 1) for i in range(size)]
        return text_pb2.TokenizeResponse(tokens=tokens)

    async def Detokenize(self, request, context):
        await self.server.unary(request, context)
        return text_pb2.DetokenizeResponse(text="".join(chr(i) for i in request.token_ids))

    async def CountTokens(self, request, context):
        await self.server.unary(request, context)
        return text_pb2.CountTokensResponse(counts=[len(text) for text in request.texts])

    async def SplitSentences(self, request, context):
        await self.server.unary(request, context)
        end = request.text.encode().find(b". ") + 2
        size = len(request.text.encode())
        ranges = [
            text_pb2.TextRange(start_byte=0, end_byte=end, kind=options_pb2.PIECE_KIND_SENTENCE),
            text_pb2.TextRange(start_byte=end, end_byte=size, kind=options_pb2.PIECE_KIND_TAIL),
        ]
        return text_pb2.SplitSentencesResponse(ranges=ranges, language="en")


class _Models(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.model = model_pb2.Model(
            name="fake",
            architecture="llama",
            vocabulary_size=256,
            limits=model_pb2.ModelLimits(max_context_tokens=64),
            capabilities=model_pb2.ModelCapabilities(generate=True, chat=True, tokenize=True),
        )

    async def ListModels(self, request, context):
        await self.server.unary(request, context)
        return model_pb2.ListModelsResponse(models=[self.model])

    async def GetModel(self, request, context):
        await self.server.unary(request, context)
        return model_pb2.GetModelResponse(model=self.model)


class _Control(control_pb2_grpc.ControlServiceServicer):
    def __init__(self, server: FakeServer) -> None:
        self.server = server

    async def Abort(self, request, context):
        await self.server.unary(request, context)
        return control_pb2.AbortResponse(found=request.request_id == "there")

    async def Drain(self, request, context):
        await self.server.unary(request, context)
        response = control_pb2.DrainResponse(requests_in_progress=2)
        response.refusing_in.FromMilliseconds(5000)
        return response


class _Health(health_pb2_grpc.HealthServicer):
    """The published stubs, to check our own bytes against them."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server

    async def Check(self, request, context):
        await self.server.unary(request, context)
        if request.service not in self.server.health:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=self.server.health[request.service][-1])

    async def Watch(self, request, context):
        try:
            for status in self.server.health.get(request.service, [3]):
                yield health_pb2.HealthCheckResponse(status=status)
            if request.service == "readiness":
                await asyncio.Event().wait()
        except (asyncio.CancelledError, GeneratorExit):
            self.server.left.set()
            raise


@asynccontextmanager
async def serving() -> AsyncIterator[FakeServer]:
    """Serve a fake on loopback."""
    fake = FakeServer()
    grpc_server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(_Generation(fake), grpc_server)
    text_pb2_grpc.add_TextServiceServicer_to_server(_Texts(fake), grpc_server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(_Models(fake), grpc_server)
    control_pb2_grpc.add_ControlServiceServicer_to_server(_Control(fake), grpc_server)
    health_pb2_grpc.add_HealthServicer_to_server(_Health(fake), grpc_server)
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    fake.address = f"127.0.0.1:{port}"
    await grpc_server.start()
    try:
        yield fake
    finally:
        await grpc_server.stop(None)
