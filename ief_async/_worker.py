"""Work beside the event loop, which nobody loses sight of."""

import asyncio
from collections.abc import Callable
from typing import Any


class Worker:
    """Does one thing after the other outside of the event loop."""

    def __init__(self) -> None:
        self._doing: asyncio.Future[Any] | None = None

    def begin(self, work: Callable[..., Any], *given: Any) -> None:
        """Begin something; what was begun before has ended."""
        self._doing = asyncio.get_running_loop().run_in_executor(None, work, *given)
        # its error is not to be logged as lost where nobody waits for it any more
        self._doing.add_done_callback(asyncio.Future.exception)

    async def rest(self) -> asyncio.CancelledError | None:
        """Wait for what was begun, however often this is cancelled; return the last cancellation.

        A scope such as those of anyio knows its cancellation by the exception: it has to go on.
        """
        cancelled: asyncio.CancelledError | None = None
        while self._doing is not None and not self._doing.done():
            try:
                await asyncio.wait([self._doing])
            except asyncio.CancelledError as error:
                cancelled = error
        return cancelled

    async def end(self) -> Any:
        """Wait likewise, and return what came of it; None if nothing was begun."""
        cancelled = await self.rest()
        doing, self._doing = self._doing, None
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled  # it holds this frame, which would hold it: a cycle
        return None if doing is None else doing.result()
