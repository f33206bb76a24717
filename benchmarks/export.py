"""What it takes to write a fleet to files, and to make tables of it.

A fleet of a `FakeIef` in a process of its own is read, one way after the other in each round:

* ``objects``: `iter_pods` alone, the pods counted and dropped;
* ``batches``: `record_batches`, whose rows go from their bytes to Arrow without objects;
* ``batches by objects``: the same table by way of the pods, which is what one writes by hand;
* the files of `ief_async.sinks`, and Parquet with a checkpoint every 200 pages.

Then every file is read back by pyarrow, polars, duckdb and pandas, and is held against the objects,
row by row; and a process of its own tells how much memory the writing of Parquet takes, of a tenth
of the fleet and of all. A wrong row ends the run; a slow one does not.
"""

import argparse
import asyncio
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from throughput import Fleet, peak_memory, serving

from ief_async import Pod
from ief_async._structure.flatten import LineReader
from ief_async._structure.structure import structure_of
from ief_async.sinks import record_batches, write_arrow, write_ndjson, write_parquet
from ief_async.sinks._arrow import Columns

PAGE = 1000
IN_FLIGHT = 8
LIBRARIES = ("pyarrow", "polars", "duckdb", "pandas", "msgspec")


async def objects(scan: Any, _: Path) -> None:
    async for _ in scan:
        pass


async def batches(scan: Any, _: Path) -> None:
    async for _ in record_batches(scan):
        pass


async def by_objects(scan: Any, _: Path) -> None:
    columns = Columns(Pod, of_targets=False)
    plain = LineReader(structure_of(Pod), for_arrow=True)
    async for page in scan.pages():
        columns.batch([plain.line(pod) for pod in page.items])


async def parquet_file(scan: Any, folder: Path) -> None:
    await write_parquet(scan, folder / "pods.parquet")


async def parquet_in_parts(scan: Any, folder: Path) -> None:
    await write_parquet(scan, folder / "parts.parquet", checkpoint=folder / "state")


async def arrow_file(scan: Any, folder: Path) -> None:
    await write_arrow(scan, folder / "pods.arrow")


async def ndjson_file(scan: Any, folder: Path) -> None:
    await write_ndjson(scan, folder / "pods.ndjson")


async def ndjson_gzip(scan: Any, folder: Path) -> None:
    await write_ndjson(scan, folder / "pods.ndjson.gz")


WAYS: dict[str, Callable[[Any, Path], Awaitable[None]]] = {
    "objects": objects,
    "batches": batches,
    "batches by objects": by_objects,
    "Parquet": parquet_file,
    "Parquet, checkpoints": parquet_in_parts,
    "Arrow": arrow_file,
    "NDJSON": ndjson_file,
    "NDJSON, gzip": ndjson_gzip,
}


async def read(way: Callable[[Any, Path], Awaitable[None]], fleet: Fleet, folder: Path) -> float:
    begun = time.perf_counter()
    async with fleet.session(IN_FLIGHT) as ief:
        scan = ief.iter_pods(fleet.deployment_ids, page_size=PAGE)
        await way(scan, folder)
        assert scan.report.items == fleet.pods
        assert scan.report.complete
    return time.perf_counter() - begun


async def pods_of(fleet: Fleet) -> list[Pod]:
    async with fleet.session(IN_FLIGHT) as ief:
        return await ief.iter_pods(fleet.deployment_ids, page_size=PAGE).collect()


