"""Which page to ask next, what each answer reveals, whether the whole adds up. Pure: no I/O at all.

The driver asks a `ScanPlan` what to fetch, fetches it as it likes, and reports in any order::

    plan.add(query)                          # a batch: one query, read page by page
    request = plan.next_request()            # a PageRequest, NOTHING_YET or DONE
    plan.receive(request, count, ids, page)  # what the server answered
    accepted = plan.take()                   # the next page to deliver, or None

The laws it keeps:

1. A batch is one query. Its page 0 tells `count`; its other pages may then be asked all at once.
2. Offsets are learned. The stride is what the server gives, not what was asked: a server that caps
   `limit` costs requests, never rows. Whatever part of the list a page leaves out is asked for.
   A short page is not the last page; an empty page before `count` is asked for again, twice.
3. It ends. A page of a list's middle that holds nothing new, or more pages than `count` can
   explain, is a `DriftError`; a count that no row confirms stops being believed.
4. The window is bounded: at most `concurrency` requests in flight, and with the pages that were not
   taken yet at most twice as many. Free slots go to the earliest batch that is not delivered, and
   that batch may ask for a page, window or no window, while nothing is ready: so nothing waits for
   itself.

Rows are told apart by id within a batch: the first copy delivered stands.
"""

import enum
import re
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Literal

import attrs

from ief_async._errors import ConfigurationError, DriftError

URL_BYTES = 4_000  # proxies and stock servers refuse lines of 8 KB; half of it leaves them room
OFFSET_DIGITS = 10
EMPTY_TRIES = 3  # how often an empty page below count is asked for before it is believed
BLIND_PAGES = 10_000  # how many pages may come that no count explains, before the list is endless

Selector = Literal["deployment_ids", "deployment_id", "node_id", "group_id"]


class Signal(enum.Enum):
    """What `next_request` says when there is no request to send."""

    NOTHING_YET = enum.auto()  # an answer, a delivery or another batch has to come first
    DONE = enum.auto()  # every batch is read to its end


@attrs.frozen
class Query:
    """What one batch asks for: a selector of the API and its ids."""

    selector: Selector
    ids: tuple[str, ...]

    @property
    def text(self) -> str:
        """The query as it stands in the URL; ids are of characters that need no quoting."""
        return f"{self.selector}={'%2C'.join(self.ids)}"


@attrs.frozen
class PageRequest:
    """One page to ask for: rows `offset` to `offset + limit` of a batch, which is one query."""

    batch: int
    query: Query
    offset: int
    limit: int


@attrs.frozen(kw_only=True)
class BatchReport:
    """What reading one batch came to; while the scan runs, what is known so far.

    Attributes:
        ids: the ids that the batch asked for.
        count: the largest count that the server gave for it, or None.
        items: rows delivered or ready to be, each id once.
        pages: answers that held rows.
        re_reads: pages asked for again, or to fill what another page left out.
        duplicates_dropped: rows that came with an id that was there already.
        page_size_seen: rows that the server gives where `page_size` were asked for, or None.
        flags: what did not add up: ``clamped`` (pages are shorter than asked for),
            ``count_mismatch`` (the list ends before or goes on after its count),
            ``short_of_count`` (fewer rows than every answer counted), ``offset_ignored``.
        complete: whether the batch was read to its end.
    """

    ids: tuple[str, ...] = attrs.field(repr=lambda ids: f"<{len(ids)} ids>")
    count: int | None
    items: int
    pages: int
    re_reads: int
    duplicates_dropped: int
    page_size_seen: int | None
    flags: tuple[str, ...]
    complete: bool


@attrs.frozen
class Accepted:
    """A page whose turn has come.

    Attributes:
        request: what was asked.
        count: what this answer counted.
        page: what the driver handed in with the answer.
        positions: the rows of the page that are new, in the server's order.
    """

    request: PageRequest
    count: int | None
    page: Any
    positions: Sequence[int]


