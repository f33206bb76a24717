"""How fast `iter_pods` is, side by side with what people write instead.

The server is a process of its own on loopback that sends cached bytes (`server.py`), and each way
to read the fleet is a process of its own (`race.py`). Measured:

* CPU time per pod of each way, from opening the session to closing it: the least of the rounds and
  their quartiles, and the ratios of the least; of small pods and of large ones, and with
  `gc.freeze()` and without;
* the wall time of a scan with 100 ms latency, against the least that latency allows and against
  the vendor's SDK;
* how long other tasks wait for the event loop while pages of 1,000 pods are decoded;
* how much more memory a scan takes that is twenty times as long, or has twice the batches;
* how many requests a calm list takes, against the fewest possible.

The warm-up of each way shows that it sees each pod once; each round, that it sees as many. A wrong
result ends the run; a slow one never does.

Not measured: a real network, TLS, compression, retries, faults, and the server's own work, for
which a second core has to be free.
"""

import argparse
import asyncio
import functools
import gc
import importlib.util
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
from machine import environment, peak_memory
from peers import (
    IN_FLIGHT,
    Ids,
    dicts,
    dicts_in_order,
    dlt,
    httpx_pydantic,
    plain_cattrs,
    vendor,
    vendor_threads,
)
from race import Times, race, run_rounds
from server import DEPLOYMENTS, Fleet, Pods, serving

from ief_async import IefSession, Limits, Token

PAGE_SIZES = (100, 1_000)
LATENCY = 0.1
LATENCY_PAGE = 100
LATENCY_IN_FLIGHT = 16
PING = 0.001
PEERS = ("huaweicloudsdkief", "httpx", "pydantic", "dlt")


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
    slow_rounds: int = 3  # of ways that take ten times as long, and of what is no race
    large_share: int = 5  # so many times fewer large pods
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


# --- the ways to read a fleet: each returns how many pods it saw ----------------------------------

Way = Callable[..., Awaitable[int]]


def session(fleet: Fleet, in_flight: int) -> IefSession:
    return IefSession(
        fleet.project_id,
        credentials=Token(fleet.token),
        endpoint=fleet.endpoint,
        limits=Limits(concurrency=in_flight),
    )


async def items(
    fleet: Fleet, size: int, ids: Ids = None, *, in_flight: int = IN_FLIGHT, **options: Any
) -> int:
    seen = 0
    async with session(fleet, in_flight) as ief:
        pods = ief.iter_pods(fleet.deployment_ids, page_size=size, concurrency=in_flight, **options)
        async for pod in pods:
            seen += 1
            if ids is not None:
                ids.add(pod.id)
    return seen


async def pages(fleet: Fleet, size: int, ids: Ids = None) -> int:
    seen = 0
    async with session(fleet, IN_FLIGHT) as ief:
        scan = ief.iter_pods(fleet.deployment_ids, page_size=size, concurrency=IN_FLIGHT)
        async for page in scan.pages():
            for pod in page.items:
                seen += 1
                if ids is not None:
                    ids.add(pod.id)
    return seen


OURS: dict[str, Way] = {
    "iter_pods": items,
    "pages()": pages,
    "unwatched": functools.partial(items, on_drift="ignore"),
    "five fields": functools.partial(items, model=FiveFields),
}
BY_HAND: dict[str, Way] = {
    "dicts": dicts,
    "dicts in order": dicts_in_order,
    "cattrs": plain_cattrs,
}
SLOW: dict[str, Way] = {
    "httpx, pydantic": httpx_pydantic,
    "dlt": dlt,
    "vendor": vendor,
    "vendor, threads": vendor_threads,
}
WAYS = OURS | BY_HAND | SLOW
GOALS: Mapping[tuple[str, str, int], float] = {
    ("iter_pods", "dicts", 100): 0.60,
    ("iter_pods", "dicts", 1_000): 1.10,
    ("pages()", "dicts", 100): 0.52,
    ("pages()", "dicts", 1_000): 0.75,
    ("five fields", "dicts", 100): 1.40,
    ("five fields", "dicts", 1_000): 2.50,
    ("iter_pods", "cattrs", 100): 4.8,
    ("iter_pods", "cattrs", 1_000): 7.5,
    ("iter_pods", "vendor", 100): 8.0,
    ("iter_pods", "vendor", 1_000): 8.0,
}
"""How many times less CPU time than the second the first of two ways takes, at a page size."""


