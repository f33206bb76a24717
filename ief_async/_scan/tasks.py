"""The tasks of one scan."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any

from ief_async._errors import ConfigurationError


class Tasks:
    """The tasks of one scan, on the event loop and in the context in which it was begun.

    Args:
        on_end: called when a task has ended, with what it raised, if anything.
    """

    def __init__(self, on_end: Callable[[BaseException | None], None]) -> None:
        self._on_end = on_end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = Context()  # a copy of the one that it is begun in
        self._running: set[asyncio.Task[None]] = set()
        self._foreign: set[asyncio.Task[None]] = set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop on which the scan was begun; None before."""
        return self._loop

    @property
    def count(self) -> int:
        """How many tasks run."""
        return len(self._running)

    @property
    def on_loop(self) -> bool:
        """Whether the caller runs on that event loop."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def begin(self) -> bool:
        """Bind the scan to the running event loop; tell whether it was not bound before.

        Raises:
            ConfigurationError: it was begun on another event loop.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop, self._context = loop, copy_context()
            return True
        if self._loop is not loop:
            message = "this stream was started on another event loop: iterate it where it began"
            raise ConfigurationError(message)
        return False

    def run(self, call: Callable[[], None]) -> None:
        """Call something in the context of the scan: what it sets there, all tasks see."""
        self._context.run(call)

    def start(self, work: Coroutine[Any, Any, None], *, foreign: bool = False) -> None:
        """Start a task; a `foreign` one runs somebody else's code, and may take any time to end."""
        # a copy for each, as what one request sets is not for the others; by `run`, as an
        # application's own task factory may take no context
        task = self._context.copy().run(asyncio.create_task, work)
        self._running.add(task)
        if foreign:
            self._foreign.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._foreign.discard(task)
        error: BaseException | None = None
        try:
            task.result()
        except BaseException as raised:  # noqa: BLE001  a signal handler's, a cancellation
            error = raised
        try:
            self._on_end(error)
        finally:
            del error  # it holds this frame, which would hold it: a cycle

    def cancel(self) -> None:
        """Cancel all tasks but the one that calls this."""
        for task in self._running - {asyncio.current_task()}:
            task.cancel()

    def cancel_current_later(self) -> None:
        """Cancel the task in which the garbage collector happens to run, if it is one of these."""
        current = asyncio.current_task()
        if self._loop is not None and current in self._running:
            self._loop.call_soon(current.cancel)

    async def ended(self) -> None:
        """Wait until no task runs; they were cancelled.

        A caller that is cancelled meanwhile waits all the same, as a cancelled scope of anyio would
        leave the tasks behind. They end within a few turns of the loop, all but the foreign ones,
        which are no longer waited for then.
        """
        cancelled: asyncio.CancelledError | None = None
        while rest := self._running if cancelled is None else self._running - self._foreign:
            try:
                await asyncio.wait(rest.copy())
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled  # it holds this frame, which would hold it: a cycle
