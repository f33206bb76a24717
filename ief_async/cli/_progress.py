"""How far a scan is, on stderr: a bar on a terminal, else a line every ten seconds."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any, Protocol

from ief_async._scan import ScanProgress, Stream
from ief_async._writing import put
from ief_async.cli._output import is_plain, terminal_width

REDRAWN = 0.1
REPEATED = 10.0
LINE = "\r\x1b[K"  # back to the beginning of the line, and clear it


class Bar(Protocol):
    """What shows how far a scan is, and can be taken away for a while."""

    every: float

    def draw(self, now: ScanProgress) -> None:
        """Show it."""

    def clear(self) -> None:
        """Take it away, as something else is to be written there."""


class Silent:
    """Nothing."""

    every = REPEATED

    def draw(self, now: ScanProgress) -> None:
        """Show nothing."""

    def clear(self) -> None:
        """Leave nothing."""


class Log:
    """A line now and then, where no line can be written over."""

    every = REPEATED

    def draw(self, now: ScanProgress) -> None:
        put(f"ief-async: {said(now)}\n", sys.stderr)

    def clear(self) -> None:
        """Leave what was said."""


class Plain:
    """One line that is written over."""

    every = REDRAWN

    def draw(self, now: ScanProgress) -> None:
        text = said(now)[: terminal_width() - 1]
        put(f"{LINE}{text}", sys.stderr)

    def clear(self) -> None:
        put(LINE, sys.stderr)


class Rich:
    """A bar in colours, by rich."""

    every = REDRAWN

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress: Any = Progress(
            BarColumn(bar_width=None),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
        )
        self._task = self._progress.add_task("", total=None)

    def draw(self, now: ScanProgress) -> None:
        self._progress.update(
            self._task, description=said(now), completed=now.items, total=now.expected_items
        )
        self._progress.start()
        self._progress.refresh()

    def clear(self) -> None:
        self._progress.stop()


def bar_of(*, quiet: bool) -> Bar:
    """Choose how progress is shown."""
    if quiet:
        return Silent()
    if not sys.stderr.isatty():
        return Log()
    if not is_plain(sys.stderr):
        with contextlib.suppress(ImportError):
            return Rich()
    return Plain()


@contextlib.asynccontextmanager
async def shown(stream: Stream[Any], bar: Bar) -> AsyncIterator[None]:
    """Show how far a stream is while this lasts."""

    async def keep_drawing() -> None:
        while True:
            await asyncio.sleep(bar.every)
            bar.draw(stream.progress)

    def make_way(_: logging.LogRecord) -> bool:
        bar.clear()
        return True

    handlers = logging.getLogger("ief_async").handlers
    for handler in handlers:
        handler.addFilter(make_way)
    task = asyncio.create_task(keep_drawing())
    try:
        yield
    finally:
        task.cancel()
        for handler in handlers:
            handler.removeFilter(make_way)
        bar.clear()


def said(now: ScanProgress) -> str:
    """Say how far a scan is: pods, percentage, rate, time left."""
    rate = now.items / now.elapsed if now.elapsed else 0.0
    text = f"{now.items:,}"
    if now.expected_items is not None and now.fraction is not None:
        text += f" of {now.expected_items:,} ({now.fraction:.0%})"
    text += f", {rate:,.0f}/s"
    if now.eta is not None and now.items:
        minutes, seconds = divmod(round(now.eta), 60)
        text += f", {minutes}:{seconds:02} left"
    return text + (f", {now.retries} retries" if now.retries else "")
