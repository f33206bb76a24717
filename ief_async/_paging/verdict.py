"""What reading one batch came to: counts, flags, and whether the whole adds up. Pure."""

from typing import Literal

import attrs

from ief_async._errors import OnDrift
from ief_async._values import Value

Drift = Literal["exact", "repaired", "unknown"]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class BatchReport(Value):
    """What reading one batch came to; while the scan runs, what is known so far.

    Attributes:
        number: the number of the batch, as errors name it. Batches are numbered as they are made:
            one that was split in two gives its number to the first half.
        ids: the ids that the batch asked for.
        count: the largest count that the server gave for it, or None.
        items: rows delivered or ready to be delivered, each id once.
        pages: answers that held rows.
        re_reads: pages asked for again, or to bridge a gap that a change had left.
        duplicates_dropped: rows whose id had come before, beyond the overlap of pages.
        page_size_seen: rows that the server gives where `page_size` were asked for, or None.
        drift: ``exact``: all rows are there, and nothing moved. ``repaired``: the list moved, and
            every row that was there throughout has come once all the same. ``unknown``: that can't
            be promised (yet); `flags` say why.
        flags: what did not add up, always in the same order. Each of these makes it ``unknown``:
            ``order`` (rows changed places), ``gap`` (pages that share no row), ``unproven``
            (bridging would have cost too much), ``offset_ignored``, ``short_of_count`` (fewer rows
            than every answer counted, or a page that stayed empty below its count), ``no_overlap``
            (pages of one row, now or before the scan was resumed), ``unchecked``
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


@attrs.define(eq=False, repr=False)
class Flags:
    """What did not add up, as `BatchReport.flags` explains it; in the order in which it is told."""

    clamped: bool = False
    limit_ignored: bool = False
    repeated_rows: bool = False
    count_mismatch: bool = False
    order: bool = False
    gap: bool = False
    unproven: bool = False
    offset_ignored: bool = False
    short_of_count: bool = False
    no_overlap: bool = False
    counted: bool = False
    unchecked: bool = False

    def names(self) -> tuple[str, ...]:
        """Return the names of those that are set."""
        return tuple(name for name in FLAG_NAMES if getattr(self, name))


FLAG_NAMES = tuple(field.name for field in attrs.fields(Flags))


@attrs.define(eq=False, kw_only=True, repr=False)
class Verdict:
    """The counts and flags of one batch, and the judgement on it.

    Attributes:
        items: rows that were accepted.
        pages: pages that were accepted.
        re_reads: pages asked for again, or to bridge a gap.
        duplicates: rows dropped because their id had come before, beyond the overlap.
        repeated: rows whose id stands twice in their own page.
        moved: some page did not follow its neighbour exactly.
        ended_below_count: the list was taken to end below the count of its answers.
        flags: what did not add up.
        drift: the judgement; ``unknown`` until the batch is complete.
    """

    items: int = 0
    pages: int = 0
    re_reads: int = 0
    duplicates: int = 0
    repeated: int = 0
    moved: bool = False
    ended_below_count: bool = False
    flags: Flags = attrs.field(factory=Flags)
    drift: Drift = "unknown"

    def report(
        self,
        number: int,
        ids: tuple[str, ...],
        count: int | None,
        size: int | None,
        *,
        complete: bool,
    ) -> BatchReport:
        """Return it as the consumer gets it."""
        return BatchReport(
            number=number,
            ids=ids,
            count=count,
            items=self.items,
            pages=self.pages,
            re_reads=self.re_reads,
            duplicates_dropped=self.duplicates,
            page_size_seen=size,
            drift=self.drift,
            flags=self.flags.names(),
            complete=complete,
        )

    def judge(
        self,
        on_drift: OnDrift,
        *,
        proven: bool,
        overlapped: bool,
        missing: bool,
        count_is_constant: bool,
        counted: bool,
    ) -> None:
        """Say what is proven of a batch that was read to its end. There are four cases.

        Nothing was checked: ``unknown``. The end was shown by an anchored page, and nothing speaks
        against it: ``exact`` if nothing moved either, else ``repaired``. Rows changed places, and
        just as many came as every answer counted: ``repaired``. Anything else: ``unknown``.

        Args:
            on_drift: what the caller wants to be checked.
            proven: an anchored page showed the end of the list.
            overlapped: pages overlapped, those of the scan before included; or none had rows.
            missing: fewer rows came than every answer counted.
            count_is_constant: every answer counted the same.
            counted: just as many rows came as every answer counted.
        """
        flags = self.flags
        if on_drift == "ignore":
            flags.unchecked = True
            self.drift = "unknown"
            return
        flags.short_of_count |= missing or self.ended_below_count
        flags.no_overlap |= not overlapped
        doubtful = flags.no_overlap or flags.offset_ignored or flags.gap
        doubtful |= self.ended_below_count or (missing and count_is_constant)
        if proven and not doubtful:
            calm = count_is_constant and not self.moved and not self.re_reads
            self.drift = "exact" if calm else "repaired"
        elif flags.order and counted:
            flags.counted = True
            self.drift = "repaired"
        else:
            self.drift = "unknown"
