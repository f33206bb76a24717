"""A scan in motion: tasks that fetch, a bounded window, and a stream that can be left at any time.

`Stream` is what the user holds. The work is done by a `Scan`, which holds neither the stream nor
its iterator: so when a loop is left by a bare ``break`` the iterator dies, and with it the tasks.
What to fetch next is decided in `_window` and `_paging`; here it is only done.
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
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from contextvars import Context, copy_context
from itertools import chain, count, takewhile
from types import TracebackType
from typing import Any, Generic, NoReturn, Protocol, Self, TypeVar

import attrs

from ief_async._batches import Batcher
from ief_async._checkpoint import Part, ScanCheckpoint
from ief_async._errors import (
    ApiError,
    AuthenticationError,
    BatchFailure,
    CheckpointError,
    ConfigurationError,
    DriftError,
    Failure,
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
from ief_async._observer import Observer, write
from ief_async._pacing import Clock
from ief_async._paging import Accepted, BatchReport, PageRequest
from ief_async._structure import ModelWatch, Row, Rows, SchemaWatch, loads, split
from ief_async._texts import printable
from ief_async._transport import Answer
from ief_async._window import STALLED, ScanPlan

T = TypeVar("T")

CHUNK_ITEMS = 250  # handed out at a time, where they were made with their page
CHUNK_BYTES = 32 * 1024  # structured at a time: half a millisecond, whatever the page size
NOTE_IDS = 3
WATCHED_ROWS = 100  # of the first page of each batch: a millisecond
TOO_LARGE = frozenset({413, 414, 494})  # with fewer ids in the query it may be answered
TOO_SLOW = 504  # with fewer rows, too
# what fails every batch alike
FATAL = (AuthenticationError, CheckpointError, ConfigurationError)
SCANS = count(1)  # of the process: a hook may serve several sessions
VERDICTS = ("unknown", "repaired", "exact")  # the worst first

Fetch = Callable[[PageRequest, "Reader[Any]", float, int], Awaitable[Answer[Rows]]]


@attrs.frozen(kw_only=True)
class Page(Generic[T]):
    """One page of a list.

    Attributes:
        items: the rows, structured. In a scan only those that are new: a row that another page
            brought before is left out, and so is what `on_bad_item` leaves out.
        count: what this answer says the whole list holds, or None if it does not say.
        offset: the position of the page's first row, as it was asked for.
        limit: how many rows were asked for, or None if the server chose.
        request_id: the server's name for the request, or None.
        elapsed: seconds from the first attempt to the answer, waits included.
        attempts: how often the request was sent.
        raw: the body as it came, decompressed: what no model has a field for is here.
        checkpoint: in a scan, everything up to the end of this page as finished with; else None.
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


@attrs.frozen(kw_only=True)
class ScanProgress:
    """How far a scan is: a snapshot that costs next to nothing.

    Attributes:
        batches: batches started so far.
        pages: pages handed to the consumer.
        items: items handed to the consumer.
        expected_items: the sum of the counts of all batches, once every one is known; else None.
            What was left out by `on_bad_item` is no longer expected.
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
        """The part that is done, from 0 to 1, or None while it is not known."""
        if self.expected_items is None:
            return None
        return min(1.0, self.items / self.expected_items) if self.expected_items else 1.0

    @property
    def eta(self) -> float | None:
        """Seconds left at the pace so far, or None while it is not known."""
        fraction = self.fraction
        return self.elapsed * (1 - fraction) / fraction if fraction else None


@attrs.frozen(kw_only=True)
class ScanReport:
    """What a scan came to; while it runs, what is known so far.

    Attributes:
        batches: one report for each batch started, in the order of the ids. What a checkpoint knew
            as done is not among them.
        failures: the batches that failed, with ``on_error`` "defer" or "collect"; of `scan_fleet`,
            the targets that did.
        unknown_fields: keys that no documented model has, by their path, and how often they came;
            looked for in the first rows of one page of each batch.
        unknown_values: likewise words, such as a new ``state``, that were not known so far.
        unknown_model_fields: fields of ``model=`` that are in no document and in no row that was
            looked at, by their path: misspelt, most likely.
        pages: pages handed to the consumer.
        items: items handed to the consumer.
        bad_items: rows that could not be read, and that `on_bad_item` left out or replaced. Those
            of `ids` are counted there.
        retries: requests that were sent again.
        elapsed: seconds from the first item asked for to the last one given, or to now.
        most_pages: pages that were in flight, waiting or being read at once; never more than
            ``2 * concurrency + 1``.
        most_bytes: what the bodies of such pages, and the ids that tell rows apart, took at most.
        complete: whether every batch was read to its end and handed over. Whether rows are missing
            that the list moved past says each batch's `drift`.
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

    @property
    def doubtful(self) -> tuple[BatchReport, ...]:
        """The batches that were read to their end and leave rows in doubt, those of `ids` included.

        Not those of a scan with ``on_drift="ignore"``, which promises nothing.
        """
        here = [
            one
            for one in self.batches
            if one.complete and one.drift == "unknown" and "unchecked" not in one.flags
        ]
        parts = [self.ids, *(report.ids for report in self.targets.values())]
        return tuple(chain(here, *(part.doubtful for part in parts if part is not None)))


