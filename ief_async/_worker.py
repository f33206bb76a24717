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

    async def rest(self) -> bool:
        """Wait for what was begun, however often this is cancelled; tell whether it was."""
        cancelled = False
        while self._doing is not None and not self._doing.done():
            try:
                await asyncio.wait([self._doing])
            except asyncio.CancelledError:
                cancelled = True
        return cancelled

    async def end(self) -> Any:
        """Wait likewise, and return what came of it; None if nothing was begun."""
        cancelled = await self.rest()
        doing, self._doing = self._doing, None
        if cancelled:
            raise asyncio.CancelledError
        return None if doing is None else doing.result()
