"""How fast `iter_pods` is, side by side with what people write instead.

Measured, against a `FakeIef` on loopback in a process of its own:

* time per pod of nine ways to read the same fleet, from opening the session to closing it, in
  interleaved rounds, and the ratios of their medians;
* the wall time of a scan with 100 ms latency, against the least that latency allows and against
  the vendor's SDK;
* how long other tasks wait for the event loop while pages of 1,000 pods are decoded;
* how much more memory a scan takes that is twenty times as long, or has twice the batches;
* how many requests a calm list takes, against the fewest possible;
* how long an interpreter takes to import the package, and the command to show its help, against
  importing the four libraries.

What is timed is checked for each pod, once; what is watched for stalls and memory, for the number
of pods alone. A wrong result ends the run; a slow one never does.

Not measured: a real network, TLS, compression, retries, faults, and the server's own work, for
which a second core has to be free.
"""

import argparse
import asyncio
import contextlib
import functools
import gc
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import attrs
from peers import (
    IN_FLIGHT,
    Consumer,
    Fleet,
    dicts,
    dlt,
    httpx_pydantic,
    plain_cattrs,
    vendor,
    vendor_threads,
)

import ief_async
from ief_async import IefSession, Limits, Token
from ief_async.testing import FakeIef

PAGE_SIZES = (1_000, 100)
DEPLOYMENTS = 20  # a twentieth of the fleet is one deployment; all of them are one batch
LATENCY = 0.1
LATENCY_PAGE = 100
LATENCY_IN_FLIGHT = 16
PING = 0.001
LEAST_ROUNDS = 7
LIBRARIES = ("aiohttp", "attrs", "cattrs", "msgspec", "orjson")
PEERS = ("huaweicloudsdkief", "httpx", "pydantic", "dlt")
FOUR = "import aiohttp, cattrs, msgspec, backoff"
IMPORTS = {
    "four libraries": FOUR,
    "import ief_async": "import ief_async",
    "from ief_async import IefSession": "from ief_async import IefSession",
}


@attrs.frozen(kw_only=True)
class FiveFields:
    """The model of a consumer who needs little of a pod."""

    id: str
    name: str | None = None
    state: str | None = None
    node_id: str | None = None
    deployment_id: str | None = None


@attrs.frozen(kw_only=True)
class Scale:
    """How much is measured."""

    pods: int
    rounds: int
    latency_pages: int = 198  # with the overlap as many round trips as without
    long_scan: int = 120_000


@attrs.frozen(kw_only=True)
class Figure:
    """A measured number, and what it has to reach, if that was set."""

    name: str
    value: float
    better: Literal[">=", "<="] = ">="
    goal: float | None = None

    @property
    def verdict(self) -> str:
        """What the number should be, and whether it is."""
        if self.goal is None:
            return ""
        met = self.value >= self.goal if self.better == ">=" else self.value <= self.goal
        return f"{self.better} {self.goal:.2f} {'met' if met else 'not met'}"


# --- the server, in its own process ---------------------------------------------------------------


