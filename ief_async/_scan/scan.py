"""A scan at work: tasks that fetch pages, and a consumer that takes them.

What to fetch next is decided in `_paging`; here it is only done.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from typing import Any, Generic, NoReturn, TypeVar

from ief_async._checkpoint import ScanCheckpoint
from ief_async._errors import (
    BatchFailure,
    ConfigurationError,
    IefError,
    PayloadError,
)
from ief_async._messages import Answer
from ief_async._observer import Observer
from ief_async._paging import STALLED, Accepted, Batcher, PageRequest, ScanPlan
from ief_async._policies import Clock
from ief_async._scan.cursor import Cursor
from ief_async._scan.deadline import Deadline
from ief_async._scan.failures import (
    TOO_LARGE,
    TOO_SLOW,
    error_at_end,
    fails_every_batch,
    forget_frames,
    locate,
    status_of,
)
from ief_async._scan.feeder import Feeder
from ief_async._scan.reading import (
    CHUNK_BYTES,
    WHOLE_PAGE_CHUNK_BYTES,
    Reader,
    garbage_collector_paused,
    page_of,
    stand_in,
    structure_some,
)
from ief_async._scan.reports import Page, ScanProgress, ScanReport
from ief_async._scan.spec import ScanSpec
from ief_async._scan.tasks import Tasks
from ief_async._scan.telemetry import Telemetry
from ief_async._scan.watching import FieldWatch
from ief_async._structure import Rows

T = TypeVar("T")

Fetch = Callable[[PageRequest, "Reader[Any]", float, int], Awaitable[Answer[Rows]]]


class Scan(Generic[T]):
    """The supervisor of a scan: a task for each request in flight, and one that draws the ids.

    Whatever ends one of its tasks reaches the consumer, behind the pages that came before it in
    turn. The consumer never waits where nothing would wake it.

    Attributes:
        batcher: what makes batches of the ids.
        plan: what is asked for next.
        reader: what makes items of rows.
        cursor: where the consumer is.
        fingerprint: what its checkpoints are known by.
        over: whether nothing more comes; a scan that gives nothing before lets others go first.
        fatal: whether what ended it has to end all scans beside it.
        on_change: called whenever there may be something for the consumer; set by what runs
            several scans side by side.
    """

    of_targets = False

    def __init__(
        self,
        spec: ScanSpec[Any],
        *,
        batcher: Batcher,
        plan: ScanPlan,
        fetch: Fetch,
        reader: Reader[T],
        clock: Clock,
        observer: Observer,
        fingerprint: int,
    ) -> None:
        self.batcher = batcher
        self.plan = plan
        self.reader = reader
        self.cursor: Cursor[T] = Cursor(plan, batcher, fingerprint)
        self.fingerprint = fingerprint
        self.over = False
        self.fatal = False
        self.on_change: Callable[[], None] | None = None
        self._spec = spec
        self._fetch = fetch
        self._feeder = Feeder(spec.ids, batcher, plan)
        self._tasks = Tasks(self._on_task_end)
        self._fields = FieldWatch(spec)
        self._telemetry = Telemetry(spec.operation, plan, self.cursor, observer, clock)
        self._deadline = Deadline(spec.deadline, clock)
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None

    # -- the work ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start to fetch, unless that was done before; refuse to on another event loop."""
        if self._tasks.begin():
            self._tasks.run(self._telemetry.start)
            self.start_deadline()
            feeding = self._feeder.run(self._request_pages)
            self._tasks.start(feeding, foreign=self._feeder.foreign)
            self._request_pages()

    def start_deadline(self) -> None:
        """Count the deadline from now on, though the scan may begin later."""
        self._deadline.start(self._on_deadline)

    def _on_task_end(self, error: BaseException | None) -> None:
        """Let the consumer have whatever ended a task."""
        if error is not None and not self.over:
            self._fail(error)
        self._refuse_to_stall()

    def _refuse_to_stall(self) -> None:
        """Fail where the consumer would wait, and nothing would wake it."""
        working = self._tasks.count > self._feeder.idle
        if not (working or self.over or self._error) and self.plan.stalled:
            self._fail(IefError(STALLED))

    def _request_pages(self) -> None:
        """Start whatever may be started now; called whenever something has changed."""
        if self.over or self._error is not None:
            return
        try:
            while isinstance(request := self.plan.next_request(), PageRequest):
                self._tasks.start(self._read_page(request))
            if self.plan.wants_batch:
                self._feeder.want()
        except Exception as error:  # noqa: BLE001  the consumer gets it
            self._fail(error)
        self._wake()

    async def _read_page(self, request: PageRequest) -> None:
        number = self._telemetry.number
        try:
            answer = await self._fetch(request, self.reader, self._deadline.at, number)
        except Exception as error:  # noqa: BLE001  it travels as itself, to the consumer
            self._on_request_failed(error, request)
            return
        self._telemetry.retries += answer.attempts - 1
        try:
            rows = answer.value
            ended = self.plan.receive(request, rows.count, rows.ids_at(request.offset), answer)
        except Exception as error:  # noqa: BLE001  likewise
            self._give_up(error, request)
            return
        self._telemetry.update_peaks()
        if ended is not None:
            self._telemetry.tell_batch(ended)
        self._request_pages()

    def _on_request_failed(self, error: Exception, request: PageRequest) -> None:
        """Split what the server found too much, give up the batch, or end the scan."""
        if isinstance(error, IefError):
            self._telemetry.retries += max(0, error.attempts - 1)
        status, halved = status_of(error), False
        if status in TOO_LARGE:
            halved = self.plan.halve_batch(request)
        elif status == TOO_SLOW:
            halved = self.plan.halve_page(request)
        if not halved and self.plan.drop(request):
            self._give_up(error, request)
        else:
            self._request_pages()

    def _give_up(self, error: Exception, request: PageRequest) -> None:
        """End the batch of a request by what went wrong, and the scan if its policy says so."""
        locate(error, request)
        self._telemetry.tell_failed_batch(request.batch, error)
        fatal = fails_every_batch(error) or self._deadline.passed
        if fatal or self._spec.on_error == "raise":
            self.plan.halt(request.batch)
            self._fail(error)
        elif isinstance(error, IefError):
            forget_frames(error)
            failure = BatchFailure(batch=request.batch, ids=request.query.ids, error=error)
            self._telemetry.failures.append(failure)
            self.plan.give_up(request.batch)
            self._request_pages()

    def _on_deadline(self) -> None:
        """End the scan, unless all was read in time and waits for the consumer."""
        if self.plan.in_flight or not self.ready:
            self._fail(self._deadline.error())

    def _fail(self, error: BaseException) -> None:
        """Have the consumer get an error, behind what is ready; the first one counts."""
        if self._error is None:
            self._error = error
        self._tasks.cancel()
        self._wake()

    def _wake(self) -> None:
        if self.on_change is not None:
            self.on_change()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- the consumer's side -------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether items, an error or the end are there without any waiting."""
        ended = self.over or self._error is not None or self.plan.done
        return bool(self.cursor.rest) or ended or self.plan.has_page

    @property
    def _should_yield(self) -> bool:
        """Whether other scans are to go first, as what this one was asked for has failed."""
        return self.on_change is not None and not self.ready

    async def next_page(self) -> Accepted | None:
        """Return the next page in its turn, None at the end, or raise what ended the scan."""
        self.begin()
        self.cursor.acknowledge()
        while not self.over:
            if (accepted := self.cursor.take()) is not None:
                self._request_pages()
                await self._look_through(accepted)
                self._telemetry.tell_page(accepted)
                return accepted
            if self.plan.done and self._error is None:
                failures, ids = self._telemetry.failures, self._feeder.report
                self._error = error_at_end(self._spec, self.plan.added, failures, ids)
                self.cancel(self._error)
            if self._error is not None:
                await self._raise(self._error)
            if not self.over:
                await self._wait()
        return None

    async def _wait(self) -> None:
        """Wait for a page, an error or the end."""
        self._refuse_to_stall()
        if self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def _look_through(self, accepted: Accepted) -> None:
        """Look for what the models do not know; end the scan if that is the policy."""
        try:
            await self._fields.look(accepted.request.batch, accepted.page)
        except ConfigurationError as error:
            await self._raise_at_once(error)

    async def next_items(self) -> Iterator[T]:
        """Return some items of the current page, or of the next; none at the end."""
        self.begin()
        self.cursor.acknowledge()
        while True:
            if not self.cursor.rest:
                await self.next_page()
            if (accepted := self.cursor.page) is None:
                return iter(())
            await asyncio.sleep(0)
            items = await self._structure_some(accepted)
            if items is not None:
                chunk = self.cursor.hand_out(items)
                if items:
                    return chunk
            if self._should_yield:
                return iter(())

    async def next_whole_page(self) -> Page[T] | None:
        """Return the next page with all its items, or None at the end."""
        while (accepted := await self.next_page()) is not None:
            items: list[T] = []
            bad = self.cursor.bad_items
            while self.cursor.rest:
                await asyncio.sleep(0)
                items += await self._structure_some(accepted, whole_page=True) or ()
            if items and self.cursor.page is accepted:
                request = accepted.request
                return page_of(
                    accepted.page,
                    items,
                    offset=request.offset,
                    limit=request.limit,
                    checkpoint=self.cursor.hand_out_page(items),
                    bad_items=self.cursor.bad_items - bad,
                )
            if self._should_yield:
                return None
        return None

    async def _structure_some(
        self, accepted: Accepted, *, whole_page: bool = False
    ) -> list[T] | None:
        """Structure a chunk of the page in hand; None if its batch fails.

        The objects of a `whole_page` stay; else the consumer drops them before the next chunk.
        """
        rest = self.cursor.rest
        try:
            with garbage_collector_paused() if whole_page else nullcontext():
                items = structure_some(
                    self.reader,
                    accepted.page,
                    rest,
                    key=self._spec.listing.key,
                    model_errors=self._telemetry.model_errors,
                    most_bytes=WHOLE_PAGE_CHUNK_BYTES if whole_page else CHUNK_BYTES,
                )
        except PayloadError as error:
            # its frames would hold the iterator: who keeps the error, and leaves the loop by a bare
            # break, would keep the scan
            problem = error.with_traceback(None)
        else:
            self.cursor.advance(len(items))
            return items
        if self._spec.on_bad_item != "raise":
            return await self._replace(accepted, rest[0], problem)
        self.plan.give_up(accepted.request.batch, unread=self.cursor.drop_page())
        self._give_up(problem, accepted.request)
        if self._error is not None:
            await self._raise(self._error)
        return None

    async def _replace(self, accepted: Accepted, at: int, problem: PayloadError) -> list[T]:
        """Return what stands in the place of a row that can't be read: an item, or none."""
        locate(problem, accepted.request)
        try:
            items = stand_in(self._spec.on_bad_item, self.reader, accepted.page, at, problem)
        except Exception as error:  # noqa: BLE001  it ends the scan as itself, whatever it is
            del problem  # it may be what is raised, and holds this frame then
            self.cursor.drop_page()
            await self._raise_at_once(error)
        if not items and not self.cursor.skipped:
            self._telemetry.warn_of_skipped_item(problem)
        self.cursor.pass_bad_row(replaced=bool(items))
        if not items:
            self._request_pages()
        return items

    # -- the end -------------------------------------------------------------------------------

    async def _raise(self, error: BaseException) -> NoReturn:
        """Raise what ended the scan, with what there is to resume from, once no task runs."""
        self._tasks.cancel()  # the one that noticed the error goes on otherwise
        await self._tasks.ended()
        self._error = None
        self.cancel(error)
        if isinstance(error, IefError):
            error.checkpoint = self.checkpoint()
        try:
            raise error
        finally:
            del error  # it holds this frame, which would hold it: a cycle

    async def _raise_at_once(self, error: Exception) -> NoReturn:
        """Raise an error before any other, and let it end what runs beside this scan, too."""
        self.fatal = True
        await self._raise(error)

    def cancel(self, error: BaseException | None = None) -> None:
        """End the scan, maybe by an error: nothing more is fetched, the tasks are cancelled."""
        if self._stop():
            self._telemetry.tell_end(error)

    def _stop(self) -> bool:
        """End the scan without telling it; return whether it ran."""
        ran = self._tasks.loop is not None and not self.over
        if not self.over:
            self.over = True
            self._telemetry.stop()
            self._deadline.cancel()
        self._tasks.cancel()
        self._wake()
        return ran

    def abandon(self) -> None:
        """End the scan from wherever the garbage collector happens to run."""
        loop = self._tasks.loop
        if self.over or loop is None or loop.is_closed():
            return
        if not self._tasks.on_loop:
            loop.call_soon_threadsafe(self.cancel)
        elif self._stop():
            self._tasks.cancel_current_later()
            # later, as the collector may run in the middle of the hook or of the logging
            loop.call_soon(self._telemetry.tell_end)

    async def aclose(self) -> None:
        """End the scan, and wait until no task of it runs."""
        self.cancel()
        await self._tasks.ended()

    def checkpoint(self) -> ScanCheckpoint:
        """Return what the consumer is finished with."""
        return self.cursor.checkpoint()

    def progress(self) -> ScanProgress:
        """Return how far the scan is."""
        return self._telemetry.progress()

    def report(self) -> ScanReport:
        """Return what the scan came to, or what is known so far."""
        return self._telemetry.report(self._fields, self._feeder.report)
