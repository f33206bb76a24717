"""A scan in motion: tasks that fetch, and the pages that wait for their turn.

What to fetch next is decided in `_paging`; here it is only done.
"""

import asyncio
import logging
import math
import operator
from collections import Counter
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from contextvars import Context, copy_context
from itertools import count
from typing import Any, Generic, NoReturn, TypeVar

from ief_async._checkpoint import Part, ScanCheckpoint
from ief_async._errors import (
    ApiError,
    AuthenticationError,
    BatchFailure,
    CheckpointError,
    ConfigurationError,
    DriftError,
    IefError,
    OnBadItem,
    OnError,
    OnUnknownField,
    PartialScanError,
    PayloadError,
    TransportError,
)
from ief_async._events import (
    BatchDone,
    DriftSeen,
    LimitClamped,
    PageReady,
    ScanEnded,
    ScanStarted,
)
from ief_async._messages import Answer
from ief_async._observer import Observer, write
from ief_async._paging import STALLED, Accepted, Batcher, BatchReport, PageRequest, ScanPlan
from ief_async._policies import Clock
from ief_async._scan.reading import (
    WATCHED_ROWS,
    Reader,
    look_for_fields,
    page_of,
    raw_rows,
    stand_in,
    structure_some,
)
from ief_async._scan.reports import Page, ScanProgress, ScanReport
from ief_async._scan.stream import Stream
from ief_async._structure import ModelWatch, Row, Rows, SchemaWatch

T = TypeVar("T")
NOTE_IDS = 3
TOO_LARGE = frozenset({413, 414, 494})  # with fewer ids in the query it may be answered
TOO_SLOW = 504  # with fewer rows, too
# what fails every batch alike
FATAL = (AuthenticationError, CheckpointError, ConfigurationError)
SCANS = count(1)  # of the process: a hook may serve several sessions
VERDICTS = ("unknown", "repaired", "exact")  # the worst first

Fetch = Callable[[PageRequest, "Reader[Any]", float, int], Awaitable[Answer[Rows]]]


