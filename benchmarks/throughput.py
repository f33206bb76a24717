"""How fast `iter_pods` is, side by side with loops that are written by hand.

Measured, against a `FakeIef` on loopback in a process of its own:

* time per pod of five ways to read the same fleet, from opening the session to closing it, in
  interleaved rounds, and the ratios of their medians;
* the wall time of a scan with 100 ms latency, against the least that latency allows;
* how long other tasks wait for the event loop while pages of 1,000 pods are decoded;
* how much more memory a scan takes that is twenty times as long.

What is timed is checked for each pod, once; what is watched for stalls and memory, for the number
of pods alone. A wrong result ends the run; a slow one never does.

Not measured: a real network, TLS, compression, retries, faults, the time of imports, and the
server's own work, for which a second core has to be free.
"""

import argparse
import asyncio
import contextlib
import functools
import gc
import importlib.metadata
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import aiohttp
import attrs
import cattrs
import orjson

import ief_async
from ief_async import IefSession, Limits, Pod, Token
from ief_async.testing import FakeIef

PAGE_SIZES = (1_000, 100)
IN_FLIGHT = 8
DEPLOYMENTS = 20  # a twentieth of the fleet is one deployment; all of them are one batch
LATENCY = 0.1
LATENCY_PAGE = 100
LATENCY_IN_FLIGHT = 16
PING = 0.001
LEAST_ROUNDS = 5
LIBRARIES = ("aiohttp", "attrs", "cattrs", "msgspec", "orjson")


@attrs.frozen(kw_only=True)
class FiveFields:
    """The model of a consumer who needs little of a pod."""

    id: str
    name: str | None = None
    state: str | None = None
    node_id: str | None = None
    deployment_id: str | None = None


@attrs.frozen(kw_only=True)
class Fleet:
    """Where a fake server is, and what it serves."""

    endpoint: str
    project_id: str
    token: str
    deployment_ids: list[str]
    pods: int

    def session(self, in_flight: int) -> IefSession:
        """Return what a user of the library makes."""
        return IefSession(
            self.project_id,
            credentials=Token(self.token),
            endpoint=self.endpoint,
            limits=Limits(concurrency=in_flight),
        )


@attrs.frozen(kw_only=True)
class Scale:
    """How much is measured."""

    pods: int
    rounds: int
    latency_pages: int = 198  # with the overlap as many round trips as without
    long_scan: int = 120_000


@attrs.frozen(kw_only=True)
class Figure:
    """A measured number, and the numbers asked for and aimed at, where there are any."""

    name: str
    value: float
    better: Literal[">=", "<="] = ">="
    asked: float | None = None
    aim: float | None = None

    def verdict(self, goal: float | None) -> str:
        """Say what the number should be, and whether it is."""
        if goal is None:
            return ""
        met = self.value >= goal if self.better == ">=" else self.value <= goal
        return f"{self.better} {goal:.2f} {'met' if met else 'not met'}"


# --- the server, in its own process ---------------------------------------------------------------


@contextlib.contextmanager
def serving(pods: int, latency: float = 0.0) -> Iterator[Fleet]:
    command = [sys.executable, __file__, "serve", str(pods), str(latency)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield Fleet(**json.loads(server.stdout.readline()))
        finally:
            server.stdin.close()


async def serve(pods: int, latency: float) -> None:
    async with FakeIef(pods=pods, deployments=DEPLOYMENTS, latency=latency) as fake:
        fleet = Fleet(
            endpoint=fake.endpoint,
            project_id=fake.project_id,
            token=fake.token or "",
            deployment_ids=list(fake.deployment_ids),
            pods=pods,
        )
        print(json.dumps(attrs.asdict(fleet)), flush=True)
        await asyncio.to_thread(sys.stdin.read)


# --- five ways to read a fleet; each returns how many pods it saw ---------------------------------

Way = Callable[..., Awaitable[int]]
Consumer = Callable[[AsyncIterator[Any]], Awaitable[int]]


async def distinct_rows(rows: AsyncIterator[dict[str, Any]]) -> int:
    return len({row["id"] async for row in rows})


async def distinct(pods: AsyncIterator[Any]) -> int:
    return len({pod.id async for pod in pods})


async def dropped(items: AsyncIterator[Any]) -> int:
    # keeps no ids: a large set takes memory, and the garbage collector milliseconds to look through
    count = 0
    async for _ in items:
        count += 1
    return count


async def rows(http: aiohttp.ClientSession, fleet: Fleet, size: int) -> AsyncIterator[Any]:
    """Yield dicts in order: what one writes by hand, with nothing but what the job needs."""
    url = f"{fleet.endpoint}/v3/{fleet.project_id}/edgemgr/pods"
    ids = ",".join(fleet.deployment_ids)

    async def fetch(offset: int) -> bytes:
        query: dict[str, str | int] = {"deployment_ids": ids, "limit": size, "offset": offset}
        async with http.get(url, params=query) as answer:
            return await answer.read()

    page = orjson.loads(await fetch(0))
    tasks = (asyncio.create_task(fetch(at)) for at in range(size, page["count"], size))
    pending = deque(itertools.islice(tasks, IN_FLIGHT))
    for row in page["pods"]:
        yield row
    while pending:
        body = await pending.popleft()
        pending.extend(itertools.islice(tasks, 1))
        # decoded here and not in the task: eight pages of dicts at a time take a quarter longer
        for row in orjson.loads(body)["pods"]:
            yield row


def by_hand(fleet: Fleet) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"X-Auth-Token": fleet.token}, raise_for_status=True)


