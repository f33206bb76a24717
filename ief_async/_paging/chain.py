"""The pages of one batch that were accepted, and those that wait for the page before them. Pure."""

from collections.abc import Iterable, Sequence

import attrs

from ief_async._checkpoint import Mark
from ief_async._errors import DriftError, OnDrift
from ief_async._paging.batches import Query
from ief_async._paging.pages import PageAnswer, PageRequest
from ief_async._paging.seen import IdSet
from ief_async._paging.shape import Shape
from ief_async._paging.verdict import Verdict

STANDSTILL_PAGES = 20  # pages in a row that may bring nothing new


@attrs.define(eq=False, kw_only=True, repr=False)
class Chain:
    """Pages, each anchored to one before it, up to the page that shows the end of the list.

    Attributes:
        shape: the page size, the overlap and the counts of the batch.
        verdict: where it is noted what moved, and what came twice.
        resumed_at: the position at which this reading began.
        first_offset: where its first page begins, which overlaps what was read before.
        rows_before: rows that were read before, up to the anchors as the first page showed them;
            None while that is not known.
        ids: the ids of all rows of anchored pages.
        first: page 0; its ids are compared with what the head of the list holds later.
        last: the page that the next one has to follow, or None.
        tail: the page that was accepted last.
        edge: the position behind it.
        waiting: answers that were not accepted yet, by offset.
        empty_from: an offset that came empty, with no rows behind it; or None.
        proof: anchors prove something; else pages are taken as they come.
        positions_lost: rows changed places: no position in the list means anything.
        ended: an accepted page showed the end of the list.
        past_first: a page that is not the first one was anchored.
        echoes: pages that were page 0 once more.
        others: pages that were not.
        standstill: pages in a row that brought nothing new.
    """

    shape: Shape
    verdict: Verdict
    resumed_at: int = 0
    first_offset: int = 0
    rows_before: int | None = 0
    ids: IdSet = attrs.field(factory=IdSet)
    first: PageAnswer | None = None
    last: PageAnswer | None = None
    tail: PageAnswer | None = None
    edge: int = 0
    waiting: dict[int, PageAnswer] = attrs.field(factory=dict)
    empty_from: int | None = None
    proof: bool = True
    positions_lost: bool = False
    ended: bool = False
    past_first: bool = False
    echoes: int = 0
    others: int = 0
    standstill: int = 0

    def resume(self, mark: Mark, number: int, query: Query) -> None:
        """Go on where a checkpoint has left the batch: its anchors count as a page."""
        anchors = mark.anchors if self.shape.overlaps else ()
        self.edge = self.resumed_at = mark.offset
        self.first_offset = mark.offset - len(anchors)
        before = PageRequest(number, query, self.first_offset, len(anchors))
        self.last = self.tail = PageAnswer(before, mark.count, list(anchors), None)
        self.ids.update(anchors)
        self.rows_before = None
        self.shape.note_count(mark.count)

    @property
    def behind(self) -> int:
        """The offset of the page behind what was accepted, its overlap included."""
        return max(0, self.edge - self.shape.overlap)

    def behind_of(self, answer: PageAnswer) -> int:
        """Return the offset of the page behind this one, its overlap included."""
        return answer.end - self.shape.overlap

    @property
    def first_waiting(self) -> int | None:
        """The smallest offset of the pages that wait, or None."""
        return min(self.waiting, default=None)

    @property
    def is_joined(self) -> bool:
        """Whether it overlaps what was read before it was resumed, if it was."""
        return not self.resumed_at or self.first_offset < self.resumed_at

    @property
    def counted(self) -> bool:
        """Whether just as many rows came as every answer counted."""
        rows = len(self.ids) + self.verdict.repeated
        shape = self.shape
        return not self.resumed_at and shape.least_count == shape.count == rows

    @property
    def tail_rows(self) -> int:
        """How many rows the page has that was accepted last."""
        return len(self.tail.ids) if self.tail is not None else 0

    @property
    def may_be_cut(self) -> bool:
        """Whether the page that was accepted last may have been cut, as no page was longer."""
        return self.tail is not None and self.shape.may_be_cut(self.tail)

    @property
    def is_cut(self) -> bool:
        """Whether that page is as long as the longest that the list is known to give."""
        return self.tail is not None and self.shape.is_cut(self.tail)

    @property
    def head_may_have_moved(self) -> bool:
        """Whether there is a sign of a change, and rows may have jumped to the head since."""
        changed = self.verdict.moved or not self.shape.count_is_constant
        return self.proof and changed and self.first is not None and self.past_first

    @property
    def lacks_counted_rows(self) -> bool:
        """Whether rows changed places, and not just as many came as every answer counted."""
        shape = self.shape
        constant = shape.count is not None and shape.count_is_constant
        return self.verdict.flags.order and constant and not self.counted

    # -- which page is next ----------------------------------------------------------------------

    def anchors(self, answer: PageAnswer) -> bool:
        """Tell whether a page is anchored. There are three cases.

        Page 0 always is, and every page is once nothing is proven any more. Where pages do not
        overlap, a page has to begin at the edge at the latest. Else it has to share an id.
        """
        if answer.offset == 0 or not self.proof:
            return True
        if not self.shape.overlap or not self.ids:
            return bool(answer.ids) and answer.offset <= self.edge
        return not self.ids.isdisjoint(answer.ids)

    def pop_anchored(self, before: int | None) -> PageAnswer | None:
        """Return the first waiting page that is anchored; None if one before it is to come."""
        for offset in sorted(self.waiting):
            if before is not None and before < offset:
                return None
            if self.anchors(self.waiting[offset]):
                return self.waiting.pop(offset)
        return None

    def wait(self, answer: PageAnswer) -> None:
        """Keep a page until its turn; one with unknown rows shows that the list goes on."""
        self.waiting[answer.offset] = answer
        if self.ended and not self.ids.issuperset(answer.ids):
            self.ended = False
        if self.empty_from is not None and answer.end > self.empty_from:
            self.empty_from = None

    def note_empty(self, offset: int) -> None:
        """Note an offset that stayed empty, unless pages behind it have rows."""
        if not any(at > offset for at in self.waiting):
            self.empty_from = offset if self.empty_from is None else min(offset, self.empty_from)

    # -- what is new in it -----------------------------------------------------------------------

    def append(self, answer: PageAnswer) -> None:
        """Put a page behind those that were accepted."""
        self.last = self.tail = answer.without_page()
        self.edge = answer.end if self.shape.overlap else max(self.edge, answer.end)
        self.past_first |= answer.offset > 0
        self.verdict.pages += 1
        if answer.count is not None and answer.end > answer.count:
            self.shape.open_ended = True
            self.verdict.flags.count_mismatch = True

    def find_rows_before(self, answer: PageAnswer, anchors: Iterable[str]) -> None:
        """Learn from the first page of a resumed batch how many rows were read before."""
        if self.rows_before is None:
            known = set(anchors)
            places = [at for at, one in enumerate(answer.ids) if one in known]
            self.rows_before = answer.offset + places[-1] + 1 if places else None

    def new_rows(self, answer: PageAnswer) -> tuple[Sequence[int], int | None]:
        """Return the positions of the new rows of a page, and after how many it is resumable.

        There are four cases: ids are not compared at all; nothing goes before the page; it begins
        with exactly the rows that the page before it ends with; the list moved between the two.
        """
        ids, last = answer.ids, self.last
        if not self.shape.overlaps:
            return range(max(0, self.edge - answer.offset), len(ids)), 0
        shared = 0 if last is None else last.end - answer.offset
        if last is None or _begins_with_end_of(last.ids, ids, shared):
            positions, _ = self._add(ids, shared)
            return positions, min(shared, 1)
        self.verdict.moved = True
        self.compare_order(last.ids, ids)
        positions, known = self._add(ids, 0)
        self.verdict.duplicates -= min(max(0, shared), len(ids) - len(positions))
        return positions, known if answer.offset else 0

    def _add(self, ids: Sequence[str], skip: int) -> tuple[Sequence[int], int | None]:
        """Add the rows from `skip` on whose id is not there yet; nearly always all of them.

        Also tell how many rows lead up to the first one that was there, that one included.
        """
        rest = ids[skip:] if skip else ids
        self.ids.expect(self.shape.count or 0)
        if self.ids.add(rest):
            return range(skip, len(ids)), None
        positions: list[int] = []
        here: set[str] = set()
        known: int | None = None
        for position in range(skip, len(ids)):
            identity = ids[position]
            if identity in here:
                self.verdict.flags.repeated_rows = True
                self.verdict.repeated += 1
            elif self.ids.add([identity]):
                positions.append(position)
            else:
                self.verdict.moved = True
                known = position + 1 if known is None else known
            here.add(identity)
        self.verdict.duplicates += len(rest) - len(positions)
        return positions, known

    def compare_order(self, before: Sequence[str], now: Sequence[str]) -> None:
        """Note whether the rows that two pages share stand in one order; else nothing is proven."""
        common = set(before).intersection(now)
        first, second = (
            [one for one in dict.fromkeys(ids) if one in common] for ids in (before, now)
        )
        if first != second:
            self.verdict.flags.order = True
            self.proof = False
            self.positions_lost = True

    # -- where it ends ---------------------------------------------------------------------------

    def judge(self, on_drift: OnDrift) -> None:
        """Judge what came of a batch that was read to its end."""
        shape, verdict = self.shape, self.verdict
        rows = verdict.items + verdict.repeated
        before = self.rows_before
        empty = not self.resumed_at and not verdict.pages
        verdict.judge(
            on_drift,
            proven=self.proof and self.ended,
            overlapped=self.is_joined and bool(shape.overlap or empty),
            missing=before is not None and rows < (shape.least_count or 0) - before,
            count_is_constant=shape.count_is_constant,
            counted=self.counted,
        )

    def end_below_count(self) -> None:
        """Take what was read for all there is; note if the server counts more."""
        self.ended = True
        if (self.shape.last_count or 0) > self.edge:
            self.verdict.flags.count_mismatch = True
            self.verdict.ended_below_count = True

    def repeats_first(self, answer: PageAnswer) -> bool:
        """Tell whether page 0 came once more and is all there is.

        A cache may answer with page 0 now and then, so once is not enough for an error.

        Raises:
            DriftError: the server only has page 0, whatever the offset.
        """
        first = self.first
        alone = len(answer.ids) <= 1  # one row may move to where it is read again
        if not answer.offset or alone or first is None:
            return False
        if list(answer.ids) != list(first.ids):
            self.others += 1
            return False
        if len(first.ids) < first.request.limit > answer.offset:
            return False  # where both pages cover the same rows, they may hide the same
        self.echoes += 1
        if self.others:
            return False
        if answer.count is not None and answer.count <= len(answer.ids):
            self.verdict.flags.offset_ignored = True
            return True
        if self.echoes > 1:
            message = (
                f"offset {answer.offset} brought the same {len(answer.ids)} ids as offset "
                f"0, of a list that counts {answer.count} rows: the server ignores offset"
            )
            raise DriftError(message)
        return False

    def note_progress(self, answer: PageAnswer, *, fresh: bool, planned: bool) -> None:
        """Note whether a page brought something new.

        Raises:
            DriftError: the planned pages bring nothing new, page after page.
        """
        self.standstill = 0 if fresh else self.standstill + 1
        if self.standstill > STANDSTILL_PAGES and self.proof and planned:
            message = (
                f"no row of {STANDSTILL_PAGES} pages up to position {answer.end} was new, though "
                f"the list counts {answer.count}: it moves faster than it is read, or offset means "
                "nothing"
            )
            raise DriftError(message)

    def release(self) -> None:
        """Free what only reading on needs."""
        self.waiting.clear()
        self.ids = IdSet()
        self.first = self.last = self.tail = None


def _begins_with_end_of(before: Sequence[str], now: Sequence[str], shared: int) -> bool:
    """Tell whether a page begins with exactly the last rows of the one before it."""
    if not 0 <= shared <= min(len(before), len(now)):
        return False
    return list(before[len(before) - shared :]) == list(now[:shared])
