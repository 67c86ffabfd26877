"""The engine stepped by hand over a scripted runner: text, order, preemption, ends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hocket.server.engine.commands import Abort, FinishReason, RequestOutput, Submit
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.core import EngineCore
from hocket.server.engine.sampling import SamplingParams, StoppingParams
from hocket.server.errors import QueueTimeout
from hocket.server.testing.byte_tokenizer import ByteTokenizer
from hocket.server.testing.scripted_runner import ScriptedRunner, echo
from hocket.server.text.pieces import Granularity


class Crank:
    """Turns an engine by hand and keeps what came of it."""

    def __init__(self, runner: ScriptedRunner | None = None, **config) -> None:
        self.runner = runner or ScriptedRunner(num_prefix_chunks=64)
        self.now = 0.0
        self.faults: list[Exception] = []
        config.setdefault("max_num_seqs", min(32, config.get("max_step_tokens", 32)))
        self.core = EngineCore(
            self.runner,
            ByteTokenizer(),
            EngineConfig(**config),
            lambda: self.now,
            on_fault=self.faults.append,
            on_setback=self.faults.append,
        )
        self.outputs: dict[str, list[RequestOutput]] = {}
        self.newest: tuple[RequestOutput, ...] = ()
        self.statistics = None
        self.has_work = False

    def step(self, *commands) -> None:
        outputs = self.core.step(commands)
        self.core.check_integrity()
        self.statistics, self.has_work = outputs.statistics, outputs.has_work
        self.newest = outputs.outputs
        for output in self.newest:
            self.outputs.setdefault(output.request_id, []).append(output)

    def run(self, *commands) -> None:
        self.step(*commands)
        while self.has_work:
            self.step()

    def text(self, name: str, choice: int = 0) -> str:
        return "".join(
            text.piece.text
            for output in self.outputs[name]
            for text in output.texts
            if text.choice_index == choice
        )

    def tokens(self, name: str, choice: int = 0) -> list[int]:
        return [
            token
            for output in self.outputs[name]
            for text in output.texts
            if text.choice_index == choice
            for token in text.token_ids
        ]

    def last(self, name: str) -> RequestOutput:
        (last,) = [output for output in self.outputs[name] if output.is_last]
        assert self.outputs[name][-1] is last
        return last

    def is_at_rest(self) -> bool:
        s = self.statistics
        return (s.blocks_used, s.saved_blocks, self.runner.saved_sequences) == (0, 0, 0)


def submit(name: str, prompt: str = "hello", **fields) -> Submit:
    stopping = {
        key: fields.pop(key)
        for key in ("min_tokens", "stop", "stop_token_ids", "ignore_eos")
        if key in fields
    }
    sampling = fields.pop("sampling", SamplingParams())
    return Submit(
        request_id=name,
        prompt_token_ids=tuple(prompt.encode()),
        sampling=sampling,
        stopping=StoppingParams(max_tokens=fields.pop("max_tokens", 500), **stopping),
        **fields,
    )


def test_a_text_is_written_to_its_end():
    crank = Crank()
    crank.run(submit("a"))
    assert crank.text("a").encode() == echo(b"hello")
    finished = crank.last("a").finished
    (completion,) = finished.completions
    assert completion.finish_reason is FinishReason.END_OF_TEXT
    assert completion.stop_token_id == ByteTokenizer.END
    assert completion.completion_tokens == finished.completion_tokens == len(echo(b"hello")) + 1
    assert completion.text_bytes == len(echo(b"hello"))
    assert finished.prompt_tokens == 5
    assert crank.outputs["a"][0].started.prompt_tokens == 5
    assert crank.is_at_rest()


@pytest.mark.parametrize("granularity", Granularity)
def test_the_text_is_the_same_in_every_granularity(granularity):
    crank = Crank()
    crank.run(submit("a", "Wörld. 日本。 Ok", granularity=granularity))
    assert crank.text("a").encode() == echo("Wörld. 日本。 Ok".encode())
    pieces = [text.piece for output in crank.outputs["a"] for text in output.texts]
    assert [piece.start_byte for piece in pieces[1:]] == [p.end_byte for p in pieces[:-1]]


@settings(max_examples=120, deadline=None)
@given(
    prompts=st.lists(st.text("abc .", min_size=1, max_size=40), min_size=1, max_size=8),
    arrivals=st.lists(st.integers(0, 12), min_size=8, max_size=8),
    priorities=st.lists(st.integers(-2, 2), min_size=8, max_size=8),
    step_tokens=st.integers(1, 40),
    seqs=st.integers(1, 6),
    blocks=st.integers(16, 60),
    saved=st.sampled_from([0, 3, 40]),
    chunks=st.sampled_from([0, 9, 64]),
)
def test_batch_laws(prompts, arrivals, priorities, step_tokens, seqs, blocks, saved, chunks):
    """Neither company, nor arrival, nor chunks, nor preemption changes a text."""
    runner = ScriptedRunner(num_blocks=blocks, num_saved_blocks=saved, num_prefix_chunks=chunks)
    step_tokens = max(step_tokens, seqs)
    crank = Crank(runner, max_num_seqs=seqs, max_step_tokens=step_tokens)
    names = [str(index) for index in range(len(prompts))]
    for step in range(13):
        crank.step(
            *(
                submit(name, prompt, priority=priorities[int(name)])
                for name, prompt in zip(names, prompts, strict=True)
                if arrivals[int(name)] == step
            )
        )
    while crank.has_work:
        crank.step()
    for name, prompt in zip(names, prompts, strict=True):
        assert crank.text(name).encode() == echo(prompt.encode())
        assert crank.last(name).failure is None
    assert crank.is_at_rest()
    assert all(sum(batch) <= step_tokens and len(batch) <= seqs for batch in runner.batches)


@pytest.mark.parametrize("saved", [0, 64])
def test_a_full_cache_preempts_and_the_text_stays(saved):
    crank = Crank(ScriptedRunner(num_blocks=14, num_saved_blocks=saved))
    names = [f"n{index}" for index in range(6)]
    crank.run(*(submit(name, name * 4) for name in names))
    assert crank.statistics.preemptions > 0
    assert [crank.text(name).encode() for name in names] == [
        echo((name * 4).encode()) for name in names
    ]
    assert crank.is_at_rest()


def test_a_long_prompt_does_not_stall_running_streams():
    """While one prompt of many chunks is computed, a running stream gets a token every step."""
    crank = Crank(max_step_tokens=8)
    crank.step(submit("stream", "hi", granularity=Granularity.TOKEN))
    before = len(crank.tokens("stream"))
    crank.step(submit("long", "x" * 100))
    for _ in range(9):
        crank.step()
    assert len(crank.tokens("stream")) == before + 10
    assert all(sum(batch) <= 8 for batch in crank.runner.batches)


def test_lower_priority_numbers_run_first():
    crank = Crank(max_num_seqs=1)
    crank.run(submit("later", priority=5), submit("sooner", priority=-5))
    assert list(crank.outputs) == ["sooner", "later"]


@pytest.mark.parametrize(
    ("fields", "reason", "text"),
    [
        ({"max_tokens": 4}, FinishReason.MAX_TOKENS, "You "),
        ({"stop": ("said",)}, FinishReason.STOP_STRING, "You "),
        ({"stop": ("zzz", "u s")}, FinishReason.STOP_STRING, "Yo"),
        ({"stop_token_ids": frozenset({ord("s")})}, FinishReason.STOP_TOKEN, "You "),
        ({"stop_token_ids": frozenset({ord("s")}), "min_tokens": 6}, None, None),
        ({"ignore_eos": True, "max_tokens": 60}, FinishReason.MAX_TOKENS, None),
    ],
)
def test_how_texts_end(fields, reason, text):
    crank = Crank()
    crank.run(submit("a", **fields))
    (completion,) = crank.last("a").finished.completions
    if text is not None:
        assert crank.text("a") == text
    if reason is not None:
        assert completion.finish_reason is reason
    if "min_tokens" in fields:
        assert completion.completion_tokens > 6
    if fields.get("ignore_eos"):
        assert completion.completion_tokens == 60
    assert completion.text_bytes == len(crank.text("a").encode())


def test_a_full_context_ends_the_text():
    crank = Crank(ScriptedRunner(max_context_tokens=20))
    crank.run(submit("a"))
    (completion,) = crank.last("a").finished.completions
    assert completion.finish_reason is FinishReason.CONTEXT_FULL
    assert completion.completion_tokens in {15, 16}


def test_choices_are_sequences_of_their_own():
    crank = Crank()
    crank.run(submit("a", choices=3))
    assert {crank.text("a", choice).encode() for choice in range(3)} == {echo(b"hello")}
    assert [c.index for c in crank.last("a").finished.completions] == [0, 1, 2]
    assert crank.is_at_rest()


def test_an_abort_ends_within_the_step_and_hands_out_what_was_held():
    crank = Crank()
    crank.step(submit("a"), submit("b"))
    for _ in range(6):
        crank.step()
    crank.step(Abort(request_id="a", reason=FinishReason.CANCELLED))
    (completion,) = crank.last("a").finished.completions
    assert completion.finish_reason is FinishReason.CANCELLED
    assert crank.text("a") == "You sai"[: len(crank.text("a"))] != ""
    crank.step(Abort(request_id="a", reason=FinishReason.CANCELLED))
    crank.run()
    assert crank.text("b").encode() == echo(b"hello")
    assert crank.is_at_rest()


def test_a_request_that_is_cancelled_while_it_waits_starts_and_ends():
    crank = Crank(max_num_seqs=1)
    crank.step(submit("first"), submit("second"))
    crank.step(Abort(request_id="second", reason=FinishReason.CANCELLED))
    (output,) = crank.outputs["second"]
    assert output.started is not None
    assert output.finished.completions[0].finish_reason is FinishReason.CANCELLED
    assert output.finished.completion_tokens == 0


def test_an_expired_request_never_starts():
    crank = Crank(max_num_seqs=1)
    crank.step(submit("first"), submit("second", deadline=1.0))
    crank.now = 2.0
    crank.run()
    assert isinstance(crank.last("second").failure, QueueTimeout)
    assert crank.last("first").finished is not None
    assert crank.is_at_rest()


def test_a_running_request_stops_at_its_deadline_with_what_it_has():
    crank = Crank()
    crank.step(submit("a", deadline=1.0))
    for _ in range(5):
        crank.step()
    crank.now = 1.0
    crank.step()
    (completion,) = crank.last("a").finished.completions
    assert completion.finish_reason is FinishReason.TIME_BUDGET
    assert echo(b"hello").startswith(crank.text("a").encode())
    assert crank.is_at_rest()


def test_logprobs_come_with_their_tokens():
    crank = Crank()
    crank.run(submit("a", sampling=SamplingParams(logprobs=2, prompt_logprobs=0)))
    told = [
        (len(text.token_ids), len(text.logprobs))
        for output in crank.outputs["a"]
        for text in output.texts
    ]
    assert told
    assert all(tokens == logprobs for tokens, logprobs in told)
    assert len(crank.last("a").finished.prompt_logprobs) == 4


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_history_of_commands_returns_to_rest(data):
    """Submits, aborts and the passing of time, in any order, leave nothing behind."""
    crank = Crank(
        ScriptedRunner(num_blocks=24, num_saved_blocks=6, num_prefix_chunks=9),
        max_num_seqs=3,
        max_step_tokens=16,
    )
    names: list[str] = []
    for _ in range(data.draw(st.integers(1, 40))):
        match data.draw(st.sampled_from(["submit", "abort", "wait", "step", "step"])):
            case "submit":
                names.append(str(len(names)))
                prompt = data.draw(st.sampled_from(["a", "bb" * 9, "RAISE", "NAN", "c" * 60]))
                deadline = data.draw(st.sampled_from([None, crank.now + 3]))
                choices = data.draw(st.integers(1, 3))
                crank.step(submit(names[-1], prompt, deadline=deadline, choices=choices))
            case "abort" if names:
                name = data.draw(st.sampled_from(names))
                crank.step(Abort(request_id=name, reason=FinishReason.ABORTED))
            case "wait":
                crank.now += 1
            case _:
                crank.step()
    crank.run()
    assert all(crank.last(name).is_last for name in names)
    assert crank.is_at_rest()