@attrs.frozen
class _Answer:
    request: PageRequest
    count: int | None
    ids: Sequence[str]
    page: Any

    @property
    def end(self) -> int:
        """The position after the last row of this page."""
        return self.request.offset + len(self.ids)


@attrs.define(eq=False, kw_only=True)
class BatchPlan:
    """One batch from page 0 to its end: answered in any order, accepted in the list's order."""

    number: int
    query: Query
    limit: int
    heads_only: bool = False  # page 0 is asked for its count, and nothing more
    count: int | None = None  # the largest count seen
    complete: bool = False
    in_flight: set[int] = attrs.field(factory=set)  # offsets
    waiting: dict[int, _Answer] = attrs.field(factory=dict)  # by offset; not accepted yet
    ready: deque[Accepted] = attrs.field(factory=deque)
    _size: int | None = None  # rows of a page, as the server gives them
    _edge: int = 0  # every row before it was accepted
    _fresh_edge: int = 0  # the end of the last page that held something new
    _next: int = 0  # the plan was asked up to here
    _again: deque[PageRequest] = attrs.field(factory=deque)  # gaps and empty pages, before the plan
    _empties: dict[int, int] = attrs.field(factory=dict)  # offset -> how often it came empty
    _end: int | None = None  # where a page showed the end of the list
    _blind: bool = False  # rows may follow that no count explains: ask page by page
    _ids: set[str] = attrs.field(factory=set)
    _first_ids: Sequence[str] = ()
    _first_count: int | None = None
    _least_count: int | None = None
    _asked: int = 0
    _tally: Counter[str] = attrs.field(factory=Counter)
    _flags: dict[str, None] = attrs.field(factory=dict)  # a set that keeps its order

    def next_request(self) -> PageRequest | Signal:
        """Say which page to ask for now; page 0 goes alone, as it reveals the others."""
        if self.complete:
            return Signal.DONE
        if self._again:
            return self._ask(self._again.popleft())
        if self._asked == 0 or self._next < self._horizon():
            offset = self._next
            self._next += self._size or self.limit
            return self._ask(PageRequest(self.number, self.query, offset, self.limit))
        return Signal.NOTHING_YET

    def _horizon(self) -> int:
        """Return the offset up to which pages are worth asking for."""
        if self._size is None:
            return 0
        if self._empties:
            first = min(self._empties)
            believed = self._empties[first] >= EMPTY_TRIES  # then one page behind it may know more
            return min(self.count or 0, first + self._size + 1) if believed else first
        if self._end is not None:
            return self._end
        probe = self._edge + 1 if self._blind and not self.in_flight else 0
        return max(self.count or 0, probe)

    def _ask(self, request: PageRequest) -> PageRequest:
        explained = 2 * (self._first_count or 0) // (self._size or self.limit)
        if self._asked >= explained + BLIND_PAGES:
            message = (
                f"{self._asked} pages were read of a list that counted {self._first_count} rows, "
                "and its end never came; ask for fewer ids at once, or for a larger page_size"
            )
            raise DriftError(message)
        self._asked += 1
        self.in_flight.add(request.offset)
        return request

    def receive(
        self, request: PageRequest, count: int | None, ids: Sequence[str], page: object
    ) -> None:
        """Take one answer. What it makes deliverable is put into `ready`, in the list's order."""
        self.in_flight.discard(request.offset)
        if self.complete:
            return
        answer = self._heed(_Answer(request, count, ids, page))
        if self.heads_only:
            self._finish()
            return
        if not answer.ids and self._asks_again(answer):
            return
        if self._size is None:
            self._learn(answer)
        self.waiting[request.offset] = answer
        self._advance()

    def _heed(self, answer: _Answer) -> _Answer:
        """Note what the answer says of the whole list, and whether it is page 0 once more."""
        offset, count = answer.request.offset, answer.count
        if count is not None:
            self.count = max(count, self.count or 0)
            least = self._least_count
            self._least_count = count if least is None else min(count, least)
        if answer.ids and offset >= self.limit and answer.ids == self._first_ids:
            self._flags["offset_ignored"] = None
            if offset < (self.count or 0):
                message = (
                    f"offset {offset} brought the same {len(answer.ids)} ids as offset 0, of a "
                    f"list that counts {self.count} rows: the server ignores offset"
                )
                raise DriftError(message)
            return attrs.evolve(answer, ids=())  # behind the count it says: there is no more
        if answer.ids:  # the list goes on behind what came empty before it
            self._empties = {at: tries for at, tries in self._empties.items() if at > offset}
            if self._end is not None and offset >= self._end:
                self._end = None
        return answer

    def _asks_again(self, answer: _Answer) -> bool:
        """Ask for an empty page again: twice if its answer counts more, once if it is page 0."""
        offset = answer.request.offset
        missing = (answer.count or 0) > offset
        tries = self._empties.get(offset, 0) + 1
        self._empties[offset] = tries
        if tries < (EMPTY_TRIES if missing else 2 if offset == 0 else 1):
            self._again.append(answer.request)
            self._tally["re_reads"] += 1
            return True
        if missing and offset == 0:
            message = f"page 0 came empty {tries} times, though the list counts {answer.count} rows"
            raise DriftError(message)
        return False

    def _learn(self, answer: _Answer) -> None:
        """Take the stride from page 0: a page shorter than asked while more follows is a cap."""
        given, count = len(answer.ids), answer.count
        capped = 0 < given < self.limit and (count is None or count > given)
        if capped and count is not None:
            self._flags["clamped"] = None
        self._size = self._next = given if capped or given > self.limit else self.limit
        self._first_ids, self._first_count = answer.ids, count
        self._blind = count is None or (given >= self.limit and count <= given)

    def _advance(self) -> None:
        """Accept each page whose turn has come; then wait, end, or ask for what was left out."""
        while not self.complete and (answer := self._turn()) is not None:
            self._accept(answer)
        if self.complete or self._again:
            return
        if any(at <= self._edge for at in (*self.waiting, *self.in_flight)):
            return
        if self._at_end():
            if self.in_flight:
                return  # a page behind the end that was asked for early: it may know better
            self._finish()
        elif self._edge < self._next:
            self._fill_gap()

    def _turn(self) -> _Answer | None:
        """Return the page at the edge; an empty one only when it is known what lies behind it."""
        offset = min(self.waiting, default=None)
        if offset is None or offset > self._edge:
            return None
        if not self.waiting[offset].ids and self._may_be_filled():
            return None
        return self.waiting.pop(offset)

    def _may_be_filled(self) -> bool:
        """Tell whether an answer may still come that stands before what lies behind the edge."""
        behind = min(self._rows_behind(), default=None)
        if behind is None:
            return bool(self.in_flight or self._again or self._next < self._horizon())
        return any(at < behind for at in (*self.in_flight, *(r.offset for r in self._again)))

    def _rows_behind(self) -> list[int]:
        return [at for at, answer in self.waiting.items() if answer.ids]

    def _at_end(self) -> bool:
        if self._rows_behind():
            return False
        counted = self.count is not None and self._edge >= self.count and not self._blind
        return counted or self._end == self._edge

    def _fill_gap(self) -> None:
        """Ask for the rows between the edge and the next page that is known of."""
        known = [at for at in (*self.waiting, *self.in_flight, self._next) if at > self._edge]
        limit = min(self.limit, min(known) - self._edge)
        self._again.append(PageRequest(self.number, self.query, self._edge, limit))
        self._tally["re_reads"] += 1

    def _accept(self, answer: _Answer) -> None:
        if not answer.ids:
            self._accept_empty(answer)
            return
        positions = self._new_positions(answer.ids)
        if positions:
            self._fresh_edge = answer.end
        elif answer.end - self._fresh_edge >= self.limit:
            self._refuse_standstill(answer)
        self._edge = max(self._edge, answer.end)
        self._next = max(self._next, self._edge)
        self._tally["pages"] += 1
        if positions:
            self.ready.append(Accepted(answer.request, answer.count, answer.page, positions))
        if answer.end > (self.count or 0):
            self._blind = True
            if answer.count is not None:
                self._flags["count_mismatch"] = None
        short = len(answer.ids) < min(self._size or self.limit, answer.request.limit)
        if short and answer.count is not None and answer.end >= answer.count:
            self._end = self._edge

    def _accept_empty(self, answer: _Answer) -> None:
        if (answer.count or 0) > answer.request.offset:
            self._flags["count_mismatch"] = None
        behind = self._rows_behind()
        if behind:
            self._edge = max(self._edge, min(behind))
            self._empties = {at: n for at, n in self._empties.items() if at >= self._edge}
        else:
            self._end = self._edge

    def _new_positions(self, ids: Sequence[str]) -> Sequence[int]:
        """Keep the rows whose id was not there yet; nearly always all of them."""
        before = len(self._ids)
        if self._ids.isdisjoint(ids):
            self._ids.update(ids)
            if len(self._ids) == before + len(ids):
                self._tally["items"] += len(ids)
                return range(len(ids))
            self._ids.difference_update(ids)
        positions = []
        for position, identity in enumerate(ids):
            if identity not in self._ids:
                self._ids.add(identity)
                positions.append(position)
        self._tally["items"] += len(positions)
        self._tally["duplicates"] += len(ids) - len(positions)
        return positions

    def _refuse_standstill(self, answer: _Answer) -> None:
        """End the batch where a whole page's worth of positions below count held nothing new."""
        if answer.request.offset < (self.count or 0):
            message = (
                f"no row up to position {answer.end} was new since {self._fresh_edge}, though the "
                f"list counts {self.count}: it moves faster than it is read"
            )
            raise DriftError(message)

    def _finish(self) -> None:
        """Close the batch and free what was held to tell its rows apart."""
        self.complete = True
        if self._tally["items"] < (self._least_count or 0):
            self._flags["short_of_count"] = None
        self.waiting.clear()
        self._ids.clear()
        self._first_ids = ()

    def verdict(self) -> BatchReport:
        """Say what reading the batch came to, or has come to so far."""
        return BatchReport(
            ids=self.query.ids,
            count=self.count,
            items=self._tally["items"],
            pages=self._tally["pages"],
            re_reads=self._tally["re_reads"],
            duplicates_dropped=self._tally["duplicates"],
            page_size_seen=self._size,
            flags=tuple(self._flags),
            complete=self.complete,
        )


