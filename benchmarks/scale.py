"""How time, requests and memory of a scan grow, and which page size and concurrency suit it.

A server in a process of its own, on loopback, is read by a process that is new for each scan. It
reads a page first, so that its code is made, and calls `gc.freeze()`.

* The axes: the number of pods of one batch, of batches (a hundred pods each), and of targets of
  `scan_fleet` (a thousand pods each) is varied, up to a million pods; and from one middle point the
  latency and the page size. Each tells the CPU time of the reader's process, requests, and by how
  much its peak of memory grew.
* The sweep: page size against concurrency, without latency and with it. A task sleeps for 1 ms
  over and over; the longest time by which it woke late is how long the event loop was kept.
  A scan stops after some seconds, so that what is slow does not take hours.

All points are visited in turn, several times over. Of the axes the least CPU time is shown, and the
median of all else. Every scan that ends has counted its pods, and a wrong number ends the run. Text
and plots go to ``results/``.

Not measured: a real network, TLS, compression, faults. The server shares the machine, so wall times
hold its work too.
"""

import argparse
import asyncio
import contextlib
import gc
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
from machine import environment, peak_memory
from server import Fleet, serving

from ief_async import IefSession, Limits, ScanReport, Stream, Target, Token, scan_fleet

RESULTS = Path(__file__).parent / "results"
ROUNDS = 3
PING = 0.001
SWEEP_SECONDS = 2.0
SWEEP_PODS = 60_000  # about as many as the largest window of the largest pages can hold
BUSY = 0.3  # of a core: more than this taken by others is worth a word
JIFFIES = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@attrs.frozen(kw_only=True)
class Point:
    """What is read, and how; the defaults are the middle point of all axes.

    Attributes:
        pods: of each target.
        batches: deployments of each target, each a batch of its own.
        targets: if there are any, `scan_fleet` reads them; else `iter_pods` reads the one project.
        latency_ms: from a request to its answer.
        page: rows asked for at a time.
        seconds: the scan is left after so many; None: never.
    """

    pods: int = 20_000
    batches: int = 1
    targets: int = 0
    latency_ms: int = 0
    page: int = 100
    concurrency: int = 8
    seconds: float | None = None

    @property
    def served(self) -> tuple[int, float, int]:
        """What decides on the server that it needs: pods, latency, deployments."""
        return self.pods, self.latency_ms / 1e3, self.batches

    @property
    def all_pods(self) -> int:
        """How many come."""
        return self.pods * (self.targets or 1)


@attrs.frozen(kw_only=True)
class Scan:
    """What one scan took.

    Attributes:
        pods: how many came.
        seconds: from opening the session to closing it.
        cpu: seconds of CPU time of the process meanwhile.
        first: seconds until the first pod.
        requests: how many were sent.
        memory: MiB by which the peak of the process grew.
        stall_ms: by how much the task woke too late that slept for 1 ms, at the worst; 0 where
            none did.
        p99_ms: the same of all but a hundredth of its wakes.
    """

    pods: int
    seconds: float
    cpu: float
    first: float
    requests: int
    memory: float
    stall_ms: float
    p99_ms: float


MIDDLE = Point()
PODS_OF_BATCH, PODS_OF_TARGET, BATCHES_OF_TARGET = 100, 1_000, 10
AXES: dict[str, list[Point]] = {
    "pods": [Point(pods=10**n) for n in range(3, 7)],
    "batches": [Point(pods=PODS_OF_BATCH * 10**n, batches=10**n) for n in range(1, 5)],
    "targets": [
        Point(pods=PODS_OF_TARGET, batches=BATCHES_OF_TARGET, targets=10**n) for n in range(4)
    ],
    "latency_ms": [attrs.evolve(MIDDLE, latency_ms=ms) for ms in (0, 10, 50, 100, 200)],
    "page": [attrs.evolve(MIDDLE, page=size) for size in (10, 20, 50, 100, 200, 500, 1_000)],
}
WORDS = {
    "pods": "pods",
    "batches": "batches",
    "targets": "targets",
    "latency_ms": "latency, ms",
    "page": "page size",
}
SWEEP: dict[str, list[int]] = {
    "latency_ms": [0, 50],
    "page": [50, 100, 200, 500, 1_000],
    "concurrency": [1, 2, 4, 8, 16, 32],
}
Found = dict[Point, Scan]


