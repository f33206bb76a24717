"""One call that serves everybody who waits for its result."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from ief_async._auth.circuit import copied
from ief_async._errors import IefError
from ief_async._messages import Reply, Request

Send = Callable[[Request], Awaitable[Reply]]


class Flight:
    """Work that one does for all who wait for it: its failure is theirs, too."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._failures = 0
        self._failure: IefError | None = None

    @property
    def running(self) -> bool:
        """Whether somebody is at work."""
        return self._lock.locked()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold it alone, or raise what failed meanwhile for somebody else."""
        seen = self._failures
        async with self._lock:
            if self._failure is not None and self._failures > seen:
                raise copied(self._failure)
            try:
                yield
            except IefError as error:
                self._failures += 1
                self._failure = copied(error)
                raise
