"""Work in a thread, which is always awaited."""

import asyncio
from collections.abc import Callable
from typing import Any


class Worker:
    """Runs functions in a thread, one at a time."""

    def __init__(self) -> None:
        self._running: asyncio.Future[Any] | None = None

    def begin(self, work: Callable[..., Any], *given: Any) -> None:
        """Start a function; the previous one must have finished."""
        self._running = asyncio.get_running_loop().run_in_executor(None, work, *given)
        # retrieves the error, which asyncio would log as lost if nothing awaits the future
        self._running.add_done_callback(asyncio.Future.exception)

    async def rest(self) -> asyncio.CancelledError | None:
        """Wait for the function, even if cancelled meanwhile; return the last `CancelledError`.

        The caller must raise that exception: a cancel scope of anyio recognises it by identity.
        """
        cancelled: asyncio.CancelledError | None = None
        while self._running is not None and not self._running.done():
            try:
                await asyncio.wait([self._running])
            except asyncio.CancelledError as error:
                cancelled = error
        return cancelled

    async def end(self) -> Any:
        """Wait as `rest` does, and return the result; None if nothing was started.

        Raises:
            asyncio.CancelledError: the task was cancelled meanwhile; the function has finished.
            Exception: what the function raised.
        """
        cancelled = await self.rest()
        running, self._running = self._running, None
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled  # avoids a reference cycle with this frame
        return None if running is None else running.result()
