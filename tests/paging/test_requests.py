"""Which pages are asked for, one after the other, and what is said in the end.

Pages are of ten rows, so they overlap by two, and neighbours are eight apart. A change happens just
before the answer of that number.
"""

import pytest
from conftest import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from simulated import QUERY, Server, names

from ief_async import DriftError
from ief_async._checkpoint import Mark
from ief_async._paging.batches import Batch
from ief_async._paging.pages import PageRequest
from ief_async._paging.scan_plan import ScanPlan
from ief_async._paging.shape import PageCap

EVER = 99


def delete(start, stop):
    """Delete these rows."""
    return lambda server: server.rows.__delitem__(slice(start, stop))


def insert(at, rows):
    """Insert so many rows."""
    return lambda server: server.rows.__setitem__(slice(at, at), names(rows, "new"))


def move(start, to):
    """Move a row."""
    return lambda server: server.rows.insert(to, server.rows.pop(start))


def cap(rows):
    """Let pages be shorter from now on."""
    return lambda server: setattr(server, "cap", rows)


def ask(rows, *, changes=None, cached=(), mark=None, **options):
    """Read a list; return the offsets that were asked for, the rows that came, and the report.

    An offset stands with its limit where that is not ten. A request in `cached` is answered by the
    head of the list.
    """
    of_server = {name: options.pop(name) for name in ("cap", "count", "hidden") if name in options}
    empties = dict(options.pop("empties", {}))
    server = Server(list(rows), empties=empties, **of_server)
    plan = ScanPlan(**{"limit": 10, "concurrency": 1, "ordered": True} | options)
    plan.add(Batch(QUERY, mark))
    plan.closed = True
    asked, came = [], []
    while isinstance(request := plan.next_request(), PageRequest):
        asked.append(request.offset if request.limit == 10 else (request.offset, request.limit))
        if changes and len(asked) in changes:
            changes[len(asked)](server)
        count, page = server.answer(request)
        if len(asked) in cached:
            page = server.rows[: request.limit]
        plan.receive(request, count, page, page)
        while (accepted := plan.take()) is not None:
            came += [accepted.page[at] for at in accepted.positions]
            plan.acknowledge(accepted)
    return asked, came, plan.reports()[0]


CALM = {
    "empty": ([], {}, [0, 0], "exact", ()),
    "one page": (names(5), {}, [0], "exact", ()),
    "one full page": (names(10), {}, [0, 8], "exact", ()),
    "three pages": (names(25), {}, [0, 8, 16], "exact", ()),
    "strides that fit": (names(18), {}, [0, 8, 16], "exact", ()),
    "pages of five": (names(12), {"cap": 5}, [0, 4, 8], "exact", ("clamped",)),
    "pages of one": (names(3), {"cap": 1}, [0, 1, 2], "unknown", ("clamped", "no_overlap")),
    "no count": (names(25), {"count": "none"}, [0, 8, 16], "exact", ()),
    "count too low": (names(25), {"count": 20}, [0, 8, 16], "exact", ("count_mismatch",)),
    "count of zero": (names(25), {"count": 0}, [0, 8, 16], "exact", ("count_mismatch",)),
    "count of the page": (
        names(25),
        {"count": "page"},
        [0, 8, 16, 0],
        "repaired",
        ("count_mismatch",),
    ),
    "count too high": (
        names(25),
        {"count": 30},
        [0, 8, 16, 24, 25, 25, 25],
        "unknown",
        ("count_mismatch", "short_of_count"),
    ),
    "limit ignored": (
        names(24),
        {"changes": {1: lambda server: setattr(server, "ignores", "limit")}},
        [0, 19],
        "exact",
        ("limit_ignored",),
    ),
    "an id twice": (["a", "b", "a", *names(20)], {}, [0, 8, 16], "exact", ("repeated_rows",)),
    "unchecked": (names(25), {"on_drift": "ignore"}, [0, 10, 20], "unknown", ("unchecked",)),
    "a row hidden on each page": (
        names(30),
        {"hidden": {"p3", "p12"}},
        [0, 7, 14, 21, 28, 0],
        "unknown",
        ("clamped", "short_of_count"),
    ),
}


