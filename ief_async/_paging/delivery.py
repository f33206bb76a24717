"""What of one batch was delivered, and what its consumer has finished with. Pure."""

from collections import deque

import attrs

from ief_async._checkpoint import Mark
from ief_async._paging.chain import Chain
from ief_async._paging.pages import Accepted, PageAnswer

START = Mark()  # of a batch that is read from its beginning


@attrs.define(eq=False, kw_only=True, repr=False)
class Delivery:
    """The pages of one batch on their way to the consumer.

    Attributes:
        chain: the pages that were accepted.
        ready: pages to deliver.
        unacknowledged: pages that were taken, and that the consumer has not finished with.
    """

    chain: Chain
    _mark: Mark = START
    ready: deque[Accepted] = attrs.field(factory=deque)
    unacknowledged: int = 0

    def add(self, answer: PageAnswer, *, proven: bool) -> bool:
        """Make the new rows of a page ready; tell whether there are any."""
        positions, resumable_after = self.chain.new_rows(answer)
        self.chain.verdict.items += len(positions)
        if positions:
            self.ready.append(
                Accepted(
                    answer.request,
                    answer.count,
                    answer.page,
                    positions,
                    answer.ids,
                    resumable_after if proven else None,
                )
            )
        return bool(positions)

    def take(self, most: int | None) -> Accepted:
        """Return the next page, or so many rows of it: the rest stays ready."""
        accepted = self.ready.popleft()
        self.unacknowledged += 1
        if most is not None and len(accepted.positions) > most:
            rest = attrs.evolve(accepted, positions=accepted.positions[most:])
            self.ready.appendleft(rest)
            accepted = attrs.evolve(accepted, positions=accepted.positions[:most])
        return accepted

    def discard(self) -> int:
        """Deliver nothing more; return how many rows were ready."""
        rows = sum(len(page.positions) for page in self.ready)
        self.ready.clear()
        return rows

    @property
    def mark(self) -> Mark:
        """Where a later scan goes on: behind what the consumer has finished with."""
        return START if self.chain.positions_lost else self._mark

    def mark_after(self, accepted: Accepted, rows: int) -> Mark:
        """Return where a later scan goes on once this many new rows of a page are finished with.

        That is where it was before in four cases: no row is finished, the page stands outside the
        proof, positions mean nothing, or more of the page has to be finished first. There are no
        anchors where pages do not overlap, nor where this reading is not joined to the one before:
        so what is in doubt stays in doubt, however often the scan is resumed.
        """
        resumable_after = accepted.resumable_after
        if not rows or resumable_after is None or self.chain.positions_lost:
            return self.mark
        row = accepted.positions[rows - 1] + 1
        if row < resumable_after:
            return self.mark
        shape = self.chain.shape
        anchored = shape.overlap and self.chain.is_joined
        anchors = accepted.ids[max(0, row - shape.overlap) : row] if anchored else ()
        return Mark(accepted.request.offset + row, shape.last_count, tuple(anchors))

    def acknowledge(self, accepted: Accepted, rows: int) -> None:
        """Note that the consumer has finished with so many rows of a page."""
        self._mark = self.mark_after(accepted, rows)
