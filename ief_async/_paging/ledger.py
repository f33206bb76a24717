"""What of a scan is finished: the entries of a checkpoint, and the reports of batches. Pure."""

from bisect import bisect_left
from collections.abc import Iterable

import attrs

from ief_async._checkpoint import Entry, Mark, Run
from ief_async._paging.verdict import FLAG_NAMES, BatchReport

Place = tuple[int, ...]
LATER = 2  # the halves of a batch go on its place with 0 and 1; a run behind them with this


@attrs.define(eq=False, repr=False)
class Ledger:
    """The ids of a scan in their order, as entries of a checkpoint, and the reports of its batches.

    The ids of a batch are hashed once, when it is added. What is finished is joined with its
    neighbours, so that the ledger holds one entry for each batch that is not, and a run between.

    Attributes:
        items: rows of the batches that ended.
        expected: rows that the batches that ended counted.
        unfinished: batches that were added and not finished, failed ones included.
    """

    items: int = 0
    expected: int = 0
    unfinished: int = 0
    _places: list[Place] = attrs.field(factory=list)  # sorted
    _entries: list[Entry] = attrs.field(factory=list)  # beside them
    _apart: set[Place] = attrs.field(factory=set)  # finished, but may be reopened
    _reports: list[BatchReport | None] = attrs.field(factory=list)  # by number; None: not ended
    _halves: dict[int, Place] = attrs.field(factory=dict)  # the places of batches that are halves

    @property
    def added(self) -> int:
        """How many batches there are, each half of one that was split for itself."""
        return len(self._reports)

    # -- entries ---------------------------------------------------------------------------------

    def add(self, ids: Iterable[str], mark: Mark) -> Place:
        """Add a batch behind all others; return its place."""
        place = (len(self._reports),)
        self._append(place, Entry(Run.of(ids), mark))
        self._reports.append(None)
        self.unfinished += 1
        return place

    def add_run(self, run: Run) -> None:
        """Add ids that a checkpoint knows as finished."""
        before = self._places[-1][0] if self._places else -1
        if self._entries and self._is_finished(len(self._entries) - 1):
            self._entries[-1] = Entry(self._entries[-1].run + run)
        else:
            self._append((before, LATER), Entry(run))

    def _append(self, place: Place, entry: Entry) -> None:
        self._places.append(place)
        self._entries.append(entry)

    def split(self, place: Place, number: int, halves: tuple[Iterable[str], Iterable[str]]) -> int:
        """Put two halves in the place of a batch; return the number of the second one."""
        at = self._find(place)
        second = len(self._reports)
        places = [(*place, 0), (*place, 1)]
        self._places[at : at + 1] = places
        self._entries[at : at + 1] = [Entry(Run.of(ids), Mark()) for ids in halves]
        self._halves |= dict(zip((number, second), places, strict=True))
        self._reports.append(None)
        self.unfinished += 1
        return second

    def place_of(self, number: int) -> Place:
        """Return the place of a batch."""
        return self._halves.get(number, (number,))

    def note_mark(self, place: Place, mark: Mark) -> None:
        """Note where a later scan goes on with a batch that is not finished."""
        at = self._find(place)
        if self._entries[at].mark is not mark:
            self._entries[at] = Entry(self._entries[at].run, mark)

    def finish(self, place: Place, *, apart: bool) -> None:
        """Note that a batch is finished; it is not joined yet if it may be reopened."""
        at = self._find(place)
        self._entries[at] = Entry(self._entries[at].run)
        self.unfinished -= 1
        if apart:
            self._apart.add(place)
        else:
            self._join(at)

    def close(self, place: Place) -> None:
        """Join a batch that was finished apart, as it won't be reopened."""
        if place in self._apart:
            self._apart.discard(place)
            self._join(self._find(place))

    def reopen(self, place: Place, mark: Mark) -> None:
        """Note that a batch which was finished apart is not, after all."""
        self._apart.discard(place)
        self.note_mark(place, mark)
        self.unfinished += 1

    def _find(self, place: Place) -> int:
        return bisect_left(self._places, place)

    def _is_finished(self, at: int) -> bool:
        return self._entries[at].mark is None and self._places[at] not in self._apart

    def _join(self, at: int) -> None:
        """Join a finished batch with what is finished on both sides."""
        for left in (at, at - 1):
            if 0 <= left < len(self._entries) - 1 and (
                self._is_finished(left) and self._is_finished(left + 1)
            ):
                joined = self._entries[left].run + self._entries[left + 1].run
                self._entries[left : left + 2] = [Entry(joined)]
                del self._places[left + 1]

    def entries(self, place: Place | None = None, mark: Mark | None = None) -> tuple[Entry, ...]:
        """Return the entries of a checkpoint, as if the batch at `place` were read up to `mark`.

        Without a mark it is as if that batch were finished.
        """
        entries = self._entries.copy()
        finished = [self._find(apart) for apart in self._apart]
        if place is not None:
            at = self._find(place)
            entries[at] = Entry(entries[at].run, mark)
            finished += [at] if mark is None else []
        for at in sorted(finished, reverse=True):
            _join_around(entries, at)
        return tuple(entries)

    # -- reports ---------------------------------------------------------------------------------

    def end(self, report: BatchReport, expected: int | None) -> None:
        """Note what a batch came to, of which nothing more is read."""
        self._reports[report.number] = report
        self.items += report.items
        self.expected += expected or 0

    def begin_again(self, number: int, expected: int | None) -> None:
        """Note that more is read of a batch that had ended."""
        self.items -= self.report_of(number).items
        self._reports[number] = None
        self.expected -= expected or 0

    def correct(self, report: BatchReport) -> None:
        """Note what a batch that had ended came to after all."""
        self.items += report.items - self.report_of(report.number).items
        self._reports[report.number] = report

    def doubt(self, number: int) -> None:
        """Note that the last page of a batch may have been cut, and can't be read behind."""
        report = self.report_of(number)
        flags = tuple(name for name in FLAG_NAMES if name in {*report.flags, "clamped"})
        self._reports[number] = attrs.evolve(report, drift="unknown", flags=flags)

    def report_of(self, number: int) -> BatchReport:
        """Return what a batch came to that has ended."""
        report = self._reports[number]
        if report is None:
            message = f"batch {number} has not ended"
            raise LookupError(message)
        return report

    def reports(self, open_ones: Iterable[BatchReport]) -> tuple[BatchReport, ...]:
        """Return the reports of all batches in the order of the ids; `open_ones` have not ended."""
        reports = self._reports.copy()
        for unfinished in open_ones:
            reports[unfinished.number] = unfinished
        numbers = range(len(reports))
        ordered = sorted(numbers, key=self.place_of) if self._halves else numbers
        return tuple(report for number in ordered if (report := reports[number]) is not None)


def _join_around(entries: list[Entry], at: int) -> None:
    """Join an entry that is finished with its neighbours that are."""
    for left in (at, at - 1):
        pair = entries[left : left + 2] if left >= 0 else []
        if len(pair) > 1 and pair[0].mark is None and pair[1].mark is None:
            entries[left : left + 2] = [Entry(pair[0].run + pair[1].run)]
