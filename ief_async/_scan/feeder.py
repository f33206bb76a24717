"""From the ids of a scan to its batches, as its window has room for them."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable

from ief_async._paging import Batcher, ScanPlan
from ief_async._scan.reports import ScanReport
from ief_async._scan.stream import Stream

TURN_IDS = 200  # half a millisecond


class Feeder:
    """Draws ids, and adds batches of them to a plan while one is wanted.

    Attributes:
        report: of the stream that the ids come from, once it has ended; None if they come from
            elsewhere.
    """

    def __init__(
        self, ids: Iterable[object] | AsyncIterable[object], batcher: Batcher, plan: ScanPlan
    ) -> None:
        self.report: ScanReport | None = None
        self._ids = ids
        self._batcher = batcher
        self._plan = plan
        self._wanted = asyncio.Event()
        self._paused = False

    @property
    def foreign(self) -> bool:
        """Whether the ids come from code of somebody else, which may take any time to end."""
        return isinstance(self._ids, AsyncIterable) and not isinstance(self._ids, Stream)

    @property
    def idle(self) -> bool:
        """Whether it does nothing until a batch is wanted."""
        return self._paused and not self._wanted.is_set()

    def want(self) -> None:
        """Have it add a batch."""
        self._wanted.set()

    async def run(self, on_batch: Callable[[], None]) -> None:
        """Draw all ids, and call `on_batch` for each batch, and at their end.

        Between ids the event loop has its turn: most of them may make no batch.
        """
        iterator: AsyncIterator[object] | None = None
        drawn = 0
        try:
            iterator = (
                aiter(self._ids) if isinstance(self._ids, AsyncIterable) else _each(self._ids)
            )
            async for identity in iterator:
                drawn += 1
                if drawn % TURN_IDS == 0:
                    await asyncio.sleep(0)
                if batches := self._batcher.add(identity):
                    for batch in batches:
                        self._plan.add(batch)
                    await self._pause(on_batch)
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()
        if isinstance(self._ids, Stream):
            self.report = self._ids.report
        for batch in self._batcher.flush():
            self._plan.add(batch)
        self._plan.closed = True
        on_batch()

    async def _pause(self, on_batch: Callable[[], None]) -> None:
        """Wait until another batch is wanted."""
        self._wanted.clear()
        on_batch()
        self._paused = True
        await self._wanted.wait()
        self._paused = False


async def _each(ids: Iterable[object]) -> AsyncIterator[object]:
    for identity in ids:
        yield identity
