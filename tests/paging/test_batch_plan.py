"""One list, read page by page: whatever its server makes of limit, offset and count."""

import random

import pytest
from conftest import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from simulated import Server, any_order, names, read

from ief_async import DriftError
from ief_async._paging import requests
from ief_async._paging.shape import overlap_of, requests_for


@given(
    total=st.integers(0, 70),
    limit=st.integers(1, 12),
    cap=st.integers(1, 15),
    count=st.sampled_from(["true", "none"]),
    **any_order,
)
@settings(max_examples=examples(400))
def test_calm_list_comes_whole_and_in_order(total, cap, count, **options):
    """A list that stands still comes once, in order, whatever the cap and the order of answers."""
    ids, report = read(Server(names(total), cap=cap, count=count), **options)

    assert names(total) == ids
    assert report.complete
    assert (total, 0) == (report.items, report.duplicates_dropped)


@given(total=st.integers(0, 95), limit=st.integers(1, 12), **any_order)
@settings(max_examples=examples(200))
def test_calm_list_costs_the_fewest_requests(total, limit, **options):
    """A calm list takes one request a stride; an empty or exactly full page 0 takes one more."""
    server = Server(names(total))

    _, report = read(server, limit=limit, **options)

    assert requests_for(total, limit) == server.asked
    assert report.drift == ("unknown" if limit == 1 <= total else "exact")