class Reader(Protocol[T]):
    """What turns rows into items: a `Structure`, or whatever a sink puts in its stead."""

    model: type

    def read(self, body: bytes, *, key: str, tolerate: bool = False) -> Rows:
        """Take an answer apart."""

    def items(self, rows: Sequence[Row], positions: Sequence[int], *, key: str) -> list[T]:
        """Return the first of the rows at these positions, as many as can be read."""

    def given(self, item: Any) -> T:
        """Return what an item that was made elsewhere is here."""

    def of(self, target: object) -> Self:
        """Return what makes the items of a target."""


class Engine(Protocol[T]):
    """What a `Stream` needs of whatever does its work.

    Attributes:
        reader: what its items are made by.
        of_targets: whether an item comes with the target that it is of, as a pair.
    """

    reader: Reader[Any]
    of_targets: bool

    async def next_items(self) -> Iterator[T]:
        """Return some items of the current page, or of the next; none at the end."""

    async def next_whole_page(self) -> Page[T] | None:
        """Return the next page with all its items, or None at the end."""

    def abandon(self) -> None:
        """End the scan from wherever the garbage collector happens to run."""

    async def aclose(self) -> None:
        """End the scan, and wait until no task of it runs."""

    def checkpoint(self) -> ScanCheckpoint:
        """Return what the consumer is done with."""

    def progress(self) -> ScanProgress:
        """Return how far it is."""

    def report(self) -> ScanReport:
        """Return what it came to."""


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
            reports = [one for one in self.plan.reports() if one.number == request.batch]
            for report in reports:
                self._tell_batch(report, error)
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
            self.plan.finish(self._current)
            self._current = self._chunk = None
        else:
            self._chunk_size = left

    async def next_page(self) -> Accepted | None:
        """Return the next page in its turn, None at the end, or raise what ended the scan."""
        self.begin()
        if self._current is not None:
            self.plan.finish(self._current)
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
            self.plan.finish_rows(accepted, self._taken)
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
                    drift=None if self.plan.heads_only else report.drift,
                    complete=report.complete,
                    error=None if error is None else type(error).__name__,
                )
            )

    def _tell_oddities(self, report: BatchReport, *, warn: bool) -> None:
        if self.plan.heads_only:
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
        entries = (*self.plan.entries(self._current, rows), *self.batcher.unmet_entries)
        first = self.batcher.first
        own = (Part(first, entries),) if first is not None and entries else ()
        return ScanCheckpoint(scan=self.fingerprint, parts=(*own, *self.batcher.unmet_parts))

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


def raw_rows(answer: Answer[Rows], *, key: str) -> Sequence[Row]:
    """Return the rows of an answer as bytes, though they may have been made at once."""
    rows = answer.value
    return (rows if rows.items is None else split(answer.raw, key=key)).raw


async def look_for_fields(watch: ModelWatch, raw: Sequence[Row], policy: OnUnknownField) -> None:
    """Warn of fields of a model that no row of a page has, or raise."""
    for at in range(0, len(raw), WATCHED_ROWS):
        if watch.unknown:
            watch.look(raw[at : at + WATCHED_ROWS])
            await asyncio.sleep(0)
    if not (watch.unknown and raw):
        return
    message = f"the model has fields that neither a document nor a row of this page has: {watch}"
    if policy == "raise":
        raise ConfigurationError(message)
    write(logging.WARNING, "%s; they are their defaults", message)


