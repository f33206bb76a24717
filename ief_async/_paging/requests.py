"""Which page of one batch to ask for next, and what was asked for already. Pure."""

import enum
from collections import Counter, deque

import attrs

from ief_async._errors import DriftError
from ief_async._paging.batches import Query
from ief_async._paging.chain import Chain
from ief_async._paging.pages import PageAnswer, PageRequest
from ief_async._paging.shape import Shape

EMPTY_TRIES = 3  # how often an empty page below count is asked for before it is believed
UNCOUNTED_PAGES = 10_000  # pages that no count explains, before the list counts as endless


class Signal(enum.Enum):
    """What `next_request` says when there is no request to send."""

    NOTHING_YET = enum.auto()  # an answer, a delivery or another batch has to come first
    DONE = enum.auto()  # every batch is read to its end


@attrs.define(eq=False, kw_only=True, repr=False)
class Requests:
    """The requests of one batch.

    Attributes:
        number: of the batch.
        query: what the batch asks for.
        chain: the pages that were accepted.
        look_ahead: pages that may be asked for at once where no count helps.
        next_offset: where the next planned page begins.
        in_flight: offsets that were asked for and not answered.
        again: requests that go before the planned ones: repeats, and the steps of a walk.
        tries: how often an offset came empty.
        probe: an offset that is asked for to see whether the list ends there, or None.
        asked: how many requests were made.
    """

    number: int
    query: Query
    chain: Chain
    look_ahead: int
    next_offset: int
    in_flight: set[int] = attrs.field(factory=set)
    again: deque[PageRequest] = attrs.field(factory=deque)
    tries: Counter[int] = attrs.field(factory=Counter)
    probe: int | None = None
    asked: int = 0

    @property
    def shape(self) -> Shape:
        """The page size, the overlap and the counts."""
        return self.chain.shape

    @property
    def pending(self) -> bool:
        """Whether pages are still to come, or to be asked for again."""
        return bool(self.in_flight or self.again)

    @property
    def earliest(self) -> int | None:
        """The smallest offset whose page is still to come, or None."""
        return min([*self.in_flight, *(request.offset for request in self.again)], default=None)

    def promised(self, *, planned: bool) -> int:
        """Return how many rows come without another request, if the count is right.

        There are three cases: nothing is known yet; pages are asked for as planned; there is
        nothing more to come but what was accepted.
        """
        shape, items = self.shape, self.chain.verdict.items
        if shape.size is None:
            return shape.limit if self.asked else 0
        if planned and (self.in_flight or self.chain.waiting):
            end = self.next_offset + shape.overlap
            expected = end if shape.last_count is None else min(end, shape.last_count)
            return max(items, expected - self.chain.resumed_at)
        return items

    @property
    def may_be_split(self) -> bool:
        """Whether the query may be asked in two: no rows of it came, now or before a resume."""
        return not self.chain.verdict.items and not self.chain.resumed_at

    @property
    def awaits_count(self) -> bool:
        """Whether the first page is in flight, which tells how much the list holds."""
        return self.shape.size is None and bool(self.in_flight)

    def pop_anchored(self, *, planned: bool) -> PageAnswer | None:
        """Return the first waiting page that is anchored, or None.

        While pages come as planned, none is returned before those that go before it have come.
        """
        if not self.chain.waiting:
            return None
        return self.chain.pop_anchored(self.earliest if planned else None)

    def learn(self, answer: PageAnswer) -> None:
        """Learn from the first page how long pages are, and plan the others."""
        self.shape.learn(answer, self.chain.verdict.flags)
        self.next_offset = max(answer.offset + 1, self.chain.behind_of(answer))
        if answer.offset == 0:
            self.chain.first = answer.without_page()

    def probe_behind(self, answer: PageAnswer, *, short: bool) -> None:
        """Look whether the list ends with a page that brought nothing, if it looks like it."""
        if not self.shape.overlap or self.probe is not None:
            return
        size = min(self.shape.given, answer.request.limit)
        ends = short and answer.offset + size >= (answer.count or 0)
        if ends or len(answer.ids) <= self.shape.overlap:  # or pages are shorter than the overlap
            self.probe = answer.end
            self.repeat(answer.end)

    def read_on(self) -> None:
        """Plan what is behind the accepted pages, as the gap there is closed."""
        chain = self.chain
        self.next_offset = chain.behind
        if chain.empty_from is not None and chain.empty_from <= chain.behind:
            chain.empty_from = None

    def plan_shorter(self) -> None:
        """Plan anew with pages as long as the one that was accepted last."""
        chain = self.chain
        self.shape.resize(len(chain.last.ids) if chain.last is not None else 1)
        chain.empty_from = None
        self.next_offset = max(chain.behind, 1)

    def look_behind(self, answer: PageAnswer) -> None:
        """Take the length of a page for that of all, and plan the pages behind it."""
        self.shape.open_ended = True
        self.shape.resize(len(answer.ids))
        self.next_offset = self.chain.behind

    def next(self, more: int | None, *, planned: bool) -> PageRequest | Signal:
        """Say which page to ask for now; the first one goes alone, as it reveals the others.

        Args:
            more: how many rows are needed that were not asked for yet; None: every one.
            planned: whether pages may be asked for that nothing waits for yet.

        Raises:
            DriftError: the list does not end.
        """
        if self.again:
            return self._send(self.again.popleft())
        if self.asked and not planned:
            return Signal.NOTHING_YET
        shape, offset = self.shape, self.next_offset
        overlap = shape.overlap if self.asked else self.chain.resumed_at - offset
        rows = shape.limit if more is None else more + overlap
        if rows <= overlap or (self.asked and offset >= self.horizon()):
            return Signal.NOTHING_YET
        if shape.overlaps and not self.asked:
            rows = max(rows, 2)  # a page of one row has nothing to share with the next one
        limit = min(shape.limit, rows)
        self.next_offset = offset + max(1, min(shape.given, limit) - shape.overlap)
        return self._send(self._page(offset, limit))

    def _page(self, offset: int, limit: int) -> PageRequest:
        return PageRequest(self.number, self.query, max(0, offset), limit)

    def _send(self, request: PageRequest) -> PageRequest:
        counted = self.shape.first_count
        explained = 2 * (counted or 0) // max(1, self.shape.stride)
        if self.asked >= explained + UNCOUNTED_PAGES:
            message = (
                f"{self.asked} pages were read of a list that counted {counted} rows, "
                "and its end never came; ask for fewer ids at once, or for a larger page_size"
            )
            raise DriftError(message)
        self.asked += 1
        self.in_flight.add(request.offset)
        return request

    def horizon(self) -> int:
        """Return the offset up to which planned pages are worth asking for."""
        chain, shape = self.chain, self.shape
        if chain.ended or self._next_is_unanchored():
            return 0
        horizon = (shape.last_count or 0) - shape.overlap
        # a page of fewer rows than the overlap, as max_items may ask for, is passed all the same
        behind = max(chain.behind, chain.last.offset + 1 if chain.last is not None else 0)
        if shape.open_ended:
            ahead = self.look_ahead if chain.verdict.pages > 1 else 1
            horizon = max(horizon, behind + (ahead - 1) * shape.stride + 1)
        elif chain.proof and not self.in_flight:
            horizon = max(horizon, behind + 1)
        if chain.empty_from is None:
            return horizon
        passes = self.tries[chain.empty_from] >= EMPTY_TRIES and not shape.overlap
        return min(horizon, chain.empty_from + passes * (shape.stride + 1))  # rows may be behind it

    def _next_is_unanchored(self) -> bool:
        """Tell whether the next page in the list's order is there and is not anchored."""
        first = self.chain.first_waiting
        if first is None:
            return False
        earliest = self.earliest
        return earliest is None or earliest >= first

    def repeat(self, offset: int) -> None:
        """Ask for a page out of the plan's order, before all others."""
        self.again.append(self._page(offset, self.shape.limit))

    def repeats_empty(self, answer: PageAnswer) -> bool:
        """Ask for an empty page again: twice if its answer counts more, once if it is page 0.

        Raises:
            DriftError: page 0 stayed empty, though its answers count rows.
        """
        offset = answer.offset
        missing = (answer.count or 0) > offset
        self.tries[offset] += 1
        if self.tries[offset] < (EMPTY_TRIES if missing else 2 if offset == 0 else 1):
            self.again.append(answer.request)
            return True
        if missing and offset == 0:
            message = (
                f"page 0 came empty {self.tries[0]} times, though the list counts "
                f"{answer.count} rows"
            )
            raise DriftError(message)
        return False

    def halve(self, request: PageRequest) -> bool:
        """Ask for a page in two halves, and from now on for pages of half its size."""
        shape = self.shape
        half = -(-request.limit // 2)
        if half == request.limit:
            return False
        self.in_flight.discard(request.offset)
        shape.limit = min(shape.limit, half)
        if shape.size is None:
            self.repeat(request.offset)
            return True
        shape.resize(min(shape.size, shape.limit))
        rest = request.offset + half - shape.overlap
        self.again.append(self._page(request.offset, half))
        self.again.append(self._page(rest, request.offset + request.limit - rest))
        return True