def rounds_of(name: str, size: int, fleet: Fleet) -> None:
    """Run the rounds of one way; the first one, which does not count, looks at the ids."""
    unseen: list[Ids] = [set()]

    def once() -> int:
        ids = unseen.pop() if unseen else None
        seen = asyncio.run(counted(WAYS[name](fleet, size, ids)))
        return seen if ids is None else len(ids)

    run_rounds(once)


async def counted(reading: Awaitable[int]) -> int:
    return await reading


# --- the race -------------------------------------------------------------------------------------


@attrs.frozen
class Heat:
    """One race: which pods, at which page size, with `gc.freeze()` or not."""

    kind: Pods
    size: int
    frozen: bool

    def __str__(self) -> str:
        frozen = ", gc.freeze()" if self.frozen else ""
        return f"{self.kind} pods, {self.size:,} a page{frozen}"


def run_heat(heat: Heat, fleet: Fleet, names: Iterable[str], rounds: int) -> dict[str, Times]:
    text = json.dumps(attrs.asdict(fleet))
    ways = {name: [name, str(heat.size), text] for name in names}
    return race(__file__, ways, rounds=rounds, pods=fleet.pods, frozen=heat.frozen)


def run_heats(scale: Scale) -> Iterator[tuple[Heat, int, dict[str, Times]]]:
    """Run all races; give each with how many pods were read."""
    for kind in ("small", "large"):
        pods = scale.pods if kind == "small" else scale.pods // scale.large_share
        with serving(pods, kind=kind) as fleet:
            for size, frozen in itertools.product(PAGE_SIZES, (False, True)):
                if kind == "large" and frozen:
                    continue
                heat = Heat(kind, size, frozen)
                times = run_heat(heat, fleet, [*OURS, *BY_HAND], scale.rounds)
                if kind == "small" and not frozen:
                    times |= run_heat(heat, fleet, SLOW, scale.slow_rounds)
                yield heat, pods, times


def race_figures(heat: Heat, times: Mapping[str, Times]) -> Iterator[Figure]:
    pairs = [(way, "dicts") for way in OURS]
    pairs += [("iter_pods", way) for way in [*BY_HAND, *SLOW] if way in times and way != "dicts"]
    for way, other in pairs:
        yield Figure(
            name=f"{way} : {other}, {heat}",
            value=times[other].least / times[way].least,
            goal=None if heat.kind == "large" else GOALS.get((way, other, heat.size)),
        )


def print_heat(heat: Heat, pods: int, times: Mapping[str, Times]) -> None:
    print(f"\n{heat}: microseconds per pod, {pods:,} pods")
    print(f"{'':16}{'CPU, least':>12}{'quartiles':>16}{'wall, least':>14}{'dicts : it':>12}")
    for name, one in times.items():
        each = 1e6 / pods
        quartiles = " to ".join(f"{value * each:.1f}" for value in one.quartiles())
        print(
            f"{name:16}{one.least * each:12.2f}{quartiles:>16}{min(one.wall) * each:14.2f}"
            f"{times['dicts'].least / one.least:12.2f}",
            flush=True,
        )


# --- what is no race ------------------------------------------------------------------------------


async def timed(reading: Awaitable[int], pods: int) -> float:
    gc.collect()
    start = time.perf_counter()
    count = await reading
    elapsed = time.perf_counter() - start
    assert count == pods, f"{count} of {pods} pods"
    return elapsed


