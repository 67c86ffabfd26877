"""How a token ends a text, if it does. Pure; any thread.

The engine asks it for each token that is drawn, and whoever replays a text asks the very same.
"""

from dataclasses import dataclass

from hocket.server.engine.commands import FinishReason
from hocket.server.engine.sampling import StoppingParams
from hocket.server.text.assembly import AssembledPiece, TextAssembly


@dataclass(frozen=True, slots=True)
class Ending:
    """How a text ended.

    Attributes:
        reason: Why.
        stop_token_id: The stop or end token that ended it, if one did.
    """

    reason: FinishReason
    stop_token_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What may end a text.

    Attributes:
        stopping: What was asked for.
        end_token_ids: The model's own end tokens.
        room: Tokens that the context has room for behind the prompt.
    """

    stopping: StoppingParams
    end_token_ids: frozenset[int]
    room: int

    def push(
        self, assembly: TextAssembly, token_id: int
    ) -> tuple[list[AssembledPiece], Ending | None]:
        """Write the next token of a text; return what it completes, and how it ends the text.

        What the assembly still holds of a text that ended, its `finish` returns.
        """
        is_end = token_id in self.end_token_ids and not self.stopping.ignore_eos
        is_stop = token_id in self.stopping.stop_token_ids
        if is_end or is_stop:
            reason = FinishReason.STOP_TOKEN if is_stop else FinishReason.END_OF_TEXT
            return assembly.push_silent(), Ending(reason, token_id)
        pieces = assembly.push(token_id)
        if assembly.stop_string is not None:
            return pieces, Ending(FinishReason.STOP_STRING)
        if assembly.token_count >= self.stopping.max_tokens:
            return pieces, Ending(FinishReason.MAX_TOKENS)
        if assembly.token_count >= self.room:
            return pieces, Ending(FinishReason.CONTEXT_FULL)
        return pieces, None
