"""A stream that can be left at any time.

`Stream` is what the user holds. The work is done by a `Scan`, which holds neither the stream
nor its iterator: so when a loop is left by a bare ``break`` the iterator dies, and with it the
tasks.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from ief_async._checkpoint import ScanCheckpoint
from ief_async._errors import ConfigurationError
from ief_async._scan.reading import Reader
from ief_async._scan.reports import Page, ScanProgress, ScanReport

T = TypeVar("T")
R = TypeVar("R")


class Engine(Protocol[T]):
    """What a `Stream` needs of whatever does its work.

    Attributes:
        reader: what its items are made by.
        of_targets: whether an item comes with the target that it is of, as a pair.
    """

    reader: Reader[Any]
    of_targets: bool

    def begin(self) -> None:
        """Start to fetch, unless that was done before; refuse to on another event loop."""

    async def next_items(self) -> Iterator[T]:
        """Return some items of the current page, or of the next; none at the end."""

    async def next_whole_page(self) -> Page[T] | None:
        """Return the next page with all its items, or None at the end."""

    def cancel(self, error: BaseException | None = None) -> None:
        """End the scan, maybe by an error, without waiting for its tasks."""

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


class _Iterator(Generic[T]):
    """What iterates a stream, for one task at a time. When it dies, the scan ends."""

    def __init__(self, engine: Engine[T]) -> None:
        self._engine = engine
        self._busy = False

    def __aiter__(self) -> Self:
        return self

    async def _next(self, ask: Callable[[], Awaitable[R]]) -> R:
        """Ask the engine for more; whatever that raises ends the scan."""
        if self._busy:
            message = "two tasks iterate this stream at once: give each task a stream of its own"
            raise ConfigurationError(message)
        self._engine.begin()
        self._busy = True
        try:
            return await ask()
        except BaseException as error:
            # a traceback that somebody keeps would keep the iterator, and with it the tasks
            self._engine.cancel(error)
            raise
        finally:
            self._busy = False

    async def aclose(self) -> None:
        await self._engine.aclose()

    def __del__(self) -> None:
        self._engine.abandon()


class _Items(_Iterator[T]):
    """The items of a stream, one by one."""

    _some: Iterator[T] = iter(())

    async def __anext__(self) -> T:
        for item in self._some:
            return item
        self._some = await self._next(self._engine.next_items)
        for item in self._some:
            return item
        raise StopAsyncIteration


class _Pages(_Iterator[T]):
    """The pages of a stream."""

    async def __anext__(self) -> Page[T]:
        page = await self._next(self._engine.next_whole_page)
        if page is None:
            raise StopAsyncIteration
        return page


class Stream(Generic[T]):
    """One scan: its items with ``async for item in stream``, or its pages with `pages`.

    Nothing is sent before the first item or page is asked for. Each item comes once, in the
    server's order within a batch; with ``ordered=True`` batches come in the order of their ids,
    otherwise as they are ready. At most `concurrency` requests are in flight, and with the pages
    that wait for the consumer at most twice as many, however slow the consumer is. The event loop
    has its turn between chunks of items.

    **Errors.** With ``on_error="raise"`` the first batch that fails ends the stream: the pages
    before it are delivered, then ``async for`` raises the error itself, with a ``checkpoint``. With
    "defer" a `PartialScanError` is raised at the end instead. A row that can't be read fails its
    batch, or with ``on_bad_item="skip"`` is left out: it is counted in ``report.bad_items``, does
    not count for `max_items`, and checkpoints include it.

    **Leaving.** A consumer that is cancelled or leaves the loop cancels the scan. After
    ``async with stream:`` or ``await stream.aclose()`` no task runs and no request is in flight.
    After a bare ``break``, an exception in the body of the loop, or the garbage collection of the
    iterator, its tasks are cancelled within one turn of the event loop.

    **Lists that change.** A list may change while it is read: every pod that is there throughout
    comes once, or the `drift` of its batch in `report` is "unknown". Not promised: that the list is
    read as it was at one instant, that pods that come or go meanwhile are delivered, and anything
    about pods that change places.

    Raises:
        ConfigurationError: it is iterated a second time, by two tasks, or on another event loop; or
            one of the ids is not an id.
        IefError: whatever ended the scan, with the batch and the offset in its notes.

    Example:
        ::

            async with ief.iter_pods(deployment_ids) as stream:
                async for pod in stream:
                    print(pod.name, pod.state)
            assert stream.report.complete
    """

    def __init__(self, engine: Engine[T]) -> None:
        self._engine = engine
        self._iterated = False

    def __aiter__(self) -> AsyncIterator[T]:
        self._iterate_once()
        return _Items(self._engine)

    def pages(self) -> AsyncIterator[Page[T]]:
        """Return the pages instead of the items; those without a new item are left out.

        Each page has its items, the body as it came, and a checkpoint behind it.

        Returns:
            An async iterator, which is the one iteration that a stream has.

        Raises:
            ConfigurationError: the stream was iterated before.

        Example:
            ::

                async for page in ief.iter_pods(deployment_ids).pages():
                    print(len(page.items), "of", page.count, page.request_id)
        """
        self._iterate_once()
        return _Pages(self._engine)

    def _iterate_once(self) -> None:
        if self._iterated:
            message = "this stream was iterated before: a scan runs once, so make a new stream"
            raise ConfigurationError(message)
        self._iterated = True

    async def collect(self) -> list[T]:
        """Return all items as a list, for scans that fit into memory.

        Raises:
            IefError: whatever ended the scan; the items before it are lost.
        """
        return [item async for item in self]

    async def aclose(self) -> None:
        """End the scan. On return none of its tasks runs, and none of its requests is in flight."""
        await self._engine.aclose()

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
        """How far the scan is now."""
        return self._engine.progress()

    @property
    def report(self) -> ScanReport:
        """What the scan came to, or what is known of it so far."""
        return self._engine.report()

    def checkpoint(self) -> ScanCheckpoint:
        """Return what the consumer is finished with, at any time: after an error or a break, too.

        The consumer is finished with an item once it asks for the next one, and with a page
        likewise. A scan that resumes from the checkpoint delivers everything that is missing, at
        least once; if the list did not change, nothing else.

        Returns:
            What ``iter_pods(…, resume_from=…)`` takes, as it is or as the JSON that it writes.

        Example:
            ::

                stream = ief.iter_pods(deployment_ids)
                async for pod in stream:
                    if pod.state != "RUNNING":
                        break
                rest = ief.iter_pods(deployment_ids, resume_from=stream.checkpoint())
                pods = await rest.collect()  # that pod, and all behind it
        """
        return self._engine.checkpoint()

    def __repr__(self) -> str:
        now = self.progress
        expected = "?" if now.expected_items is None else now.expected_items
        return f"<Stream: {now.items} of {expected} items, {now.pages} pages, {now.elapsed:.3g} s>"


def engine_of(stream: Stream[T]) -> Engine[T]:
    """Return what does a stream's work: for what is built on streams."""
    return stream._engine  # noqa: SLF001  users have no business with it
