"""The planner without a network: lists, a server that answers in any order, a patient consumer."""

import random

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ief_async import ConfigurationError, DriftError
from ief_async._paging.batches import URL_BYTES, Batch, Batcher, Query, url_bytes
from ief_async._paging.pages import PageRequest
from ief_async._paging.requests import UNCOUNTED_PAGES, Signal
from ief_async._paging.scan_plan import ScanPlan
from ief_async._paging.shape import requests_for

QUERY = Query("deployment_ids", ("d",))


def names(count, prefix="p"):
    """Return this many ids."""
    return [f"{prefix}{number}" for number in range(count)]


@attrs.define
class Server:
    """A list, and the ways in which a server may answer for it."""

    rows: list[str]
    cap: int = 10**9
    count: object = "true"  # "true", "none", "page", or the number that is always said
    hidden: frozenset[str] = frozenset()  # cut out of every slice after it was made
    ignores: str = ""  # "offset" or "limit"
    empties: dict[int, int] = attrs.field(factory=dict)  # offset -> how often it comes empty
    changes: random.Random | None = None  # if given, rows come and go between the answers
    asked: int = 0

    def answer(self, request):
        """Answer as the service does: what is counted, and a slice of the list."""
        self.asked += 1
        self.change()
        limit = 10**9 if self.ignores == "limit" else min(request.limit, self.cap)
        offset = 0 if self.ignores == "offset" else request.offset
        page = [row for row in self.rows[offset : offset + limit] if row not in self.hidden]
        if self.empties.get(request.offset, 0) > 0:
            self.empties[request.offset] -= 1
            page = []
        said = {"true": len(self.rows), "none": None, "page": len(page)}
        return said.get(self.count, self.count), page

    def change(self):
        """Delete a row or insert one, at a random place."""
        if self.changes is not None:
            place = self.changes.randrange(len(self.rows) + 1)
            if self.changes.random() < 0.5:
                self.rows[place:place] = [f"new{self.asked}"]
            else:
                del self.rows[place : place + 1]


def drive(servers, *, seed=0, patience=1.0, **options):
    """Scan these lists; return (batch, id) as delivered, the plan, and the widest window."""
    chance = random.Random(seed)
    plan = ScanPlan(**{"limit": 10, "concurrency": 4, "ordered": True} | options)
    in_flight, lists, delivered, window = [], iter(servers), [], 0
    while not plan.done:
        while isinstance(request := plan.next_request(), PageRequest):
            in_flight.append(request)
        assert len(in_flight) <= plan.concurrency
        window = max(window, len(in_flight) + plan._open.held)
        if plan.wants_batch:
            if next(lists, None) is None:
                plan.closed = True
            else:
                plan.add(Batch(QUERY))
        elif in_flight and (plan._next_ready() is None or chance.random() < patience):
            request = in_flight.pop(chance.randrange(len(in_flight)))
            count, page = servers[request.batch].answer(request)
            plan.receive(request, count, page, page)
        else:
            accepted = plan.take()
            assert accepted is not None, "nothing in flight, nothing ready, and not at the end"
            plan.acknowledge(accepted)
            delivered += [(accepted.request.batch, accepted.page[at]) for at in accepted.positions]
    return delivered, plan, window


def read(server, **options):
    """Scan one list; return the ids in the order of their delivery, and the report."""
    delivered, plan, _ = drive([server], **options)
    return [row for _, row in delivered], plan.reports()[0]


any_order = {
    "concurrency": st.integers(1, 6),
    "seed": st.integers(0, 2**32),
    "patience": st.sampled_from([0.1, 0.5, 1.0]),
}


@given(
    total=st.integers(0, 70),
    limit=st.integers(1, 12),
    cap=st.integers(1, 15),
    count=st.sampled_from(["true", "none"]),
    **any_order,
)
@settings(max_examples=400, deadline=None)
def test_calm_list_comes_whole_and_in_order(total, cap, count, **options):
    """A list that stands still comes once, in order, whatever the cap and the order of answers."""
    ids, report = read(Server(names(total), cap=cap, count=count), **options)

    assert names(total) == ids
    assert report.complete
    assert (total, 0) == (report.items, report.duplicates_dropped)


