"""Where the consumer of a scan is: the page in hand, and how much of it is finished with."""

import operator
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from ief_async._checkpoint import Part, ScanCheckpoint
from ief_async._paging import Accepted, Batcher, ScanPlan

T = TypeVar("T")


class Cursor(Generic[T]):
    """Where the consumer of a scan is.

    The consumer takes a page of the plan at a time. Its rows are structured from the first to the
    last, and come to the consumer in chunks of items or as the whole page. There are three cases:

    1. There is no page in hand: `page` is None.
    2. Some rows of the page were not structured yet: they are `rest`.
    3. All rows were structured; the last of their items may still be in the chunk in hand.

    An item is finished with once the next one is asked for, and a page likewise. The plan learns
    of whole pages only, by `acknowledge`; what is finished of the page in hand is in `checkpoint`.

    Attributes:
        page: the page in hand.
        pages: how many pages were taken.
        bad_items: rows that could not be read, and were left out or replaced.
        skipped: those of them that were left out.
    """

    def __init__(self, plan: ScanPlan, batcher: Batcher, fingerprint: int) -> None:
        self.page: Accepted | None = None
        self.pages = 0
        self.bad_items = 0
        self.skipped = 0
        self._plan = plan
        self._batcher = batcher
        self._fingerprint = fingerprint
        self._structured = 0  # rows of the page
        self._chunk: Iterator[T] | None = None  # of the page; handed out one by one
        # items that were left in the chunk when it was made, or acknowledged: where fewer are left
        # now, the last one that was handed out is still in use
        self._left_before = 0
        self._items = 0  # in chunks and pages so far

    @property
    def rest(self) -> Sequence[int]:
        """The positions of the rows of the page in hand that were not structured yet."""
        return self.page.positions[self._structured :] if self.page is not None else ()

    @property
    def items(self) -> int:
        """How many items were handed out."""
        return self._items - self._left

    @property
    def _left(self) -> int:
        """How many items of the chunk in hand were not handed out yet."""
        return 0 if self._chunk is None else operator.length_hint(self._chunk)

    def take(self) -> Accepted | None:
        """Take the next page of the plan, if it is there; the one before is finished with."""
        self.page, self._chunk, self._structured = self._plan.take(), None, 0
        self.pages += self.page is not None
        return self.page

    def acknowledge(self) -> None:
        """Count all that was handed out as finished with: the consumer asks for other things."""
        if self.page is None:
            return
        self._left_before = self._left
        if not self.rest and not self._left:
            self._plan.acknowledge(self.page)
            self.page = self._chunk = None

    def hand_out(self, items: Sequence[T]) -> Iterator[T]:
        """Return these items as the chunk in hand; the chunk before is finished with."""
        self._chunk, self._left_before = iter(items), len(items)
        self._items += len(items)
        return self._chunk

    def hand_out_page(self, items: Sequence[T]) -> ScanCheckpoint:
        """Hand out the whole page in hand; return the checkpoint behind it."""
        self._items += len(items)
        return self._checkpoint_at(self._structured)

    def advance(self, rows: int) -> None:
        """Note that so many more rows of the page were structured."""
        self._structured += rows

    def pass_bad_row(self, *, replaced: bool) -> None:
        """Note that a row of the page can't be read, and whether an item stands in its place."""
        self._structured += 1
        self.bad_items += 1
        if not replaced:
            self.skipped += 1
            self._plan.skip()

    def drop_page(self) -> int:
        """Take no more of the page in hand, and return how many of its rows stay unread.

        What came of it in chunks is finished with. Of a page that was to be handed out whole all
        rows stay unread.
        """
        assert self.page is not None  # noqa: S101  who drops a page has one
        read = 0
        if self._chunk is not None:
            read = self._structured
            self._plan.acknowledge(self.page, read)
        unread = len(self.page.positions) - read
        self.page = self._chunk = None
        return unread

    def checkpoint(self) -> ScanCheckpoint:
        """Return what the consumer is finished with."""
        if self._chunk is None:
            return self._checkpoint_at(0)
        in_use = self._left < self._left_before
        return self._checkpoint_at(self._structured - self._left - in_use)

    def _checkpoint_at(self, rows: int) -> ScanCheckpoint:
        """Return the checkpoint with so many rows of the page in hand finished with."""
        entries = (*self._plan.entries(self.page, rows), *self._batcher.pending_entries)
        first = self._batcher.first
        own = (Part(first, entries),) if first is not None and entries else ()
        return ScanCheckpoint(scan=self._fingerprint, parts=(*own, *self._batcher.pending_parts))
