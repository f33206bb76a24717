"""The batches of a scan share a window, and what is finished of them is not read again."""

import sys

import pytest
from conftest import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from simulated import QUERY, Server, any_order, drive, names

from ief_async import DriftError, _checkpoint
from ief_async._checkpoint import Mark, Part, ScanCheckpoint, fingerprint
from ief_async._paging.batches import Batch, Batcher, Query
from ief_async._paging.pages import PageRequest
from ief_async._paging.requests import Signal
from ief_async._paging.scan_plan import ScanPlan
from ief_async._paging.shape import PageCap
from ief_async._paging.suspects import MOST_KEPT


@given(
    sizes=st.lists(st.integers(0, 45), max_size=7),
    ordered=st.booleans(),
    **any_order,
)
@settings(max_examples=examples(300))
def test_window_is_bounded_however_slow_the_consumer(sizes, ordered, concurrency, **options):
    """In flight and undelivered pages are twice the concurrency at most; all batches come whole."""
    servers = [Server(names(size, f"{number}-")) for number, size in enumerate(sizes)]

    delivered, plan, window = drive(servers, concurrency=concurrency, ordered=ordered, **options)

    expected = [(at, row) for at, server in enumerate(servers) for row in server.rows]
    assert window <= 2 * concurrency
    assert expected == (delivered if ordered else sorted(delivered, key=lambda one: one[0]))
    assert Signal.DONE is plan.next_request()


def test_earliest_batch_may_ask_though_the_window_is_full():
    """Pages of later batches that fill the window never keep the batch waited for from asking."""
    plan = ScanPlan(concurrency=2, ordered=True, limit=10)
    plan.add(Batch(QUERY))
    first = plan.next_request()
    plan.add(Batch(QUERY))
    second = plan.next_request()
    plan.receive(second, 30, names(10), "held")
    later = plan.next_request()
    plan.receive(later, 30, names(20)[10:], "held")
    assert Signal.NOTHING_YET is plan.next_request()  # one place is kept free

    plan.receive(first, 10, (), "empty")

    assert (0, 0) == (plan.next_request().batch, plan.next_request() is Signal.DONE)


def test_answers_behind_the_end_of_a_batch_are_dropped():
    """A page that was in flight when its batch ended changes nothing."""
    plan = ScanPlan(concurrency=2, ordered=True, limit=10, count_only=True)
    plan.add(Batch(QUERY))
    request = plan.next_request()
    plan.receive(request, 30, ["a"], None)
    plan.closed = True
    plan.in_flight += 1

    plan.receive(request, 30, ["a"], None)

    assert plan.done
    assert 30 == plan.reports()[0].count


# ---- what stays of a batch -----------------------------------------------------------------------


def query(*ids):
    """Return a query of these ids."""
    return Query("deployment_ids", ids)


def begun(*batches, **options):
    """Return a plan of these batches, in pages of ten rows, and no more."""
    plan = ScanPlan(**{"limit": 10, "concurrency": 4, "ordered": True} | options)
    for ids in batches:
        plan.add(Batch(query(*ids)))
    plan.closed = True
    return plan


def asked(plan):
    """Return all requests that may be sent now."""
    requests = []
    while isinstance(request := plan.next_request(), PageRequest):
        requests.append(request)
    return requests


def work_of(action):
    """Count the lines that are executed in `_paging` until an action is done."""
    steps = 0

    def count(frame, event, _):
        nonlocal steps
        if "_paging" not in frame.f_code.co_filename:
            return None
        steps += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        action()
    finally:
        sys.settrace(before)
    return steps


def fail_one(plan):
    """Add a batch, and fail its first page, as ``on_error="collect"`` does."""
    plan.add(Batch(query(f"d{plan.added}")))
    request = plan.next_request()
    assert plan.drop(request)
    assert not plan.report_of(request.batch).complete
    plan.give_up(request.batch)


