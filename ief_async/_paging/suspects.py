"""Batches that ended with a page which may turn out to have been cut. Pure."""

from collections import deque

import attrs

from ief_async._paging.batch_plan import BatchPlan
from ief_async._paging.shape import PageCap

MOST_KEPT = 64  # batches that can be read on; of the others only the number is kept


@attrs.define(eq=False, repr=False)
class Suspects:
    """Batches whose last page is short, and as long as the longest short page of the list.

    If the list shows later that its pages are never longer, that page was not the end. Then the
    latest of these batches are read on, and the verdict on the others is in doubt.

    Attributes:
        cap: how long the pages of the list are at most, as far as that was seen.
        kept: batches that can still be read on, the oldest first.
        let_go: the numbers of those that can't.
        rows: how many rows the last page of each of them has.
        told: whether it was noticed that the cap is shown; what ends after that is no suspect.
    """

    cap: PageCap
    kept: deque[BatchPlan] = attrs.field(factory=deque)
    let_go: list[int] = attrs.field(factory=list)
    rows: int = 0
    told: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.told = self.cap.shown

    def notice_cap(self) -> bool:
        """Tell, once, that the list has shown its cap since, be it to another scan."""
        news = self.cap.shown and not self.told
        self.told = self.cap.shown
        return news

    def add(self, plan: BatchPlan) -> list[BatchPlan]:
        """Keep a batch that has ended, if it is one of them; return those that are not any more."""
        rows = plan.chain.tail_rows
        if not plan.may_be_cut or self.cap.shown or rows < self.cap.longest:
            plan.release()
            return []
        closed: list[BatchPlan] = []
        if rows > self.rows:  # the pages of the others were not cut: this one is longer
            closed += self.kept
            self.kept.clear()
            self.let_go.clear()
            self.rows = rows
        self.kept.append(plan)
        while len(self.kept) > MOST_KEPT:
            closed.append(self.kept.popleft())
            self.let_go.append(closed[-1].number)
        for one in closed:
            one.release()
        return closed

    def drain(self) -> list[BatchPlan]:
        """Keep none of them any more; return those that could be read on."""
        kept = list(self.kept)
        self.kept.clear()
        self.let_go.clear()
        return kept
