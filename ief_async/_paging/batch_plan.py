"""Which page of a batch to ask next, what each answer reveals, whether the whole adds up. Pure.

The laws of one batch, which is one query. The driver asks its plan for requests, sends them as it
likes, and reports the answers in any order.

1. Page 0 tells `count`; the other pages may then be asked all at once.
2. Offsets are learned. The stride is what the server gives, not what was asked: a server that caps
   `limit` costs requests, never rows. A short page is not the last page; an empty page before
   `count` is asked for again, twice.
3. The anchored scan. Neighbouring pages overlap by V rows. A page is anchored if its offset is 0 or
   it shares an id with an anchored page; U is all ids of anchored pages. A batch is proven when an
   anchored page shows the end of the list: shorter than the pages of this server, and up to the
   `count` that came with it. Then every row that was there throughout is in U, if the rows that
   stay keep their order:

       Each such row s that is not in U comes after every row of U. That holds for a page at offset
       0. Let a page at offset o, read at any time, hold a row a of U. s comes after a, so its
       position is at least o: s is in the page, or behind all of it, and the law holds for U and
       the page together. Behind a page that shows the end there is no position: no s is left.

   Times are never compared, so the order of reading does not matter. V - 1 deletes between the
   reading of two neighbours leave a row in common; where more has changed the gap is bridged by a
   walk: one stride to the left of the page that is not anchored, doubling, then to the right.
   What the walk may cost is bounded. After any sign of a change the head of the list is read once
   more, for what jumped there.
4. It ends. A page that repeats page 0, neighbouring offsets that share nothing, and more pages than
   `count` can explain are a `DriftError`; a count that no row confirms stops being believed.

Rows are told apart by id within a batch: the first copy delivered stands.
"""

import enum
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Literal

import attrs

from ief_async._checkpoint import Mark, Run
from ief_async._errors import DriftError, OnDrift
from ief_async._paging.batches import Query
from ief_async._paging.seen import IdSet

OVERLAP = 5  # rows, at the least; a hundredth of the page if that is more
OVERLAP_SHARE = 4  # never more than this part of a page as the server gives it
EMPTY_TRIES = 3  # how often an empty page below count is asked for before it is believed
WALK_PAGES = 20  # what bridging may cost, with one more for each page that brought something
SWEEPS = 3  # how often a list without an order is read again until it is all there
BLIND_PAGES = 10_000  # how many pages may come that no count explains, before the list is endless

Drift = Literal["exact", "repaired", "unknown"]


class Signal(enum.Enum):
    """What `next_request` says when there is no request to send."""

    NOTHING_YET = enum.auto()  # an answer, a delivery or another batch has to come first
    DONE = enum.auto()  # every batch is read to its end


class _Phase(enum.Enum):
    PLAN = enum.auto()  # the pages that count explains, all at once
    WALK = enum.auto()  # one page at a time, to join what was accepted to what was not
    HEAD = enum.auto()  # the first page again, for what jumped there


@attrs.define
class PageCap:
    """How long the pages of a list are at most, as far as a session has seen.

    Attributes:
        longest: the most rows that came where more were asked for.
        shown: whether an answer held fewer rows than were asked for while more followed.
    """

    longest: int = 0
    shown: bool = False

    def note(self, rows: int, *, shows: bool) -> None:
        """Note a page that is shorter than was asked for."""
        self.longest = max(self.longest, rows)
        self.shown |= shows

    def may_hold(self, rows: int) -> bool:
        """Tell whether a page of so many rows may have been cut."""
        return self.shown and rows >= self.longest


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
        number: the batch's, as errors name it. Batches are numbered as they are made: one that was
            split in two gives its number to the first half.
        ids: the ids that the batch asked for.
        count: the largest count that the server gave for it, or None.
        items: rows delivered or ready to be, each id once.
        pages: answers that held rows.
        re_reads: pages asked for again, or to bridge a gap that a change had left.
        duplicates_dropped: rows that came with an id that was there already, beyond the overlap.
        page_size_seen: rows that the server gives where `page_size` were asked for, or None.
        drift: ``exact``: all rows are there, and nothing moved. ``repaired``: the list moved, and
            every row that was there throughout has come once all the same. ``unknown``: that can't
            be promised (yet); `flags` say why.
        flags: what did not add up. Each of these makes it ``unknown``: ``order`` (rows changed
            places), ``short_of_count`` (fewer rows than every answer counted, or a page that stayed
            empty below its count), ``gap`` (pages that
            share no row), ``unproven`` (bridging would have cost too much), ``no_overlap`` (pages
            of one row, now or before the scan was resumed), ``offset_ignored``, ``unchecked``
            (``on_drift="ignore"``); but ``counted`` (the same count in every answer, and exactly
            that many rows) outweighs ``order``, and counts that differ outweigh
            ``short_of_count``. For information: ``clamped`` (pages are shorter than asked for;
            with ``unknown`` alone: other batches showed that too late), ``limit_ignored`` (longer),
            ``count_mismatch`` (the list ends before or goes on after its count),
            ``repeated_rows`` (an id twice in a page).
        complete: whether the batch was read to its end.
    """

    number: int
    ids: tuple[str, ...] = attrs.field(repr=lambda ids: f"<{len(ids)} ids>")
    count: int | None
    items: int
    pages: int
    re_reads: int
    duplicates_dropped: int
    page_size_seen: int | None
    drift: Drift
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
        ids: the id of every row.
        joint: how many of its rows have to be done with before a scan may go on behind them; None
            if it may not, because they stand outside the proof.
    """

    request: PageRequest
    count: int | None
    page: Any
    positions: Sequence[int]
    ids: Sequence[str]
    joint: int | None


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