def latency_figures(scale: Scale) -> Iterator[Figure]:
    # the first page says how many there are; the others follow, so many at a time
    trips = 1 + math.ceil((scale.latency_pages - 1) / LATENCY_IN_FLIGHT)
    pods = scale.latency_pages * LATENCY_PAGE
    ways: dict[str, Way] = {
        "iter_pods": functools.partial(items, in_flight=LATENCY_IN_FLIGHT),
        "vendor": vendor,
        "vendor, threads": vendor_threads,
    }
    walls: dict[str, list[float]] = {name: [] for name in ways}
    with serving(pods, latency=LATENCY) as fleet:
        for way in ways.values():  # so that all answers are cached
            asyncio.run(timed(way(fleet, LATENCY_PAGE), pods))
        for _, (name, way) in itertools.product(range(scale.slow_rounds), ways.items()):
            walls[name].append(asyncio.run(timed(way(fleet, LATENCY_PAGE), pods)))
    middle = {name: statistics.median(values) for name, values in walls.items()}
    least = f"wall time : latency's {trips} x {LATENCY:.1f} s"
    yield Figure(name=least, value=middle["iter_pods"] / (trips * LATENCY), better="<=", goal=1.08)
    for name, goal in {"vendor": 14.0, "vendor, threads": None}.items():
        ratio = middle[name] / middle["iter_pods"]
        yield Figure(name=f"speed, iter_pods : {name}, 100 ms", value=ratio, goal=goal)


def request_figures(fleet: Fleet) -> Iterator[Figure]:
    async def requests(size: int) -> int:
        async with session(fleet, IN_FLIGHT) as ief:
            async for _ in ief.iter_pods(fleet.deployment_ids, page_size=size):
                pass
            return ief.statistics().requests

    for size in PAGE_SIZES:
        ratio = asyncio.run(requests(size)) / math.ceil(fleet.pods / size)
        name = f"requests : the fewest, {size:,} a page"
        yield Figure(name=name, value=ratio, better="<=", goal=1.1)


async def ping(lateness: list[float]) -> None:
    while True:
        start = time.perf_counter()
        await asyncio.sleep(PING)
        lateness.append((time.perf_counter() - start - PING) * 1e3)


async def stalled(way: Way, fleet: Fleet) -> list[float]:
    """Return how late each ping was while the fleet was read, in ms."""
    lateness: list[float] = []
    pinging = asyncio.create_task(ping(lateness))
    try:
        await timed(way(fleet, max(PAGE_SIZES)), fleet.pods)
    finally:
        pinging.cancel()
    return lateness


def stalls(name: str, fleet: Fleet) -> None:
    """Print the lateness of all pings while one way reads a fleet, after a scan for practice."""
    asyncio.run(stalled(WAYS[name], fleet))
    print(json.dumps(asyncio.run(stalled(WAYS[name], fleet))))


def stall_figures(fleet: Fleet, scale: Scale) -> Iterator[Figure]:
    late: dict[str, list[list[float]]] = {"iter_pods": [], "pages()": [], "dicts": []}
    for _, name in itertools.product(range(scale.slow_rounds), late):
        late[name].append(json.loads(in_a_process("stall", name, fleet)))
    for name, rounds in late.items():
        ours = name == "iter_pods"
        p99 = statistics.median(
            statistics.quantiles(values, n=100, method="inclusive")[-1] for values in rounds
        )
        most = statistics.median(max(values) for values in rounds)
        for what, value, goal in (("p99", p99, 8.0), ("most", most, 15.0)):
            asked = goal if ours else None
            yield Figure(name=f"stall, {name}, {what}, ms", value=value, better="<=", goal=asked)


def in_a_process(what: str, argument: str, fleet: Fleet) -> str:
    command = [sys.executable, __file__, what, argument, json.dumps(attrs.asdict(fleet))]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def read_and_drop(fleet: Fleet, batch_size: int) -> None:
    before = peak_memory()
    await timed(items(fleet, max(PAGE_SIZES), batch_size=batch_size), fleet.pods)
    print(peak_memory() - before)