def finish_one(plan):
    """Add a batch of one page, and finish it, with a checkpoint on the way."""
    plan.add(Batch(query(f"d{plan.added}")))
    request = plan.next_request()
    plan.receive(request, 2, ["p", "q"], None)
    accepted = plan.take()
    plan.entries(accepted, 1)
    plan.acknowledge(accepted)


@pytest.mark.parametrize("one", [fail_one, finish_one])
def test_batch_costs_the_same_after_thousands(one):
    """What a batch costs does not grow with the batches before it, be they finished or failed."""
    plan = begun()
    plan.closed = False
    for _ in range(100):
        one(plan)
    early = work_of(lambda: one(plan))
    for _ in range(3_000):
        one(plan)

    assert work_of(lambda: one(plan)) < 1.2 * early
    assert not plan._plans
    assert not plan._open


def test_ids_of_a_batch_are_hashed_once(monkeypatch):
    """No checkpoint hashes an id again, be its batch finished, in hand or just asked for."""
    hashed = []
    real = _checkpoint.fingerprint
    monkeypatch.setattr(_checkpoint, "fingerprint", lambda one: hashed.append(one) or real(one))
    plan = begun(*[(f"a{number}", f"b{number}") for number in range(6)], concurrency=6)

    for request in asked(plan):
        plan.receive(request, 3, ["p", "q", "r"], None)
        accepted = plan.take()
        for rows in range(4):
            plan.entries(accepted, rows)
        plan.acknowledge(accepted)

    assert plan.complete
    assert 12 == len(hashed) == len({*hashed})


def test_batch_is_finished_with_its_last_page():
    """A checkpoint leaves out a batch once every page that was taken of it is finished with."""
    plan = begun(["d"])
    (request,) = asked(plan)
    plan.receive(request, 17, names(10), None)
    (request,) = asked(plan)
    plan.receive(request, 17, names(17)[8:], None)
    first, last = plan.take(), plan.take()

    assert plan.done
    plan.acknowledge(last)
    assert not plan.complete
    assert [Mark(17, 17, ("p15", "p16"))] == [entry.mark for entry in plan.entries()]
    plan.acknowledge(first, 4)  # it is still in hand
    assert not plan.complete
    plan.acknowledge(first)
    assert plan.complete
    assert [None] == [entry.mark for entry in plan.entries()]
    plan.acknowledge(first)  # of a batch that is finished nothing is kept
    assert plan.complete


def test_page_in_hand_is_finished_in_its_own_checkpoint():
    """The last page of a batch finishes it, if it is the only one in hand and all of it is read."""
    plan = begun(["d"])
    (request,) = asked(plan)
    plan.receive(request, 3, names(3), None)
    accepted = plan.take()

    marks = [plan.entries(accepted, rows)[0].mark for rows in range(4)]
    assert [Mark(), Mark(1, 3, ("p0",)), Mark(2, 3, ("p0", "p1")), None] == marks
    assert Mark() == plan.entries()[0].mark


def test_doubt_that_is_an_error_fails_the_batch():
    """With on_drift="raise" a batch in doubt is not complete, and a later scan begins it anew."""
    plan = begun(["d"], on_drift="raise")
    (request,) = asked(plan)
    plan.receive(request, 12, names(9), None)
    (request,) = asked(plan)
    first = plan.take()
    with pytest.raises(
        DriftError, match=r"leaves rows in doubt \(clamped, count_mismatch, short_of_count\)"
    ):
        while True:
            page = names(12)[request.offset : 11]
            plan.receive(request, 12, page, page)
            (request,) = asked(plan)

    plan.acknowledge(first)
    assert (False, "unknown") == (plan.reports()[0].complete, plan.reports()[0].drift)
    assert [Mark()] == [entry.mark for entry in plan.entries()]
    assert not plan.complete


