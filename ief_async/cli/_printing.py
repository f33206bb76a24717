"""Pages on standard output, and a checkpoint of what is out."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import msgspec

from ief_async._checkpoint import ScanCheckpoint
from ief_async._scan import Page, Stream, engine_of
from ief_async._structure import LineReader, structure_of
from ief_async._worker import Worker
from ief_async._writing import Exact
from ief_async.cli._outcome import Outcome
from ief_async.cli._output import Table, Writer

SAVED_PAGES = 20  # between two saves of what went to stdout


@attrs.define
class Printed:
    """What writes pages to stdout.

    Attributes:
        plain: whether the lines of a page are written as they are.
        done: what is out.
    """

    out: Exact
    writer: Writer
    keep: Callable[[Any], bool] | None
    plain: bool
    done: ScanCheckpoint | None = None

    @property
    def found_nothing(self) -> bool:
        """Whether it printed nothing at all, as a table does that has no rows."""
        return isinstance(self.writer, Table) and self.writer.empty

    def write(self, page: Page[Any]) -> None:
        """Write a page; a file has all of it then, or none."""
        with self.out.transaction():
            if self.plain:
                self.out.write(b"\n".join([*page.items, b""]))
            else:
                rows = [msgspec.json.decode(line) for line in page.items]
                self.writer.write([row for row in rows if self.keep(row)] if self.keep else rows)
        self.done = page.checkpoint

    def save(self, to: str) -> None:
        """Keep what is done, which is on the disk before if it is for a disk."""
        from ief_async.sinks import save_checkpoint

        if self.done is not None:
            self.out.sync()
            save_checkpoint(self.done, to)


async def print_pages(
    stream: Stream[Any],
    printed: Printed,
    clear: Callable[[], None],
    saved: str | None,
    outcome: Outcome,
) -> None:
    """Write the rows of a stream as they come, and keep what is out if that is asked for.

    The event loop goes on meanwhile, so that a slow reader makes no request run out of time. Who
    ends the command waits for the page in hand: what is kept is what is out, neither more nor less.
    """
    engine = engine_of(stream)
    engine.reader = LineReader(structure_of(engine.reader.model), for_arrow=False)
    pages = 0
    worker = Worker()
    shared = _is_shared()

    async def do(work: Callable[..., None], *given: Any) -> None:
        if shared:  # what is told meanwhile would stand in the midst of a row
            clear()
            work(*given)
        else:
            worker.begin(work, *given)
            await worker.end()

    try:
        async for page in stream.pages():
            await do(printed.write, page)
            pages += 1
            if saved and pages % SAVED_PAGES == 0:
                await do(printed.save, saved)
        await do(printed.writer.close)
    except BaseException:
        await worker.rest()
        if saved:
            _save(printed, saved, outcome)
        raise
    if saved and stream.report.failures:
        printed.done = stream.checkpoint()
        _save(printed, saved, outcome)
    elif saved:
        Path(saved).unlink(missing_ok=True)  # noqa: ASYNC240  nothing else runs any more


def _is_shared() -> bool:
    """Tell whether data and all else go to one place: a terminal, or by ``2>&1``."""
    try:
        one = os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        one = False
    return one or (sys.stdout.isatty() and sys.stderr.isatty())


def _save(printed: Printed, saved: str, outcome: Outcome) -> None:
    """Keep what is out, and tell where the rest would not fit below it."""
    if printed.out.torn:
        outcome.to_go_on.append("once the part of a page at its end is removed")
    try:
        printed.save(saved)
    except OSError as error:
        outcome.to_go_on.append(f"with rows that come twice, as it could not be saved ({error})")