class Scan(Generic[T]):
    """The engine of a stream: a task per page in flight, and the pages that wait for their turn."""

    of_targets = False

    def __init__(
        self,
        *,
        ids: Iterable[object] | AsyncIterable[object],
        batcher: Batcher,
        plan: ScanPlan,
        fetch: Fetch,
        reader: Reader[T],
        watch: SchemaWatch,
        model_watch: ModelWatch,
        key: str,
        clock: Clock,
        observer: Observer,
        operation: str,
        deadline: float | None,
        on_error: OnError,
        on_bad_item: OnBadItem,
        on_unknown_field: OnUnknownField,
        fingerprint: int,
    ) -> None:
        self._ids = ids if isinstance(ids, AsyncIterable) else iter(ids)
        self.batcher = batcher
        self.plan = plan
        self._fetch = fetch
        self.reader = reader
        self._watch = watch
        self._model_watch = model_watch
        self._on_unknown_field = on_unknown_field
        self._watched: set[int] = set()  # batches
        self._key = key
        self._clock = clock
        self._observer = observer
        self._operation = operation
        self._seconds = deadline
        self._on_error = on_error
        self._on_bad_item = on_bad_item
        self.fingerprint = fingerprint
        self._number = next(SCANS)
        self._context = Context()  # a copy of the one that it is started in
        self._verdicts: Counter[str] = Counter()  # on batches
        self._clamped = False  # some batch was
        self._deadline = math.inf
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()  # a batch of ids is wanted
        self._waiter: asyncio.Future[None] | None = None
        self._busy = False
        self._ids_report: ScanReport | None = None  # of the stream that the ids came from
        self._error: BaseException | None = None
        self._failures: list[BatchFailure] = []
        self._over = False
        self._started = self._ended = math.nan
        self._retries = self._pages = self._items = 0
        self._bad = self._skipped = 0  # rows that could not be read, and those of them left out
        self.fatal = False  # what ended it has to end all scans beside it
        self._most_pages = self._most_bytes = 0
        self._current: Accepted | None = None
        self._taken = 0  # rows of the current page that were structured
        self._chunk: Iterator[T] | None = None  # those that are handed out now, one by one
        self._chunk_size = 0
        self.on_change: Callable[[], None] | None = None

    # -- the work ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start to fetch, unless that was done before."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._started = self._clock.now()
            self._context = copy_context()
            if self._observer.wants():
                started = ScanStarted(scan=self._number, operation=self._operation)
                self._context.run(self._observer.tell, started)
            if self._seconds is not None:
                self._deadline = self._started + self._seconds
            if isinstance(self._ids, AsyncIterable):
                self._feeder = self._start(self._feed(self._ids))
            self._pump()
        elif self._loop is not loop:
            message = "this stream was started on another event loop: iterate it where it began"
            raise ConfigurationError(message)

    def _start(self, work: Any) -> "asyncio.Task[None]":
        # a copy for each, as what one request sets is not for the others; by `run`, as an
        # application's own task factory may take no context
        task = self._context.copy().run(asyncio.create_task, work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: "asyncio.Task[None]") -> None:
        """Let the consumer have whatever ended a task, and never wait for nothing."""
        self._tasks.discard(task)
        try:
            task.result()
        except BaseException as error:  # noqa: BLE001  a signal handler's, a cancellation
            if not self._over:
                self._fail(error)
        self._refuse_to_stall()

    def _refuse_to_stall(self) -> None:
        """Fail where the consumer would wait, and nothing would wake it."""
        reading = self._tasks - ({self._feeder} if not self._wanted.is_set() else set())
        if not (reading or self._over or self._error) and self.plan.stalled:
            self._fail(IefError(STALLED))

    def _pump(self) -> None:
        """Start whatever may be started now; called whenever something has changed."""
        if self._over or self._error is not None:
            return
        try:
            while True:
                request = self.plan.next_request()
                if isinstance(request, PageRequest):
                    self._start(self._read(request))
                elif not (self.plan.wants_batch and self._add_batch()):
                    break
        except Exception as error:  # noqa: BLE001  the consumer gets it, whatever the ids raised
            self._fail(error)
        self._wake()

    def _add_batch(self) -> bool:
        """Turn more ids into a batch; False if they have to be waited for."""
        if isinstance(self._ids, AsyncIterable):
            self._wanted.set()
            return False
        for identity in self._ids:
            if self._add_id(identity):
                return True
        self._close_ids()
        return True

    def _add_id(self, identity: object) -> bool:
        """Give an id to the batcher; tell whether it made something complete."""
        batches = self.batcher.add(identity)
        for batch in batches:
            self.plan.add(batch)
        return bool(batches)

    def _close_ids(self) -> None:
        for batch in self.batcher.flush():
            self.plan.add(batch)
        self.plan.closed = True

    async def _feed(self, ids: AsyncIterable[object]) -> None:
        """Draw ids from an async source, a batch whenever the window has room for one."""
        iterator: AsyncIterator[object] | None = None
        try:
            iterator = aiter(ids)
            async for identity in iterator:
                if self._add_id(identity):
                    self._wanted.clear()
                    self._pump()
                    await self._wanted.wait()
            if isinstance(ids, Stream):
                self._ids_report = ids.report
            self._close_ids()
            self._pump()
        except Exception as error:  # noqa: BLE001  the consumer gets it, whatever it is
            self._fail(error)
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

    async def _read(self, request: PageRequest) -> None:
        try:
            answer = await self._fetch(request, self.reader, self._deadline, self._number)
        except Exception as error:  # noqa: BLE001  it travels as itself, to the consumer
            self._bear(error, request)
            return
        self._retries += answer.attempts - 1
        try:
            rows = answer.value
            ended = self.plan.receive(request, rows.count, rows.ids_at(request.offset), answer)
        except Exception as error:  # noqa: BLE001  likewise
            self._give_up(error, request)
            return
        self._weigh()
        if ended is not None:
            self._tell_batch(ended)
        self._pump()

    def _weigh(self) -> None:
        """Note how much is held, if that was never more."""
        pages = {id(page): page for page in self.plan.pages()}
        if self._current is not None:  # its rest may wait as well
            pages[id(self._current.page)] = self._current.page
        self._most_pages = max(self._most_pages, self.plan.in_flight + len(pages))
        held = sum(len(page.raw) for page in pages.values()) + self.plan.ids_bytes
        self._most_bytes = max(self._most_bytes, held)

    def _bear(self, error: Exception, request: PageRequest) -> None:
        """Split what the server found too much, give up the batch, or end the scan."""
        if isinstance(error, IefError):
            self._retries += max(0, error.attempts - 1)
        status = error.status if isinstance(error, ApiError) else 0
        if (status in TOO_LARGE and self.plan.halve_batch(request)) or (
            status == TOO_SLOW and self.plan.halve_page(request)
        ):
            self._pump()
        elif self.plan.drop(request):
            self._give_up(error, request)
        else:
            self._pump()

    def _give_up(self, error: Exception, request: PageRequest) -> None:
        """End the batch of a request by what went wrong, and the scan if its policy says so."""
        _locate(error, request)
        if self._observer.wants():
            self._tell_batch(self.plan.report_of(request.batch), error)
        late = self._clock.now() >= self._deadline
        fatal = not isinstance(error, IefError) or isinstance(error, FATAL) or late
        if fatal or self._on_error == "raise":
            self.plan.halt(request.batch)
            self._fail(error)
        elif isinstance(error, IefError):
            failure = BatchFailure(batch=request.batch, ids=request.query.ids, error=error)
            self._failures.append(failure)
            self.plan.give_up(request.batch)
            self._pump()

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._cancel_tasks()
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
        rest = self._current is not None and self._taken < len(self._current.positions)
        ended = self._over or self._error is not None or self.plan.done
        return rest or ended or self.plan.has_page

    @property
    def over(self) -> bool:
        """Whether nothing more comes; what gives nothing before has given way to other scans."""
        return self._over

    @property
    def _gives_way(self) -> bool:
        """Whether others are to have their turn, as what this scan was asked for has failed."""
        return self.on_change is not None and not self.ready

    def settle(self) -> None:
        """Count all that was handed out as finished with: the consumer has asked for other things.

        What asks this scan for more has that effect, too.
        """
        if self._current is None:
            return
        left = 0 if self._chunk is None else operator.length_hint(self._chunk)
        if self._chunk is None or (left == 0 and self._taken == len(self._current.positions)):
            self.plan.acknowledge(self._current)
            self._current = self._chunk = None
        else:
            self._chunk_size = left

    async def next_page(self) -> Accepted | None:
        """Return the next page in its turn, None at the end, or raise what ended the scan."""
        self.begin()
        if self._current is not None:
            self.plan.acknowledge(self._current)
            self._current = self._chunk = None
        while not self._over:
            self._current, self._taken = self.plan.take(), 0
            if self._current is not None:
                self._pages += 1
                self._pump()
                await self._look(self._current)
                if self._observer.wants():
                    self._tell_page(self._current)
                return self._current
            if self.plan.done and self._error is None:
                self._end()
            if self._error is not None:
                await self._rest()
                self._raise(self._error)
            if not self._over:
                await self._wait()
        return None

    async def _look(self, accepted: Accepted) -> None:
        """Look through one page of each batch for what the models do not know, or know alone."""
        if accepted.request.batch not in self._watched:
            first = not self._watched
            self._watched.add(accepted.request.batch)
            raw = raw_rows(accepted.page, key=self._key)
            self._watch.look(raw[:WATCHED_ROWS])
            if first:
                await self._check_model(raw)
            else:
                self._model_watch.look(raw[:WATCHED_ROWS])

    async def _check_model(self, raw: Sequence[Row]) -> None:
        """Warn of fields of the model that no row has, or end the scan."""
        try:
            await look_for_fields(self._model_watch, raw, self._on_unknown_field)
        except ConfigurationError as error:
            self.fatal, self._error = True, None
            self._fail(error)
        if self._error is not None and self.fatal:
            await self._rest()
            self._raise(self._error)

    def _end(self) -> None:
        if self._failures and self._on_error == "defer":
            batches = len(self._failures)
            message = (
                f"{batches} of {self.plan.added} batches failed, all others were delivered; resume "
                "from .checkpoint to read them again"
            )
            self._error = PartialScanError(message, self._failures)
        doubts = self._ids_report.doubtful if self._ids_report is not None else ()
        if doubts and self.plan.on_drift == "raise" and self._error is None:
            flags = ", ".join(dict.fromkeys(flag for one in doubts for flag in one.flags))
            self._error = DriftError(
                f"the list that the ids came from moved, and leaves ids in doubt ({flags}): their "
                "pods may be missing; scan again"
            )
        self.cancel(self._error)

    def _raise(self, error: BaseException) -> NoReturn:
        """Raise what ended the scan, with what there is to resume from."""
        self._error = None
        self.cancel(error)
        try:
            raise self._marked(error)
        finally:
            del error  # it holds this frame, which would hold it: a cycle

    def _marked(self, error: BaseException) -> BaseException:
        if isinstance(error, IefError):
            error.checkpoint = self.checkpoint()
        return error

    async def _wait(self) -> None:
        """Wait for a page, an error or the end; no longer than the deadline."""
        self._refuse_to_stall()
        if self._error is not None:
            return
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer: asyncio.TimerHandle | None = None
        if self._deadline != math.inf:
            # not `asyncio.timeout`: before Python 3.11.3 it raises CancelledError in a task that
            # was cancelled before and went on
            timer = loop.call_later(self._deadline - self._clock.now(), self._expire)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _expire(self) -> None:
        """End the scan, as its deadline has passed."""
        message = f"the scan's deadline of {self._seconds} s passed; give it more, or less to read"
        self._fail(TransportError(message))

    async def next_items(self) -> Iterator[T]:
        """Return some items of the current page, or of the next; none at the end."""
        with self._one_consumer():
            if self._chunk is not None:
                self._chunk_size = 0  # all of it is finished with, as more is asked for
            while True:
                if self._current is None or self._taken == len(self._current.positions):
                    await self.next_page()
                if self._current is None:
                    return iter(())
                await asyncio.sleep(0)
                items = await self._structure_some(self._current)
                if items is not None:
                    self._chunk, self._chunk_size = iter(items), len(items)
                    self._items += len(items)
                if items:
                    return self._chunk or iter(())
                if self._gives_way:
                    return iter(())

    async def next_whole_page(self) -> Page[T] | None:
        """Return the next page with all its items, or None at the end."""
        with self._one_consumer():
            while (accepted := await self.next_page()) is not None:
                items: list[T] = []
                bad = self._bad
                while self._taken < len(accepted.positions):
                    await asyncio.sleep(0)
                    some = await self._structure_some(accepted)
                    if some is None:
                        break
                    items += some
                if items and self._current is accepted:
                    request = accepted.request
                    self._items += len(items)
                    return page_of(
                        accepted.page,
                        items,
                        offset=request.offset,
                        limit=request.limit,
                        checkpoint=self._checkpoint(len(accepted.positions)),
                        bad_items=self._bad - bad,
                    )
                if self._gives_way:
                    return None
            return None

    async def _structure_some(self, accepted: Accepted) -> list[T] | None:
        """Structure a chunk of a page; None if its batch fails."""
        rest = accepted.positions[self._taken :]
        try:
            items = structure_some(self.reader, accepted.page, rest, key=self._key)
        except PayloadError as error:
            # its frames would hold the iterator: who keeps the error, and leaves the loop by a bare
            # break, would keep the scan
            problem = error.with_traceback(None)
        else:
            self._taken += len(items)
            return items
        if self._on_bad_item != "raise":
            return await self._replace(accepted, rest[0], problem)
        # where pages are given the one in hand is not, nor what was made of it so far
        given = 0 if self._chunk is None else self._taken
        unread = len(accepted.positions) - given
        self._leave(accepted)
        self.plan.give_up(accepted.request.batch, unread=unread)
        self._give_up(problem, accepted.request)
        if self._error is not None:
            await self._rest()
            self._raise(self._error)
        return None

    def _leave(self, accepted: Accepted) -> None:
        """Take no more of a page; what came of it as items is finished with."""
        if self._chunk is not None:
            self.plan.acknowledge(accepted, self._taken)
        self._current = self._chunk = None

    async def _replace(self, accepted: Accepted, at: int, problem: PayloadError) -> list[T]:
        """Return what stands in the place of a row that can't be read: an item, or none."""
        _locate(problem, accepted.request)
        items: list[T] = []
        try:
            items = stand_in(self._on_bad_item, self.reader, accepted.page, at, problem)
        except Exception as error:  # noqa: BLE001  it ends the scan as itself, whatever it is
            self._leave(accepted)
            self.fatal, self._error = True, None
            self._fail(error)
        if self._error is not None and self.fatal:
            del problem  # it may be what is raised, and holds this frame then
            await self._rest()
            self._raise(self._error)
        self._taken += 1
        self._bad += 1
        if not items:
            if not self._skipped:
                line = "scan %d: %s of item %s can't be read: it is left out, as all such items are"
                write(
                    logging.WARNING,
                    line,
                    self._number,
                    problem.path,
                    problem.item_id or "without an id",
                )
            self._skipped += 1
            self.plan.skip()
            self._pump()
        return items

    @contextmanager
    def _one_consumer(self) -> Iterator[None]:
        if self._busy:
            message = "two tasks iterate this stream at once: give each its own iter_pods()"
            raise ConfigurationError(message)
        self.begin()
        self._busy = True
        try:
            yield
        except BaseException as error:
            # a traceback that somebody keeps would keep the iterator, and with it the tasks
            self.cancel(error)
            raise
        finally:
            self._busy = False

    def cancel(self, error: BaseException | None = None) -> None:
        """End the scan, maybe by an error: nothing more is fetched, the tasks are cancelled."""
        if self._stop():
            self._tell_end(error)

    def _stop(self) -> bool:
        """End the scan without a word; tell whether it ran."""
        ran = self._loop is not None and not self._over
        if not self._over:
            self._over = True
            self._ended = self._clock.now()
        self._cancel_tasks()
        self._wake()
        return ran

    def _cancel_tasks(self) -> None:
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()

    def abandon(self) -> None:
        """End the scan from wherever the garbage collector happens to run."""
        if self._over or self._loop is None or self._loop.is_closed():
            return
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is not self._loop:
            self._loop.call_soon_threadsafe(self.cancel)
        elif self._stop():
            # later, as the collector may run in the middle of the hook or of the logging
            self._loop.call_soon(self._tell_end)

    async def aclose(self) -> None:
        """End the scan, and wait until no task of it runs."""
        self.cancel()
        await self._rest()

    async def _rest(self) -> None:
        """Wait until no task of it runs; they were cancelled.

        Who is cancelled meanwhile waits all the same, as a cancelled scope of anyio would leave
        them behind; they end within a few turns of the loop, all but a source of ids that is
        somebody else's.
        """
        cancelled: asyncio.CancelledError | None = None
        foreign = {self._feeder} if not isinstance(self._ids, Stream) else set()
        while rest := self._tasks if cancelled is None else self._tasks - foreign:
            try:
                await asyncio.wait(rest.copy())
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled  # it holds this frame, which would hold it: a cycle

    # -- what is told --------------------------------------------------------------------------

    def _tell_batch(self, report: BatchReport, error: Exception | None = None) -> None:
        """Tell what a batch came to, and warn of what a human should know."""
        if error is None or isinstance(error, DriftError):
            self._tell_oddities(report, warn=error is None)
        if self._observer.wants():
            self._observer.tell(
                BatchDone(
                    scan=self._number,
                    batch=report.number,
                    count=report.count,
                    items=report.items,
                    pages=report.pages,
                    re_reads=report.re_reads,
                    drift=None if self.plan.count_only else report.drift,
                    complete=report.complete,
                    error=None if error is None else type(error).__name__,
                )
            )

    def _tell_oddities(self, report: BatchReport, *, warn: bool) -> None:
        if self.plan.count_only:
            return
        number, batch = self._number, report.number
        self._verdicts[report.drift] += 1
        if "clamped" in report.flags and report.page_size_seen is not None:
            clamped = LimitClamped(
                scan=number, batch=batch, asked=self.plan.limit, given=report.page_size_seen
            )
            level = logging.DEBUG if self._clamped else logging.WARNING  # one such line a scan
            self._clamped = True
            line = "scan %d: the server gives %d rows where %d were asked for: more requests"
            self._observer.tell(clamped, level, line, number, clamped.given, clamped.asked)
        if report.drift != "exact" and self.plan.on_drift != "ignore":
            seen = DriftSeen(scan=number, batch=batch, drift=report.drift, flags=report.flags)
            doubtful = warn and report.drift == "unknown" and self.plan.on_drift == "repair"
            line = "scan %d: batch %d moved and leaves rows in doubt (%s): see report.batches"
            flags = ", ".join(report.flags)
            self._observer.tell(
                seen, logging.WARNING, line if doubtful else "", number, batch, flags
            )

    def _tell_page(self, accepted: Accepted) -> None:
        answer: Answer[Rows] = accepted.page
        self._observer.tell(
            PageReady(
                scan=self._number,
                batch=accepted.request.batch,
                offset=accepted.request.offset,
                limit=accepted.request.limit,
                rows=len(accepted.positions),
                bytes=len(answer.raw),
                elapsed=answer.elapsed,
                attempts=answer.attempts,
            )
        )

    def _tell_end(self, error: BaseException | None = None) -> None:
        if not self._observer.wants(logging.INFO):
            return
        ended = ScanEnded(
            scan=self._number,
            operation=self._operation,
            items=self._delivered,
            pages=self._pages,
            batches=self.plan.added,
            failed=len(self._failures),
            retries=self._retries,
            elapsed=self.elapsed,
            complete=self.plan.complete,
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

    # -- what is known -------------------------------------------------------------------------

    def checkpoint(self) -> ScanCheckpoint:
        """Return what the consumer is done with: an item is, once the next one is asked for."""
        rows = 0
        if self._chunk is not None:
            left = operator.length_hint(self._chunk)
            handed_out = left < self._chunk_size
            rows = self._taken - left - handed_out
        return self._checkpoint(rows)

    def _checkpoint(self, rows: int) -> ScanCheckpoint:
        entries = (*self.plan.entries(self._current, rows), *self.batcher.pending_entries)
        first = self.batcher.first
        own = (Part(first, entries),) if first is not None and entries else ()
        return ScanCheckpoint(scan=self.fingerprint, parts=(*own, *self.batcher.pending_parts))

    @property
    def elapsed(self) -> float:
        """Seconds from the start to the end, or to now; 0 before the start."""
        if math.isnan(self._started):
            return 0.0
        return (self._clock.now() if math.isnan(self._ended) else self._ended) - self._started

    @property
    def _delivered(self) -> int:
        return self._items - (operator.length_hint(self._chunk) if self._chunk is not None else 0)

    def progress(self) -> ScanProgress:
        expected = self.plan.expected
        return ScanProgress(
            batches=self.plan.added,
            pages=self._pages,
            items=self._delivered,
            expected_items=None if expected is None else max(0, expected - self._skipped),
            retries=self._retries,
            elapsed=self.elapsed,
        )

    def report(self) -> ScanReport:
        return ScanReport(
            batches=self.plan.reports(),
            failures=tuple(self._failures),
            unknown_fields=dict(self._watch.unknown_fields),
            unknown_values=dict(self._watch.unknown_values),
            pages=self._pages,
            items=self._delivered,
            retries=self._retries,
            elapsed=self.elapsed,
            most_pages=self._most_pages,
            most_bytes=self._most_bytes,
            complete=self.plan.complete,
            ids=self._ids_report,
            bad_items=self._bad,
            unknown_model_fields=self._model_watch.names,
        )


def _locate(error: Exception, request: PageRequest) -> None:
    """Say in the error which part of the scan it ended."""
    if isinstance(error, IefError):
        error.batch, error.offset = request.batch, request.offset
        error.add_note(
            f"In {_named(request)}, offset {request.offset}, "
            f"attempt {error.attempts}, request id {error.request_id or 'unknown'}."
        )


def _named(request: PageRequest) -> str:
    """Name a batch by its number and its first ids."""
    ids = request.query.ids
    if request.query.selector == "filter":
        return f"the list ({ids[0] or 'no filter'})"
    more = f" and {len(ids) - NOTE_IDS} more" if ids[NOTE_IDS:] else ""
    shown = f"{request.query.selector} {', '.join(ids[:NOTE_IDS])}{more}"
    return f"batch {request.batch} ({shown})"
