"""The batches of a scan share a window, and what is finished of them is not read again."""

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

from ief_async import DriftError
from ief_async._paging.batches import Batch
from ief_async._paging.pages import PageRequest
from ief_async._paging.requests import Signal
from ief_async._paging.scan_plan import ScanPlan


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