@pytest.mark.parametrize("limit", [100, 1000])
def test_calm_list_costs_a_tenth_more_than_the_fewest_at_most(limit):
    """From 20 pages on the overlap and the proof of the end cost a tenth, below it one request."""
    fewest = {count: max(1, -(-count // limit)) for count in range(0, 60 * limit, limit // 20)}
    more = {count: requests_for(count, limit) - least for count, least in fewest.items()}

    assert max(more[count] / fewest[count] for count in more if fewest[count] >= 20) <= 0.1
    assert max(more[count] for count in more if fewest[count] < 20) == 1


@given(
    total=st.integers(0, 60),
    said=st.one_of(st.integers(0, 90), st.just("page")),
    cap=st.integers(1, 15),
    **any_order,
)
@settings(max_examples=examples(300))
def test_wrong_count_costs_requests_and_never_hangs(total, said, cap, **options):
    """A count that lies high ends in a flag; one that lies low hides only what follows it."""
    server = Server(names(total), count=said, cap=cap)
    lies_high = said != "page" and said > total

    try:
        ids, report = read(server, **options)
    except DriftError:
        assert total == 0
        assert lies_high
        return

    assert names(len(ids)) == ids
    assert server.asked <= 2 * (total + 10)
    if lies_high and cap >= 10:
        assert names(total) == ids
        assert "count_mismatch" in report.flags


@pytest.mark.parametrize("said", [0, 100, "page", "none"])
def test_list_longer_than_its_count_is_read_page_by_page(said):
    """A full page 0 that its count explains is doubted: the page behind it is asked for."""
    server = Server(names(430), count=said)

    ids, report = read(server, limit=100)

    assert names(430) == ids
    assert ("count_mismatch" in report.flags) == (said != "none")


def test_absurd_count_is_not_believed():
    """A count of 10^9 that no row confirms costs a few requests, not ten million."""
    server = Server(names(35), count=10**9)

    ids, report = read(server, concurrency=8)

    assert names(35) == ids
    assert ("count_mismatch", "short_of_count") == report.flags
    assert "unknown" == report.drift
    assert server.asked <= 4 + 3 * 8 + 3  # what there is, what was in flight behind it, the end


def test_absurd_count_of_an_empty_list_is_an_error():
    """Page 0 is asked for three times, and a list that counts rows and shows none is no list."""
    server = Server([], count=5)

    with pytest.raises(DriftError, match="page 0 came empty 3 times, though the list counts 5"):
        read(server)
    assert 3 == server.asked


@pytest.mark.parametrize(("cap", "asked"), [(10, 1 + 4), (2, 12)])
def test_ignored_offset_ends_in_an_error(cap, asked):
    """The same ids for another offset end the batch after a handful of requests, not in a loop."""
    server = Server(names(100), ignores="offset", cap=cap, count=100)

    with pytest.raises(DriftError, match="the server ignores offset"):
        read(server)
    assert server.asked <= asked


def test_ignored_offset_behind_the_count_is_the_end():
    """Page 0 again where nothing was expected means that there is nothing more."""
    ids, report = read(Server(names(10), ignores="offset", count=10))

    assert names(10) == ids
    assert ("offset_ignored",) == report.flags


@pytest.mark.parametrize("total", [150, 200, 2_000, 20_000])
def test_offset_taken_as_a_page_number_is_an_error(total):
    """A server that counts pages where rows were meant is refused, not read by a twentieth."""

    class PageNumbers(Server):
        def answer(self, request):
            self.asked += 1
            first = request.offset * request.limit
            return len(self.rows), self.rows[first : first + request.limit]

    server = PageNumbers(names(total))
    message = "at offsets 0 and 1 share no row: the server takes offset for something"
    with pytest.raises(DriftError, match=message):
        read(server, limit=100)
    assert server.asked <= 30


def test_ignored_limit_is_taken_as_it_comes():
    """A page that is longer than asked for is read whole, and the rest is not asked for again."""
    server = Server(names(64), ignores="limit")

    ids, report = read(server)

    assert names(64) == ids
    assert 2 == server.asked
    assert 64 == report.page_size_seen


def test_capped_page_size_is_learned():
    """A server that gives 3 of 10 is asked at offsets 2 apart, and the report says so."""
    server = Server(names(30), cap=3)

    ids, report = read(server)

    assert names(30) == ids
    assert (15, 3, ("clamped",)) == (server.asked, report.page_size_seen, report.flags)
    assert "exact" == report.drift


def test_page_of_one_row_proves_nothing():
    """Pages that can't overlap are read all the same, and the report says what that proves."""
    server = Server(names(30), cap=1)

    ids, report = read(server)

    assert names(30) == ids
    assert ("unknown", ("clamped", "no_overlap")) == (report.drift, report.flags)


@given(hidden=st.frozensets(st.integers(0, 59), max_size=30), **any_order)
@example(
    hidden=frozenset([0, 1, 2, 3, 4, 5, 6, 7, 10, 11]), concurrency=1, seed=0, patience=1.0
)  # the pages at 0 and 2 show the same two rows
@example(hidden=frozenset(range(2, 12)), concurrency=1, seed=0, patience=0.1)
@settings(max_examples=examples(200))
def test_short_page_is_not_the_last(hidden, **options):
    """Rows that the server hides after slicing make pages short; the others come all the same."""
    server = Server(names(60), hidden=frozenset(f"p{number}" for number in hidden))
    visible = [row for row in server.rows if row not in server.hidden]
    if len(hidden & set(range(10))) == 10:
        return  # an empty page 0 is an error of its own

    ids, report = read(server, **options)

    assert report.complete
    if any({*range(at, at + 9)} <= hidden for at in range(51)):
        assert visible == ids or report.drift == "unknown"  # a page that is all hidden is an end
    else:
        assert visible == ids


@given(
    at=st.sets(st.sampled_from(range(0, 60, 8)), max_size=4),
    times=st.integers(1, 2),
    **any_order,
)
@settings(max_examples=examples(200))
def test_transient_empty_page_is_asked_for_again(at, times, **options):
    """A page that comes empty once or twice below count is asked for until it comes."""
    server = Server(names(60), empties=dict.fromkeys(at, times))

    ids, report = read(server, **options)

    assert names(60) == ids
    assert times * len(at) == report.re_reads
    assert ("repaired" if at else "exact") == report.drift


@given(total=st.integers(11, 60), on_drift=st.sampled_from(["repair", "ignore"]), **any_order)
@settings(max_examples=examples(200))
def test_offset_that_stays_empty_is_read_around(total, on_drift, **options):
    """A page that never comes is bridged from beside it; without overlap its rows are missed."""
    server = Server(names(total), empties={8: 10**9, 10: 10**9})

    ids, report = read(server, on_drift=on_drift, **options)

    if on_drift == "repair":
        assert names(total) == ids
        assert "repaired" == report.drift
    else:
        assert [row for row in names(total) if not 10 <= int(row[1:]) < 20] == ids
        assert "unknown" == report.drift


@given(total=st.integers(0, 80), chance=st.integers(0, 2**32), cap=st.integers(1, 15), **any_order)
@settings(max_examples=examples(500))
def test_moving_list_ends_and_repeats_nothing(total, chance, cap, **options):
    """A list that changes with every answer ends, in whole or in a `DriftError`; no id twice."""
    server = Server(names(total), changes=random.Random(chance), cap=cap)

    try:
        ids, report = read(server, **options)
    except DriftError:
        return

    assert len(ids) == len(set(ids)) == report.items
    assert report.complete


@pytest.mark.parametrize(("counts", "asked"), [(True, 50 + 2 * 20 // 8), (False, 50)])
def test_endless_list_ends_in_an_error(counts, asked, monkeypatch):
    """A list that grows with every answer is given up once no count explains its pages."""

    class Endless(Server):
        def answer(self, request):
            self.asked += 1
            rows = [f"p{request.offset + number}" for number in range(request.limit)]
            return request.offset + 20 if counts else None, rows

    server = Endless([])
    monkeypatch.setattr(requests, "UNCOUNTED_PAGES", 50)
    with pytest.raises(DriftError, match="its end never came"):
        read(server, concurrency=1)
    assert asked == server.asked


def test_pages_of_known_rows_without_end_are_an_error():
    """A list that brings nothing new, page after page, ends the batch and not the patience."""

    class Repeating(Server):
        def answer(self, request):
            self.asked += 1
            first = min(request.offset, 30)
            return 10**9, names(40)[first : first + request.limit]

    server = Repeating([])
    with pytest.raises(DriftError, match="no row of 20 pages up to position 210 was new"):
        read(server, concurrency=1)
    assert 26 == server.asked


def test_rows_repeated_within_a_page_come_once():
    """Two rows of one id in one page are one item, and one dropped duplicate."""
    ids, report = read(Server(["a", "b", "a", "c"]))

    assert ["a", "b", "c"] == ids
    assert 1 == report.duplicates_dropped


def test_overlap_is_a_hundredth_of_a_page():
    """Neighbours share five rows, a hundredth if that is more, and a quarter of a page at most."""
    given = {1: 0, 2: 1, 7: 1, 8: 2, 20: 5, 100: 5, 599: 5, 600: 6, 999: 9, 1_000: 10, 10_000: 100}

    assert given == {size: overlap_of(size, size) for size in given}
    assert [0, 0, 1, 2, 10] == [overlap_of(1_000, size) for size in (0, 1, 2, 8, 40)]
