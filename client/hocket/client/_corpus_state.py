"""What a corpus job asks, what has come of it, and when more may be sent, without any I/O.

It belongs to the stream's owner; the blocking stream guards it with its condition.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from hocket.client._document_options import TaskOptions
from hocket.client._document_requests import build_item_transform
from hocket.client._errors import ClientError, StreamError, error_of_status
from hocket.client._parse import parse_finish_reason, parse_pieces, parse_tokens, parse_usage
from hocket.client._requests import (
    GenerationOptions,
    build_generate_request,
    build_split_request,
)
from hocket.client._types import FinishReason, TextPiece, Token, Usage
from hocket.v1 import generation_pb2, text_pb2

MapItem: TypeAlias = str | tuple[str, str]
MapOperation: TypeAlias = Literal["generate", "transform", "tokenize", "split"]

_TOKENIZE_OPTIONS = frozenset({"model", "add_special_tokens", "parse_special_tokens"})
_SPLIT_OPTIONS = frozenset({"paragraphs", "sentences"})
_WINDOWS = 2  # in flight at most, so that the server finds the next items when it has room


class MapOptions(GenerationOptions, TaskOptions, total=False):
    """The keyword arguments of a corpus job, by what is done.

    `generate` takes those of a generation. Without `messages` each item is a prompt; with them,
    which may be none, each is the last message, of the user. `transform` takes a task and what else
    `TransformOptions` have that holds for any text. `tokenize` takes `model`, `add_special_tokens`
    and `parse_special_tokens`; `split` takes `paragraphs` and `sentences`.

    Attributes:
        add_special_tokens: Puts the begin-of-text token in front, where the model has one.
        paragraphs: Cuts at paragraphs instead of sentences.
    """

    add_special_tokens: bool | None
    paragraphs: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MapResult:
    """What came of one item.

    Attributes:
        id: Its id; its position as a number if it came without.
        index: Its position, from 0.
        error: How it failed; None if it did not, and only then is there anything below.
        text: What was written for it.
        segments: Of these it was made, if it was transformed.
        failed_segments: So many of them failed.
        finish_reason: Why the text ended.
        usage: Tokens that it took.
        tokens: Its tokens.
        pieces: Its sentences or paragraphs.
    """

    id: str
    index: int
    error: ClientError | None = None
    text: str = ""
    segments: int = 0
    failed_segments: int = 0
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    tokens: tuple[Token, ...] = ()
    pieces: tuple[TextPiece, ...] = ()


def build_start(
    op: MapOperation,
    options: MapOptions,
    *,
    window: int | None = None,
    in_order: bool = False,
    stop_on_error: bool = False,
) -> text_pb2.ProcessStart:
    """Make the first message of a job.

    Raises:
        TypeError: An option does not belong to the operation.
        ValueError: There is no such operation, or a value cannot be sent.
    """
    start = text_pb2.ProcessStart(
        window=window, in_order=in_order or None, stop_on_error=stop_on_error or None
    )
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    match op:
        case "generate":
            start.generate.CopyFrom(_generate_request(given))
        case "transform":
            start.transform.CopyFrom(build_item_transform(given))
        case "tokenize":
            _check_options(op, given, _TOKENIZE_OPTIONS)
            start.tokenize.CopyFrom(text_pb2.TokenizeRequest(**given))
        case "split":
            _check_options(op, given, _SPLIT_OPTIONS)
            start.split.CopyFrom(
                build_split_request(
                    "",
                    paragraphs=given.get("paragraphs", False),
                    options=given.get("sentences"),
                )
            )
        case _:
            raise ValueError(f"there is no operation {op!r}")
    return start


class CorpusState:
    """One job.

    Attributes:
        start: Its first message.
    """

    def __init__(self, start: text_pb2.ProcessStart) -> None:
        self.start = start
        self._window = 0
        self._count = 0
        self._texts: dict[int, str] = {}  # of items without a result, by index
        self._is_finished = False

    @property
    def has_room(self) -> bool:
        """Whether one more item may be sent; not before the job was let in.

        So until then nothing is lost that another attempt would have to send.
        """
        return len(self._texts) < _WINDOWS * self._window

    def send(self, item: MapItem) -> text_pb2.ProcessRequest:
        """Return the message of the next item.

        Raises:
            TypeError: It is neither a text nor a pair of an id and a text.
        """
        id_, text = (str(self._count), item) if isinstance(item, str) else item
        request = text_pb2.ProcessRequest(item=text_pb2.ProcessItem(id=id_, text=text))
        self._texts[self._count] = text
        self._count += 1
        return request

    def take(self, message: text_pb2.ProcessResponse) -> MapResult | None:
        """Take what arrived, and return the result if it is one."""
        match message.WhichOneof("event"):
            case "started":
                self._window = max(1, message.started.window)
            case "finished":
                self._is_finished = True
            case "result":
                return self._result(message.result)
            case _:  # an event that this client does not know
                pass
        return None

    def check_ended(self) -> None:
        """Return if all items have their results.

        Raises:
            StreamError: The server did not say so.
        """
        if not self._is_finished:
            raise StreamError("the stream ended before the job did")

    def _result(self, result: text_pb2.ProcessResult) -> MapResult:
        text = self._texts.pop(result.index, "")
        id_, index = result.id, result.index
        match result.WhichOneof("outcome"):
            case "error":
                return MapResult(id=id_, index=index, error=error_of_status(result.error))
            case "generated" | "transformed" as kind:
                written = result.generated if kind == "generated" else result.transformed
                return MapResult(
                    id=id_,
                    index=index,
                    text=written.text,
                    segments=written.segments,
                    failed_segments=written.failed_segments,
                    finish_reason=parse_finish_reason(written.finish_reason),
                    usage=parse_usage(written.usage),
                )
            case "tokens":
                return MapResult(id=id_, index=index, tokens=parse_tokens(result.tokens))
            case "sentences":
                return MapResult(id=id_, index=index, pieces=parse_pieces(text, result.sentences))
            case _:
                error = StreamError("this client does not know such a result")
                return MapResult(id=id_, index=index, error=error)


def _generate_request(given: dict[str, Any]) -> generation_pb2.GenerateRequest:
    _check_options(
        "generate", given, GenerationOptions.__annotations__.keys() - {"token_ids", "request_id"}
    )
    prompt = None if "messages" in given else ""
    request = build_generate_request(prompt, cast("GenerationOptions", given))
    if prompt is not None:
        request.ClearField("prompt")
    return request


def _check_options(op: str, given: dict[str, Any], known: Any) -> None:  # noqa: ANN401 - a set of names
    unknown = given.keys() - known
    if unknown:
        raise TypeError(f"{op} takes no {', '.join(sorted(unknown))}")
