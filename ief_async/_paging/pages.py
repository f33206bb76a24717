"""One page of a batch: what is asked, what comes back, and what is delivered of it. Pure."""

from collections.abc import Sequence
from typing import Any

import attrs

from ief_async._paging.batches import Query
from ief_async._values import Value


@attrs.frozen(eq=False, repr=False)
class PageRequest(Value):
    """One page to ask for: rows `offset` to `offset + limit` of a batch, which is one query."""

    batch: int
    query: Query
    offset: int
    limit: int


@attrs.frozen(eq=False, repr=False)
class PageAnswer(Value):
    """The answer to a request.

    Attributes:
        request: what was asked.
        count: how many rows the server counts in the whole list, or None.
        ids: the id of every row.
        page: what the driver handed in with the answer.
    """

    request: PageRequest
    count: int | None
    ids: Sequence[str]
    page: Any

    @property
    def offset(self) -> int:
        """The position of the first row of this page."""
        return self.request.offset

    @property
    def end(self) -> int:
        """The position after the last row of this page."""
        return self.request.offset + len(self.ids)

    @property
    def is_short(self) -> bool:
        """Whether it holds rows, but fewer than were asked for."""
        return 0 < len(self.ids) < self.request.limit

    def without_page(self) -> "PageAnswer":
        """Return a copy that does not keep the driver's page alive."""
        return PageAnswer(self.request, self.count, self.ids, None)


@attrs.frozen(eq=False, repr=False)
class Accepted(Value):
    """A page that may be delivered.

    Attributes:
        request: what was asked.
        count: what this answer counted.
        page: what the driver handed in with the answer.
        positions: the rows of the page that are new, in the server's order.
        ids: the id of every row.
        resumable_after: how many of its rows have to be finished with before a later scan may go
            on behind them; None if it may not, because the page stands outside the proof.
    """

    request: PageRequest
    count: int | None
    page: Any
    positions: Sequence[int]
    ids: Sequence[str]
    resumable_after: int | None