def test_failed_batch_stays_in_the_checkpoint():
    """A batch that was given up is to be read from where its consumer has left it."""
    plan = begun(["d"], ["e"])
    first, second = asked(plan)
    plan.receive(first, 18, names(10), None)
    plan.give_up(first.batch)
    plan.receive(second, 1, ["p"], None)

    plan.acknowledge(plan.take())
    plan.acknowledge(plan.take())
    assert [Mark(10, 18, ("p8", "p9")), None] == [entry.mark for entry in plan.entries()]
    assert plan.done
    assert not plan.complete
    assert [False, True] == [report.complete for report in plan.reports()]
    assert 11 == sum(report.items for report in plan.reports())


def test_rows_that_stay_unread_are_not_counted():
    """Where an item can't be read, the rest of its page and all behind it is not delivered."""
    plan = begun(["d"], max_items=30)
    (request,) = asked(plan)
    plan.receive(request, 18, names(10), None)
    (request,) = asked(plan)
    plan.receive(request, 18, names(18)[8:], None)
    accepted = plan.take()
    plan.acknowledge(accepted, 4)

    plan.give_up(accepted.request.batch, unread=6)

    assert plan.take() is None
    assert 4 == plan.reports()[0].items
    assert [Mark(4, 18, ("p2", "p3"))] == [entry.mark for entry in plan.entries()]
    assert not plan._plans
    plan.give_up(accepted.request.batch)  # a second time it changes nothing
    assert 4 == plan.reports()[0].items


def test_rows_of_a_batch_that_was_taken_may_stay_unread_too():
    """A batch that had come to its end fails with an item of its last page, and is so reported."""
    plan = begun(["d"], ["e"], max_items=20)
    first, second = asked(plan)
    plan.receive(first, 5, names(5), None)
    accepted = plan.take()
    assert plan.reports()[0].complete

    plan.give_up(0, unread=3)

    assert (2, False) == (plan.reports()[0].items, plan.reports()[0].complete)
    plan.receive(second, 30, names(10, "q"), None)
    assert [(8, 10)] == [(one.offset, one.limit) for one in asked(plan)]  # eighteen are wanted
    assert [1, 0] == [plan.take().request.batch, accepted.request.batch]


def test_row_that_is_no_item_makes_place_for_another():
    """Where a row is left out one more may be taken, if there is a limit at all."""
    plan = begun(["d"], max_items=3)
    (request,) = asked(plan)
    plan.receive(request, 5, names(5), None)
    assert 3 == len(plan.take().positions)
    assert plan.done
    plan.closed = False
    assert not plan.wants_batch
    plan.closed = True
    plan.skip()
    assert not plan.done
    assert [3] == list(plan.take().positions)
    unlimited = begun(["d"])
    unlimited.skip()
    assert unlimited.max_items is None


def test_request_that_failed_is_not_in_flight():
    """A failed request frees its place, whether its batch still needs it or not."""
    plan = begun(["d"], ["e"])
    first, second = asked(plan)

    assert plan.drop(first)
    assert 1 == plan.in_flight
    plan.give_up(first.batch)
    assert plan.drop(second)
    assert 0 == plan.in_flight
    plan.in_flight = 1
    assert not plan.drop(first)


def test_nothing_is_taken_behind_a_batch_that_ended_the_scan():
    """Pages of later batches stay where they are, as an error comes first."""
    plan = begun(["d"], ["e"], ordered=False)
    for request in asked(plan):
        plan.receive(request, 1, [f"p{request.batch}"], request.batch)

    plan.halt(0)

    assert 0 == plan.take().page
    assert plan.take() is None
    assert not plan.has_page


def test_doubt_outlives_every_resume():
    """Pages of one row prove nothing, and a scan resumed behind them twice still says so."""
    mark = Mark()
    for rows, cap in ((names(4), 1), (names(4)[1:], 2), (names(4)[1:], 2)):
        plan = ScanPlan(limit=2, concurrency=1, ordered=False)
        plan.add(Batch(query("d"), mark))
        plan.closed = True
        (request,) = asked(plan)
        page = rows[request.offset :][: min(cap, request.limit)]
        plan.receive(request, len(rows), page, page)
        if (accepted := plan.take()) is not None:
            plan.acknowledge(accepted)
        mark = plan.entries()[0].mark

    read_to_the_end(plan, {"d": Server(names(4)[1:], cap=2)})  # p1 was never read
    assert "unknown" == plan.reports()[0].drift