def check(fleet: Fleet, folder: Path) -> None:
    """Hold each file, as four libraries read it, against the objects."""
    import duckdb
    import pandas as pd
    import polars as pl
    from pyarrow import json as arrow_json
    from pyarrow import parquet

    pods = asyncio.run(pods_of(fleet))
    plain = LineReader(structure_of(Pod), for_arrow=True)
    columns = Columns(Pod, of_targets=False)
    lines = [plain.line(pod) for pod in pods]
    steps = range(0, len(lines), PAGE)
    expected = pa.Table.from_batches([columns.batch(lines[at : at + PAGE]) for at in steps])
    assert [pod.created for pod in pods] == expected["created_at"].to_pylist()
    assert [pod.id for pod in pods] == expected["id"].to_pylist()
    for name in ("pods.parquet", "parts.parquet"):
        path = str(folder / name)
        assert parquet.read_table(path).equals(expected)
        assert pl.read_parquet(path).equals(pl.from_arrow(expected))
        found = duckdb.sql(f"select * from '{path}'").to_arrow_table()  # noqa: S608  our own path
        assert found.cast(expected.schema).equals(expected)
        frame = pd.read_parquet(path, dtype_backend="pyarrow")
        assert frame.equals(expected.to_pandas(types_mapper=pd.ArrowDtype))
    assert pa.ipc.open_file(folder / "pods.arrow").read_all().equals(expected)
    path = str(folder / "pods.ndjson")
    ids = [pod.id for pod in pods]
    states = [pod.state for pod in pods]
    nested = [pod.containers[0].resources.limits.memory for pod in pods]
    table = arrow_json.read_json(path)
    query = f"select id::varchar, state from read_json('{path}')"  # noqa: S608  our own path
    by_polars = pl.read_ndjson(path, infer_schema_length=None)
    by_pandas = pd.read_json(path, lines=True)
    readers: dict[str, Any] = {
        "pyarrow": (table["id"].to_pylist(), table["state"].to_pylist()),
        "polars": (by_polars["id"].to_list(), by_polars["state"].to_list()),
        "duckdb": zip(*duckdb.sql(query).fetchall(), strict=True),
        "pandas": (by_pandas["id"].tolist(), by_pandas["state"].tolist()),
    }
    for reader, (found_ids, found_states) in readers.items():
        assert list(found_ids) == ids, reader
        assert list(found_states) == states, reader
    whole = LineReader(structure_of(Pod), for_arrow=False)
    text = (folder / "pods.ndjson").read_bytes()
    assert gzip.decompress((folder / "pods.ndjson.gz").read_bytes()) == text
    for line, pod, memory in zip(text.splitlines(), pods, nested, strict=True):
        assert line == whole.line(pod)
        assert json.loads(line)["containers"][0]["resources"]["limits"]["memory"] == memory


def peak(pods: int) -> float:
    """Return how far a process grows while it writes a fleet, in MiB."""
    command = [sys.executable, __file__, "--peak", "--pods", str(pods)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def grown(pods: int) -> float:
    with TemporaryDirectory() as name, serving(pods) as fleet:
        usual = peak_memory()
        asyncio.run(read(parquet_file, fleet, Path(name)))
        return peak_memory() - usual


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="few pods: shows that all of it works")
    arguments = parser.parse_args()
    if arguments.peak:
        print(grown(arguments.pods))
        return
    pods, rounds = (4_000, 1) if arguments.quick else (arguments.pods, arguments.rounds)
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    with TemporaryDirectory() as name, serving(pods) as fleet:
        folder = Path(name)
        for _ in range(rounds):
            for way, function in WAYS.items():
                found[way].append(asyncio.run(read(function, fleet, folder)))
        check(fleet, folder)
        sizes = {path.name: path.stat().st_size / pods for path in sorted(folder.iterdir())}
    versions = ", ".join(f"{library} {metadata.version(library)}" for library in LIBRARIES)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, CPython {platform.python_version()}, {os.cpu_count()} cores"
    )
    print(
        f"{versions}\n\n{pods:,} pods, {PAGE:,} a page, median of {rounds} rounds (least to most)\n"
    )
    for way, seconds in found.items():
        each = sorted(1e6 * one / pods for one in seconds)
        print(
            f"{way:<22}{statistics.median(each):>7.1f} us a pod ({each[0]:.1f} to {each[-1]:.1f})"
        )
    print("\nread back by pyarrow, polars, duckdb and pandas: every row as the objects say")
    print("bytes a pod: " + ", ".join(f"{size:,.0f} {path}" for path, size in sizes.items()))
    few, many = peak(pods // 10), peak(pods)
    print(f"peak memory, Parquet: {few:.0f} MiB for {pods // 10:,} pods, {many:.0f} for {pods:,}")


if __name__ == "__main__":
    main()
