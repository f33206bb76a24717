"""What a scan tells about itself: events, log lines, progress and report."""

import logging
import math
from collections import Counter
from itertools import count
from typing import Any

from ief_async._errors import BatchFailure, DriftError, PayloadError
from ief_async._observer import Observer, write
from ief_async._paging import Accepted, BatchReport, ScanPlan
from ief_async._policies import Clock
from ief_async._scan.cursor import Cursor
from ief_async._scan.reports import ScanProgress, ScanReport
from ief_async._scan.watching import FieldWatch

NUMBERS = count(1)  # scans of the process: a hook may serve several sessions
VERDICTS = ("unknown", "repaired", "exact")  # the worst first


class Telemetry:
    """What one scan tells: its events and log lines, how far it is, and what it came to.

    Attributes:
        number: what events and log lines call the scan.
        retries: requests that were sent again.
        most_pages: pages that were held at once.
        most_bytes: what their bodies, and the ids that tell rows apart, took.
        failures: the batches that failed, and did not end the scan.
        model_errors: what the model raised by itself, by the class of the exception.
    """

    def __init__(
        self,
        operation: str,
        plan: ScanPlan,
        cursor: Cursor[Any],
        observer: Observer,
        clock: Clock,
    ) -> None:
        self.number = next(NUMBERS)
        self.retries = 0
        self.most_pages = self.most_bytes = 0
        self.failures: list[BatchFailure] = []
        self.model_errors: Counter[str] = Counter()
        self._operation = operation
        self._plan = plan
        self._cursor = cursor
        self._observer = observer
        self._clock = clock
        self._started = self._ended = math.nan
        self._verdicts: Counter[str] = Counter()  # on batches
        self._clamped = False  # some batch was

    @property
    def elapsed(self) -> float:
        """Seconds from the start to the end, or to now; 0 before the start."""
        if math.isnan(self._started):
            return 0.0
        return (self._clock.now() if math.isnan(self._ended) else self._ended) - self._started

    def start(self) -> None:
        """Note when the scan began, and tell it."""
        self._started = self._clock.now()
        if self._observer.wants():
            from ief_async._events import ScanStarted  # most sessions make no event

            self._observer.tell(ScanStarted(scan=self.number, operation=self._operation))

    def stop(self) -> None:
        """Note when the scan ended."""
        self._ended = self._clock.now()

    def update_peaks(self) -> None:
        """Note what is held, if it was never more: requests in flight, pages, and ids."""
        held = list(self._plan.pages())
        in_hand = self._cursor.page  # its rest may wait as well
        if in_hand is not None and not any(page is in_hand.page for page in held):
            held.append(in_hand.page)
        held_bytes = sum(len(page.raw) for page in held) + self._plan.ids_bytes
        self.most_pages = max(self.most_pages, self._plan.in_flight + len(held))
        self.most_bytes = max(self.most_bytes, held_bytes)

    def tell_batch(self, report: BatchReport, error: Exception | None = None) -> None:
        """Tell what a batch came to, and warn of what a human should know."""
        if error is None or isinstance(error, DriftError):
            self._tell_oddities(report, warn=error is None)
        if self._observer.wants():
            from ief_async._events import BatchDone

            self._observer.tell(
                BatchDone(
                    scan=self.number,
                    batch=report.number,
                    count=report.count,
                    items=report.items,
                    pages=report.pages,
                    re_reads=report.re_reads,
                    drift=None if self._plan.count_only else report.drift,
                    complete=report.complete,
                    error=None if error is None else type(error).__name__,
                )
            )

    def tell_failed_batch(self, number: int, error: Exception) -> None:
        """Tell what a batch came to that failed, if anybody listens."""
        if self._observer.wants():
            self.tell_batch(self._plan.report_of(number), error)

    def _tell_oddities(self, report: BatchReport, *, warn: bool) -> None:
        if self._plan.count_only:
            return
        number, batch = self.number, report.number
        self._verdicts[report.drift] += 1
        if "clamped" in report.flags and report.page_size_seen is not None:
            from ief_async._events import LimitClamped

            clamped = LimitClamped(
                scan=number, batch=batch, asked=self._plan.limit, given=report.page_size_seen
            )
            level = logging.DEBUG if self._clamped else logging.WARNING  # one such line a scan
            self._clamped = True
            line = "scan %d: the server gives %d rows where %d were asked for: more requests"
            self._observer.tell(clamped, level, line, number, clamped.given, clamped.asked)
        if report.drift != "exact" and self._plan.on_drift != "ignore":
            from ief_async._events import DriftSeen

            seen = DriftSeen(scan=number, batch=batch, drift=report.drift, flags=report.flags)
            doubtful = warn and report.drift == "unknown" and self._plan.on_drift == "repair"
            line = "scan %d: batch %d moved and leaves rows in doubt (%s): see report.batches"
            flags = ", ".join(report.flags)
            self._observer.tell(
                seen, logging.WARNING, line if doubtful else "", number, batch, flags
            )

    def tell_page(self, accepted: Accepted) -> None:
        """Tell that a page goes to the consumer, if anybody listens."""
        if self._observer.wants():
            from ief_async._events import PageReady

            answer, request = accepted.page, accepted.request
            self._observer.tell(
                PageReady(
                    scan=self.number,
                    batch=request.batch,
                    offset=request.offset,
                    limit=request.limit,
                    rows=len(accepted.positions),
                    bytes=len(answer.raw),
                    elapsed=answer.elapsed,
                    attempts=answer.attempts,
                )
            )

    def warn_of_skipped_item(self, problem: PayloadError) -> None:
        """Warn of the first item that is left out."""
        write(
            logging.WARNING,
            "scan %d: %s of item %s can't be read: it is left out, as all such items are",
            self.number,
            problem.path,
            problem.item_id or "without an id",
        )

    def tell_end(self, error: BaseException | None = None) -> None:
        """Tell what the scan came to."""
        if not self._observer.wants(logging.INFO):
            return
        from ief_async._events import ScanEnded

        ended = ScanEnded(
            scan=self.number,
            operation=self._operation,
            items=self._cursor.items,
            pages=self._cursor.pages,
            batches=self._plan.added,
            failed=len(self.failures),
            retries=self.retries,
            elapsed=self.elapsed,
            complete=self._plan.complete,
            drift=next((verdict for verdict in VERDICTS if self._verdicts[verdict]), None),
            error=None if error is None else type(error).__name__,
        )
        self._observer.tell(
            ended,
            logging.INFO,
            "scan %d, %s: %d items in %d pages of %d batches, %d retries, %.3f s; %s%s%s",
            ended.scan,
            ended.operation,
            ended.items,
            ended.pages,
            ended.batches,
            ended.retries,
            ended.elapsed,
            "complete" if ended.complete else "not complete",
            "" if ended.drift is None else f", drift {ended.drift}",
            "" if ended.error is None else f", ended by {ended.error}",
        )

    def progress(self) -> ScanProgress:
        """Return how far the scan is."""
        expected = self._plan.expected
        return ScanProgress(
            batches=self._plan.added,
            pages=self._cursor.pages,
            items=self._cursor.items,
            expected_items=None if expected is None else max(0, expected - self._cursor.skipped),
            retries=self.retries,
            elapsed=self.elapsed,
        )

    def report(self, fields: FieldWatch, ids: ScanReport | None) -> ScanReport:
        """Return what the scan came to, or what is known so far."""
        return ScanReport(
            batches=self._plan.reports(),
            failures=tuple(self.failures),
            unknown_fields=fields.unknown_fields,
            unknown_values=fields.unknown_values,
            pages=self._cursor.pages,
            items=self._cursor.items,
            retries=self.retries,
            elapsed=self.elapsed,
            most_pages=self.most_pages,
            most_bytes=self.most_bytes,
            complete=self._plan.complete,
            ids=ids,
            bad_items=self._cursor.bad_items,
            unknown_model_fields=fields.unknown_model_fields,
            model_errors=dict(self.model_errors),
        )
