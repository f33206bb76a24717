"""What a scan tells about itself: its pages, how far it is, what it came to."""

from collections.abc import (
    Mapping,
)
from itertools import chain
from typing import Any, Generic, TypeVar

import attrs

from ief_async._checkpoint import ScanCheckpoint
from ief_async._errors import (
    Failure,
)
from ief_async._paging import BatchReport
from ief_async._values import Value

T = TypeVar("T")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Page(Value, Generic[T]):
    """One page of a list.

    Attributes:
        items: the rows, structured. In a scan only the new ones: a row that another page brought
            before is left out, and so is a row that `on_bad_item` leaves out.
        count: how many rows the whole list has according to this answer; None if it does not say.
        offset: the position of the page's first row, as it was asked for.
        limit: how many rows were asked for, or None if the server chose.
        request_id: the server's name for the request, or None.
        elapsed: seconds from the first attempt to the answer, waits included.
        attempts: how many times the request was sent.
        raw: the body as it came, decompressed: data that no model has a field for is here.
        checkpoint: in a scan, the checkpoint of a consumer that is finished with this page; else
            None.
        bad_items: how many of its rows could not be read, and were left out or replaced.
    """

    items: tuple[T, ...]
    count: int | None
    offset: int
    limit: int | None
    request_id: str | None
    elapsed: float
    attempts: int
    raw: bytes = attrs.field(repr=False)
    checkpoint: ScanCheckpoint | None = attrs.field(default=None, repr=False)
    bad_items: int = 0


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ScanProgress(Value):
    """How far a scan is. To take this snapshot costs next to nothing.

    Attributes:
        batches: batches started so far.
        pages: pages handed to the consumer.
        items: items handed to the consumer.
        expected_items: the sum of the counts of all batches, or None until every batch was counted.
            Rows that `on_bad_item` left out are no longer expected.
        retries: requests that were sent again.
        elapsed: seconds since the first item was asked for.
    """

    batches: int
    pages: int
    items: int
    expected_items: int | None
    retries: int
    elapsed: float

    @property
    def fraction(self) -> float | None:
        """The part that is done, from 0 to 1; None until every batch was counted."""
        if self.expected_items is None:
            return None
        return min(1.0, self.items / self.expected_items) if self.expected_items else 1.0

    @property
    def eta(self) -> float | None:
        """Seconds left at the pace so far; None while the pace or the whole is not known."""
        fraction = self.fraction
        return self.elapsed * (1 - fraction) / fraction if fraction else None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ScanReport(Value):
    """What a scan came to; while it runs, what is known so far.

    Attributes:
        batches: a report for each batch that was started, in the order of the ids. Batches that a
            checkpoint listed as done are not among them.
        failures: the batches that failed, with ``on_error`` "defer" or "collect"; of `scan_fleet`,
            the targets that failed.
        unknown_fields: how often keys came that no documented model has, by their path; counted in
            the first rows of one page of each batch.
        unknown_values: the same for values that were not known so far, such as a new ``state``.
        unknown_model_fields: the fields of ``model=``, by their path, that are in no document and
            in no row that was looked at: misspelt, most likely.
        pages: pages handed to the consumer.
        items: items handed to the consumer.
        bad_items: rows that could not be read, and that `on_bad_item` left out or replaced. Those
            of `ids` are counted in its own report.
        model_errors: how often the model itself raised (in a validator, or in
            ``__attrs_post_init__``) while a row was decoded, by the class of the exception. Each
            time the rows beside it were decoded one by one, and the row itself was built again by
            the slow path of cattrs; if the model raised again, it is a bad item, too.
        retries: requests that were sent again.
        elapsed: seconds from the first item asked for to the last one given, or to now.
        most_pages: the most pages that were in flight, waiting or being read at once; never more
            than ``2 * concurrency + 1``.
        most_bytes: the most bytes that the bodies of such pages took, and the ids that tell rows
            apart.
        complete: whether every batch was read to its end and handed over. Whether rows are missing
            because the list changed is in the `drift` of each batch.
        targets: of `scan_fleet`, the report of each target.
        ids: the report of the stream that the ids came from, such as that of `iter_deployments`,
            once it has ended; None if they came from elsewhere.
    """

    batches: tuple[BatchReport, ...]
    failures: tuple[Failure, ...]
    unknown_fields: Mapping[str, int] = attrs.field(hash=False)
    unknown_values: Mapping[str, int] = attrs.field(hash=False)
    pages: int
    items: int
    retries: int
    elapsed: float
    most_pages: int
    most_bytes: int
    complete: bool
    targets: "Mapping[Any, ScanReport]" = attrs.field(factory=dict, hash=False)
    ids: "ScanReport | None" = None
    bad_items: int = 0
    unknown_model_fields: tuple[str, ...] = ()
    model_errors: Mapping[str, int] = attrs.field(factory=dict, hash=False)

    @property
    def doubtful(self) -> tuple[BatchReport, ...]:
        """The batches that were read to their end and may lack rows, those of `ids` included.

        A scan with ``on_drift="ignore"`` promises nothing, and has none.
        """
        here = [
            one
            for one in self.batches
            if one.complete and one.drift == "unknown" and "unchecked" not in one.flags
        ]
        parts = [self.ids, *(report.ids for report in self.targets.values())]
        return tuple(chain(here, *(part.doubtful for part in parts if part is not None)))