# --- the reader, in a process for each scan -------------------------------------------------------


@contextlib.asynccontextmanager
async def opened(point: Point, fleet: Fleet, targets: int) -> AsyncIterator[Stream[Any]]:
    """Open a scan; a fleet's targets are projects of the same server, which knows them all."""
    reading: Any = {"batch_size": 1, "page_size": point.page, "concurrency": point.concurrency}
    token = Token(fleet.token)
    if targets:
        projects = [f"{at:032x}" for at in range(targets)]
        where = [
            Target(project_id=one, endpoint=fleet.endpoint, credentials=token) for one in projects
        ]
        async with scan_fleet(where, **reading) as stream:
            yield stream
        return
    limits = Limits(concurrency=point.concurrency)
    async with (
        IefSession(
            fleet.project_id, credentials=token, endpoint=fleet.endpoint, limits=limits
        ) as ief,
        ief.iter_pods(fleet.deployment_ids, **reading) as stream,
    ):
        yield stream


def requests_of(report: ScanReport) -> int:
    """Return how many requests were sent: one for each page, those that list the ids included."""
    parts = [*report.targets.values(), *([report.ids] if report.ids else [])]
    if report.targets:  # its own figures are their sums
        return sum(map(requests_of, parts))
    return report.pages + report.retries + sum(map(requests_of, parts))


async def ping(lateness: list[float]) -> None:
    while True:
        start = time.perf_counter()
        await asyncio.sleep(PING)
        lateness.append((time.perf_counter() - start - PING) * 1e3)


async def scan(point: Point, fleet: Fleet) -> Scan:
    async with opened(point, fleet, min(point.targets, 1)) as stream:
        await anext(aiter(stream))
    lateness = [0.0, 0.0]
    pinging = asyncio.create_task(ping(lateness)) if point.seconds is not None else None
    gc.collect()
    gc.freeze()  # as a service does once it has started
    before, cpu, start = peak_memory(), time.process_time(), time.perf_counter()
    first, end = start, start + (point.seconds or float("inf"))
    pods = 0
    async with opened(point, fleet, point.targets) as stream:
        async for _ in stream:
            pods += 1
            if pods == 1:
                first = time.perf_counter()
            elif not pods % 50 and time.perf_counter() > end:
                break
        else:
            assert pods == point.all_pods, f"{pods} of {point.all_pods} pods"
        requests = requests_of(stream.report)
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    if pinging is not None:
        pinging.cancel()
    return Scan(
        pods=pods,
        seconds=elapsed,
        cpu=cpu,
        first=first - start,
        requests=requests,
        memory=peak_memory() - before,
        stall_ms=max(lateness),
        p99_ms=statistics.quantiles(lateness, n=100, method="inclusive")[-1],
    )


def read(point: Point, fleet: Fleet) -> Scan:
    """Read in a process of its own, so that the peak of its memory is this scan's."""
    given = json.dumps([attrs.asdict(point), attrs.asdict(fleet)])
    command = [sys.executable, __file__, "read"]
    done = subprocess.run(command, input=given, check=True, stdout=subprocess.PIPE, text=True)
    return Scan(**json.loads(done.stdout))


# --- what is measured -----------------------------------------------------------------------------