@contextlib.contextmanager
def serving(pods: int, latency: float = 0.0, deployments: int = DEPLOYMENTS) -> Iterator[Fleet]:
    command = [sys.executable, __file__, "serve", str(pods), str(latency), str(deployments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield Fleet(**json.loads(server.stdout.readline()))
        finally:
            server.stdin.close()


async def serve(pods: int, latency: float, deployments: int) -> None:
    async with FakeIef(pods=pods, deployments=deployments, latency=latency) as fake:
        fleet = Fleet(
            endpoint=fake.endpoint,
            project_id=fake.project_id,
            token=fake.token or "",
            access_key=fake.access_key,
            secret_key=fake.secret_key,
            deployment_ids=list(fake.deployment_ids),
            pods=pods,
        )
        async with session(fleet, 1) as ief:  # whose pods are whose is found out only once
            await ief.list_pods(deployment_ids=fleet.deployment_ids[:1], limit=1)
        print(json.dumps(attrs.asdict(fleet)), flush=True)
        await asyncio.to_thread(sys.stdin.read)


# --- the ways to read a fleet: each returns how many pods it saw ----------------------------------

Way = Callable[..., Awaitable[int]]


async def distinct(pods: AsyncIterator[Any]) -> int:
    return len({pod.id async for pod in pods})


async def dropped(items: AsyncIterator[Any]) -> int:
    # keeps no ids: a large set takes memory, and the garbage collector milliseconds to look through
    count = 0
    async for _ in items:
        count += 1
    return count


def session(fleet: Fleet, in_flight: int) -> IefSession:
    return IefSession(
        fleet.project_id,
        credentials=Token(fleet.token),
        endpoint=fleet.endpoint,
        limits=Limits(concurrency=in_flight),
    )


async def ours(
    fleet: Fleet,
    size: int,
    consume: Consumer = distinct,
    *,
    in_flight: int = IN_FLIGHT,
    **options: Any,
) -> int:
    async with session(fleet, in_flight) as ief:
        pods = ief.iter_pods(fleet.deployment_ids, page_size=size, concurrency=in_flight, **options)
        return await consume(aiter(pods))


WAYS: dict[str, Way] = {
    "iter_pods": ours,
    "unwatched": functools.partial(ours, on_drift="ignore"),
    "five fields": functools.partial(ours, model=FiveFields),
    "dicts": dicts,
    "cattrs": plain_cattrs,
    "httpx, pydantic": httpx_pydantic,
    "dlt": dlt,
    "vendor": vendor,
    "vendor, threads": vendor_threads,
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
        goals = {
            ("iter_pods", "dicts"): 0.7 if large else 0.6,
            ("five fields", "dicts"): 2.0 if large else 1.6,
            ("iter_pods", "cattrs"): 3.6,
            ("iter_pods", "vendor"): 8.0,
        }
        others = [name for name in WAYS if name not in {"iter_pods", "five fields"}]
        for faster, slower in [*(("iter_pods", name) for name in others), ("five fields", "dicts")]:
            yield Figure(
                name=f"speed, {faster} : {slower}, {size:,} a page",
                value=middle[slower] / middle[faster],
                goal=goals.get((faster, slower)),
            )


def latency_figures(scale: Scale) -> Iterator[Figure]:
    # the first page says how many there are; the others follow, so many at a time
    trips = 1 + math.ceil((scale.latency_pages - 1) / LATENCY_IN_FLIGHT)
    pods = scale.latency_pages * LATENCY_PAGE
    ways: dict[str, Way] = {
        "iter_pods": functools.partial(ours, in_flight=LATENCY_IN_FLIGHT),
        "vendor": vendor,
        "vendor, threads": vendor_threads,
    }
    walls: dict[str, list[float]] = {name: [] for name in ways}
    with serving(pods, LATENCY) as fleet:
        for _, (name, way) in itertools.product(range(scale.rounds), ways.items()):
            walls[name].append(asyncio.run(timed(way(fleet, LATENCY_PAGE), pods)))
    middle = {name: statistics.median(values) for name, values in walls.items()}
    least = f"wall time : latency's {trips} x {LATENCY:.1f} s"
    yield Figure(name=least, value=middle["iter_pods"] / (trips * LATENCY), better="<=", goal=1.1)
    for name, goal in {"vendor": 14.0, "vendor, threads": None}.items():
        ratio = middle[name] / middle["iter_pods"]
        yield Figure(name=f"speed, iter_pods : {name}, 100 ms", value=ratio, goal=goal)


def request_figures(fleet: Fleet) -> Iterator[Figure]:
    async def requests(size: int) -> int:
        async with session(fleet, IN_FLIGHT) as ief:
            await dropped(aiter(ief.iter_pods(fleet.deployment_ids, page_size=size)))
            return ief.statistics().requests

    for size in PAGE_SIZES:
        ratio = asyncio.run(requests(size)) / math.ceil(fleet.pods / size)
        name = f"requests : the fewest, {size:,} a page"
        yield Figure(name=name, value=ratio, better="<=", goal=1.1)


def import_figures(scale: Scale) -> Iterator[Figure]:
    """Time interpreters that are new each time, without what starting one takes."""
    timed_import = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
    seconds: dict[str, list[float]] = {name: [] for name in [*IMPORTS, "process", "help"]}
    for _ in range(2 * scale.rounds):
        for name, code in IMPORTS.items():
            command = [sys.executable, "-c", timed_import.format(code)]
            seconds[name].append(float(subprocess.check_output(command)))
        for name, rest in {"process": ["-c", FOUR], "help": ["-m", "ief_async", "--help"]}.items():
            start = time.perf_counter()
            subprocess.check_output([sys.executable, *rest])
            seconds[name].append(time.perf_counter() - start)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    for name, goal in zip([*IMPORTS][1:], (1.15, None), strict=True):
        value = middle[name] / middle["four libraries"]
        yield Figure(name=f"{name} : four libraries", value=value, better="<=", goal=goal)
    value = middle["help"] / middle["process"]
    yield Figure(name="ief-async --help : four libraries", value=value, better="<=", goal=1.5)


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
        p50, most = statistics.median(values), max(values)
        yield Figure(name=f"stall, {name}, p50, ms", value=p50, better="<=")
        for what, value, goal in (("p99", p99, 8.0), ("max", most, 15.0)):
            asked = goal if ours else None
            yield Figure(name=f"stall, {name}, {what}, ms", value=value, better="<=", goal=asked)


def peak_memory() -> float:
    """Return the most memory that this process ever held, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss of a child starts at what its parent held
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


async def read_and_drop(fleet: Fleet, batch_size: int) -> None:
    before = peak_memory()
    await timed(ours(fleet, max(PAGE_SIZES), dropped, batch_size=batch_size), fleet.pods)
    print(peak_memory() - before)


def growth(fleet: Fleet, deployments: int, batch_size: int = DEPLOYMENTS) -> float:
    """Return by how many MiB a new process grows while it reads some deployments."""
    part = attrs.evolve(
        fleet,
        deployment_ids=fleet.deployment_ids[:deployments],
        pods=fleet.pods * deployments // DEPLOYMENTS,
    )
    command = [sys.executable, __file__, "peak", json.dumps(attrs.asdict(part)), str(batch_size)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory_figures(fleet: Fleet, scale: Scale) -> Iterator[Figure]:
    half = DEPLOYMENTS // 2
    ways = {"few": (1,), "all": (DEPLOYMENTS,), "half": (half, 1), "batches": (DEPLOYMENTS, 1)}
    grown: dict[str, list[float]] = {name: [] for name in ways}
    for _, (name, way) in itertools.product(range(scale.rounds), ways.items()):
        grown[name].append(growth(fleet, *way))
    middle = {name: statistics.median(values) for name, values in grown.items()}
    few = fleet.pods // DEPLOYMENTS
    yield Figure(name=f"memory, {few:,} pods, MiB", value=middle["few"], better="<=")
    yield Figure(name=f"memory, {fleet.pods:,} pods, MiB", value=middle["all"], better="<=")
    more = middle["all"] - middle["few"]
    yield Figure(name="memory, 20 x the pods, MiB more", value=more, better="<=", goal=40.0)
    more = middle["batches"] - middle["half"]
    name = f"memory, {DEPLOYMENTS} batches, MiB more than {half}"
    yield Figure(name=name, value=more, better="<=", goal=5.0)


# --- what is printed ------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = [
        f"{name} {importlib.metadata.version(name)}"
        for name in (*LIBRARIES, *PEERS)
        if importlib.util.find_spec(name) is not None
    ]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{python}, {platform.system()}, {os.cpu_count()} cores{load}",
        "libraries": ", ".join([f"ief-async {ief_async.__version__}", *versions]),
    }


def print_speed(found: dict[int, dict[str, list[float]]], scale: Scale) -> None:
    rounds = f"median of {scale.rounds} rounds (least to most)"
    print(f"\nmicroseconds per pod, {scale.pods:,} pods: {rounds}")
    print(f"{'':16}" + "".join(f"{f'{size:,} a page':>24}" for size in found))
    for name in WAYS:
        cells = [
            f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
            for values in (times[name] for times in found.values())
        ]
        print(f"{name:16}" + "".join(f"{cell:>24}" for cell in cells))


def print_figures(figures: Iterable[Figure], base: Mapping[str, float]) -> None:
    against = f"  {'base':>7}" if base else ""
    print(f"\n{'figure':52}{'here':>7}{against}  goal")
    for figure in figures:
        old = base.get(figure.name, math.nan)
        against = f"  {old:7.2f}" if base else ""
        print(f"{figure.name:52}{figure.value:7.2f}{against}  {figure.verdict}".rstrip())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How fast iter_pods is, side by side.")
    parser.add_argument("--pods", type=int, default=20_000, help="read in each round of the race")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help=f"{LEAST_ROUNDS} at least")
    parser.add_argument("--quick", action="store_true", help="only show that all of it runs")
    parser.add_argument("--json", type=Path, metavar="PATH", help="save the result")
    parser.add_argument("--base", type=Path, metavar="PATH", help="show a saved result beside")
    given = parser.parse_args()
    if given.rounds < LEAST_ROUNDS or given.pods < 1:
        parser.error(f"a run takes {LEAST_ROUNDS} rounds and one pod at least")
    return given


def main() -> None:
    given = arguments()
    missing = [name for name in PEERS if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"{', '.join(missing)} not installed: pip install -e '.[test,bench]'")
    scale = Scale(pods=given.pods, rounds=given.rounds)
    if given.quick:
        scale = Scale(pods=2_000, rounds=1, latency_pages=20, long_scan=20_000)
    base = json.loads(given.base.read_text())["figures"] if given.base else {}
    about = environment()
    print(*about.values(), sep="\n")
    found = measure_speed(scale)
    print_speed(found, scale)
    figures = [*speed_figures(found), *latency_figures(scale), *import_figures(scale)]
    with serving(scale.long_scan) as fleet:
        figures += [*stall_figures(fleet, scale), *memory_figures(fleet, scale)]
        figures += request_figures(fleet)
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
        case ["serve", pods, latency, deployments]:
            asyncio.run(serve(int(pods), float(latency), int(deployments)))
        case ["peak", fleet, batch_size]:
            asyncio.run(read_and_drop(Fleet(**json.loads(fleet)), int(batch_size)))
        case _:
            main()