@pytest.mark.parametrize(("rows", "options", "asked", "drift", "flags"), CALM.values(), ids=CALM)
def test_list_that_stands_still(rows, options, asked, drift, flags):
    """A list that does not move takes these requests, and no row of it is missing."""
    offsets, came, report = ask(rows, **options)

    assert (asked, drift, flags) == (offsets, report.drift, report.flags)
    assert [row for row in dict.fromkeys(rows) if row not in options.get("hidden", ())] == came
    assert (len(came), bool(rows) and len(offsets) > len({*offsets})) == (
        report.items,
        report.re_reads > 0,
    )


MOVING = {
    "a delete": ({3: delete(0, 1)}, {}, [0, 8, 16, 24, 0], 1, 0),
    # to the left of 16, in steps that double; then behind what is joined
    "deletes beyond the overlap": ({3: delete(0, 15)}, {}, [0, 8, 16, 6, 0, 8], 2, 0),
    "deletes of all but a page": ({4: delete(0, 20)}, {}, [0, 8, 16, 24, 1, 0], 2, 0),
    "inserts at the head": ({2: insert(0, 3)}, {}, [0, 8, 16, 24, 0], 1, 3),
    # the head again, until a row of the old head is known
    "more inserts than a page": (
        {2: insert(0, 1), 4: insert(0, 25)},
        {},
        [0, 8, 16, 24, 32, 40, 48, 0, 8, 16, 24],
        4,
        24,
    ),
    "all rows deleted": ({2: delete(0, 30)}, {}, [0, 8, 0, 0], 1, 0),
    "the end deleted": ({3: delete(16, 30)}, {}, [0, 8, 16, 7, 0], 2, 0),
    "empty for a while": ({}, {"empties": {8: 2}}, [0, 8, 8, 8, 16, 24], 2, 0),
    "empty for ever": ({}, {"empties": {8: EVER}}, [0, 8, 8, 8, 8, 0, 1, 9, 17, 25], 5, 0),
    "page 0 from a cache": ({}, {"cached": {2}}, [0, 8, 16, 8, 24, 0], 2, 8),
    "pages get shorter": ({3: cap(4)}, {}, [0, 8, 16, 24, 19, 22, 27], 2, 0),
}


@pytest.mark.parametrize(
    ("changes", "options", "asked", "re_reads", "dropped"), MOVING.values(), ids=MOVING
)
def test_list_that_moves(changes, options, asked, re_reads, dropped):
    """What it takes to have all rows that stayed, of thirty, is asked for and counted."""
    offsets, came, report = ask(names(30), changes=changes, **options)

    assert (asked, "repaired") == (offsets, report.drift)
    assert (re_reads, dropped) == (report.re_reads, report.duplicates_dropped)
    assert (report.page_size_seen < 10) == ("clamped" in report.flags)
    assert len(came) == len({*came}) == report.items


def test_long_walk_goes_between_what_is_joined_and_what_is_not():
    """A gap in a long list is closed from both sides, and then the list is read on."""
    offsets, came, report = ask(names(50), changes={3: delete(0, 15)})

    assert [0, 8, 16, 8, 0, 4, 12, 24, 32] == offsets
    assert names(50) == sorted(came, key=lambda row: int(row[1:]))
    assert ("repaired", 4) == (report.drift, report.re_reads)


def test_head_that_a_walk_has_read_is_not_read_again():
    """A walk that came to the head of the list has seen what jumped there."""
    offsets, _, report = ask(names(60), empties={8: EVER}, concurrency=4)

    assert [0, 8, 8, 8, 8, 0] == offsets[:6]
    assert 2 == offsets.count(0)
    assert "repaired" == report.drift