# ---- what is expected, wanted and held -----------------------------------------------------------


def test_rows_are_expected_once_every_first_page_has_come():
    """What all batches count is known once each has been counted, and none is to come."""
    plan = begun("d", "e", "f")
    plan.closed = False
    first, second, third = asked(plan)
    plan.receive(first, 2, ["p0", "p1"], None)
    plan.receive(second, 25, names(10, "q"), None)
    plan.closed = True
    assert plan.expected is None
    plan.receive(third, 4, names(4, "r"), None)
    assert 31 == plan.expected
    plan.acknowledge(plan.take())
    assert 31 == plan.expected
    plan.max_items = 30
    assert 30 == plan.expected
    plan.closed = False
    assert plan.expected is None


def test_resumed_batch_expects_the_rest():
    """Rows that were read before are not expected again, be there more or fewer of them."""
    plan = ScanPlan(limit=10, concurrency=2, ordered=True)
    plan.add(Batch(query("d"), Mark(12, 25, ("p10", "p11"))))
    plan.add(Batch(query("e"), Mark(12, 25, ("q10", "q11"))))
    plan.closed = True
    first, second = asked(plan)
    assert plan.expected is None
    plan.receive(first, 30, names(20)[10:], None)
    plan.receive(second, 8, [], None)
    assert 18 + 13 == plan.expected
    later = ScanPlan(limit=10, concurrency=2, ordered=True, closed=True)
    later.add(Batch(query("d"), Mark(12, None, ("p10", "p11"))))
    later.receive(later.next_request(), 8, ["p11"], None)
    assert 0 == later.expected


def test_count_is_all_that_is_asked_for_a_count():
    """A plan of counts asks one row of each batch, and expects what that counts."""
    plan = begun("d", "e", count_only=True, limit=1)
    for request in asked(plan):
        assert 1 == request.limit
        report = plan.receive(request, 40, ["p"], None)
        assert (True, "unknown", 40) == (report.complete, report.drift, report.count)

    assert 80 == plan.expected
    assert plan.done
    assert plan.complete


@pytest.mark.parametrize(
    ("ordered", "pages"), [(True, [(0, 8, 10), (0, 16, 10)]), (False, [(0, 8, 10)])]
)
def test_batches_share_what_is_wanted(ordered, pages):
    """In order a batch may bring what those before it leave, else what all others leave."""
    plan = begun("d", "e", max_items=28, ordered=ordered)
    first, second = asked(plan)
    plan.receive(first, 25, names(10), None)
    assert pages == [(one.batch, one.offset, one.limit) for one in asked(plan)]
    plan.receive(second, 25, names(10, "q"), None)

    assert not asked(plan)
    plan.closed = False
    assert not plan.wants_batch
    plan.max_items = 36 if ordered else 29
    assert plan.wants_batch


@pytest.mark.parametrize(("count", "page"), [(25, (0, 8, 6)), (3, (1, 0, 10))])
def test_less_than_a_page_is_not_asked_for_while_a_count_is_to_come(count, page):
    """Whether another batch is needed for fourteen rows shows with the count of the first one."""
    plan = begun("d", "e", max_items=14, concurrency=2)
    (first,) = asked(plan)
    plan.receive(first, count, names(min(count, 10)), None)

    assert [page] == [(one.batch, one.offset, one.limit) for one in asked(plan)]