def sweep_points(center: Point, axes: dict[str, list[int]]) -> list[Point]:
    return [
        attrs.evolve(center, seconds=SWEEP_SECONDS, **dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]


def measure(points: Iterable[Point], rounds: int) -> Found:
    """Return the medians of each point; each is visited once in every round."""
    by_fleet: dict[tuple[int, float, int], list[Point]] = {}
    for point in dict.fromkeys(points):
        by_fleet.setdefault(point.served, []).append(point)
    scans: dict[Point, list[Scan]] = {}
    for number, (served, same) in itertools.product(range(rounds), by_fleet.items()):
        pods, latency, deployments = served
        with serving(pods, latency=latency, deployments=deployments, kind="varied") as fleet:
            for point in same:
                print(f"round {number + 1} of {rounds}: {said(point)}", file=sys.stderr)
                scans.setdefault(point, []).append(read(point, fleet))
    return {point: middle(found) for point, found in scans.items()}


def middle(scans: Sequence[Scan]) -> Scan:
    rows = zip(*map(attrs.astuple, scans), strict=True)
    names = [field.name for field in attrs.fields(Scan)]
    medians = {name: statistics.median_low(row) for name, row in zip(names, rows, strict=True)}
    return Scan(**{**medians, "cpu": min(one.cpu for one in scans)})


def noted(points: Iterable[Point], rounds: int) -> tuple[list[str], Found]:
    """Measure; put down where and when, and how much of the machine others took meanwhile."""
    about = list(environment().values())
    start, before = time.perf_counter(), busy()
    found = measure(points, rounds)
    elapsed, after = time.perf_counter() - start, busy()
    if before is not None and after is not None:
        others = max(0.0, after - before) / elapsed
        advice = ": the figures are noisy" if others > BUSY else ""
        about.append(f"meanwhile other work took {others:.1f} cores{advice}")
    about.append(f"{rounds} rounds, {elapsed / 60:.1f} minutes")
    return about, found


def busy() -> float | None:
    """Return how many seconds of the cores others than this process and its children had."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, irq, softirq, steal, *_ = map(
        int, stat.read_text().split("\n", 1)[0].split()[1:]
    )
    mine = os.times()
    ours = mine.user + mine.system + mine.children_user + mine.children_system
    return (user + nice + system + irq + softirq + steal) / JIFFIES - ours


# --- what is shown --------------------------------------------------------------------------------


def axis_lines(axes: dict[str, list[Point]], found: Found) -> Iterator[str]:
    for axis, points in axes.items():
        yield ""
        yield said(points[0], without=axis)
        yield (
            f"{WORDS[axis]:>12}{'pods':>11}{'CPU, µs a pod':>15}{'seconds':>10}"
            f"{'first pod, ms':>15}{'requests':>10}{'a 100 pods':>12}{'MiB':>8}"
        )
        for point in points:
            one = found[point]
            yield (
                f"{getattr(point, axis):12,}{one.pods:11,}{one.cpu / one.pods * 1e6:15.1f}"
                f"{one.seconds:10.3f}{one.first * 1e3:15.1f}{one.requests:10,}"
                f"{100 * one.requests / one.pods:12.2f}{one.memory:8.1f}"
            )


def said(point: Point, without: str = "") -> str:
    """Describe a point; `without` is the axis that is varied."""
    parts = [f"{point.page:,} a page"] if without != "page" else []
    parts += [f"{point.latency_ms} ms latency"] if without != "latency_ms" else []
    parts += [f"{point.concurrency} in flight"]
    of = f" of each of {point.targets:,} targets" if point.targets and without != "targets" else ""
    of = " of each target" if without == "targets" else of
    if without == "batches":
        return ", ".join([f"{point.pods // point.batches:,} pods a batch", *parts])
    parts = [f"{point.batches:,} batch{'es' * (point.batches > 1)}{of}", *parts]
    if without != "pods":
        parts = [f"{point.pods:,} pods", *parts]
    return ", ".join(parts)


FIGURES: dict[str, Callable[[Scan], float]] = {
    "pods/s": lambda one: one.pods / one.seconds,
    "stall, p99, ms": lambda one: one.p99_ms,
    "longest stall, ms": lambda one: one.stall_ms,
    "memory, MiB": lambda one: one.memory,
}


def sweep_lines(points: list[Point], found: Found) -> Iterator[str]:
    yield f"{points[0].pods:,} pods, or as many as come in {SWEEP_SECONDS:.0f} s"
    for latency, (figure, value) in itertools.product(
        sorted({point.latency_ms for point in points}), FIGURES.items()
    ):
        here = [point for point in points if point.latency_ms == latency]
        columns = sorted({point.concurrency for point in here})
        yield ""
        yield f"{figure}, {latency} ms latency"
        yield f"{'a page':>8}" + "".join(f"{f'{one} in flight':>14}" for one in columns)
        for page in sorted({point.page for point in here}):
            row = sorted((one for one in here if one.page == page), key=lambda one: one.concurrency)
            digits = 0 if figure == "pods/s" else 1
            cells = [f"{value(found[point]):14,.{digits}f}" for point in row]
            yield f"{page:8,}" + "".join(cells)


def panels(rows: int, columns: int) -> tuple[Any, Any]:
    """Return a small figure whose file is text, and the same for the same numbers."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "ief-async", "font.size": 8})
    from matplotlib import pyplot as plt

    return plt.subplots(
        rows, columns, figsize=(3 * columns, 2.3 * rows), squeeze=False, layout="constrained"
    )


def plot_axes(axes: dict[str, list[Point]], found: Found, to: Path) -> None:
    drawn: dict[str, Callable[[Scan], float]] = {
        "CPU, µs a pod": lambda one: one.cpu / one.pods * 1e6,
        "requests a pod": lambda one: one.requests / one.pods,
        "memory, MiB": lambda one: one.memory,
    }
    figure, grid = panels(len(drawn), len(axes))
    for (row, (name, value)), (column, (axis, points)) in itertools.product(
        enumerate(drawn.items()), enumerate(axes.items())
    ):
        panel = grid[row][column]
        values = [value(found[point]) for point in points]
        panel.plot([getattr(point, axis) for point in points], values, "o-", markersize=3)
        if axis != "latency_ms":
            panel.set_xscale("log")
        panel.set_ylim(0, 1.1 * max(*values, 1e-3))
        panel.grid(alpha=0.3)
        panel.set_title(f"{name} by {WORDS[axis]}")
    figure.savefig(to, metadata={"Date": None})


def plot_sweep(points: list[Point], found: Found, to: Path) -> None:
    latencies = sorted({point.latency_ms for point in points})
    figure, grid = panels(len(latencies), len(FIGURES))
    for (row, latency), (column, (name, value)) in itertools.product(
        enumerate(latencies), enumerate(FIGURES.items())
    ):
        panel = grid[row][column]
        for page in sorted({point.page for point in points}):
            line = [point for point in points if (point.page, point.latency_ms) == (page, latency)]
            flights = [point.concurrency for point in line]
            values = [value(found[point]) for point in line]
            panel.plot(flights, values, "o-", markersize=3, label=f"{page:,} a page")
        panel.set_xscale("log", base=2)
        panel.set_xticks(flights, [str(one) for one in flights])
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.set_title(f"{name}, {latency} ms latency")
        panel.set_xlabel("in flight")
    grid[0][0].legend(fontsize=6)
    figure.savefig(to, metadata={"Date": None})


def write(to: Path, lines: Iterable[str]) -> None:
    text = "\n".join([*lines, ""])
    print(f"\n{text}")
    to.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description="How a scan grows, and which pages suit it.")
    parser.add_argument("part", nargs="?", choices=["axes", "sweep"], help="only this one")
    parser.add_argument("--quick", action="store_true", help="show that all runs; keep nothing")
    given = parser.parse_args()
    if importlib.util.find_spec("matplotlib") is None:
        parser.exit(1, 'the plots need matplotlib: pip install -e ".[test,bench]"\n')
    with TemporaryDirectory() as scratch:
        run(given.part, Path(scratch) if given.quick else RESULTS, quick=given.quick)
    if given.quick:
        print("A quick run: it shows that all of it works, and says nothing about speed.")


def run(part: str | None, folder: Path, *, quick: bool) -> None:
    center, rounds, axes, sweep = attrs.evolve(MIDDLE, pods=SWEEP_PODS), ROUNDS, AXES, SWEEP
    if quick:
        center, rounds = attrs.evolve(center, pods=1_000), 1
        axes = {name: points[:2] for name, points in axes.items()}
        sweep = {name: values[:2] for name, values in sweep.items()}
    folder.mkdir(exist_ok=True)
    if part != "sweep":
        about, found = noted(itertools.chain(*axes.values()), rounds)
        write(folder / "scale.txt", [*about, *axis_lines(axes, found)])
        plot_axes(axes, found, folder / "scale.svg")
    if part != "axes":
        points = sweep_points(center, sweep)
        about, found = noted(points, rounds)
        write(folder / "sweep.txt", [*about, *sweep_lines(points, found)])
        plot_sweep(points, found, folder / "sweep.svg")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["read"]:
            asked, where = json.load(sys.stdin)
            print(json.dumps(attrs.asdict(asyncio.run(scan(Point(**asked), Fleet(**where))))))
        case _:
            main()