@attrs.define
class _Walk:
    """Between which offsets a page has to lie that joins two others."""

    step: int
    low: int | None = None  # of the last page that is anchored
    apart: set[int] = attrs.field(factory=set)  # of those that are not


def overlap_of(limit: int, given: int) -> int:
    """Return V for pages of `limit` rows of which the server gives `given`."""
    return 0 if given <= 1 else max(1, min(max(OVERLAP, limit // 100), given // OVERLAP_SHARE))


def requests_for(count: int, limit: int) -> int:
    """Return how many requests a calm list takes; one that is empty or exactly full is doubted."""
    overlap = overlap_of(limit, limit)
    if count in {0, limit}:
        return 2
    if not overlap:
        return -(-count // limit)
    return max(1, (count - overlap) // (limit - overlap) + 1)


@attrs.define(eq=False, kw_only=True)
class BatchPlan:
    """One batch from page 0 to its end: answered in any order, accepted in the list's order."""

    number: int
    place: tuple[int, ...]  # in the order of the ids, which splitting keeps
    query: Query
    limit: int
    on_drift: OnDrift = "repair"
    cap: PageCap = attrs.field(factory=PageCap)
    look_ahead: int = 1  # pages, where no count helps
    heads_only: bool = False  # page 0 is asked for its count, and nothing more
    mark: Mark = attrs.field(factory=Mark)  # what the consumer has finished with
    count: int | None = None  # the largest count seen
    complete: bool = False
    failed: bool = False
    drift: Drift = "unknown"
    in_flight: set[int] = attrs.field(factory=set)  # offsets
    waiting: dict[int, _Answer] = attrs.field(factory=dict)  # by offset; not accepted yet
    ready: deque[Accepted] = attrs.field(factory=deque)
    owed: int = 0  # pages that were taken and are not finished
    _run: Run | None = None
    _phase: _Phase = _Phase.PLAN
    _walk: _Walk = attrs.field(factory=lambda: _Walk(step=1))
    _base: int = 0  # where this reading began
    _read_before: int | None = 0  # rows: those up to its anchors, where the first page showed them
    _start: int = 0  # and its first page, which overlaps what was read before
    _size: int | None = None  # rows of a page, as the server gives them
    _overlap: int = 0  # V
    _edge: int = 0  # behind the last page that was accepted
    _next: int = 0  # the plan was asked up to here
    _probe: int | None = None  # an offset that is asked for to see whether the list ends there
    _void: int | None = None  # a page came empty here, and none behind it has rows
    _again: deque[PageRequest] = attrs.field(factory=deque)  # before the plan
    _tries: Counter[int] = attrs.field(factory=Counter)  # how often an offset came empty
    _ended: bool = False  # an accepted page showed the end of the list
    _proof: bool = True  # anchors prove something; else pages are taken as they come
    _blind: bool = False  # rows may follow that no count explains
    _hollow: bool = False  # a page stayed empty below its own count, and was taken for the end
    _moved: bool = False
    _lost: bool = False  # positions mean nothing
    _headed: bool = False  # the head was read again
    _stepped: bool = False  # a page that is not the first one was anchored
    _ids: IdSet = attrs.field(factory=IdSet)  # U
    _longest: int = 0  # rows of a page
    _first: _Answer | None = None  # page 0
    _last: _Answer | None = None  # the page accepted last
    _first_count: int | None = None
    _last_count: int | None = None
    _least_count: int | None = None
    _asked: int = 0
    _tally: Counter[str] = attrs.field(factory=Counter)
    _flags: dict[str, None] = attrs.field(factory=dict)  # a set that keeps its order

    def __attrs_post_init__(self) -> None:
        mark = self.mark
        anchors = () if self.on_drift == "ignore" else mark.anchors
        self._edge = self._base = mark.offset
        self._start = mark.offset - len(anchors)
        if mark.offset:
            before = PageRequest(self.number, self.query, self._start, len(anchors))
            self._last = _Answer(before, mark.count, list(anchors), None)
            self._ids.update(anchors)
            self._hear(mark.count)
            self._read_before = None

    @property
    def run(self) -> Run:
        """What a checkpoint knows its ids by."""
        if self._run is None:
            self._run = Run.of(self.query.ids)
        return self._run

    @property
    def over(self) -> bool:
        """Whether nothing more is read of it."""
        return self.complete or self.failed

    @property
    def expected(self) -> int | None:
        """How many rows this reading brings by its count, once that is known."""
        known = self.count is not None and (self._size is not None or self.heads_only)
        return max(0, (self.count or 0) - self._base) if known else None

    @property
    def unknown(self) -> bool:
        """Whether its first page is in flight, which tells how much it holds."""
        return self._size is None and bool(self.in_flight)

    @property
    def delivered(self) -> bool:
        """Whether it was read to its end and the consumer is done with all of it."""
        return self.complete and not self.ready and not self.owed

    @property
    def items(self) -> int:
        """How many rows were accepted."""
        return self._tally["items"]

    @property
    def _repairs(self) -> bool:
        return self.on_drift in {"repair", "raise"}

    @property
    def _stride(self) -> int:
        return (self._size or self.limit) - self._overlap

    def promised(self) -> int:
        """How many rows it will bring without another request, if its count is right."""
        if self._size is None:
            return self.limit if self._asked else 0
        if self._phase is not _Phase.PLAN or not (self.in_flight or self.waiting):
            return self.items
        planned = self._next + self._overlap
        expected = planned if self._last_count is None else min(planned, self._last_count)
        return max(self.items, expected - self._base)

    # -- asking ----------------------------------------------------------------------------------

    def next_request(self, wanted: int | None = None) -> PageRequest | Signal:
        """Say which page to ask for now; page 0 goes alone, as it reveals the others.

        `wanted` is how many rows of this batch are needed at all; None: every one.
        """
        if self.over:
            return Signal.DONE
        if self._again:
            return self._ask(self._again.popleft())
        overlap = self._overlap if self._asked else self._base - self._start
        rows = self.limit if wanted is None else wanted - self.promised() + overlap
        if rows <= overlap or (self._asked and self._next >= self._horizon()):
            return Signal.NOTHING_YET
        limit = min(self.limit, rows)
        offset = self._next if self._asked else self._start
        self._next = offset + max(1, min(self._size or limit, limit) - self._overlap)
        return self._ask(self._page(offset, limit))

    def _page(self, offset: int, limit: int | None = None) -> PageRequest:
        return PageRequest(self.number, self.query, max(0, offset), limit or self.limit)

    @property
    def _behind(self) -> int:
        """Return the offset of the page behind what was accepted, its overlap included."""
        return max(0, self._edge - self._overlap)

    def _horizon(self) -> int:
        """Return the offset up to which planned pages are worth asking for."""
        if self._size is None or self._ended or self._phase is not _Phase.PLAN or self._orphaned():
            return 0
        horizon = (self._last_count or 0) - self._overlap
        # a page of fewer rows than the overlap, as max_items may ask for, is passed all the same
        behind = max(self._behind, self._last.request.offset + 1 if self._last is not None else 0)
        if self._blind:
            ahead = self.look_ahead if self._tally["pages"] > 1 else 1
            horizon = max(horizon, behind + (ahead - 1) * self._stride + 1)
        elif self._proof and not self.in_flight:
            horizon = max(horizon, behind + 1)
        if self._void is None:
            return horizon
        missing = self._tries[self._void] >= EMPTY_TRIES and not self._overlap
        return min(horizon, self._void + missing * (self._stride + 1))  # behind it may be more

    def _orphaned(self) -> bool:
        """Tell whether the next page in the list's order is there and is not anchored."""
        first = min(self.waiting, default=None)
        return first is not None and not any(at < first for at in self._pending())

    def _pending(self) -> list[int]:
        return [*self.in_flight, *(request.offset for request in self._again)]

    def _ask(self, request: PageRequest) -> PageRequest:
        explained = 2 * (self._first_count or 0) // max(1, self._stride)
        if self._asked >= explained + BLIND_PAGES:
            message = (
                f"{self._asked} pages were read of a list that counted {self._first_count} rows, "
                "and its end never came; ask for fewer ids at once, or for a larger page_size"
            )
            raise DriftError(message)
        self._asked += 1
        self.in_flight.add(request.offset)
        return request

    def halve_page(self, request: PageRequest) -> bool:
        """Ask for a page in two halves, and from now on for pages of half its size."""
        half = -(-request.limit // 2)
        if half == request.limit:
            return False
        self.in_flight.discard(request.offset)
        self.limit = min(self.limit, half)
        if self._size is None:
            self._again.append(self._page(request.offset))
            return True
        self._resize(min(self._size, self.limit))
        rest = request.offset + half - self._overlap
        self._again.append(self._page(request.offset, half))
        self._again.append(self._page(rest, request.offset + request.limit - rest))
        return True

    # -- hearing ---------------------------------------------------------------------------------

    def receive(
        self, request: PageRequest, count: int | None, ids: Sequence[str], page: object
    ) -> None:
        """Take one answer. What it makes deliverable is put into `ready`, in the list's order."""
        self.in_flight.discard(request.offset)
        if self.over:
            return
        self._hear(count)
        if self.heads_only:
            self._finish()
            return
        answer = _Answer(request, count, ids, page)
        self._longest = max(self._longest, len(ids))
        if 0 < len(ids) < request.limit:
            self.cap.note(len(ids), shows=count is not None and count > answer.end)
        if self._repeats_the_first(answer):
            self._ended = True
        elif ids or not self._asks_again(answer):
            if self._size is None:
                self._learn(answer)
            self._place(answer)
        else:
            return
        self._advance()

    def _hear(self, count: int | None) -> None:
        if count is None:
            return
        self._last_count = count
        self.count = max(count, self.count or 0)
        self._least_count = min(
            count, self.count if self._least_count is None else self._least_count
        )

    def _repeats_the_first(self, answer: _Answer) -> bool:
        """Tell whether page 0 came once more and is all there is; refuse a server that only has it.

        A cache may answer with page 0 now and then, so once is not enough.
        """
        first = self._first
        alone = len(answer.ids) <= 1  # one row may move to where it is read again
        if not answer.request.offset or alone or first is None:
            return False
        if list(answer.ids) != list(first.ids):
            self._tally["others"] += 1
            return False
        if len(first.ids) < first.request.limit > answer.request.offset:
            return False  # where both pages cover the same rows, they may hide the same
        self._tally["echoes"] += 1
        if self._tally["others"]:
            return False
        if answer.count is not None and answer.count <= len(answer.ids):
            self._flags["offset_ignored"] = None
            return True
        if self._tally["echoes"] > 1:
            message = (
                f"offset {answer.request.offset} brought the same {len(answer.ids)} ids as offset "
                f"0, of a list that counts {answer.count} rows: the server ignores offset"
            )
            raise DriftError(message)
        return False

    def _asks_again(self, answer: _Answer) -> bool:
        """Ask for an empty page again: twice if its answer counts more, once if it is page 0."""
        offset = answer.request.offset
        missing = (answer.count or 0) > offset
        self._tries[offset] += 1
        if self._tries[offset] < (EMPTY_TRIES if missing else 2 if offset == 0 else 1):
            self._again.append(answer.request)
            self._tally["re_reads"] += missing
            return True
        if missing and offset == 0:
            message = (
                f"page 0 came empty {self._tries[0]} times, though the list counts "
                f"{answer.count} rows"
            )
            raise DriftError(message)
        return False

    def _learn(self, answer: _Answer) -> None:
        """Take the size of pages from the first one: shorter while more follows is a cap.

        So is one that the count ends with, if the list has shown a cap of just its length.
        """
        given, count, asked = len(answer.ids), answer.count, answer.request.limit
        short = 0 < given < asked
        if short and count is not None and count > answer.end:
            self._flags["clamped"] = None
        capped = short and (count != answer.end or self.cap.may_hold(given))
        if given > asked:
            self._flags["limit_ignored"] = None
        self._resize(given if capped or given > asked else self.limit)
        self._next = max(answer.request.offset + 1, answer.end - self._overlap)
        self._first_count = count
        full = capped or answer.end >= asked
        self._blind = count is None or count < answer.end or (count == answer.end and full)
        if answer.request.offset == 0:
            self._first = attrs.evolve(answer, page=None)  # its ids are enough

    def _resize(self, size: int) -> None:
        self._size = size
        self._overlap = 0 if self.on_drift == "ignore" else overlap_of(self.limit, size)

    def _place(self, answer: _Answer) -> None:
        """Put an answer where its phase wants it."""
        offset = answer.request.offset
        if not answer.ids and offset == 0:
            self._ended = True
        elif offset == self._probe:
            self._look_behind(answer)
        elif self._phase is _Phase.HEAD:
            self._look_at_head(answer)
        elif self._phase is _Phase.WALK:
            self._walk_on(answer)
        elif answer.ids:
            self.waiting[offset] = answer
            if self._ended and not self._ids.issuperset(answer.ids):
                self._ended = False
            if self._void is not None and answer.end > self._void:
                self._void = None
        elif not any(at > offset for at in self.waiting):
            self._void = offset if self._void is None else min(offset, self._void)

    # -- accepting -------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Accept each page whose turn has come; then wait, bridge a gap, or come to the end."""
        while (answer := self._joined()) is not None:
            self._accept(answer)
        if self._ended and not (self._blind and self.in_flight):
            self._conclude()  # where no count helps, what is in flight may know better
        elif self._pending():
            return
        elif self._phase is _Phase.WALK:
            self._walk_further()
        elif self._next >= self._horizon():
            self._seek()

    def _joined(self) -> _Answer | None:
        """Return the first page that is anchored, if none before it is still to come."""
        before = min(self._pending(), default=None)
        for offset in sorted(self.waiting):
            if before is not None and before < offset and self._phase is _Phase.PLAN:
                return None
            if self._joins(self.waiting[offset]):
                return self.waiting.pop(offset)
        return None

    def _joins(self, answer: _Answer) -> bool:
        offset = answer.request.offset
        if offset == 0 or not self._proof:
            return True
        if not self._overlap or not self._ids:
            return bool(answer.ids) and offset <= self._edge
        return not self._ids.isdisjoint(answer.ids)

    def _accept(self, answer: _Answer) -> None:
        end, count = answer.end, answer.count
        if self._read_before is None:
            known = set(self.mark.anchors)
            seen = [at for at, one in enumerate(answer.ids) if one in known]
            self._read_before = answer.request.offset + seen[-1] + 1 if seen else None
        fresh = self._deliver(answer, proven=self._proof)
        self._last = attrs.evolve(answer, page=None)
        self._edge = end if self._overlap else max(self._edge, end)
        self._stepped |= answer.request.offset > 0
        self._tally["pages"] += 1
        self._tally["re_reads"] += self._tally["sweeps"] > 0
        if count is not None and end > count:
            self._blind = True
            self._flags["count_mismatch"] = None
        short = len(answer.ids) < min(self._size or self.limit, answer.request.limit)
        counted = count is not None and end >= count
        whole = counted and not self._overlap and not self._blind
        swept = self._tally["sweeps"] > 0 and self._counted()
        rows = len(answer.ids)
        if short and counted and rows >= self._longest and self.cap.may_hold(rows):
            short = False  # none of its pages was longer
            self._look_on(answer)
        if (short and (counted or count is None)) or whole or swept:
            self._ended = True
        elif fresh:
            self._ended = False
        elif self._overlap and self._probe is None:
            size = min(self._size or self.limit, answer.request.limit)
            if len(answer.ids) <= self._overlap or (
                short and answer.request.offset + size >= (count or 0)
            ):
                self._probe = end  # there is no more, or the server gives less than the overlap
                self._again.append(self._page(end))
        self._refuse_standstill(answer, fresh=fresh)

    def _refuse_standstill(self, answer: _Answer, *, fresh: bool) -> None:
        """End a batch whose plan brings nothing new, page after page."""
        self._tally["standing"] = 0 if fresh else self._tally["standing"] + 1
        if self._tally["standing"] > WALK_PAGES and self._proof and self._phase is _Phase.PLAN:
            message = (
                f"no row of {WALK_PAGES} pages up to position {answer.end} was new, though the "
                f"list counts {answer.count}: it moves faster than it is read, or offset means "
                "nothing"
            )
            raise DriftError(message)

    def _look_behind(self, answer: _Answer) -> None:
        """Take what stands behind a page that brought nothing and should have shown the end."""
        self._probe = None
        if answer.ids and self._joins(answer):
            self._accept(answer)
        elif answer.ids:
            self._flags["clamped"] = None
            self._resize(len(self._last.ids) if self._last is not None else 1)
            self._phase, self._void = _Phase.PLAN, None
            self._next = max(self._behind, 1)
        elif (answer.count or 0) > answer.request.offset and not self.waiting:
            self._end_before_count()  # its count lies; a list that shrank would count less

    def _end_before_count(self) -> None:
        self._ended = True
        if (self._last_count or 0) > self._edge:
            self._flags["count_mismatch"] = None
            self._hollow = True

    def _deliver(self, answer: _Answer, *, proven: bool) -> bool:
        """Make the new rows of a page ready; tell whether there are any."""
        ids, last = answer.ids, self._last
        joint: int | None = 0
        if self.on_drift == "ignore":
            positions: Sequence[int] = range(max(0, self._edge - answer.request.offset), len(ids))
        else:
            shared = last.end - answer.request.offset if last is not None else 0
            if last is None or _is_seam(last.ids, ids, shared):
                positions, known = self._new_positions(ids, shared)
                joint = min(shared, 1)
            else:
                self._moved = True
                self._compare_order(last.ids, ids)
                positions, known = self._new_positions(ids, 0)
                self._tally["duplicates"] -= min(max(0, shared), len(ids) - len(positions))
                joint = known if answer.request.offset else 0
        self._tally["items"] += len(positions)
        if positions:
            joint = joint if proven else None
            page = answer.page
            self._tally["fruitful"] += 1
            self.ready.append(Accepted(answer.request, answer.count, page, positions, ids, joint))
        else:
            self._tally["barren"] += 1
        return bool(positions)

    def _new_positions(self, ids: Sequence[str], skip: int) -> tuple[Sequence[int], int | None]:
        """Keep the rows from `skip` on whose id was not there yet; nearly always all of them.

        Also tell how many rows lead up to the first one that was.
        """
        rest = ids[skip:] if skip else ids
        self._ids.expect(self.count or 0)
        if self._ids.add(rest):
            return range(skip, len(ids)), None
        positions: list[int] = []
        here: set[str] = set()
        known: int | None = None
        for position in range(skip, len(ids)):
            identity = ids[position]
            if identity in here:
                self._flags["repeated_rows"] = None
                self._tally["repeated"] += 1
            elif self._ids.add([identity]):
                positions.append(position)
            else:
                self._moved = True
                known = position + 1 if known is None else known
            here.add(identity)
        self._tally["duplicates"] += len(rest) - len(positions)
        return positions, known

    def _compare_order(self, before: Sequence[str], now: Sequence[str]) -> None:
        """Rows that two pages share have to stand in one order; else nothing is proven."""
        common = set(before).intersection(now)
        first, second = (
            [one for one in dict.fromkeys(ids) if one in common] for ids in (before, now)
        )
        if first != second:
            self._flags["order"] = None
            self._proof = False
            self._start_over()

    # -- bridging --------------------------------------------------------------------------------

    def _seek(self) -> None:
        """Begin a walk to what may join the first orphan, or to the end of a list that shrank."""
        nothing_to_join = not (self._ids or self.waiting)  # it was resumed without anchors
        if not self._proof or nothing_to_join:
            self._conclude()
            return
        if self._overlap and not self._repairs:
            self._give_up("gap" if self.waiting else "unproven")
            return
        if not self._overlap and not self.waiting and self._void is not None:
            self._end_before_count()
            self._conclude()
            return
        last, size = self._last, self._size or self.limit
        if last is not None and 0 < len(last.ids) < min(size, last.request.limit) and self.waiting:
            self._flags["clamped"] = None
            self._resize(len(last.ids))
        self._phase, self._walk = _Phase.WALK, _Walk(step=self._stride)
        if self._void is not None:
            self._walk.apart.add(self._void)
        orphan = min(self.waiting, default=None)
        cursor = self._behind
        if orphan is None and self._last_count is not None and not self._blind:
            cursor = min(cursor, self._last_count - size + 1)
        elif orphan is not None and orphan < self._edge:
            cursor = orphan - self._stride
        self._walk_to(cursor)

    def _walk_to(self, offset: int) -> None:
        self._tally["barren"] += 1
        self._tally["re_reads"] += 1
        if self._tally["barren"] > 2 * (WALK_PAGES + self._tally["fruitful"]):
            self._give_up("unproven")
        else:
            self._again.append(self._page(offset))

    def _walk_on(self, answer: _Answer) -> None:
        offset = answer.request.offset
        self._headed |= offset == 0
        if self._joins(answer):
            self._accept(answer)
            self._walk.low, self._walk.step = offset, self._stride
            behind = answer.end - self._overlap
            self._walk.apart = {at for at in self._walk.apart if at >= behind}  # others are older
        else:
            self._walk.apart.add(offset)
            if len(answer.ids) > 1 and self._walk.low == offset - 1 and not self._stepped:
                message = (
                    f"the pages at offsets {offset - 1} and {offset} share no row: the server "
                    "takes offset for something else, such as a page number"
                )
                raise DriftError(message)

    def _walk_further(self) -> None:
        """Go right of what is anchored, left of what is not, and between them where both are."""
        walk, right = self._walk, self._behind
        low, high = walk.low, min(walk.apart, default=None)
        if low is not None and not self.waiting and (high is None or right < high):
            self._phase, self._next = _Phase.PLAN, right
            if self._void is not None and self._void <= right:
                self._void = None
        elif high is not None and not self._overlap:
            self._leap()
        elif low is None:
            self._walk_to((high or 0) - walk.step)
            walk.step *= 2
        elif high is None or right < high:
            self._walk_to(max(right, low + 1))
        elif high - low > 1:
            self._walk_to((low + high) // 2 if self._stepped else low + 1)
        elif self._stepped:  # what was anchored has gone since
            walk.low, walk.apart, walk.step = None, set(), self._stride
            self._walk_to(low - walk.step)
        else:
            self._give_up("gap")

    def _leap(self) -> None:
        """Give up the rows of a page that stays empty: nothing but offsets is known here."""
        self._phase = _Phase.PLAN
        if self.waiting:
            self._flags["gap"] = None
            self._edge = min(self.waiting)
            self._advance()
        else:
            self._end_before_count()
            self._conclude()

    def _give_up(self, flag: str) -> None:
        """Take pages as they come from here on: what joins them is not to be found."""
        self._flags[flag] = None
        self._proof = False
        self._phase = _Phase.PLAN
        self._advance()

    # -- ending ----------------------------------------------------------------------------------

    def _conclude(self) -> None:
        """Deliver what is left; then see what jumped to the head, sweep, or close the batch."""
        for offset in sorted(self.waiting):
            self._deliver(self.waiting.pop(offset), proven=False)
        if self._repairs and self._proof and self._head_may_have_moved():
            self._phase, self._headed = _Phase.HEAD, True
            self._tally["re_reads"] += 1
            self._again.append(self._page(0))
        elif self._repairs and "order" in self._flags and self._may_sweep():
            self._phase, self._proof, self._ended = _Phase.PLAN, False, False
            self._tally["sweeps"] += 1
            self._next, self._void = 0, None
        else:
            self._finish()

    def _head_may_have_moved(self) -> bool:
        changed = self._moved or self._least_count != self.count
        return changed and not self._headed and self._first is not None and self._stepped

    def _look_at_head(self, answer: _Answer) -> None:
        """Take what stands before the rows of the old page 0, which keep their order."""
        first = self._first.ids if self._first is not None else ()
        self._compare_order(first, answer.ids)
        dropped, self._last = self._tally["duplicates"], None
        fresh = self._deliver(answer, proven=False)
        self._tally["duplicates"] = dropped
        self._ended = not fresh or not set(first).isdisjoint(answer.ids)
        if not self._ended:
            self._walk_to(max(answer.request.offset + 1, answer.end - self._overlap))

    def _counted(self) -> bool:
        rows = len(self._ids) + self._tally["repeated"]
        return not self._base and self._least_count == self.count == rows

    def _may_sweep(self) -> bool:
        constant = self.count is not None and self._least_count == self.count
        return constant and not self._counted() and self._tally["sweeps"] < SWEEPS

    def _finish(self) -> None:
        """Close the batch, judge it, and free what was held to tell its rows apart."""
        self.complete = True
        if not self.heads_only:
            self.drift = self._judge()
        if not self.may_be_cut:
            self.release()
        if self.on_drift == "raise" and self.drift == "unknown" and not self.heads_only:
            self.complete, self.failed = False, True
            self._start_over()
            message = (
                f"the list moved in a way that leaves rows in doubt ({', '.join(self._flags)}); "
                'scan again, or take what came with on_drift="repair"'
            )
            raise DriftError(message)

    def _judge(self) -> Drift:
        """Say what is proven; see `BatchReport` for the words."""
        if self.on_drift == "ignore":
            self._flags["unchecked"] = None
            return "unknown"
        constant = self._least_count == self.count
        rows = self._tally["items"] + self._tally["repeated"]
        before = self._read_before
        short = before is not None and rows < (self._least_count or 0) - before
        if short or self._hollow:
            self._flags["short_of_count"] = None
        joined = not self._base or self._start < self._base  # to what was read before
        alone = not self._base and (self._asked == 1 or not self._tally["pages"])
        if not joined or not (self._overlap or alone):
            self._flags["no_overlap"] = None
        doubts = {"no_overlap", "offset_ignored", "gap"} & self._flags.keys()
        short = self._hollow or (short and constant)
        if self._proof and self._ended and not doubts and not short:
            calm = constant and not self._moved and not self._tally["re_reads"]
            return "exact" if calm else "repaired"
        if "order" in self._flags and self._counted():
            self._flags["counted"] = None
            return "repaired"
        return "unknown"

    @property
    def may_be_cut(self) -> bool:
        """Whether it ended with a short page, none of its pages was longer, and none is behind it.

        If the list shows later that its pages are never longer, it was not the end: see `doubt`.
        """
        last = self._last
        short = last is not None and 0 < len(last.ids) < last.request.limit
        return self.complete and short and self.last_rows >= self._longest and not self._blind

    @property
    def last_rows(self) -> int:
        """How many rows the page had that was accepted last."""
        return len(self._last.ids) if self._last is not None else 0

    def doubt(self) -> None:
        """Read on behind a page that may have been cut, though it looked like the end."""
        self.complete = self._ended = False
        self.drift = "unknown"
        if self._last is not None:
            self._look_on(self._last)

    def _look_on(self, answer: _Answer) -> None:
        """Take the length of a page for that of all, and ask for what is behind it."""
        self._blind = True
        self._resize(len(answer.ids))
        self._next = max(answer.request.offset + 1, self._behind)

    @property
    def ids_bytes(self) -> int:
        """What the ids take that were seen so far."""
        return self._ids.nbytes

    def fail(self, unread: int | None) -> None:
        """Read nothing more; if so many rows that were taken stay unread, so do those behind."""
        self.complete, self.failed = False, True
        self.release()
        if unread is not None:
            self._tally["items"] -= unread + sum(len(page.positions) for page in self.ready)
            self.ready.clear()

    def release(self) -> None:
        """Free what only reading on needs."""
        self.waiting.clear()
        self._again.clear()
        self._ids = IdSet()
        self._first = self._last = None

    def _start_over(self) -> None:
        """Let a later scan read the batch from its beginning: no position in it means anything."""
        self.mark, self._lost = Mark(), True

    def mark_after(self, accepted: Accepted, rows: int) -> Mark:
        """Say where reading goes on once this many new rows of a page are done with."""
        joint = accepted.joint
        if not rows or joint is None or self._lost:
            return self.mark
        row = accepted.positions[rows - 1] + 1
        if row < joint:
            return self.mark
        anchors = accepted.ids[max(0, row - self._overlap) : row] if self._overlap else ()
        return Mark(accepted.request.offset + row, self._last_count, tuple(anchors))

    def verdict(self) -> BatchReport:
        """Say what reading the batch came to, or has come to so far."""
        return BatchReport(
            number=self.number,
            ids=self.query.ids,
            count=self.count,
            items=self._tally["items"],
            pages=self._tally["pages"],
            re_reads=self._tally["re_reads"],
            duplicates_dropped=self._tally["duplicates"],
            page_size_seen=self._size,
            drift=self.drift,
            flags=tuple(self._flags),
            complete=self.complete,
        )


def _is_seam(before: Sequence[str], now: Sequence[str], shared: int) -> bool:
    """Tell whether a page begins with exactly the last rows of the one before it."""
    if not 0 <= shared <= min(len(before), len(now)):
        return False
    return list(before[len(before) - shared :]) == list(now[:shared])
