"""What a scan costs in counts, which do not depend on the machine: a guard against regressions.

The figures are held against those in `guard.json`. One that is more than a tenth off ends the run
with status 1, whether it is more or less; ``--write`` commits the new ones. CI runs it, as part of
the README's command. Counted over a whole scan, and divided by its requests:

* `calls`: Python functions of the package that are entered, or resumed at an ``await``;
* `lines`: lines of the package that run, so that a loop counts that calls nothing;
* `turns`: turns of the event loop;
* `tasks`: tasks made;
* `kept`: memory in KiB that the items take.

And of the scan as a whole:

* `requests`: how many are sent;
* `peak`: the most memory in KiB at once, if the consumer keeps nothing.

The server is a process of its own (`server.py`), but when its answers come is not left to chance:
the transport under aiohttp waits for an answer and hands it over whole, one turn after its request.
The time of the event loop stands still, garbage is not collected while memory is counted, and a
first scan, which opens the connections and fills the caches, does not count. So every run counts
the same.

Not counted: calls and lines of aiohttp, asyncio, msgspec and attrs; the memory they take is.
"""

import argparse
import asyncio
import gc
import json
import operator
import platform
import socket
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import attrs
from server import Fleet, serving
from throughput import FiveFields, session

import ief_async

COMMITTED = Path(__file__).with_suffix(".json")
PYTHONS = ("3.11", "3.12", "3.13")
PACKAGE = str(Path(ief_async.__file__).parent)
PODS = 6_000
PAGE_SIZES = (100, 1_000)
IN_FLIGHT = 8
TOLERANCE = 0.1
FIGURES = ("calls", "lines", "turns", "tasks", "kept", "requests", "peak")
Figures = dict[str, dict[str, float]]
"""By case and name."""
INLINED = {"<listcomp>", "<dictcomp>", "<setcomp>"}  # no functions since Python 3.12


# --- an event loop on which all happens in the same order, each time -----------------------------


class Wire(asyncio.Transport):
    """A connection over which an answer comes whole, in the turn after its request."""

    def __init__(self, loop: "Loop", sock: socket.socket, protocol: Any) -> None:
        super().__init__({"socket": sock, "peername": sock.getpeername()})
        sock.settimeout(None)  # it blocks
        self._loop = loop
        self._socket = sock
        self._file = sock.makefile("rb")
        self._protocol = protocol
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._socket.sendall(data)
        if bytes(data).endswith(b"\r\n\r\n"):  # no request of a scan has a body
            self._loop.requests += 1
            self._loop.call_soon(self._receive)

    def _receive(self) -> None:
        head = b"".join(iter(self._file.readline, b"\r\n"))
        length = next(
            int(line.partition(b":")[2])
            for line in head.splitlines()
            if line.startswith(b"Content-Length")
        )
        self._protocol.data_received(head + b"\r\n")
        self._protocol.data_received(self._file.read(length))

    def pause_reading(self) -> None:
        """Do nothing: there is nothing more to come."""

    def resume_reading(self) -> None:
        """Do nothing, likewise."""

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._file.close()
            self._socket.close()
            self._loop.call_soon(self._protocol.connection_lost, None)

    abort = close


class Loop(asyncio.SelectorEventLoop):
    """An event loop that counts, whose time stands still and whose connections are wires."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = self.tasks = self.requests = 0

    def time(self) -> float:
        return 0.0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc]  # private, and where a turn is

    def create_task(self, *args: Any, **options: Any) -> Any:
        self.tasks += 1
        return super().create_task(*args, **options)

    async def create_connection(self, factory: Any, *_: Any, sock: Any = None, **__: Any) -> Any:
        protocol = factory()
        wire = Wire(self, sock, protocol)
        protocol.connection_made(wire)
        return wire, protocol


# --- the counts -----------------------------------------------------------------------------------


class Code:
    """Which code is the package's; what attrs wrote for its classes is."""

    def __init__(self) -> None:
        self._known: dict[CodeType, bool] = {}

    def __contains__(self, code: CodeType) -> bool:
        if code not in self._known:
            name = code.co_filename
            ours = name.startswith((PACKAGE, "<attrs generated")) and "ief_async" in name
            self._known[code] = ours
        return self._known[code]


OURS = Code()


class Count:
    """A number that goes up."""

    def __init__(self) -> None:
        self.number = 0


