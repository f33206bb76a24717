"""What Spark and Dask add to a scan, and what a killed worker costs.

The same fleet of a `FakeIef` in a process of its own is read by one process, by Dask with two
workers and by Spark with ``local[2,4]``; each engine again while one of its workers is killed. Read
are all columns of a pod, counted are its distinct ids. A wrong number ends the run.

A time runs from the plan to the last row, in a session that is running and has been used once. The
machine's cores are shared by server, engine and reader: what is compared is overhead, no capacity.
"""

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs

from ief_async import AccessKey, IefSession
from ief_async.engines import Partition, plan_pods
from ief_async.sinks import record_batches
from ief_async.testing import FakeIef

HERE = Path(__file__).parent
WORKERS = 2
LATENCY = 0.05
DEPLOYMENTS = 100
LIBRARIES = ("pyarrow", "dask", "distributed", "pyspark")


@attrs.frozen
class Fleet:
    """A fake server in a process of its own."""

    process: subprocess.Popen[str]
    deployment_ids: list[str]

    def requests(self) -> int:
        """Ask it how many requests it had so far."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def serve(pods: int) -> None:
    with FakeIef(pods, deployments=DEPLOYMENTS, latency=LATENCY) as fake:
        print(json.dumps([fake.environment(), fake.deployment_ids]), flush=True)
        for _ in sys.stdin:
            print(fake.statistics().requests, flush=True)


@contextlib.contextmanager
def serving(pods: int) -> Iterator[Fleet]:
    command = [sys.executable, __file__, "--serve", "--pods", str(pods)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        environment, ids = json.loads(process.stdout.readline())
        os.environ |= environment
        try:
            yield Fleet(process, ids)
        finally:
            process.stdin.close()


def key() -> AccessKey:
    """Note which process asks for the key."""
    (Path(os.environ["BENCHMARK_WORKERS"]) / str(os.getpid())).touch()
    return AccessKey(os.environ["HUAWEICLOUD_SDK_AK"], os.environ["HUAWEICLOUD_SDK_SK"])


def plan(fleet: Fleet) -> tuple[Partition, ...]:
    return plan_pods(
        fleet.deployment_ids,
        credentials="engines:key",
        region="cn-north-4",
        batch_size=5,
        page_size=100,
        workers=WORKERS,
    )


def one_process(fleet: Fleet) -> tuple[int, int]:
    async def read() -> tuple[int, int]:
        ids: list[str] = []
        async with IefSession.from_env(region="cn-north-4") as ief:
            stream = ief.iter_pods(fleet.deployment_ids, page_size=100, concurrency=16)
            async for batch in record_batches(stream):
                ids += batch["id"].to_pylist()
        return len(ids), len(set(ids))

    return asyncio.run(read())


@contextlib.contextmanager
def dask() -> Iterator[Callable[[Fleet], tuple[int, int]]]:
    from distributed import Client, LocalCluster

    from ief_async.engines.dask import read_pods

    def read(fleet: Fleet) -> tuple[int, int]:
        ids = read_pods(plan(fleet))["id"].compute(retries=3)
        return len(ids), ids.nunique()

    cluster = LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    )
    with cluster, Client(cluster):
        yield read


@contextlib.contextmanager
def spark() -> Iterator[Callable[[Fleet], tuple[int, int]]]:
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import count, count_distinct

    from ief_async.engines.spark import read_pods

    session = (
        SparkSession.builder.master(f"local[{WORKERS},4]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )

    def read(fleet: Fleet) -> tuple[int, int]:
        pods = read_pods(session, plan(fleet))
        return tuple(pods.agg(count("id"), count_distinct("id")).first())

    yield read
    session.stop()


class Killer(threading.Thread):
    """Kills the workers that read, once, in the midst of it."""

    def __init__(self, folder: Path, after: float) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.after = after

    def run(self) -> None:
        time.sleep(self.after)
        while not (readers := {path.name for path in self.folder.iterdir()} - {str(os.getpid())}):
            time.sleep(0.01)
        os.kill(int(readers.pop()), signal.SIGKILL)


@attrs.frozen
class Run:
    """What one reading came to."""

    seconds: float
    requests: int


def measured(
    read: Callable[[Fleet], tuple[int, int]],
    fleet: Fleet,
    folder: Path,
    pods: int,
    kill: float = 0.0,
) -> Run:
    for path in folder.iterdir():
        path.unlink()
    killer = Killer(folder, kill)
    before = fleet.requests()
    begun = time.perf_counter()
    if kill:
        killer.start()
    rows, distinct = read(fleet)
    seconds = time.perf_counter() - begun
    assert (rows, distinct) == (pods, pods), (rows, distinct)
    if kill:
        killer.join()
    return Run(seconds, fleet.requests() - before)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="few pods: shows that all of it works")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.pods)
        return
    pods, rounds = (5_000, 1) if arguments.quick else (arguments.pods, arguments.rounds)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    os.environ["PYSPARK_PYTHON"] = sys.executable
    rows: list[tuple[str, float, int]] = []
    with TemporaryDirectory() as name, serving(pods) as fleet:
        folder = Path(name)
        os.environ["BENCHMARK_WORKERS"] = name
        engines: dict[str, Any] = {
            "one process": lambda: contextlib.nullcontext(one_process),
            "Dask": dask,
            "Spark": spark,
        }
        for engine, opened in engines.items():
            with opened() as read:
                read(fleet)
                runs = [measured(read, fleet, folder, pods) for _ in range(rounds)]
                usual = statistics.median(run.seconds for run in runs)
                rows.append((engine, usual, runs[-1].requests))
                if engine != "one process":
                    killed = measured(read, fleet, folder, pods, kill=usual / 2)
                    rows.append((f"{engine}, a worker killed", killed.seconds, killed.requests))
    versions = [f"{library} {importlib.metadata.version(library)}" for library in LIBRARIES]
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, CPython {platform.python_version()}, {os.cpu_count()} cores"
    )
    print(", ".join(versions))
    print(f"\n{pods:,} pods, {LATENCY * 1000:g} ms latency, 100 a page, median of {rounds}\n")
    print(f"{'':<24}{'seconds':>9}{'pods/s':>10}{'requests':>10}")
    for label, seconds, requests in rows:
        print(f"{label:<24}{seconds:>9.2f}{pods / seconds:>10,.0f}{requests:>10,}")


if __name__ == "__main__":
    main()
