"""The batches of a scan that were not taken to their end, in the order of the ids. Pure."""

from collections.abc import Iterator
from typing import Any

import attrs

from ief_async._paging.batch_plan import BatchPlan
from ief_async._paging.ledger import Place


@attrs.define(eq=False, repr=False)
class OpenBatches:
    """The batches that are read now, or of which pages wait to be taken: the window's worth.

    Attributes:
        ordered: whether batches are delivered in the order of the ids.
    """

    ordered: bool
    _plans: dict[int, BatchPlan] = attrs.field(factory=dict)  # by number, in the order of the ids

    def __len__(self) -> int:
        return len(self._plans)

    def __iter__(self) -> Iterator[BatchPlan]:
        return iter(self._plans.values())

    def __contains__(self, number: int) -> bool:
        return number in self._plans

    def get(self, number: int) -> BatchPlan | None:
        """Return a batch by its number, or None if it is not open."""
        return self._plans.get(number)

    def add(self, plan: BatchPlan) -> None:
        """Add a batch behind the others; see `sort`."""
        self._plans[plan.number] = plan

    def remove(self, plan: BatchPlan) -> None:
        """Remove a batch that was taken to its end."""
        del self._plans[plan.number]

    def sort(self) -> None:
        """Put the batches back into the order of the ids, after halves or an old one were added."""
        ordered = sorted(self._plans.values(), key=lambda plan: plan.place)
        self._plans = {plan.number: plan for plan in ordered}

    def next_ready(self, last: Place | None) -> BatchPlan | None:
        """Return the batch whose page is to be taken next; none of those behind `last`."""
        for plan in self:
            if plan.delivery.ready and (last is None or plan.place <= last):
                return plan
            if self.ordered:
                break
        return None

    @property
    def held(self) -> int:
        """How many pages arrived and were not taken yet."""
        held = 0
        for plan in self._plans.values():
            held += len(plan.chain.waiting) + len(plan.delivery.ready)
        return held

    def pages(self) -> Iterator[Any]:
        """Give what was handed in with the pages that arrived and were not taken yet."""
        for plan in self:
            yield from (answer.page for answer in plan.chain.waiting.values())
            yield from (accepted.page for accepted in plan.delivery.ready)

    @property
    def ids_bytes(self) -> int:
        """What it takes to tell the rows of these batches apart."""
        return sum(plan.chain.ids.nbytes for plan in self)

    @property
    def expected(self) -> int | None:
        """How many rows they count together, once the first page of each has come."""
        expected = [plan.expected for plan in self]
        known = [rows for rows in expected if rows is not None]
        return sum(known) if len(known) == len(expected) else None

    @property
    def promised(self) -> int:
        """How many rows they bring without another request, if their counts are right."""
        return sum(plan.promised for plan in self)

    def rows_wanted(self, most: int, limit: int) -> dict[int, int]:
        """Return by number how many rows of each batch are needed, if so many are of them all.

        In order that is what the batches before it leave, else what all others leave. While it is
        open how much a batch holds that was asked for, nothing less than a full page of `limit` is
        asked for: what comes may be enough.
        """
        promised = {plan.number: plan.promised for plan in self}
        unknown = any(plan.requests.awaits_count for plan in self)
        left = most if self.ordered else most - sum(promised.values())
        wanted = {}
        for number, rows in promised.items():
            mine = left if self.ordered else left + rows
            wanted[number] = 0 if unknown and mine < limit else mine
            left -= rows if self.ordered else 0
        return wanted