@given(total=st.integers(0, 95), limit=st.integers(1, 12), **any_order)
@settings(max_examples=200, deadline=None)
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
    sizes=st.lists(st.integers(0, 45), max_size=7),
    ordered=st.booleans(),
    **any_order,
)
@settings(max_examples=300, deadline=None)
def test_window_is_bounded_however_slow_the_consumer(sizes, ordered, concurrency, **options):
    """In flight and undelivered pages are twice the concurrency at most; all batches come whole."""
    servers = [Server(names(size, f"{number}-")) for number, size in enumerate(sizes)]

    delivered, plan, window = drive(servers, concurrency=concurrency, ordered=ordered, **options)

    expected = [(at, row) for at, server in enumerate(servers) for row in server.rows]
    assert window <= 2 * concurrency
    assert expected == (delivered if ordered else sorted(delivered, key=lambda one: one[0]))
    assert Signal.DONE is plan.next_request()


@given(
    total=st.integers(0, 60),
    said=st.one_of(st.integers(0, 90), st.just("page")),
    cap=st.integers(1, 15),
    **any_order,
)
@settings(max_examples=300, deadline=None)
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
    """A count of 10^9 that no row confirms costs a few requests, not ten million (row G7)."""
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


def test_ignored_offset_ends_in_an_error():
    """The same ids for another offset end the batch after a handful of requests, not in a loop."""
    server = Server(names(100), ignores="offset", cap=10)
    server.count = 100

    with pytest.raises(DriftError, match="the server ignores offset"):
        read(server)
    assert server.asked <= 1 + 4


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
    with pytest.raises(DriftError, match="share no row: the server takes offset for something"):
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
@settings(max_examples=200, deadline=None)
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
@settings(max_examples=200, deadline=None)
def test_transient_empty_page_is_asked_for_again(at, times, **options):
    """A page that comes empty once or twice below count is asked for until it comes."""
    server = Server(names(60), empties=dict.fromkeys(at, times))

    ids, report = read(server, **options)

    assert names(60) == ids
    assert times * len(at) == report.re_reads
    assert ("repaired" if at else "exact") == report.drift


@given(total=st.integers(11, 60), on_drift=st.sampled_from(["repair", "ignore"]), **any_order)
@settings(max_examples=200, deadline=None)
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
@settings(max_examples=500, deadline=None)
def test_moving_list_ends_and_repeats_nothing(total, chance, cap, **options):
    """A list that changes with every answer ends, in whole or in a `DriftError`; no id twice."""
    server = Server(names(total), changes=random.Random(chance), cap=cap)

    try:
        ids, report = read(server, **options)
    except DriftError:
        return

    assert len(ids) == len(set(ids)) == report.items
    assert report.complete


def test_endless_list_ends_in_an_error():
    """A list that grows with every answer is given up once no count explains its pages."""

    class Endless(Server):
        def answer(self, request):
            self.asked += 1
            rows = [f"p{request.offset + number}" for number in range(request.limit)]
            return request.offset + 20, rows

    server = Endless([])
    with pytest.raises(DriftError, match="its end never came"):
        read(server, concurrency=1)
    assert UNCOUNTED_PAGES <= server.asked <= UNCOUNTED_PAGES + 10


def test_pages_of_known_rows_without_end_are_an_error():
    """A list that brings nothing new, page after page, ends the batch and not the patience."""

    class Repeating(Server):
        def answer(self, request):
            self.asked += 1
            first = min(request.offset, 30)
            return 10**9, names(40)[first : first + request.limit]

    server = Repeating([])
    with pytest.raises(DriftError, match="no row of 20 pages up to position"):
        read(server)
    assert server.asked <= 40


