"""An async job behind plain code: an event loop in a thread, which ends however that code does.

Plain code may close a job, drop it, be interrupted while it waits, fork, or come to the end of the
script with the job alive. Waiting for a thread that no longer runs would then be waiting for ever:

- Threads are daemons, as the interpreter waits for all others before it would end a job.
- Jobs that are alive at the interpreter's end are ended by `atexit`: later no thread runs.
- Nobody waits without a limit, for a thread of another process, or from within a job's own thread,
  where the garbage collector may run.
"""

import asyncio
import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar
from weakref import WeakSet

from ief_async._errors import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")

GRACE = 5.0  # seconds to end in: it takes milliseconds, unless code that can't be cancelled runs

Give = Callable[[T], Awaitable[None]]


class _Thread(threading.Thread):
    """A thread of a job."""

    def __init__(self, target: Callable[..., None], *args: object) -> None:
        super().__init__(target=target, args=args, name="ief-async", daemon=True)


class _Threads(ThreadPoolExecutor):
    """A daemon thread for each call.

    A pool takes no work once the main thread has ended, though others may still read; and the
    interpreter waits for its threads, also for one that waits for a name server.
    """

    def __init__(self) -> None:
        super().__init__()
        self._started: WeakSet[_Thread] = WeakSet()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in a new thread."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        thread = _Thread(_call, future, partial(fn, *args, **kwargs))
        thread.start()
        self._started.add(thread)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002  as the base class has it
        """Wait for the calls that still run."""
        for thread in tuple(self._started) if wait else ():
            thread.join()


def _call(future: Future[T], function: Callable[[], T]) -> None:
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001  raised where the result is waited for
        future.set_exception(error)
    else:
        future.set_result(result)
    finally:
        del future  # an error holds this frame, which would hold it: a cycle


class Job(Generic[T]):
    """A coroutine that runs in a thread, and gives one item each time that plain code takes one.

    Args:
        work: called in the thread with what gives an item. Nothing runs before the first is taken.

    Raises:
        ConfigurationError: the interpreter is about to end.
    """

    def __init__(self, work: Callable[[Give[T]], Awaitable[None]]) -> None:
        if _ending.is_set():
            raise _ended()
        self._work = work
        self._process = os.getpid()
        self._context = copy_context()
        self._wanted = asyncio.Semaphore(0)
        self._given: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        self._task: asyncio.Task[Any] | None = None
        self._until: float | None = None  # when waiting for the end of the thread is over
        self._loop = asyncio.new_event_loop()
        self._thread = _Thread(self._run)
        _alive.add(self)
        try:
            self._thread.start()
        except RuntimeError:  # there are too many threads
            _alive.discard(self)
            self._loop.close()
            raise

    @property
    def is_here(self) -> bool:
        """Whether its thread is of this process, and not of one that this one was forked from."""
        return self._process == os.getpid()

    def take(self) -> T | None:
        """Return the next item, or None at the end; raise what ended the work."""
        if not self.is_here:
            message = "this reading was begun before the process was forked: begin one here"
            raise ConfigurationError(message)
        if self._until is not None:
            raise _ended()
        self._call(self._wanted.release)
        item, error = self._given.get()
        if self._until is not None:
            raise _ended()
        if error is not None:
            try:
                raise error
            finally:
                del error  # it holds this frame, which would hold it: a cycle
        return item

    def close(self) -> None:
        """End the work. On return its thread has ended, unless something there can't be ended."""
        if self._until is None and self.is_here and not sys.is_finalizing():
            self.cancel()
            if not isinstance(threading.current_thread(), _Thread):
                self.join()

    def cancel(self) -> None:
        """End the work without waiting for anything."""
        if self._until is None:
            self._until = time.monotonic() + GRACE
            self._call(self._stop)

    def join(self) -> None:
        """Wait until the thread of a cancelled job has ended, for so long as it has to."""
        assert self._until is not None  # noqa: S101  it was cancelled
        self._thread.join(max(0.0, self._until - time.monotonic()))

    def _call(self, function: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the job is over
            self._loop.call_soon_threadsafe(function)

    # -- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main(), context=self._context)
        except BaseException as error:  # noqa: BLE001  it is raised where items are taken
            self._given.put((None, error))
        else:
            self._given.put((None, None))
        finally:
            _alive.discard(self)

    async def _main(self) -> None:
        self._loop.set_default_executor(_Threads())
        self._task = asyncio.current_task()
        if self._until is None:
            await self._wanted.acquire()
            await self._work(self._give)

    async def _give(self, item: T) -> None:
        self._given.put((item, None))
        await self._wanted.acquire()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()


_alive: set[Job[Any]] = set()  # whose threads run
_ending = threading.Event()


@atexit.register
def _end_all() -> None:
    """End what is alive, while its threads can still run."""
    _ending.set()
    jobs = [job for job in tuple(_alive) if job.is_here]
    for job in jobs:
        job.cancel()
    with contextlib.suppress(KeyboardInterrupt):  # somebody can't wait
        for job in jobs:
            job.join()


def _ended() -> BaseException:
    """Return what stops those that still read at the interpreter's end."""
    if threading.current_thread() is threading.main_thread():
        return ConfigurationError("the interpreter is ending: nothing can be read any more")
    return SystemExit()  # a thread that is about to be stopped ends by it without a word