def test_window_holds_what_is_asked_for_and_what_came():
    """Pages that were not taken count as much as requests; the driver sees each of them once."""
    plan = begun("d", concurrency=2)
    (request,) = asked(plan)
    plan.receive(request, 60, names(10), "a")
    second, third = asked(plan)
    plan.receive(third, 60, names(30)[16:26], "c")
    (fourth,) = asked(plan)
    plan.receive(fourth, 60, names(40)[24:34], "d")

    assert ["c", "d", "a"] == list(plan.pages())
    plan.closed = False
    assert not plan.wants_batch
    plan.closed = True
    assert not asked(plan)  # one place is kept for what is waited for
    plan.receive(second, 60, names(20)[8:18], "b")
    assert ["a", "b", "c", "d"] == list(plan.pages())
    assert plan.ids_bytes > 0
    assert not asked(plan)
    assert "a" == plan.take().page
    assert 1 == len(asked(plan))


def test_ids_are_freed_before_the_pages_are_taken():
    """A batch that was read to its end needs no ids, though its consumer is slow."""
    plan = begun("d")
    (request,) = asked(plan)
    plan.receive(request, 12, names(10), None)
    (request,) = asked(plan)
    (batch,) = plan._open
    assert 10 == len(batch.chain.ids)
    plan.receive(request, 12, names(12)[8:], None)

    assert batch.complete
    assert 0 == len(batch.chain.ids)
    assert 2 == len(batch.delivery.ready)


def test_batches_that_ended_hold_no_ids():
    """What tells rows apart is freed with the batch, and in the end with the last suspects too."""
    plan = begun("d", "e", "f", concurrency=1)
    suspects = plan._suspects
    read_to_the_end(plan, {"d": Server(names(3)), "e": Server(names(30, "q")), "f": Server(["r"])})

    assert 0 == plan.ids_bytes
    assert ["d"] == ["".join(one.query.ids) for one in suspects.kept]
    (kept,) = suspects.kept
    assert 3 == len(kept.chain.ids)
    later = begun("d", "e", "f", concurrency=1)
    plans = list(later._open)
    servers = {"d": Server(names(3)), "e": Server(names(4, "q")), "f": Server(names(2, "r"))}
    read_to_the_end(later, servers)
    assert [0, 4, 0] == [len(one.chain.ids) for one in plans]


# ---- too many ids, and the end that was none -----------------------------------------------------


def test_smallest_refused_batch_is_what_is_too_large():
    """Once five ids were refused five are too many, though six were refused later."""
    plan = begun("abcde", "fghijk")
    five, six = asked(plan)

    assert plan.halve_batch(five)
    assert 1 == plan.in_flight
    assert plan.halve_batch(six)
    assert 0 == plan.in_flight
    plan.closed = False
    plan.add(Batch(query(*"lmnop")))
    plan.add(Batch(query(*"qrst")))

    asked_for = sorted("".join(report.ids) for report in plan.reports())
    assert ["ab", "cde", "fgh", "ijk", "lm", "nop", "qrst"] == asked_for
    assert asked_for == ["".join(report.ids) for report in plan.reports()]
    assert asked_for == ["".join(plan.query.ids) for plan in plan._open]
    assert 7 == plan.added == len(plan.entries())


def test_two_ids_are_asked_for_one_by_one():
    """The smallest batch that can be split has two ids."""
    plan = begun("ab")
    (request,) = asked(plan)

    assert plan.halve_batch(request)
    assert [("a",), ("b",)] == [report.ids for report in plan.reports()]


def test_batch_that_has_rows_is_not_split():
    """A batch of which rows came, and a single id, can't be asked in halves."""
    plan = begun("ab", "c")
    first, second = asked(plan)
    plan.receive(first, 30, names(10), None)
    (more, *_) = asked(plan)

    assert not plan.halve_batch(more)
    assert not plan.halve_batch(second)
    assert 4 == plan.in_flight


def test_answer_to_a_batch_that_was_split_is_dropped():
    """What was asked before the split belongs to none of the halves."""
    plan = begun("abcd")
    (request,) = asked(plan)
    plan.halve_batch(request)
    plan.in_flight += 1

    assert plan.receive(request, 1, ["p"], None) is None
    assert [0, 0] == [report.items for report in plan.reports()]