DOUBTFUL = {
    "a gap, not repaired": (
        {"changes": {3: delete(0, 15)}, "on_drift": "report"},
        [0, 8, 16, 24, 32],
        ("gap",),
    ),
    "no end, not looked for": (
        {"changes": {3: delete(16, 50)}, "on_drift": "report"},
        [0, 8, 16],
        ("unproven",),
    ),
    "a page without overlap that stays empty": (
        {"empties": {10: EVER}, "on_drift": "ignore"},
        [0, 10, 10, 10, 20, 10, 30, 40],
        ("gap", "unchecked"),
    ),
    "the last page without overlap stays empty": (
        {"empties": {40: EVER, 41: EVER, 49: EVER}, "on_drift": "ignore"},
        [0, 10, 20, 30, 40, 40, 40],
        ("unchecked",),
    ),
    "the last page of one row stays empty": (
        {"empties": {3: EVER}, "limit": 1, "count": 4},
        [(0, 1), (1, 1), (2, 1), *[(3, 1)] * 3],
        ("count_mismatch", "short_of_count", "no_overlap"),
    ),
    # where one page is empty for ever the next one may be there; where that is empty too, none is
    "pages of one row end below their count": (
        {"limit": 1, "count": 60},
        [*[(at, 1) for at in range(50)], *[(50, 1)] * 3, *[(51, 1)] * 3],
        ("count_mismatch", "short_of_count", "no_overlap"),
    ),
    "a page of one row stays empty": (
        {"empties": {48: EVER}, "limit": 1},
        [*[(at, 1) for at in range(48)], *[(48, 1)] * 3, (49, 1), (48, 1), (0, 1)],
        ("gap", "short_of_count", "no_overlap"),
    ),
    "enough items of an unknown number": (
        {"max_items": 12, "count": "none"},
        [0, (8, 4)],
        (),
    ),
    "enough items": ({"max_items": 12}, [0, (8, 4)], ()),
    "few items": ({"max_items": 4}, [(0, 4)], ()),
}