async def dicts(fleet: Fleet, size: int, consume: Consumer = distinct_rows) -> int:
    async with by_hand(fleet) as http:
        return await consume(rows(http, fleet, size))


async def plain_cattrs(fleet: Fleet, size: int) -> int:
    structure = CONVERTER.structure
    async with by_hand(fleet) as http:
        return len({structure(row, Pod).id async for row in rows(http, fleet, size)})


async def ours(
    fleet: Fleet,
    size: int,
    consume: Consumer = distinct,
    *,
    model: type[Any] = Pod,
    in_flight: int = IN_FLIGHT,
    on_drift: Literal["repair", "ignore"] = "repair",
) -> int:
    ids = fleet.deployment_ids
    async with fleet.session(in_flight) as ief:
        pods = ief.iter_pods(
            ids, model=model, page_size=size, concurrency=in_flight, on_drift=on_drift
        )
        return await consume(aiter(pods))


CONVERTER = cattrs.Converter()  # one for all rounds: it writes its code for Pod once
WAYS: dict[str, Way] = {
    "dicts": dicts,
    "cattrs": plain_cattrs,
    "iter_pods": ours,
    "unwatched": functools.partial(ours, on_drift="ignore"),
    "five fields": functools.partial(ours, model=FiveFields),
}


# --- what is measured -----------------------------------------------------------------------------


async def timed(reading: Awaitable[int], pods: int) -> float:
    gc.collect()
    start = time.perf_counter()
    count = await reading
    elapsed = time.perf_counter() - start
    assert count == pods, f"{count} of {pods} pods"
    return elapsed


def measure_speed(scale: Scale) -> dict[int, dict[str, list[float]]]:
    """Return microseconds per pod: of each page size, of each way, of each round."""
    found: dict[int, dict[str, list[float]]] = {}
    with serving(scale.pods) as fleet:
        for size in PAGE_SIZES:
            times = found[size] = {name: [] for name in WAYS}
            for way in WAYS.values():  # a round that does not count: code is made, caches fill
                asyncio.run(timed(way(fleet, size), scale.pods))
            for _, (name, way) in itertools.product(range(scale.rounds), WAYS.items()):
                seconds = asyncio.run(timed(way(fleet, size), scale.pods))
                times[name].append(seconds / scale.pods * 1e6)
    return found


def speed_figures(found: dict[int, dict[str, list[float]]]) -> Iterator[Figure]:
    for size, times in found.items():
        middle = {name: statistics.median(values) for name, values in times.items()}
        large = size == max(PAGE_SIZES)
        ours, five, page = middle["iter_pods"], middle["five fields"], f"{size:,} a page"
        yield Figure(
            name=f"speed, iter_pods : dicts, {page}",
            value=middle["dicts"] / ours,
            asked=0.45 if large else None,
            aim=0.7 if large else 0.6,
        )
        yield Figure(
            name=f"speed, five fields : dicts, {page}",
            value=middle["dicts"] / five,
            aim=2.0 if large else 1.6,
        )
        yield Figure(
            name=f"speed, iter_pods : cattrs, {page}",
            value=middle["cattrs"] / ours,
            asked=2.5,
            aim=3.6,
        )
        yield Figure(
            name=f"speed, iter_pods : unwatched, {page}",
            value=middle["unwatched"] / ours,
            asked=0.9,
        )


def latency_figures(scale: Scale) -> Iterator[Figure]:
    # the first page says how many there are; the others follow, so many at a time
    trips = 1 + math.ceil((scale.latency_pages - 1) / LATENCY_IN_FLIGHT)
    pods = scale.latency_pages * LATENCY_PAGE
    with serving(pods, LATENCY) as fleet:
        scans = (
            ours(fleet, LATENCY_PAGE, in_flight=LATENCY_IN_FLIGHT) for _ in range(scale.rounds)
        )
        walls = [asyncio.run(timed(scan, pods)) for scan in scans]
    value = statistics.median(walls) / (trips * LATENCY)
    name = f"wall time : latency's {trips} x {LATENCY:.1f} s"
    yield Figure(name=name, value=value, better="<=", asked=1.08)


async def ping(lateness: list[float]) -> None:
    while True:
        start = time.perf_counter()
        await asyncio.sleep(PING)
        lateness.append((time.perf_counter() - start - PING) * 1e3)


async def stalled(way: Way, fleet: Fleet) -> list[float]:
    """Return how late each ping was while the fleet was read, in ms."""
    lateness: list[float] = []
    gc.collect()
    gc.freeze()
    pinging = asyncio.create_task(ping(lateness))
    try:
        await timed(way(fleet, max(PAGE_SIZES), dropped), fleet.pods)
    finally:
        pinging.cancel()
        gc.unfreeze()
    return lateness


