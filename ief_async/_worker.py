"""Work in a thread beside the event loop, which is always awaited."""

import asyncio
from collections.abc import Callable
from typing import Any


class Worker:
    """Runs functions in a thread, one at a time; none is left running unnoticed."""

    def __init__(self) -> None:
        self._running: asyncio.Future[Any] | None = None

    def begin(self, work: Callable[..., Any], *given: Any) -> None:
        """Start a function; the one before has to be finished."""
        self._running = asyncio.get_running_loop().run_in_executor(None, work, *given)
        # retrieves its error, which would be logged as lost where nobody awaits it any more
        self._running.add_done_callback(asyncio.Future.exception)

    async def rest(self) -> asyncio.CancelledError | None:
        """Wait for the function, however often this is cancelled; return the last cancellation.

        A cancel scope of anyio recognises its cancellation by the exception: raise that one.
        """
        cancelled: asyncio.CancelledError | None = None
        while self._running is not None and not self._running.done():
            try:
                await asyncio.wait([self._running])
            except asyncio.CancelledError as error:
                cancelled = error
        return cancelled

    async def end(self) -> Any:
        """Wait likewise, and return the result; None if nothing was started.

        Raises:
            asyncio.CancelledError: this was cancelled meanwhile; the function is finished.
            Exception: what the function raised.
        """
        cancelled = await self.rest()
        running, self._running = self._running, None
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled  # it holds this frame, which would hold it: a cycle
        return None if running is None else running.result()