@attrs.define(eq=False, kw_only=True)
class ScanPlan:
    """All batches of a scan, and the window that they share."""

    concurrency: int
    ordered: bool
    limit: int
    heads_only: bool = False
    closed: bool = False  # no more batches will be added
    in_flight: int = 0
    _open: list[BatchPlan] = attrs.field(factory=list)  # not taken to their end, in order
    _closed_reports: dict[int, BatchReport] = attrs.field(factory=dict)
    added: int = 0  # batches
    _counted: int = 0  # by the batches that are closed

    def add(self, query: Query) -> None:
        """Add a batch behind the others."""
        plan = BatchPlan(
            number=self.added, query=query, limit=self.limit, heads_only=self.heads_only
        )
        self._open.append(plan)
        self.added += 1

    @property
    def held(self) -> int:
        """How many pages arrived and were not taken yet."""
        return sum(len(plan.waiting) + len(plan.ready) for plan in self._open)

    @property
    def expected(self) -> int | None:
        """How many rows all batches count together, once page 0 of each has come."""
        if not self.closed or any(plan.count is None for plan in self._open):
            return None
        return self._counted + sum(plan.count or 0 for plan in self._open)

    @property
    def wants_batch(self) -> bool:
        """Whether there is room for a request that no open batch has to ask."""
        return not self.closed and self.in_flight < self.concurrency and self._has_room()

    @property
    def done(self) -> bool:
        """Whether every batch was read and taken to its end, and no other will come."""
        return self.closed and not self._open

    def _has_room(self) -> bool:
        """Keep one place of the window free for the batch that the consumer waits for."""
        reserved = 0 if self._next_ready() else 1
        return self.in_flight + self.held < 2 * self.concurrency - reserved

    def _next_ready(self) -> BatchPlan | None:
        """Return the batch whose page is to be taken next, if it is there."""
        candidates = self._open[:1] if self.ordered else self._open
        return next((plan for plan in candidates if plan.ready), None)

    def next_request(self) -> PageRequest | Signal:
        """Say which page to ask for now: of the earliest batch that has one to ask for."""
        if self.in_flight < self.concurrency:
            room = self._has_room()
            starved = self._next_ready() is None
            for plan in self._open if room else self._open[:1]:
                if room or (starved and not plan.in_flight):
                    request = plan.next_request()
                    if isinstance(request, PageRequest):
                        self.in_flight += 1
                        return request
        return Signal.DONE if self.done else Signal.NOTHING_YET

    def receive(
        self, request: PageRequest, count: int | None, ids: Sequence[str], page: object
    ) -> None:
        """Take the answer to a request; `page` comes back from `take` when its turn has come."""
        self.in_flight -= 1
        plan = next((plan for plan in self._open if plan.number == request.batch), None)
        if plan is not None:  # else it came behind the end of its batch
            plan.receive(request, count, ids, page)
            self._retire()

    def take(self) -> Accepted | None:
        """Return the next page to deliver, or None if it is not there yet."""
        plan = self._next_ready()
        if plan is None:
            return None
        accepted = plan.ready.popleft()
        self._retire()
        return accepted

    def _retire(self) -> None:
        for plan in [plan for plan in self._open if plan.complete and not plan.ready]:
            self._open.remove(plan)
            self._closed_reports[plan.number] = plan.verdict()
            self._counted += plan.count or 0

    def reports(self) -> tuple[BatchReport, ...]:
        """Return what is known of each batch, in the order of the batches."""
        known = self._closed_reports | {plan.number: plan.verdict() for plan in self._open}
        return tuple(known[number] for number in sorted(known))