def stall_figures(fleet: Fleet, scale: Scale) -> Iterator[Figure]:
    late: dict[str, list[float]] = {"iter_pods": [], "dicts": []}
    for _, name in itertools.product(range(scale.rounds), late):
        late[name] += asyncio.run(stalled(WAYS[name], fleet))
    for name, values in late.items():
        ours = name == "iter_pods"
        p99 = statistics.quantiles(values, n=100, method="inclusive")[-1]
        goals = {"asked": 12.0, "aim": 8.0} if ours else {}
        yield Figure(name=f"stall, {name}, p50, ms", value=statistics.median(values), better="<=")
        yield Figure(name=f"stall, {name}, p99, ms", value=p99, better="<=", **goals)
        yield Figure(name=f"stall, {name}, max, ms", value=max(values), better="<=")


def peak_memory() -> float:
    """Return the most memory that this process ever held, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss of a child starts at what its parent held
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


async def read_and_drop(fleet: Fleet) -> None:
    before = peak_memory()
    await timed(ours(fleet, max(PAGE_SIZES), dropped), fleet.pods)
    print(peak_memory() - before)


def growth(fleet: Fleet) -> float:
    command = [sys.executable, __file__, "peak", json.dumps(attrs.asdict(fleet))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory_figures(fleet: Fleet, scale: Scale) -> Iterator[Figure]:
    few = fleet.pods // DEPLOYMENTS
    part = attrs.evolve(fleet, deployment_ids=fleet.deployment_ids[:1], pods=few)
    pairs = [(growth(part), growth(fleet)) for _ in range(scale.rounds)]
    less, more = (statistics.median(values) for values in zip(*pairs, strict=True))
    yield Figure(name=f"memory, {few:,} pods, MiB", value=less, better="<=")
    yield Figure(name=f"memory, {fleet.pods:,} pods, MiB", value=more, better="<=")
    yield Figure(name="memory, 20 x the pods, MiB more", value=more - less, better="<=", asked=40.0)


# --- what is printed ------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{python}, {platform.system()}, {os.cpu_count()} cores{load}",
        "libraries": ", ".join([f"ief-async {ief_async.__version__}", *versions]),
    }


def print_speed(found: dict[int, dict[str, list[float]]], scale: Scale) -> None:
    rounds = f"median of {scale.rounds} rounds (least to most)"
    print(f"\nmicroseconds per pod, {scale.pods:,} pods: {rounds}")
    print(f"{'':12}" + "".join(f"{f'{size:,} a page':>24}" for size in found))
    for name in WAYS:
        cells = [
            f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
            for values in (times[name] for times in found.values())
        ]
        print(f"{name:12}" + "".join(f"{cell:>24}" for cell in cells))


def print_figures(figures: Iterable[Figure], base: Mapping[str, float]) -> None:
    against = f"  {'base':>7}" if base else ""
    print(f"\n{'figure':42}{'here':>7}{against}  {'asked':17} aim")
    for figure in figures:
        old = base.get(figure.name, math.nan)
        against = f"  {old:7.2f}" if base else ""
        asked, aim = figure.verdict(figure.asked), figure.verdict(figure.aim)
        print(f"{figure.name:42}{figure.value:7.2f}{against}  {asked:17} {aim}".rstrip())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How fast iter_pods is, side by side.")
    parser.add_argument("--pods", type=int, default=20_000, help="read in each round of the race")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help="5 at least")
    parser.add_argument("--quick", action="store_true", help="only show that all of it runs")
    parser.add_argument("--json", type=Path, metavar="PATH", help="save the result")
    parser.add_argument("--base", type=Path, metavar="PATH", help="show a saved result beside")
    given = parser.parse_args()
    if given.rounds < LEAST_ROUNDS or given.pods < 1:
        parser.error(f"a run takes {LEAST_ROUNDS} rounds and one pod at least")
    return given


def main() -> None:
    given = arguments()
    scale = Scale(pods=given.pods, rounds=given.rounds)
    if given.quick:
        scale = Scale(pods=2_000, rounds=1, latency_pages=20, long_scan=20_000)
    base = json.loads(given.base.read_text())["figures"] if given.base else {}
    about = environment()
    print(*about.values(), sep="\n")
    found = measure_speed(scale)
    print_speed(found, scale)
    figures = [*speed_figures(found), *latency_figures(scale)]
    with serving(scale.long_scan) as fleet:
        figures += [*stall_figures(fleet, scale), *memory_figures(fleet, scale)]
    print_figures(figures, base)
    if given.quick:
        print("\nA quick run: it shows that all of it works, and says nothing about speed.")
    if given.json:
        values = {figure.name: figure.value for figure in figures}
        times = {str(size): ways for size, ways in found.items()}
        saved = {**about, "microseconds": times, "figures": values}
        given.json.write_text(json.dumps(saved, indent=1) + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", pods, latency]:
            asyncio.run(serve(int(pods), float(latency)))
        case ["peak", fleet]:
            asyncio.run(read_and_drop(Fleet(**json.loads(fleet))))
        case _:
            main()
