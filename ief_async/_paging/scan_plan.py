"""The batches of a scan, and the window that they share. Pure: no I/O at all.

The driver asks a `ScanPlan` what to fetch, fetches it as it likes, and reports in any order::

    plan.add(batch)                          # one query, read page by page as `BatchPlan` says
    request = plan.next_request()            # a PageRequest, NOTHING_YET or DONE
    plan.receive(request, count, ids, page)  # what the server answered
    accepted = plan.take()                   # the next page to deliver, or None
    plan.acknowledge(accepted)               # the consumer has finished with it

The window is bounded: at most `concurrency` requests in flight, and with the pages that were not
taken yet at most twice as many. Free slots go to the earliest batch that is not delivered, and that
batch may ask for a page, window or no window, while nothing is ready: so nothing waits for itself.

What a batch costs depends on the window, never on the batches before it: a `Ledger` holds those.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from ief_async._checkpoint import Entry, Mark, Run
from ief_async._errors import IefError, OnDrift
from ief_async._paging.batch_plan import BatchPlan
from ief_async._paging.batches import Batch, Query
from ief_async._paging.delivery import START
from ief_async._paging.ledger import Ledger, Place
from ief_async._paging.open_batches import OpenBatches
from ief_async._paging.pages import Accepted, PageRequest
from ief_async._paging.requests import Signal
from ief_async._paging.shape import PageCap, Shape
from ief_async._paging.suspects import Suspects
from ief_async._paging.verdict import BatchReport

STALLED = (
    "the scan has nothing to wait for, and is not at its end: this is a bug of ief-async; please "
    "report it with the arguments of the scan and its report"
)


@attrs.define(eq=False, kw_only=True, repr=False)
class ScanPlan:
    """All batches of a scan, and the window that they share.

    Attributes:
        concurrency: requests in flight, at most.
        ordered: whether batches are delivered in the order in which they were added.
        limit: rows of a page to ask for.
        on_drift: what to do about a list that moves.
        max_items: rows to be taken at most; one more for each that is no item.
        count_only: only the count of each batch is asked for.
        cap: how long the pages of the list are at most; all scans of a session share it.
        closed: no more batches will be added.
        in_flight: requests that were not answered yet.
    """

    concurrency: int
    ordered: bool
    limit: int
    on_drift: OnDrift = "repair"
    max_items: int | None = None
    count_only: bool = False
    cap: PageCap = attrs.field(factory=PageCap)
    closed: bool = False
    in_flight: int = 0
    _plans: dict[int, BatchPlan] = attrs.field(factory=dict)  # not finished, by number
    _open: OpenBatches = attrs.field(init=False)
    _ledger: Ledger = attrs.field(factory=Ledger)
    _suspects: Suspects = attrs.field(init=False)
    _taken: int = 0  # items
    _last_place: Place | None = None  # that may be taken from
    _refused_ids: int | None = None  # so many in one query are too many

    def __attrs_post_init__(self) -> None:
        self._open = OpenBatches(self.ordered)
        self._suspects = Suspects(self.cap)

    # -- batches ---------------------------------------------------------------------------------

    def add(self, batch: Batch | Run) -> None:
        """Add a batch behind the others, or a run of ids that a checkpoint knows as finished."""
        if isinstance(batch, Run):
            self._ledger.add_run(batch)
            return
        mark = batch.mark or START
        number = self.added
        place = self._ledger.add(batch.query.ids, mark)
        plan = self._begin(number, batch.query, place, mark)
        if self._refused_ids is not None and not mark.offset:
            self._halve(plan, self._refused_ids)
            self._open.sort()

    def _begin(self, number: int, query: Query, place: Place, mark: Mark) -> BatchPlan:
        plan = BatchPlan(
            number=number,
            place=place,
            query=query,
            shape=Shape(limit=self.limit, cap=self.cap, overlaps=self.on_drift != "ignore"),
            on_drift=self.on_drift,
            look_ahead=self.concurrency,
            count_only=self.count_only,
            resumed_from=mark,
        )
        self._plans[number] = plan
        self._open.add(plan)
        return plan

    def halve_batch(self, request: PageRequest) -> bool:
        """Ask for a batch that the server finds too large in two halves, and for all such ones."""
        plan = self._find(request)
        ids = len(request.query.ids)
        if plan is None or plan.over or not plan.requests.may_be_split or ids == 1:
            return False
        self.in_flight -= 1
        self._refused_ids = min(ids, self._refused_ids or ids)
        for other in list(self._open):
            unasked = not other.requests.in_flight and other.requests.may_be_split
            if other is plan or unasked:
                self._halve(other, self._refused_ids)
        self._open.sort()
        return True

    def _halve(self, plan: BatchPlan, refused: int) -> None:
        """Put two batches in the place of one of as many ids as were refused; and again."""
        ids = plan.query.ids
        if len(ids) < refused or len(ids) == 1:
            return
        parts = ids[: len(ids) // 2], ids[len(ids) // 2 :]
        second = self._ledger.split(plan.place, plan.number, parts)
        for number, part in zip((plan.number, second), parts, strict=True):
            query = Query(plan.query.selector, part)
            half = self._begin(number, query, self._ledger.place_of(number), START)
            self._halve(half, refused)

    def _find(self, request: PageRequest) -> BatchPlan | None:
        """Return the batch of a request, unless it was taken to its end, or split since."""
        plan = self._open.get(request.batch)
        return plan if plan is not None and plan.query == request.query else None

    # -- what is known ---------------------------------------------------------------------------

    @property
    def added(self) -> int:
        """How many batches there are, each half of one that was split for itself."""
        return self._ledger.added

    def pages(self) -> Iterator[Any]:
        """Give what was handed in with the pages that arrived and were not taken yet."""
        return self._open.pages()

    @property
    def ids_bytes(self) -> int:
        """What it takes to tell the rows of all open batches apart."""
        return self._open.ids_bytes

    @property
    def expected(self) -> int | None:
        """How many rows all batches count together, once page 0 of each has come."""
        expected = self._open.expected
        if not self.closed or expected is None:
            return None
        rows = self._ledger.expected + expected
        return rows if self.max_items is None else min(rows, self.max_items)

    @property
    def has_page(self) -> bool:
        """Whether there is a page to be taken now."""
        return self._next_ready() is not None

    @property
    def done(self) -> bool:
        """Whether every batch was read and taken to its end, or as many items as were wanted."""
        return (self.closed and not self._open) or self._taken == self.max_items

    @property
    def complete(self) -> bool:
        """Whether every batch was read to its end, and the consumer has finished with all of it."""
        return self.closed and not self._ledger.unfinished

    @property
    def stalled(self) -> bool:
        """Whether nothing is in flight, nothing can be taken, and it is not done."""
        return not (self.in_flight or self.done or self.has_page)

    def report_of(self, number: int) -> BatchReport:
        """Return what is known of one batch."""
        plan = self._open.get(number)
        return plan.report() if plan is not None else self._ledger.report_of(number)

    def reports(self) -> tuple[BatchReport, ...]:
        """Return what is known of each batch, in the order of the ids."""
        return self._ledger.reports(plan.report() for plan in self._open)

    # -- asking ----------------------------------------------------------------------------------

    def next_request(self) -> PageRequest | Signal:
        """Say which page to ask for now: of the earliest batch that has one to ask for.

        Raises:
            IefError: nothing is in flight, nothing can be taken, and there is nothing to ask for.
        """
        if self.done:
            return Signal.DONE
        if self.in_flight < self.concurrency and (candidates := self._may_ask()):
            wanted = {}
            if self.max_items is not None:
                most = self.max_items - self._ledger.items
                wanted = self._open.rows_wanted(most, self.limit)
            for plan in candidates:
                request = plan.next_request(wanted.get(plan.number))
                if isinstance(request, PageRequest):
                    self.in_flight += 1
                    return request
        if self.closed and self.stalled:
            raise IefError(STALLED)
        return Signal.NOTHING_YET

    def _may_ask(self) -> Sequence[BatchPlan]:
        """Return the batches that may ask for a page, the earliest first. There are four cases.

        The window has room: all. It has not, and there is a page to take: none. Nothing is in
        flight: all, as it would wait for ever. Else the earliest, if nothing of it is in flight.
        """
        plans = list(self._open)
        if self._has_room():
            return plans
        if self.has_page:
            return ()
        earliest = plans[:1] if self.in_flight else plans
        return [plan for plan in earliest if not plan.requests.in_flight]

    def _has_room(self) -> bool:
        """Keep one place of the window free for the batch that the consumer waits for."""
        reserved = 0 if self._next_ready() else 1
        return self.in_flight + self._open.held < 2 * self.concurrency - reserved

    @property
    def wants_batch(self) -> bool:
        """Whether there is room for a request that no open batch has to ask."""
        if self.closed or self.done or self.in_flight >= self.concurrency or not self._has_room():
            return False
        if self.max_items is None:
            return True
        return self._ledger.items + self._open.promised < self.max_items

    # -- receiving -------------------------------------------------------------------------------

    def receive(
        self, request: PageRequest, count: int | None, ids: Sequence[str], page: object
    ) -> BatchReport | None:
        """Take the answer to a request; `page` comes back from `take` when its turn has come.

        Returns what the batch came to if this was its last answer.

        Raises:
            DriftError: the batch can't be read, or its rows are in doubt and that is an error.
        """
        self.in_flight -= 1
        plan = self._find(request)
        if plan is None or plan.over:  # it came behind the end of its batch
            return None
        try:
            plan.receive(request, count, ids, page)
        finally:
            self._update(plan)
            if self._suspects.notice_cap():
                self._doubt_suspects()
        return plan.report() if plan.complete else None

    def drop(self, request: PageRequest) -> bool:
        """Note that a request failed; tell whether its batch still needs it."""
        self.in_flight -= 1
        plan = self._find(request)
        return plan is not None and not plan.over

    def halve_page(self, request: PageRequest) -> bool:
        """Ask for a page that the server could not make in two halves; tell whether it can be."""
        plan = self._find(request)
        halved = plan is not None and not plan.over and plan.requests.halve(request)
        self.in_flight -= halved
        return halved

    def _update(self, plan: BatchPlan) -> None:
        """Note what has become of a batch. There are three cases.

        It goes on. It has ended, and all of it is taken: it leaves the window. The consumer has
        finished with it as well: it leaves the plan, and only its report and an entry stay.
        """
        self._ledger.note_mark(plan.place, plan.delivery.mark)
        if not plan.over or plan.delivery.ready:
            return
        if plan.number in self._open:
            self._open.remove(plan)
            self._ledger.end(plan.report(), plan.expected)
            for closed in self._suspects.add(plan):
                self._ledger.close(closed.place)
        if not plan.delivery.unacknowledged:
            del self._plans[plan.number]
            if plan.complete:
                self._ledger.finish(plan.place, apart=plan in self._suspects.kept)

    def _doubt_suspects(self) -> None:
        """Read on behind pages that ended their batches, as now it shows that they may be cut."""
        suspects = self._suspects
        for plan in [*suspects.kept, *self._open]:
            if plan.complete and plan.chain.is_cut:
                plan.doubt()
                if plan.number not in self._open:
                    self._reopen(plan)
        if self.cap.may_hold(suspects.rows):
            for number in suspects.let_go:
                self._ledger.doubt(number)
        for plan in suspects.drain():
            if plan.complete:
                plan.release()
                self._ledger.close(plan.place)
        self._open.sort()

    def _reopen(self, plan: BatchPlan) -> None:
        self._open.add(plan)
        self._ledger.begin_again(plan.number, plan.expected)
        if plan.number not in self._plans:
            self._plans[plan.number] = plan
            self._ledger.reopen(plan.place, plan.delivery.mark)

    # -- giving up -------------------------------------------------------------------------------

    def halt(self, number: int) -> None:
        """Let nothing be taken that comes behind this batch."""
        self._last_place = self._ledger.place_of(number)

    def give_up(self, number: int, *, unread: int | None = None) -> None:
        """Read nothing more of a batch. What is ready is delivered, unless it is to stay unread.

        `unread` is how many rows of the page that was taken last stay unread, and so all behind it.
        """
        if (plan := self._plans.get(number)) is None:  # it is finished, or was given up before
            return
        plan.fail(unread=unread)
        if unread is not None:
            self._taken -= unread
            plan.delivery.unacknowledged -= 1
        if number not in self._open:
            self._ledger.correct(plan.report())
        self._update(plan)

    # -- delivering ------------------------------------------------------------------------------

    def _next_ready(self) -> BatchPlan | None:
        """Return the batch whose page is to be taken next, if it is there."""
        return self._open.next_ready(self._last_place)

    def take(self) -> Accepted | None:
        """Return the next page to deliver, or None if it is not there yet."""
        plan = self._next_ready()
        if plan is None or self._taken == self.max_items:
            return None
        most = None if self.max_items is None else self.max_items - self._taken
        accepted = plan.delivery.take(most)  # nobody asks for the rest, if these are all items
        self._taken += len(accepted.positions)
        self._update(plan)
        return accepted

    def skip(self) -> None:
        """Note that a row that was taken is no item: another may be taken in its place."""
        if self.max_items is not None:
            self.max_items += 1

    def acknowledge(self, accepted: Accepted, rows: int | None = None) -> None:
        """Note that the consumer has finished with all of a page that it took.

        With `rows` it has finished with so many of its new rows, and the rest is still in its hand.
        """
        plan = self._plans.get(accepted.request.batch)
        if plan is not None:
            done = len(accepted.positions) if rows is None else rows
            plan.delivery.acknowledge(accepted, done)
            plan.delivery.unacknowledged -= rows is None
            self._update(plan)

    def entries(self, accepted: Accepted | None = None, rows: int = 0) -> tuple[Entry, ...]:
        """Return what the consumer has finished with, so many rows of the page in hand included."""
        plan = None if accepted is None else self._plans.get(accepted.request.batch)
        if accepted is None or plan is None:
            return self._ledger.entries()
        delivery = plan.delivery
        last = rows == len(accepted.positions) and delivery.unacknowledged == 1
        if plan.complete and not delivery.ready and last:
            return self._ledger.entries(plan.place, None)
        return self._ledger.entries(plan.place, delivery.mark_after(accepted, rows))