def read_to_the_end(plan, servers):
    """Answer all requests in turn, and finish what comes; return the rows."""
    rows = []
    while requests := asked(plan):
        for request in requests:
            count, page = servers[request.query.ids[0]].answer(request)
            plan.receive(request, count, page, page)
        while (accepted := plan.take()) is not None:
            rows += [accepted.page[at] for at in accepted.positions]
            plan.acknowledge(accepted)
    return rows


def test_batch_that_was_finished_is_read_on_when_the_cap_shows():
    """Three rows counted as all were not, as a later batch shows that three are a page."""
    servers = {"d": Server(names(8), cap=3, count=3), "e": Server(names(5, "q"), cap=3)}
    plan = begun("d", "e", concurrency=1)

    rows = read_to_the_end(plan, servers)

    assert [*names(8), *names(5, "q")] == rows
    assert plan.complete
    assert [8, 5] == [report.items for report in plan.reports()]
    assert "unknown" not in [report.drift for report in plan.reports()]


def test_cap_that_another_scan_has_shown_is_noticed():
    """Two scans of a session share what they know of a list's pages, at any time."""
    cap = PageCap()
    plan = begun("d", "e", concurrency=1, cap=cap)
    (request,) = asked(plan)
    plan.receive(request, 3, names(3), names(3))
    plan.acknowledge(plan.take())
    cap.note(3, shows=True)

    servers = {"d": Server(names(8), cap=3), "e": Server(["q"])}
    assert "exact" == plan.reports()[0].drift
    (request,) = asked(plan)
    plan.receive(request, 1, ["q"], ["q"])
    assert ("unknown", False) == (plan.reports()[0].drift, plan.reports()[0].complete)
    assert [*names(8)[3:], "q"] == read_to_the_end(plan, servers)


def test_only_the_latest_suspects_are_read_on():
    """Of many batches that end alike the last ones are kept; of the others the doubt is told."""
    plan = begun(*[(f"d{number}",) for number in range(MOST_KEPT + 6)], "e", concurrency=1)
    servers = {f"d{number}": Server(names(3, f"{number}-")) for number in range(MOST_KEPT + 6)}

    read_to_the_end(plan, servers | {"e": Server(names(5, "q"), cap=3)})

    reports = plan.reports()
    assert 6 * ["unknown"] == [report.drift for report in reports[:6]]
    assert all(report.flags == ("clamped",) for report in reports[:6])
    assert all(report.drift != "unknown" for report in reports[6:])
    assert plan.complete
    assert 1 == len(plan.entries())


def test_longer_page_clears_the_suspicion():
    """Pages that are shorter than another one were not cut, whatever is shown later."""
    servers = {"d": Server(names(3), cap=3, count=3), "e": Server(names(4, "q"))}
    plan = begun("d", "e", "f", concurrency=1)

    read_to_the_end(plan, servers | {"f": Server(names(9, "r"), cap=4)})

    assert ["exact"] * 3 == [report.drift for report in plan.reports()]
    assert [3, 4, 9] == [report.items for report in plan.reports()]


# ---- at any time --------------------------------------------------------------------------------

IDS = ("d0", "d1")


def rows_of(accepted):
    """Return the new rows of a page, each with the id that it was asked for by."""
    return [(accepted.request.query.ids[0], accepted.page[at]) for at in accepted.positions]


