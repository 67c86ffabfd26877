"""Whatever the order, the same events; sorted, those of IN_ORDER."""

import pytest
from hypothesis import given

from document.stories import events_of, jobs_of, key, segments_of, stories
from hocket.server.document.job import JobEnded, JobPiece, JobStarted, Place
from hocket.server.document.merge import Merge, Order, Released


def merged(order: Order, jobs, events) -> list[list[Released]]:
    """Return what each event releases."""
    merge = Merge(order, variants=1 + max(job.place.variant for job in jobs))
    for job in jobs:
        merge.expect(job.place)
    released = [merge.push(event) for event in events]
    assert merge.held == 0
    return released


def flat(released: list[list[Released]]) -> list:
    return [each.event for step in released for each in step]


@given(stories())
def test_sorted_all_orders_are_what_in_order_releases(story):
    jobs, events = story
    expected = sorted(events, key=key)
    assert expected == flat(merged(Order.IN_ORDER, jobs, events))
    assert expected == sorted(flat(merged(Order.AS_COMPLETED, jobs, events)), key=key)
    assert events == flat(merged(Order.INTERLEAVED, jobs, events))


@given(stories())
def test_in_order_releases_as_soon_as_it_may(story):
    """After each event all is out that stands before the first job which is not over, and of it."""
    jobs, events = story
    over, come, out = set(), [], []
    for event, released in zip(events, merged(Order.IN_ORDER, jobs, events), strict=True):
        come.append(event)
        out += [each.event for each in released]
        if isinstance(event, JobEnded):
            over.add(event.job.place)
        head = next((job.place for job in jobs if job.place not in over), Place(1 << 20))
        assert sorted((e for e in come if key(e)[0] <= head), key=key) == out


@given(stories())
def test_as_completed_releases_each_job_whole_at_its_end(story):
    jobs, events = story
    for event, released in zip(events, merged(Order.AS_COMPLETED, jobs, events), strict=True):
        if not isinstance(event, JobEnded):
            assert released == []
            continue
        own = [e for e in events if key(e)[0] == event.job.place]
        assert own == [each.event for each in released]


@given(stories())
def test_targets_are_gaps_and_texts_end_to_end(story):
    """Where a range is told it is right; in order it always is; the sizes are right in the end."""
    jobs, events = story
    texts = {job.place: "" for job in jobs}
    for event in events:
        if isinstance(event, JobPiece):
            texts[event.place] += event.piece.text
    variants = 1 + max(job.place.variant for job in jobs)
    starts, sizes = {}, [0] * variants
    for job in jobs:
        at = sizes[job.place.variant] + len(job.segment.gap.encode())
        starts[job.place] = at
        sizes[job.place.variant] = at + len(texts[job.place].encode())
    for order in Order:
        merge = Merge(order, variants=variants)
        for job in jobs:
            merge.expect(job.place)
        over = set()
        for event in events:
            for each in merge.push(event):
                if not isinstance(each.event, JobEnded):
                    assert each.target_start is None
                    continue
                place = each.event.job.place
                before = {Place(index, place.variant) for index in range(place.segment)}
                assert each.target_start == (starts[place] if before <= over else None)
                over.add(place)
        assert tuple(sizes) == merge.target_bytes


@given(stories())
def test_jobs_may_become_known_late(story):
    """What comes before the next job is known is released as if all were known."""
    jobs, events = story
    merge, known, out = Merge(Order.IN_ORDER, variants=3), 0, []
    for event in events:
        while jobs[known - 1].place < key(event)[0] or not known:
            merge.expect(jobs[known].place)
            known += 1
        out += [each.event for each in merge.push(event)]
    assert sorted(events, key=key) == out


def test_the_head_streams_and_a_failed_job_moves_the_cursor_on():
    first, second, third = jobs_of(segments_of(["A.", "B.", "C."]))
    merge = Merge(Order.IN_ORDER)
    for job in (first, second, third):
        merge.expect(job.place)
    (start,) = merge.push(JobStarted(first))
    assert start.event == JobStarted(first)
    for event in [*events_of(third, ["c"]), *events_of(second, ["b"], is_failed=True)]:
        assert merge.push(event) == []
    assert merge.held == 2
    *_, end = events_of(first, [], is_failed=True)
    released = merge.push(end)
    assert [place.segment for place, _ in map(key, (e.event for e in released))] == [
        0, 1, 1, 1, 2, 2, 2
    ]  # fmt: skip
    assert [e.target_start for e in released if isinstance(e.event, JobEnded)] == [0, 1, 3]


def test_jobs_are_announced_in_order():
    merge = Merge(Order.IN_ORDER, variants=2)
    merge.expect(Place(0, 1))
    with pytest.raises(AssertionError, match="bug"):
        merge.expect(Place(0, 1))