@pytest.mark.parametrize(("options", "asked", "flags"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_list_of_which_rows_may_be_missing(options, asked, flags):
    """Where the rest is not wanted, or can't be had, no more than this is asked for."""
    offsets, _, report = ask(names(50), **options)

    assert (asked, "unknown", flags) == (offsets, report.drift, report.flags)


RESUMED = {
    "as it was": (names(25), ("p10", "p11"), [10, 18], names(25)[12:], "exact"),
    "at its end": (names(12), ("p10", "p11"), [10], [], "repaired"),
    "moved to the left": (names(25)[5:], ("p10", "p11"), [10, 2, 18], names(25)[12:], "repaired"),
    "without its anchors": (
        [*names(9), *names(25)[14:]],
        ("p10", "p11"),
        [10, 2, 0, 8, 18],
        [*names(9), *names(25)[14:]],
        "repaired",
    ),
    "without anchors": (names(25), (), [12, 20], names(25)[12:], "unknown"),
    "shrunk": (names(5), ("p10", "p11"), [10, 10, 2, 0], names(5), "repaired"),
    "all gone": ([], ("p10", "p11"), [10, 10, 2, 0, 0], [], "repaired"),
}


@pytest.mark.parametrize(
    ("rows", "anchors", "asked", "new", "drift"), RESUMED.values(), ids=RESUMED
)
def test_list_that_is_resumed(rows, anchors, asked, new, drift):
    """A batch goes on behind its twelfth row, from its anchors, if they are still there."""
    offsets, came, report = ask(rows, mark=Mark(12, 25, anchors))

    assert (asked, drift) == (offsets, report.drift)
    assert {*new} <= {*came}
    assert len(came) == len({*came})


def test_resumed_list_that_hides_rows_is_in_doubt():
    """Rows that a resumed batch should have brought by its count, and did not, are missed."""
    _, came, report = ask(names(25), mark=Mark(12, 25, ("p10", "p11")), hidden={"p15"})

    assert {*names(25)[12:]} - {"p15"} <= {*came}
    assert ("unknown", True) == (report.drift, "short_of_count" in report.flags)


def test_resumed_list_brings_what_is_wanted():
    """What was read before is not part of what is wanted now."""
    offsets, came, _ = ask(names(60), mark=Mark(12, 60, ("p10", "p11")), max_items=21)

    assert [10, 18, (26, 7)] == offsets
    assert names(33)[12:] == came


def test_rows_that_change_places_are_counted():
    """Where rows changed places no page proves anything, but as many as are counted are all."""
    offsets, came, report = ask(names(26), changes={2: move(8, 9)})

    assert [0, 8, 16] == offsets
    assert {*names(26)} == {*came}
    assert ("repaired", ("order", "counted")) == (report.drift, report.flags)


def test_sweep_ends_with_the_last_counted_row():
    """A list that is turned round at every answer is read again until all its rows came."""
    changes = dict.fromkeys(range(1, 99), lambda server: server.rows.reverse())
    offsets, came, report = ask(names(40), changes=changes)

    assert [0, 8, 0, 8, 1, 9, 5, 13, 9, 17, 16, 24, 32] == offsets
    assert {*names(40)} == {*came}
    assert ("repaired", ("order", "counted")) == (report.drift, report.flags)


def test_list_without_an_order_is_swept_three_times():
    """Where a counted row never comes the list is read again three times, and no more."""
    offsets, came, report = ask(names(40), changes={2: move(8, 9)}, hidden={"p1"})

    assert 4 * [0, 7, 14, 21, 28, 35] == offsets
    assert 39 == len(came)
    assert ("unknown", 18) == (report.drift, report.re_reads)
    assert ("clamped", "order", "short_of_count") == report.flags


def test_one_page_from_a_cache_is_no_error():
    """The first page behind page 0 may be page 0 once more; the second time it is an error."""
    _, came, report = ask(names(30), cached={2})
    assert (names(30), "repaired") == (sorted(came, key=lambda row: int(row[1:])), report.drift)

    with pytest.raises(DriftError, match="offset 16 brought the same 10 ids as offset 0"):
        ask(names(30), cached={2, 3})


def test_pages_shorter_than_the_overlap_are_noticed():
    """A page that brings nothing new is looked behind, and then pages of its length are read."""
    offsets, came, report = ask(names(20), changes={2: cap(2)})

    assert [0, 8, 10, *range(9, 20)] == offsets
    assert names(20) == came
    assert (2, ("clamped",), "exact") == (report.page_size_seen, report.flags, report.drift)


def test_pages_ahead_are_asked_for_once_two_have_come():
    """Where no count helps one page is asked for, then as many as may be in flight."""
    plan = ScanPlan(limit=10, concurrency=4, ordered=True)
    plan.add(Batch(QUERY))
    request = plan.next_request()
    for ahead in ([8], [16, 24, 32, 40]):
        plan.receive(request, None, names(50)[request.offset :][:10], None)
        plan.acknowledge(plan.take())
        request, *others = (plan.next_request() for _ in ahead)
        assert ahead == [one.offset for one in (request, *others)]
        assert not isinstance(plan.next_request(), PageRequest)


def test_pages_that_wait_at_the_end_are_delivered():
    """Rows that went while the list was read come all the same, as they had been answered."""
    plan = ScanPlan(limit=10, concurrency=4, ordered=True)
    plan.add(Batch(QUERY))
    plan.closed = True
    plan.receive(plan.next_request(), 30, names(10), names(10))
    second, third, fourth = (plan.next_request() for _ in range(3))
    plan.receive(fourth, 30, names(30)[24:], names(30)[24:])
    plan.receive(third, 30, names(26)[16:], names(26)[16:])
    plan.receive(second, 10, names(10)[8:], names(10)[8:])
    head = plan.next_request()
    plan.receive(head, 10, names(10), names(10))

    pages = []
    while (accepted := plan.take()) is not None:
        pages.append([accepted.page[at] for at in accepted.positions])
        assert (accepted.resumable_after is None) == (accepted.request.offset > 8)
    assert [names(10), names(26)[16:], names(30)[26:]] == pages
    assert (0, "repaired") == (head.offset, plan.reports()[0].drift)


def test_later_pages_from_a_cache_are_no_error():
    """Once another page has come, page 0 in the place of some more is bridged."""
    _, came, report = ask(names(40), cached={3, 4})

    assert {*names(40)} == {*came}
    assert "repaired" == report.drift


def test_row_that_moves_to_where_it_is_read_again_is_no_error():
    """Pages of one row that all hold the same one may come of inserts."""
    changes = {2: insert(0, 1), 3: insert(0, 1)}
    _, came, report = ask(names(5), limit=1, changes=changes)

    assert {*names(5)} <= {*came}
    assert "unknown" == report.drift


def test_id_on_two_pages_is_a_sign_of_a_change():
    """A row that was known comes where a new one should be: the head is read again."""
    offsets, came, report = ask([*names(12), "p0", *names(22)[12:]])

    assert [0, 8, 16, 0] == offsets
    assert names(22) == came
    assert ("unknown", ("short_of_count",)) == (report.drift, report.flags)


def test_rows_with_one_id_count_as_two():
    """A list that has an id twice is whole by its count, though its rows change places."""
    rows = ["a", "b", "a", *names(20)]
    _, came, report = ask(rows, changes={2: move(8, 9)})

    assert {*rows} == {*came}
    assert ("repeated_rows", "order", "counted") == report.flags


def test_what_is_behind_a_cut_page_is_asked_for():
    """A page as long as the cap is not the last one, even if it is counted as that."""
    plan = ScanPlan(
        limit=20, concurrency=1, ordered=True, max_items=2, cap=PageCap(longest=5, shown=True)
    )
    plan.add(Batch(QUERY))
    plan.closed = True
    request = plan.next_request()
    assert (0, 2) == (request.offset, request.limit)
    plan.receive(request, 7, names(2), None)
    plan.acknowledge(plan.take())
    plan.max_items = 40
    second = plan.next_request()
    rows = names(20)[second.offset :][:5]
    plan.receive(second, second.offset + 5, rows, None)
    plan.acknowledge(plan.take())

    third = plan.next_request()
    assert second.offset + 4 == third.offset
    assert 5 == plan.reports()[0].page_size_seen


def test_page_that_is_too_slow_is_asked_for_in_halves():
    """Two halves take the place of a page, and pages of half its size come after them."""
    plan = ScanPlan(limit=10, concurrency=1, ordered=True)
    plan.add(Batch(QUERY))
    first = plan.next_request()
    assert plan.halve_page(first)
    first = plan.next_request()
    assert (0, 5) == (first.offset, first.limit)
    plan.receive(first, 30, names(5), None)
    second = plan.next_request()
    assert (4, 5) == (second.offset, second.limit)
    assert plan.halve_page(second)
    for offset, limit in ((4, 3), (6, 3)):
        half = plan.next_request()
        assert (offset, limit) == (half.offset, half.limit)
        plan.receive(half, 30, names(30)[offset : offset + limit], None)
        plan.acknowledge(plan.take())
    later = plan.next_request()
    assert (8, 3) == (later.offset, later.limit)
    single = PageRequest(0, QUERY, 0, 1)
    assert not plan.halve_page(single)


@given(
    total=st.integers(0, 60),
    most=st.integers(1, 70),
    concurrency=st.integers(1, 5),
    limit=st.integers(1, 12),
)
@example(total=60, most=30, concurrency=4, limit=10)
@settings(max_examples=examples(200))
def test_no_more_is_asked_for_than_is_wanted(total, most, concurrency, limit):
    """Whatever is wanted of a calm list comes, in pages that hold no more than that."""
    offsets, came, _ = ask(names(total), max_items=most, concurrency=concurrency, limit=limit)

    assert names(total)[:most] == came
    ends = [sum(one) if isinstance(one, tuple) else one + 10 for one in offsets]
    assert max(ends) <= most + 1 or len(offsets) == len(came) == total or total < most