class MovingList(RuleBasedStateMachine):
    """A list that changes at any time, read by two batches that are answered at any time.

    Its consumer has one page in hand, and may stop and be resumed at any time.
    """

    @initialize(
        total=st.integers(0, 60),
        limit=st.integers(2, 12),
        concurrency=st.integers(1, 4),
        ordered=st.booleans(),
        max_items=st.none() | st.integers(1, 40),
    )
    def begin(self, total, **options):
        """Start to read a list of this many rows, twice."""
        self.rows = names(total)
        self.survivors = set(self.rows)
        self.cap = 10**9
        self.inserted = 0
        self.options = options
        self.finished = set()  # what a consumer before this one has finished with
        self.scan(None)

    def scan(self, checkpoint):
        """Begin a scan, or go on with one."""
        batcher = Batcher(selector="deployment_ids", size=1, fixed_bytes=0, resume=checkpoint)
        self.plan = ScanPlan(**self.options)
        for batch in [one for identity in IDS for one in batcher.add(identity)] + batcher.flush():
            self.plan.add(batch)
        self.plan.closed = True
        self.in_flight, self.items, self.refused, self.hand = [], [], False, None
        self.go_on()

    def go_on(self):
        """Take what is ready, and ask for what may be asked for."""
        while (accepted := self.plan.take()) is not None:
            self.items += rows_of(accepted)
            if self.hand is not None:
                self.plan.acknowledge(self.hand)
            self.hand = accepted
        while isinstance(request := self.plan.next_request(), PageRequest):
            self.in_flight.append(request)

    @precondition(lambda self: not self.refused)
    @rule(part=st.floats(0, 1))
    def resume(self, part):
        """Stop here, with a part of the page in hand finished, and go on in another plan."""
        hand = [] if self.hand is None else rows_of(self.hand)
        rows = round(part * len(hand))
        checkpoint = ScanCheckpoint(
            scan=1, parts=(Part(fingerprint(IDS[0]), self.plan.entries(self.hand, rows)),)
        )
        self.finished |= {*self.items} - {*hand[rows:]}
        self.scan(ScanCheckpoint.from_json(checkpoint.to_json()))

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 3), empty=st.booleans())
    def answer(self, which, empty):
        """Answer one of the requests in flight by what the list is now, or by no row of it."""
        request = self.in_flight.pop(which % len(self.in_flight))
        page = [] if empty else self.rows[request.offset :][: min(request.limit, self.cap)]
        try:
            self.plan.receive(request, len(self.rows), page, page)
            self.go_on()
        except DriftError:
            self.in_flight, self.refused = [], True

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 3))
    def fail(self, which):
        """Fail one of the requests in flight: its page is asked for in halves."""
        request = self.in_flight[which % len(self.in_flight)]
        if self.plan.halve_page(request):
            self.in_flight.remove(request)
            self.go_on()

    @rule(at=st.integers(0, 60), number=st.integers(1, 9))
    def insert(self, at, number):
        """Put new rows in."""
        new = range(self.inserted, self.inserted + number)
        self.rows[at:at] = [f"new{one}" for one in new]
        self.inserted += number

    @rule(at=st.integers(0, 60), number=st.integers(1, 20))
    def delete(self, at, number):
        """Take rows out."""
        self.survivors.difference_update(self.rows[at : at + number])
        del self.rows[at : at + number]

    @rule(cap=st.integers(1, 12))
    def clamp(self, cap):
        """Let the server give fewer rows a page, or more again."""
        self.cap = cap

    @invariant()
    def holds(self):
        """What is whole and not in doubt has every survivor, and nothing comes twice."""
        if not hasattr(self, "plan") or self.refused:
            return
        assert len(self.items) == len(set(self.items))
        assert self.in_flight or self.plan.done, "there is nothing to wait for"
        assert len(self.items) <= (self.plan.max_items or len(self.items))
        if len(self.items) == self.plan.max_items:
            return
        for report in self.plan.reports():
            if self.plan.ordered and not report.complete:
                break  # what comes behind it waits for it
            if report.complete and report.drift != "unknown":
                seen = {*self.finished, *self.items}
                assert self.survivors <= {row for one, row in seen if one == report.ids[0]}

    def teardown(self):
        """Let the list stand still, and read it to its end."""
        for _ in range(2_000):
            if not getattr(self, "in_flight", None):
                break
            self.answer(0, empty=False)
            self.holds()
        assert not getattr(self, "in_flight", None), "it never ends"


MovingList.TestCase.settings = settings(
    max_examples=examples(1_000),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


TestMovingList = MovingList.TestCase