# ---- from ids to queries -----------------------------------------------------------------------


@attrs.define(eq=False, kw_only=True)
class Batcher:
    """Collects ids into queries: each id once, `size` of them at most, the URL under its limit."""

    selector: Selector
    size: int
    fixed_bytes: int  # of the URL, without the ids
    _ids: list[str] = attrs.field(factory=list)
    _bytes: int = 0
    _seen: set[str] = attrs.field(factory=set)

    def add(self, identity: object) -> Query | None:
        """Add an id; return the batch before it if this one starts another."""
        checked = check_id(identity, self.selector)
        if checked in self._seen:
            return None
        self._seen.add(checked)
        cost = len(checked) + len("%2C")
        full = len(self._ids) >= self.size or self.fixed_bytes + self._bytes + cost > URL_BYTES
        query = self.flush() if full else None
        self._ids.append(checked)
        self._bytes += cost
        return query

    def flush(self) -> Query | None:
        """Return the batch that is not full yet, if there is one."""
        if not self._ids:
            return None
        query = Query(self.selector, tuple(self._ids))
        self._ids.clear()
        self._bytes = 0
        return query


def check_id(identity: object, selector: str) -> str:
    """Return an id as it is, or refuse what would not be one id on the wire."""
    if isinstance(identity, str) and re.fullmatch(r"[0-9A-Za-z_-]{1,64}", identity):
        return identity
    message = (
        f"{selector} takes ids of 1 to 64 letters, digits, - and _, but was given {identity!r:.80}"
    )
    raise ConfigurationError(message)


def url_bytes(path: str, selector: str, limit: int) -> int:
    """Return how long the target of a request is without its ids, at its largest offset."""
    return len(f"{path}?{selector}=&limit={limit}&offset=") + OFFSET_DIGITS


def requests_for(count: int, limit: int) -> int:
    """Return how many requests a calm list takes: an empty or exactly full page is asked twice."""
    return 2 if count in {0, limit} else -(-count // limit)