def structure_some(
    reader: Reader[T], answer: Answer[Rows], positions: Sequence[int], *, key: str
) -> list[T]:
    """Structure the first of these rows: as many as do not make the event loop wait."""
    rows, made, bad = answer.value.raw, answer.value.items, answer.value.bad
    if made is not None:
        return [made[at] for at in positions[:CHUNK_ITEMS]]
    chunk = positions[: max(1, CHUNK_BYTES * len(rows) // (len(answer.raw) or 1))]
    if bad:
        chunk = [*takewhile(lambda at: at not in bad, chunk)]
    problem = bad.get(positions[0])
    if problem is None:
        try:
            return reader.items(rows, chunk, key=key)
        except PayloadError as error:
            problem = error.with_traceback(None)
    item_id = None if positions[0] in bad else printable(answer.value.ids[positions[0]])
    named = ", ".join(
        f"{name} {value:.80}"
        for name, value in (("item", item_id), ("request id", answer.request_id))
        if value
    )
    said = answer.scrub(f"{problem.message} ({named})" if named else problem.message)
    failure = PayloadError(said, path=answer.scrub(problem.path))
    failure.item_id = item_id
    failure.request_id = answer.request_id
    failure.attempts, failure.elapsed = answer.attempts, answer.elapsed
    del problem
    raise failure


def stand_in(
    on_bad_item: OnBadItem, reader: Reader[T], answer: Answer[Rows], at: int, problem: PayloadError
) -> list[T]:
    """Return what stands in the place of a row that can't be read: one item, or none."""
    if not callable(on_bad_item):
        return []
    item = on_bad_item(loads(answer.value.raw[at]), problem)
    return [] if item is None else [reader.given(item)]


def page_of(
    answer: Answer[Rows],
    items: list[T],
    *,
    offset: int,
    limit: int | None,
    checkpoint: ScanCheckpoint | None = None,
    bad_items: int = 0,
) -> Page[T]:
    """Make the page that an answer and its structured items are."""
    return Page(
        items=tuple(items),
        count=answer.value.count,
        offset=offset,
        limit=limit,
        request_id=answer.request_id,
        elapsed=answer.elapsed,
        attempts=answer.attempts,
        raw=answer.raw,
        checkpoint=checkpoint,
        bad_items=bad_items,
    )


class _Iterator(Generic[T]):
    """What iterates a stream. When it dies, the scan ends."""

    def __init__(self, scan: Engine[T]) -> None:
        self._scan = scan

    def __aiter__(self) -> Self:
        return self

    async def aclose(self) -> None:
        await self._scan.aclose()

    def __del__(self) -> None:
        self._scan.abandon()


class _Items(_Iterator[T]):
    """The items of a stream, one by one."""

    _some: Iterator[T] = iter(())

    async def __anext__(self) -> T:
        for item in self._some:
            return item
        self._some = await self._scan.next_items()
        for item in self._some:
            return item
        raise StopAsyncIteration


class _Pages(_Iterator[T]):
    """The pages of a stream."""

    async def __anext__(self) -> Page[T]:
        page = await self._scan.next_whole_page()
        if page is None:
            raise StopAsyncIteration
        return page


class Stream(Generic[T]):
    """One scan: its items with ``async for item in stream``, or its pages with ``stream.pages()``.

    Nothing is sent before the first item or page is asked for. Items come once each, in the
    server's order within a batch; with ``ordered=True`` batches come in the order of their ids,
    else as they are ready. At most `concurrency` requests are in flight, and with the pages that
    wait for the consumer at most twice as many, however slow it is. Between chunks of items the
    event loop has its turn.

    With ``on_error="raise"`` the first batch that fails ends the stream: what came before it in
    turn is delivered, then the error is raised as itself, from the consumer's own ``async for``,
    with its ``checkpoint``. With ``"defer"`` a `PartialScanError` comes at the end instead.

    A consumer that is cancelled or leaves the loop cancels the scan: after ``async with stream:``
    and ``await stream.aclose()`` no task runs and no request is in flight; after a bare ``break``,
    an exception in the loop's body or the garbage collection of the iterator its tasks are
    cancelled within one turn of the loop.

    A row that can't be read costs its batch, or with ``on_bad_item="skip"`` itself alone: it is
    counted in ``report.bad_items``, is no item for `max_items`, and checkpoints go on behind it.

    A list may change while it is read: every pod that is there throughout comes once, or its batch
    in `report` has the drift ``unknown``. Not promised: that the list is read as it was at one
    instant, that what comes or goes meanwhile appears, and anything where pods change places.

    Raises:
        ConfigurationError: it is iterated a second time, by two tasks, or on another event loop; or
            one of the ids is none.
        IefError: whatever ended the scan, with the batch and offset in its notes.
    """

    def __init__(self, scan: Engine[T]) -> None:
        self._scan = scan
        self._iterated = False

    def __aiter__(self) -> AsyncIterator[T]:
        self._iterate_once()
        return _Items(self._scan)

    def pages(self) -> AsyncIterator[Page[T]]:
        """Return the pages instead of the items; those that bring nothing new are left out."""
        self._iterate_once()
        return _Pages(self._scan)

    def _iterate_once(self) -> None:
        if self._iterated:
            message = "this stream was iterated before: a scan runs once, so make a new stream"
            raise ConfigurationError(message)
        self._iterated = True

    async def collect(self) -> list[T]:
        """Return all items as a list; for scans that fit into memory."""
        return [item async for item in self]

    async def aclose(self) -> None:
        """End the scan. On return no task of it runs and no request is in flight."""
        await self._scan.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def progress(self) -> ScanProgress:
        """A snapshot of how far the scan is."""
        return self._scan.progress()

    @property
    def report(self) -> ScanReport:
        """What the scan came to, or what is known of it so far."""
        return self._scan.report()

    def checkpoint(self) -> ScanCheckpoint:
        """Return what the consumer has finished with, at any time: also after an error or a break.

        An item counts as finished once the next one is asked for, a page likewise. What resumes
        from it with ``iter_pods(…, resume_from=…)`` delivers everything that is missing, at least
        once: of a list that did not change, nothing else.
        """
        return self._scan.checkpoint()

    def __repr__(self) -> str:
        now = self.progress
        expected = "?" if now.expected_items is None else now.expected_items
        return f"<Stream: {now.items} of {expected} items, {now.pages} pages, {now.elapsed:.3g} s>"


def engine_of(stream: Stream[T]) -> Engine[T]:
    """Return what does a stream's work: for what is built on streams."""
    return stream._scan  # noqa: SLF001  users have no business with it
