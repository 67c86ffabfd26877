"""Sources, sinks, journal and progress of `hocket map`, without a server."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hocket.client import FinishReason, InternalError, MapResult, Usage
from hocket.client._commands.connection import UsageError
from hocket.client._map.feed import Feed
from hocket.client._map.journal import Journal, JournalEntry, WrongJournal, last_entry
from hocket.client._map.progress import JobProgress
from hocket.client._map.records import record_of
from hocket.client._map.sinks import Sink
from hocket.client._map.sources import Row, Source, format_of

FILES = {
    "jsonl": '{"id": 7, "text": "one"}\n\n{"text": "two\\n"}\n"three"',
    "csv": '\ufeffid,text\r\n7,one\r\n,"two\n"\r\n9,three\r\n',
    "text": "one\r\n \ntwo\nthree",
}
ROWS = {
    "jsonl": [(0, 7, "one"), (1, 3, "two\n"), (2, 4, "three")],
    "csv": [(0, "7", "one"), (1, 2, "two\n"), (2, "9", "three")],
    "text": [(0, 1, "one"), (1, 3, "two"), (2, 4, "three")],
}


@pytest.mark.parametrize("format_", FILES)
def test_a_source_gives_rows(tmp_path, format_):
    path = tmp_path / "texts"
    path.write_bytes(FILES[format_].encode())
    source = Source(path, format_)
    assert [(row.seq, row.id, row.text) for row in source.rows()] == ROWS[format_]
    assert source.count() == 3


@pytest.mark.parametrize(
    ("format_", "content", "message"),
    [
        ("jsonl", b'{"text": "x"}\n{', "line 2: this is no JSON"),
        ("jsonl", b"3", "line 1: neither"),
        ("jsonl", b'{"txt": "x"}', "line 1: there is no text in 'text'"),
        ("jsonl", b'{"text": "\\ud800"}', "line 1: the text has half a character"),
        ("jsonl", b'{"id": [], "text": "x"}', "line 1: the id is neither"),
        ("jsonl", b'{"id": 1, "text": "x"}\n{"id": 1, "text": "y"}', "line 2: the id 1 stood"),
        ("csv", b"a,b\n1,2\n", "no column 'text'"),
        ("csv", b"text,id\nx,1\ny,1\n", "row 2: the id '1' stood before"),
        ("text", b"\xff\n", "is not UTF-8"),
    ],
)
def test_a_bad_row_is_told_with_its_place(tmp_path, format_, content, message):
    path = tmp_path / "texts"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message.replace("'", ".")):
        list(Source(path, format_).rows())


def test_an_id_field_that_is_asked_for_must_be_there(tmp_path):
    path = tmp_path / "texts"
    path.write_text('{"id": 1, "text": "x"}')
    with pytest.raises(UsageError, match="there is no 'key'"):
        list(Source(path, "jsonl", id_field="key", must_have_ids=True).rows())


def test_names_tell_formats(tmp_path):
    names = ["a.jsonl", "a.CSV", "a.parquet", "a.txt", "a"]
    found = [format_of(tmp_path / name, "text") for name in names]
    assert found == ["jsonl", "csv", "parquet", "text", "text"]


ENTRIES = st.lists(
    st.builds(
        JournalEntry,
        next=st.integers(0, 1_000),
        ahead=st.frozensets(st.integers(1_001, 1_050), max_size=6),
        digest=st.integers(0, 2**128 - 1),
        failed=st.integers(0, 9),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=20)
@given(entries=ENTRIES)
def test_a_journal_cut_anywhere_tells_the_last_whole_entry(tmp_path_factory, entries):
    """At every byte; and never an entry that the output does not bear out."""
    path = tmp_path_factory.mktemp("journal") / "out.journal"
    journal = Journal(path, "key")
    told = [JournalEntry()]
    journal.begin(told[0])
    sizes = [path.stat().st_size]
    for number, entry in enumerate(entries, start=1):
        told.append(
            JournalEntry(
                next=entry.next,
                ahead=entry.ahead,
                digest=entry.digest,
                failed=entry.failed,
                output_bytes=10 * number,
            )
        )
        journal.append(told[-1])
        sizes.append(path.stat().st_size)
    whole = path.read_bytes()
    assert len(whole) == sizes[-1]
    for cut in range(len(whole) + 1):
        count = sum(size <= cut for size in sizes)
        expected = told[count - 1] if count else JournalEntry()
        assert last_entry(whole[:cut], key="key", output_bytes=1_000) == expected
    for output_bytes in range(10 * len(told)):
        assert journal.read(output_bytes) == told[min(output_bytes // 10, len(entries))]


def test_a_journal_of_another_job_is_refused(tmp_path):
    path = tmp_path / "out.journal"
    Journal(path, "one").begin(JournalEntry())
    with pytest.raises(WrongJournal):
        Journal(path, "two").read(0)


def test_a_journal_is_written_anew_before_it_grows(tmp_path, monkeypatch):
    monkeypatch.setattr("hocket.client._map.journal._MOST_BYTES", 400)
    path = tmp_path / "out.journal"
    journal = Journal(path, "key")
    journal.begin(JournalEntry())
    for number in range(100):
        journal.append(JournalEntry(next=number))
        assert path.stat().st_size < 600
        assert journal.read(0).next == number
    assert [each.name for each in tmp_path.iterdir()] == ["out.journal"]


RESULTS = [
    MapResult(
        id="0",
        index=0,
        text='a "quoted",\nline',
        finish_reason=FinishReason.END_OF_TEXT,
        usage=Usage(prompt_tokens=3, cached_tokens=2, completion_tokens=4),
    ),
    MapResult(id="1", index=1, error=InternalError("broke", code="INTERNAL", reason="INTERNAL")),
]


def written(tmp_path, format_: str) -> Sink:
    sink = Sink(tmp_path / "out", format_, "generate")
    sink.open_at(0)
    for number, result in enumerate(RESULTS):
        sink.add(record_of("generate", Row(number, f"id {number}", "x"), result))
    sink.flush()
    sink.finish()
    return sink


def test_json_lines_are_what_came(tmp_path):
    sink = written(tmp_path, "jsonl")
    assert [json.loads(line) for line in sink.path.read_text().splitlines()] == [
        {
            "id": "id 0",
            "text": 'a "quoted",\nline',
            "finish_reason": "end_of_text",
            "prompt_tokens": 3,
            "completion_tokens": 4,
        },
        {
            "id": "id 1",
            "error": {"code": "INTERNAL", "reason": "INTERNAL", "message": "broke"},
        },
    ]


def test_a_table_of_text_has_a_head(tmp_path):
    sink = written(tmp_path, "csv")
    assert sink.path.read_text() == (
        "id,text,finish_reason,prompt_tokens,completion_tokens,error\n"
        'id 0,"a ""quoted"",\nline",end_of_text,3,4,\n'
        "id 1,,,,,INTERNAL: broke\n"
    )
    sink.open_at(sink.found_bytes)
    sink.add({"id": 3, "error": {"message": "lost"}})
    sink.flush()
    assert sink.path.read_text().endswith("\n3,,,,,ERROR: lost\n")


def test_an_empty_table_has_a_head_too(tmp_path):
    sink = Sink(tmp_path / "out", "csv", "tokenize")
    sink.open_at(0)
    sink.finish()
    assert sink.path.read_text() == "id,token_ids,error\n"


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"hocket\[parquet\]"):
        Sink(tmp_path / "out.parquet", "parquet", "generate")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_is_a_bar_for_people_and_lines_otherwise():
    for is_terminal in (False, True):
        stream, clock = io.StringIO(), Clock()
        stream.isatty = lambda is_terminal=is_terminal: is_terminal
        progress = JobProgress(1_000, done=100, failed=1, stream=stream, clock=clock)
        for number in range(100):
            clock.now += 0.25
            progress.add(is_failed=number == 0, tokens=10)
        text = stream.getvalue()
        assert "going on after 100 of 1,000" in text
        if is_terminal:
            assert "[####--------------------] 200/1,000 done  2 failed  4.0/s  40 tokens/s" in text
            assert "ETA 3:20" in text
        else:
            assert text.count("\n") == 3  # the beginning, and one each ten seconds
            assert "\r" not in text


def test_quiet_progress_says_nothing():
    stream = io.StringIO()
    progress = JobProgress(1, done=1, is_quiet=True, stream=stream, clock=Clock())
    progress.add(is_failed=False, tokens=0)
    progress.say("x")
    progress.finish()
    assert not stream.getvalue()


def rows(count: int) -> list[Row]:
    return [Row(seq, seq, "x") for seq in range(count)]


def test_rows_without_a_result_are_sent_again_in_order():
    feed = Feed([], iter(rows(5)), next_seq=0)
    sent = feed.begin()
    assert [next(sent)[0] for _ in range(4)] == ["0", "1", "2", "3"]
    feed.end(1, next_seq=0)
    feed.end(3, next_seq=0)
    again = feed.begin()
    assert next(sent, None) is None  # the attempt before takes nothing more
    assert [id_ for id_, _ in again] == ["0", "2", "4"]
    assert not feed.is_empty
    for seq in (0, 2, 4):
        feed.end(seq, next_seq=seq + 1)
    assert feed.is_empty


def test_rows_do_not_run_ahead_of_one_that_hangs(monkeypatch):
    """What stands in the journal, and in memory, is bounded."""
    monkeypatch.setattr("hocket.client._map.feed._MOST_AHEAD", 3)
    feed = Feed([], iter(rows(5)), next_seq=0)
    sent = feed.begin()
    for seq in range(3):
        assert next(sent)[0] == str(seq)
    feed.end(1, next_seq=0)
    feed.stop()  # else it would wait here
    assert next(sent, None) is None
    feed.end(0, next_seq=2)
    assert [id_ for id_, _ in feed.begin()] == ["2", "3", "4"]