def growth(fleet: Fleet, deployments: int, batch_size: int = DEPLOYMENTS) -> float:
    """Return by how many MiB a new process grows while it reads some deployments."""
    part = attrs.evolve(
        fleet,
        deployment_ids=fleet.deployment_ids[:deployments],
        pods=fleet.pods * deployments // DEPLOYMENTS,
    )
    return float(in_a_process("peak", str(batch_size), part))


def memory_figures(fleet: Fleet, scale: Scale) -> Iterator[Figure]:
    half = DEPLOYMENTS // 2
    ways = {"few": (1,), "all": (DEPLOYMENTS,), "half": (half, 1), "batches": (DEPLOYMENTS, 1)}
    grown: dict[str, list[float]] = {name: [] for name in ways}
    for _, (name, way) in itertools.product(range(scale.slow_rounds), ways.items()):
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


def print_figures(figures: Iterable[Figure], base: Mapping[str, float]) -> None:
    against = f"  {'base':>7}" if base else ""
    print(f"\n{'figure':60}{'here':>7}{against}  goal")
    for figure in figures:
        old = base.get(figure.name, math.nan)
        against = f"  {old:7.2f}" if base else ""
        print(f"{figure.name:60}{figure.value:7.2f}{against}  {figure.verdict}".rstrip())


def print_spread(runs: list[dict[str, Any]]) -> None:
    """Print the figures of several runs: the middle one, and the least to the most."""
    print(f"{'figure':60}{'median':>7}  least to most of {len(runs)} runs")
    for name in runs[0]["figures"]:
        values = [run["figures"][name] for run in runs]
        print(f"{name:60}{statistics.median(values):7.2f}  {min(values):.2f} to {max(values):.2f}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How fast iter_pods is, side by side.")
    parser.add_argument("--pods", type=int, default=20_000, help="read in each round of the race")
    parser.add_argument("--rounds", type=int, default=16, help="of the race")
    parser.add_argument("--quick", action="store_true", help="only show that all of it runs")
    parser.add_argument("--race", action="store_true", help="the race alone")
    parser.add_argument("--json", type=Path, metavar="PATH", help="save the result")
    parser.add_argument("--base", type=Path, metavar="PATH", help="show a saved result beside")
    parser.add_argument("--spread", type=Path, nargs="+", metavar="PATH", help="of saved results")
    given = parser.parse_args()
    if given.rounds < 1 or given.pods < DEPLOYMENTS:
        parser.error(f"a run takes a round and {DEPLOYMENTS} pods at least")
    return given


def main() -> None:
    given = arguments()
    if given.spread:
        print_spread([json.loads(path.read_text()) for path in given.spread])
        return
    missing = [name for name in PEERS if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"{', '.join(missing)} not installed: pip install -e '.[test,bench]'")
    scale = Scale(pods=given.pods, rounds=given.rounds)
    if given.quick:
        scale = Scale(
            pods=2_000, rounds=1, slow_rounds=1, latency_pages=20, large_share=2, long_scan=20_000
        )
    base = json.loads(given.base.read_text())["figures"] if given.base else {}
    about = environment(*PEERS)
    print(*about.values(), sep="\n")
    figures: list[Figure] = []
    for heat, pods, times in run_heats(scale):
        print_heat(heat, pods, times)
        figures += race_figures(heat, times)
    if not given.race:
        figures += latency_figures(scale)
        with serving(scale.long_scan) as fleet:
            figures += [*stall_figures(fleet, scale), *memory_figures(fleet, scale)]
            figures += request_figures(fleet)
    print_figures(figures, base)
    if given.quick:
        print("\nA quick run: it shows that all of it works, and says nothing about speed.")
    if given.json:
        saved = {**about, "figures": {figure.name: figure.value for figure in figures}}
        given.json.write_text(json.dumps(saved, indent=1) + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["round", name, size, text]:
            rounds_of(name, int(size), Fleet(**json.loads(text)))
        case ["stall", name, text]:
            stalls(name, Fleet(**json.loads(text)))
        case ["peak", batch_size, text]:
            asyncio.run(read_and_drop(Fleet(**json.loads(text)), int(batch_size)))
        case _:
            main()