@contextmanager
def calls_counted() -> Iterator[Count]:
    count = Count()

    def profile(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code in OURS and code.co_name not in INLINED:
            count.number += 1

    sys.setprofile(profile)
    try:
        yield count
    finally:
        sys.setprofile(None)


@contextmanager
def lines_counted() -> Iterator[Count]:
    count = Count()

    def line(_: FrameType, event: str, __: object) -> Any:
        count.number += event == "line"
        return line

    def call(frame: FrameType, _: str, __: object) -> Any:
        return line if frame.f_code in OURS else None

    sys.settrace(call)
    try:
        yield count
    finally:
        sys.settrace(None)


@attrs.frozen
class Case:
    """One way to read the fleet."""

    name: str
    size: int
    whole_pages: bool = False
    options: Mapping[str, Any] = attrs.field(factory=dict)

    async def read(self, ief: ief_async.IefSession, ids: list[str], keep: list[Any] | None) -> None:
        """Read the fleet once; check that all of it came."""
        scan = ief.iter_pods(ids, page_size=self.size, concurrency=IN_FLIGHT, **self.options)
        if self.whole_pages:
            async for page in scan.pages():
                if keep is not None:
                    keep += page.items
        else:
            async for pod in scan:
                if keep is not None:
                    keep.append(pod)
        assert scan.report.items == PODS
        assert scan.report.complete

    async def figures(self, fleet: Fleet) -> dict[str, float]:
        """Return what is counted."""
        loop: Any = asyncio.get_running_loop()
        async with session(fleet, IN_FLIGHT) as ief:

            async def once(keep: list[Any] | None = None) -> None:
                await self.read(ief, fleet.deployment_ids, keep)

            await once()
            before = loop.turns, loop.tasks, loop.requests
            await once()
            after = loop.turns, loop.tasks, loop.requests
            turns, tasks, pages = map(operator.sub, after, before)
            with calls_counted() as calls:
                await once()
            with lines_counted() as lines:
                await once()
            peak = await peak_of(once)
            kept = await size_of(once)
        counts = (calls.number, lines.number, turns, tasks, kept)
        per_page = [round(number / pages, 2) for number in counts]
        return dict(zip(FIGURES, (*per_page, pages, round(peak)), strict=True))


async def peak_of(once: Callable[..., Any]) -> float:
    """Return the most that a scan holds at once, in KiB."""
    with traced():
        start, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        await once()
        return (tracemalloc.get_traced_memory()[1] - start) / 1024


async def size_of(once: Callable[..., Any]) -> float:
    """Return the memory that all items of a scan take, in KiB."""
    kept: list[Any] = []
    with traced():
        await once(kept)
        gc.collect()
        most, _ = tracemalloc.get_traced_memory()
        kept.clear()
        return (most - tracemalloc.get_traced_memory()[0]) / 1024


@contextmanager
def traced() -> Iterator[None]:
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        gc.enable()


CASES = [
    case
    for size in PAGE_SIZES
    for case in (
        Case("items", size),
        Case("pages()", size, whole_pages=True),
        Case("five fields", size, options={"model": FiveFields}),
        Case("unwatched", size, options={"on_drift": "ignore"}),
    )
]


def count() -> Figures:
    """Return the figures of each case."""
    found = {}
    with serving(PODS) as fleet:
        for case in CASES:
            with asyncio.Runner(loop_factory=Loop) as runner:
                found[f"{case.size:,} a page, {case.name}"] = runner.run(case.figures(fleet))
    return found


def compare(now: Figures, committed: Figures) -> list[str]:
    """Print the figures beside the committed ones; return what is too far off."""
    print(" " * 24, *(name.rjust(12) for name in FIGURES))
    off = []
    for case, figures in now.items():
        before = committed.get(case, {})
        print(f"{case:24}", *(f"{figures[name]:12,}" for name in FIGURES))
        print(f"{'  committed':24}", *(f"{before.get(name, 0):12,}" for name in FIGURES))
        for name in FIGURES:
            value, was = figures[name], before.get(name, 0)
            if abs(value - was) > TOLERANCE * was:
                kind = "a regression" if value > was else "less than before: commit it by --write"
                off.append(f"{case}: {name} {value:,} instead of {was:,}: {kind}")
    return off


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="make these the committed figures")
    given = parser.parse_args()
    python = ".".join(platform.python_version_tuple()[:2])
    if platform.python_implementation() != "CPython" or python not in PYTHONS:
        print(f"nothing is counted: the figures hold for CPython {', '.join(PYTHONS)}")
        return 0
    now = count()
    off = compare(now, json.loads(COMMITTED.read_bytes()))
    if given.write:
        COMMITTED.write_text(json.dumps(now, indent=1) + "\n")
        return 0
    print(*(off or ["no figure is more than a tenth off"]), sep="\n")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
