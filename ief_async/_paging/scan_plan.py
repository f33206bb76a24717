"""The batches of a scan, and the window that they share. Pure: no I/O at all.

The driver asks a `ScanPlan` what to fetch, fetches it as it likes, and reports in any order::

    plan.add(batch)                          # one query, read page by page as `BatchPlan` says
    request = plan.next_request()            # a PageRequest, NOTHING_YET or DONE
    plan.receive(request, count, ids, page)  # what the server answered
    accepted = plan.take()                   # the next page to deliver, or None
    plan.finish(accepted)                    # the consumer is done with it

The window is bounded: at most `concurrency` requests in flight, and with the pages that were not
taken yet at most twice as many. Free slots go to the earliest batch that is not delivered, and that
batch may ask for a page, window or no window, while nothing is ready: so nothing waits for itself.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from ief_async._checkpoint import Entry, Mark, Run
from ief_async._errors import IefError, OnDrift
from ief_async._paging.batch_plan import (
    Accepted,
    BatchPlan,
    BatchReport,
    PageCap,
    PageRequest,
    Signal,
)
from ief_async._paging.batches import Batch, Query

MOST_SHORT = 64  # batches whose only page may be cut: so many can be read on
STALLED = (
    "the scan has nothing to wait for, and is not at its end: this is a bug of ief-async; please "
    "report it with the arguments of the scan and its report"
)


@attrs.define(eq=False, kw_only=True)
class ScanPlan:
    """All batches of a scan, and the window that they share."""

    concurrency: int
    ordered: bool
    limit: int
    on_drift: OnDrift = "repair"
    max_items: int | None = None  # rows to be taken at most; one more for each that is no item
    heads_only: bool = False
    cap: PageCap = attrs.field(factory=PageCap)  # of all scans of the list by this session
    closed: bool = False  # no more batches will be added
    in_flight: int = 0
    added: int = 0  # batches
    _open: list[BatchPlan] = attrs.field(factory=list)  # not taken to their end, in order
    _line: list[BatchPlan | Run] = attrs.field(factory=list)  # all, what is done as few runs
    _reports: dict[tuple[int, ...], BatchReport] = attrs.field(factory=dict)  # of those that ended
    _counted: int = 0  # by the batches that ended
    _ended_items: int = 0  # of the batches that ended
    _taken: int = 0  # items
    _halted: tuple[int, ...] | None = None  # the last place that may be taken from
    _refused_ids: int | None = None  # so many in one query are too many
    _short: deque[BatchPlan] = attrs.field(factory=deque)  # ended by a page that may be cut
    _unkept: list[tuple[tuple[int, ...], int]] = attrs.field(factory=list)  # such ones, and rows

    def add(self, batch: Batch | Run) -> None:
        """Add a batch behind the others, or a run of ids that a checkpoint knows as done."""
        if isinstance(batch, Run):
            self._line.append(batch)
            return
        plan = self._plan(self.added, batch.query, (self.added,), batch.mark or Mark())
        self.added += 1
        self._open.append(plan)
        self._line.append(plan)
        if self._refused_ids is not None and not plan.mark.offset:
            self._halve(plan, self._refused_ids)

    def _plan(self, number: int, query: Query, place: tuple[int, ...], mark: Mark) -> BatchPlan:
        return BatchPlan(
            number=number,
            place=place,
            query=query,
            limit=self.limit,
            on_drift=self.on_drift,
            look_ahead=self.concurrency,
            heads_only=self.heads_only,
            cap=self.cap,
            mark=mark,
        )

    @property
    def held(self) -> int:
        """How many pages arrived and were not taken yet."""
        return sum(len(plan.waiting) + len(plan.ready) for plan in self._open)

    def pages(self) -> Iterator[Any]:
        """Give what was handed in with the pages that arrived and were not taken yet."""
        for plan in self._open:
            yield from (answer.page for answer in plan.waiting.values())
            yield from (accepted.page for accepted in plan.ready)

    @property
    def ids_bytes(self) -> int:
        """What it takes to tell the rows of all open batches apart."""
        return sum(plan.ids_bytes for plan in self._open)

    @property
    def expected(self) -> int | None:
        """How many rows all batches count together, once page 0 of each has come."""
        if not self.closed or any(plan.expected is None for plan in self._open):
            return None
        expected = self._counted + sum(plan.expected or 0 for plan in self._open)
        return expected if self.max_items is None else min(expected, self.max_items)

    @property
    def wants_batch(self) -> bool:
        """Whether there is room for a request that no open batch has to ask."""
        if self.closed or self.done or self.in_flight >= self.concurrency or not self._has_room():
            return False
        return self.max_items is None or self._promised() < self.max_items

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
        """Whether every batch was read to its end, and the consumer is done with all of it."""
        return self.closed and all(isinstance(one, Run) or one.delivered for one in self._line)

    def _has_room(self) -> bool:
        """Keep one place of the window free for the batch that the consumer waits for."""
        reserved = 0 if self._next_ready() else 1
        return self.in_flight + self.held < 2 * self.concurrency - reserved

    def _next_ready(self) -> BatchPlan | None:
        """Return the batch whose page is to be taken next, if it is there."""
        candidates = self._open[:1] if self.ordered else self._open
        last = self._halted
        return next(
            (plan for plan in candidates if plan.ready and (last is None or plan.place <= last)),
            None,
        )

    def _promised(self, *, before: BatchPlan | None = None) -> int:
        """Count the rows that come without another request: of all batches, or of those before."""
        promised = self._ended_items
        for plan in self._open:
            if plan is before:
                if self.ordered:
                    break
            else:
                promised += plan.promised()
        return promised

    def next_request(self) -> PageRequest | Signal:
        """Say which page to ask for now: of the earliest batch that has one to ask for.

        Raises:
            IefError: nothing is in flight, nothing can be taken, and there is nothing to ask for.
        """
        if self.done:
            return Signal.DONE
        if self.in_flight < self.concurrency:
            for plan in self._may_ask():
                request = plan.next_request(self._wanted_of(plan))
                if isinstance(request, PageRequest):
                    self.in_flight += 1
                    return request
        if self.closed and self.stalled:
            raise IefError(STALLED)
        return Signal.NOTHING_YET

    @property
    def stalled(self) -> bool:
        """Whether nothing is in flight, nothing can be taken, and it is not done."""
        return not (self.in_flight or self.done or self.has_page)

    def _may_ask(self) -> Sequence[BatchPlan]:
        """Return the batches that may ask for a page, the earliest first."""
        if self._has_room():
            return self._open
        if self.has_page:
            return ()
        earliest = self._open if not self.in_flight else self._open[:1]
        return [plan for plan in earliest if not plan.in_flight]

    def _wanted_of(self, plan: BatchPlan) -> int | None:
        """Return how many rows of a batch are needed; None: every one."""
        if self.max_items is None:
            return None
        wanted = self.max_items - self._promised(before=plan)
        unknown = wanted < self.limit and any(one.unknown for one in self._open)
        return 0 if unknown else wanted  # what is asked for already may be enough

    def receive(
        self, request: PageRequest, count: int | None, ids: Sequence[str], page: object
    ) -> BatchReport | None:
        """Take the answer to a request; `page` comes back from `take` when its turn has come.

        Returns what the batch came to if this was its last answer.
        """
        self.in_flight -= 1
        plan = self._find(request)
        if plan is None or plan.over:  # it came behind the end of its batch
            return None
        shown = self.cap.shown
        try:
            plan.receive(request, count, ids, page)
        finally:
            self._retire()
            if self.cap.shown and not shown:
                self._doubt_short_ones()
        return plan.verdict() if plan.complete else None

    def _doubt_short_ones(self) -> None:
        """Read on behind pages that ended their batches, as now it shows that they may be cut."""
        for plan in [*self._short, *self._open]:
            if plan.may_be_cut and self.cap.may_hold(plan.last_rows):
                plan.doubt()
                if plan not in self._open:
                    self._reopen(plan)
        for place, rows in self._unkept:
            if self.cap.may_hold(rows):
                flags = (*self._reports[place].flags, "clamped")
                self._reports[place] = attrs.evolve(
                    self._reports[place], drift="unknown", flags=flags
                )
        self._let_go(0)

    def _reopen(self, plan: BatchPlan) -> None:
        self._open.append(plan)
        self._open.sort(key=lambda one: one.place)
        del self._reports[plan.place]
        self._counted -= plan.expected or 0
        self._ended_items -= plan.items

    def _keep_short(self, plan: BatchPlan) -> None:
        """Keep a batch that ended with a page that may turn out to be cut: none was longer yet."""
        if not plan.may_be_cut or self.cap.shown or plan.last_rows < self.cap.longest:
            plan.release()
            return
        if self._short and self._short[0].last_rows < plan.last_rows:
            self._let_go(0)
            self._unkept.clear()
        self._short.append(plan)
        self._let_go(MOST_SHORT)

    def _let_go(self, most: int) -> None:
        """Keep so many of the batches whose page may be cut, and of the others what they were."""
        while len(self._short) > most:
            plan = self._short.popleft()
            if plan.complete:
                self._unkept.append((plan.place, plan.last_rows))
                plan.release()
            self._settle(self._line.index(plan), plan)

    def drop(self, request: PageRequest) -> bool:
        """Note that a request failed; tell whether its batch still needs it."""
        self.in_flight -= 1
        plan = self._find(request)
        return plan is not None and not plan.over

    def halt(self, number: int) -> None:
        """Let nothing be taken that comes behind this batch."""
        places = [
            one.place for one in self._line if isinstance(one, BatchPlan) if one.number == number
        ]
        self._halted = places[0] if places else None

    def give_up(self, number: int, *, unread: int | None = None) -> None:
        """Read nothing more of a batch. What is ready is delivered, unless it is to stay unread.

        `unread` is how many rows of the page that was taken last stay unread, and so all behind it.
        """
        for plan in [one for one in self._line if isinstance(one, BatchPlan)]:
            if plan.number != number:
                continue
            items = plan.items
            plan.fail(unread)
            self._taken -= unread or 0
            if plan not in self._open:
                self._ended_items -= items - plan.items
                self._reports[plan.place] = plan.verdict()
        self._retire()

    def halve_page(self, request: PageRequest) -> bool:
        """Ask for a page that the server could not make in two halves; tell whether it can be."""
        plan = self._find(request)
        halved = plan is not None and not plan.over and plan.halve_page(request)
        self.in_flight -= halved
        return halved

    def halve_batch(self, request: PageRequest) -> bool:
        """Ask for a batch that the server finds too large in two halves, and for all such ones."""
        plan = self._find(request)
        ids = len(request.query.ids)
        if plan is None or plan.over or plan.items or plan.mark.offset or ids == 1:
            return False
        self.in_flight -= 1
        self._refused_ids = min(ids, self._refused_ids or ids)
        for other in [one for one in self._open if not one.in_flight or one is plan]:
            if not other.items and not other.mark.offset:
                self._halve(other, self._refused_ids)
        return True

    def _halve(self, plan: BatchPlan, refused: int) -> None:
        """Put two batches in the place of one of as many ids as were refused; and again."""
        ids = plan.query.ids
        if len(ids) < refused or len(ids) == 1:
            return
        half = len(ids) // 2
        halves = [
            self._plan(number, Query(plan.query.selector, part), (*plan.place, side), Mark())
            for side, (number, part) in enumerate(
                ((plan.number, ids[:half]), (self.added, ids[half:]))
            )
        ]
        self.added += 1
        plan.failed = True
        for row in (self._open, self._line):
            at = row.index(plan)
            row[at : at + 1] = halves
        for one in halves:
            self._halve(one, refused)

    def _find(self, request: PageRequest) -> BatchPlan | None:
        return next(
            (
                one
                for one in self._open
                if (one.number, one.query) == (request.batch, request.query)
            ),
            None,
        )

    def take(self) -> Accepted | None:
        """Return the next page to deliver, or None if it is not there yet."""
        plan = self._next_ready()
        if plan is None or self._taken == self.max_items:
            return None
        accepted = plan.ready.popleft()
        plan.owed += 1
        if self.max_items is not None:
            left = self.max_items - self._taken
            if len(accepted.positions) > left:  # nobody asks for the rest, if these are all items
                rest = attrs.evolve(accepted, positions=accepted.positions[left:])
                plan.ready.appendleft(rest)
                accepted = attrs.evolve(accepted, positions=accepted.positions[:left])
        self._taken += len(accepted.positions)
        self._retire()
        return accepted

    def skip(self) -> None:
        """Note that a row that was taken is no item: another may be taken in its place."""
        if self.max_items is not None:
            self.max_items += 1

    def finish_rows(self, accepted: Accepted, rows: int) -> None:
        """Note that the consumer is done with so many rows of a page, whose rest stays unread."""
        for plan in self._line:
            if isinstance(plan, BatchPlan) and plan.number == accepted.request.batch:
                plan.mark = plan.mark_after(accepted, rows)
                return

    def finish(self, accepted: Accepted) -> None:
        """Note that the consumer is done with all of a page that it took."""
        for at, plan in enumerate(self._line):
            if isinstance(plan, BatchPlan) and plan.number == accepted.request.batch:
                plan.mark = plan.mark_after(accepted, len(accepted.positions))
                plan.owed -= 1
                self._settle(at, plan)
                return

    def _retire(self) -> None:
        for plan in [plan for plan in self._open if plan.over and not plan.ready]:
            self._open.remove(plan)
            self._reports[plan.place] = plan.verdict()
            self._counted += plan.expected or 0
            self._ended_items += plan.items
            self._keep_short(plan)
            self._settle(self._line.index(plan), plan)

    def _settle(self, at: int, plan: BatchPlan) -> None:
        """Put a run in the place of a batch that is done with, joined to the runs beside it."""
        if plan.delivered and plan not in self._short:
            self._line[at] = plan.run
            for left in (at, at - 1):
                pair = self._line[left : left + 2] if left >= 0 else []
                if len(pair) > 1 and isinstance(pair[0], Run) and isinstance(pair[1], Run):
                    self._line[left : left + 2] = [pair[0] + pair[1]]

    def entries(self, accepted: Accepted | None = None, rows: int = 0) -> tuple[Entry, ...]:
        """Return what the consumer is done with, so many rows of the page in hand included."""
        entries: list[Entry] = []
        for one in self._line:
            if isinstance(one, Run):
                entries.append(Entry(one))
                continue
            mark = one.mark
            run = one.run
            if one.delivered:
                entries.append(Entry(run))
                continue
            if accepted is not None and accepted.request.batch == one.number:
                mark = one.mark_after(accepted, rows)
                last = rows == len(accepted.positions) and one.owed == 1
                if one.complete and not one.ready and last:
                    entries.append(Entry(run))
                    continue
            entries.append(Entry(run, mark))
        return _joined_runs(entries)

    def reports(self) -> tuple[BatchReport, ...]:
        """Return what is known of each batch, in the order of the ids."""
        known = self._reports | {plan.place: plan.verdict() for plan in self._open}
        return tuple(known[place] for place in sorted(known))


def _joined_runs(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Join runs that are done and follow each other."""
    joined: list[Entry] = []
    for entry in entries:
        if joined and entry.mark is None and joined[-1].mark is None:
            joined[-1] = Entry(joined[-1].run + entry.run)
        else:
            joined.append(entry)
    return tuple(joined)
