"""What a new process pays before and besides its work: imports, one page of pods, the help.

Each figure is of new interpreters, one after the other in each round, which all find compiled
modules. The processes that read a page get it from the server of `server.py`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import attrs
from machine import environment
from server import Fleet, serving

ROOT = Path(__file__).parents[1]
PODS = 20
ROUNDS = 40
LIBRARIES = "import aiohttp, cattrs, msgspec, backoff"
HELP = "import sys; from ief_async.cli import main; sys.argv = ['ief-async', '--help']; main()"
MEASURED = "took "  # before the times of a process that takes them itself
IMPORTED = f"""
from time import perf_counter, process_time
wall, cpu = perf_counter(), process_time()
{{}}
print("{MEASURED}", process_time() - cpu, perf_counter() - wall)
"""
BY_HAND = """
import asyncio, sys
import aiohttp, orjson

async def main(url, token):
    async with aiohttp.ClientSession(headers={"X-Auth-Token": token}) as http:
        async with http.get(url) as answer:
            answer.raise_for_status()
            return orjson.loads(await answer.read())["pods"]

print(len(asyncio.run(main(*sys.argv[1:]))))
"""
ITER_PODS = """
import asyncio, sys
from ief_async import IefSession, Token

async def main(endpoint, project_id, token, *ids):
    async with IefSession(project_id, credentials=Token(token), endpoint=endpoint) as ief:
        return [pod async for pod in ief.iter_pods(ids)]

print(len(asyncio.run(main(*sys.argv[1:]))))
"""


@attrs.frozen
class Way:
    """One way to do something, in a process of its own."""

    name: str
    code: str
    arguments: tuple[str, ...] = ()
    pods: int | None = None  # how many it must print

    def run(self) -> tuple[float, float]:
        """Run it; return its seconds of CPU time and of wall time."""
        # a variable of the shell must not keep it from finding compiled modules
        env = {key: one for key, one in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        command = [sys.executable, "-c", self.code, *self.arguments]
        began = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            said = child.stdout.read().decode()
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.perf_counter() - began
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            sys.exit(f"{self.name}: the process ended with {child.returncode}")
        if self.pods is not None and said.split() != [str(self.pods)]:
            sys.exit(f"{self.name}: got {said.strip()!r} pods of {self.pods}")
        if said.startswith(MEASURED):
            cpu, wall = map(float, said.removeprefix(MEASURED).split())
            return cpu, wall
        return usage.ru_utime + usage.ru_stime, wall


def tables(fleet: Fleet) -> dict[str, list[Way]]:
    """Return the ways of each table; the first way is what the others are held against."""
    query = "&".join(f"{name}={value}" for name, value in fleet.query(100, 0).items())
    by_hand = (f"{fleet.pods_url}?{query}", fleet.token)
    ours = (fleet.endpoint, fleet.project_id, fleet.token, *fleet.deployment_ids)
    libraries = Way("four libraries", IMPORTED.format(LIBRARIES))
    return {
        "import": [
            libraries,
            Way("IefSession", IMPORTED.format("from ief_async import IefSession")),
        ],
        f"a page of {fleet.pods} pods": [
            Way("aiohttp and orjson", BY_HAND, by_hand, fleet.pods),
            Way("iter_pods", ITER_PODS, ours, fleet.pods),
        ],
        "a command": [Way("four libraries", LIBRARIES), Way("ief-async --help", HELP)],
    }


def show(title: str, ways: list[Way], taken: dict[str, list[tuple[float, float]]]) -> None:
    """Print the table of some ways: the least and the quartiles of their times, in ms."""
    print(f"\n{title:28}{'least':>8}{'quartiles':>20}{'ratio':>8}")
    for column, kind in enumerate(("CPU", "wall")):
        first = min(times[column] for times in taken[ways[0].name])
        for way in ways:
            times = sorted(1_000 * times[column] for times in taken[way.name])
            low, _, high = statistics.quantiles(times, n=4)
            ratio = times[0] / 1_000 / first
            name, spread = f"  {way.name}, {kind}", f"{low:.1f} to {high:.1f}"
            print(f"{name:28}{times[0]:>8.1f}{spread:>20}{ratio:>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="shows that it works, and no speed")
    given = parser.parse_args()
    rounds = 2 if given.quick else max(2, given.rounds)
    print("\n".join(environment().values()))
    with serving(PODS) as fleet:
        all_ways = tables(fleet)
        ways = [way for some in all_ways.values() for way in some]
        for way in ways:
            way.run()  # compiles the modules, and the server makes its answers
        taken = [[way.run() for way in ways] for _ in range(rounds)]
    print(f"{rounds} interleaved rounds of new interpreters, ms; a ratio is of the least times")
    at = 0
    for title, some in all_ways.items():
        columns = {way.name: [one[at + nth] for one in taken] for nth, way in enumerate(some)}
        show(title, some, columns)
        at += len(some)


if __name__ == "__main__":
    main()