def test_rows_repeated_within_a_page_come_once():
    """Two rows of one id in one page are one item, and one dropped duplicate."""
    ids, report = read(Server(["a", "b", "a", "c"]))

    assert ["a", "b", "c"] == ids
    assert 1 == report.duplicates_dropped


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


@given(
    ids=st.lists(st.from_regex(r"[0-9a-z-]{1,40}", fullmatch=True), max_size=300),
    size=st.integers(1, 150),
)
@settings(max_examples=100, deadline=None)
def test_batches_hold_each_id_once_within_their_limits(ids, size):
    """Batches keep the order of the ids, drop repeats, and keep size and URL below their limits."""
    fixed = url_bytes("/v3/p/edgemgr/pods", "deployment_ids", 100)
    batcher = Batcher(selector="deployment_ids", size=size, fixed_bytes=fixed)

    batches = [batch.query for one in ids for batch in batcher.add(one)]
    batches += [batch.query for batch in batcher.flush()]

    assert list(dict.fromkeys(ids)) == [one for query in batches for one in query.ids]
    for query in batches:
        assert len(query.ids) <= size
        assert len(f"/v3/p/edgemgr/pods?{query.text}&limit=100&offset=9999999999") <= URL_BYTES


def test_hundred_uuids_fit_into_one_url():
    """The default batch of 100 ids of 36 characters stays whole under 4,000 bytes."""
    fixed = url_bytes(f"/v3/{'a' * 32}/edgemgr/pods", "deployment_ids", 1000)
    batcher = Batcher(selector="deployment_ids", size=100, fixed_bytes=fixed)

    assert not any(batcher.add(f"{number:036}") for number in range(100))
    assert 100 == len(batcher.flush()[0].query.ids)


@pytest.mark.parametrize("identity", ["", " a", "a,b", "a b", "a/b", "..", "ä", "x" * 65, 7, None])
def test_id_that_would_not_be_one_id_is_refused(identity):
    """H3: an id that is empty, no text, or would change the URL is a `ConfigurationError`."""
    batcher = Batcher(selector="deployment_ids", size=100, fixed_bytes=0)

    with pytest.raises(ConfigurationError, match="deployment_ids takes ids of"):
        batcher.add(identity)


class MovingList(RuleBasedStateMachine):
    """A list that changes at any time, read by two batches that are answered at any time."""

    @initialize(
        total=st.integers(0, 60),
        limit=st.integers(2, 12),
        concurrency=st.integers(1, 4),
        ordered=st.booleans(),
        max_items=st.none() | st.integers(1, 40),
    )
    def begin(self, total, limit, **options):
        """Start to read a list of this many rows, twice."""
        self.rows = names(total)
        self.survivors = set(self.rows)
        self.cap = 10**9
        self.inserted = 0
        self.plan = ScanPlan(limit=limit, **options)
        for _ in range(2):
            self.plan.add(Batch(QUERY))
        self.plan.closed = True
        self.in_flight, self.items, self.refused = [], [], False
        self.go_on()

    def go_on(self):
        """Take what is ready, and ask for what may be asked for."""
        while (accepted := self.plan.take()) is not None:
            batch = accepted.request.batch
            self.items += [(batch, accepted.page[at]) for at in accepted.positions]
            self.plan.acknowledge(accepted)
        while isinstance(request := self.plan.next_request(), PageRequest):
            self.in_flight.append(request)

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
                came = {row for batch, row in self.items if batch == report.number}
                assert self.survivors <= came

    def teardown(self):
        """Let the list stand still, and read it to its end."""
        for _ in range(2_000):
            if not getattr(self, "in_flight", None):
                break
            self.answer(0, empty=False)
            self.holds()
        assert not getattr(self, "in_flight", None), "it never ends"


MovingList.TestCase.settings = settings(
    max_examples=1_000,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestMovingList = MovingList.TestCase
