"""One call that serves everybody who waits for its result."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from ief_async._auth.circuit import copy_of
from ief_async._errors import IefError
from ief_async._messages import Reply, Request

Send = Callable[[Request], Awaitable[Reply]]


class SingleFlight:
    """Work that one task does for all that wait for it: if it fails, it fails for all of them."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._failures = 0
        self._failure: IefError | None = None

    @property
    def running(self) -> bool:
        """Whether a task is at work."""
        return self._lock.locked()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Be the one at work, or raise what failed while this task waited to be."""
        seen = self._failures
        async with self._lock:
            if self._failure is not None and self._failures > seen:
                raise copy_of(self._failure)
            try:
                yield
            except IefError as error:
                self._failures += 1
                self._failure = copy_of(error)
                raise
