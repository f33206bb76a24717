"""What it takes to write a fleet to files, and to make tables of it.

Each way reads the same fleet in a process of its own (`race.py`), from a server that sends pages
from memory (`server.py`). What stands beside the ways of `ief_async.sinks`:

* ``objects``: `iter_pods` alone, the pods counted and dropped;
* the ways ``by objects``: each page's pods by `attrs.asdict` to `pa.RecordBatch.from_pylist`, and
  to `pq.ParquetWriter`;
* the ways ``by hand``: pages by aiohttp, eight at a time, and `orjson.loads`; the dicts go to
  `pa.RecordBatch.from_pylist` and `pq.ParquetWriter`, or by `orjson.dumps` to lines. No retries, no
  checks. The schema is inferred from the first page. In the varied fleet an amount such as ``cpu``
  is now a number and now a text, which Arrow refuses: there the amounts are made texts first.

Then every file is read back by pyarrow, polars, duckdb and pandas, and is held against the objects,
row by row. Its size is shown beside that of a naive table: all dicts by `pa.Table.from_pylist`, and
`pq.write_table` as it comes, and with zstd. A process of its own tells how much memory the writing
of Parquet takes. A wrong row ends the run; a slow one does not.
"""

import argparse
import asyncio
import gzip
import itertools
import json
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import aiohttp
import attrs
import orjson
import pyarrow as pa
from machine import environment, peak_memory
from pyarrow import parquet
from race import Times, race, run_rounds
from server import Fleet, Pods, serving

from ief_async import IefSession, Limits, Pod, Token
from ief_async._structure.flatten import LineReader
from ief_async._structure.structure import structure_of
from ief_async.sinks import record_batches, write_arrow, write_ndjson, write_parquet
from ief_async.sinks._arrow import Columns

PAGE = 1000
IN_FLIGHT = 8
LIBRARIES = ("pyarrow", "polars", "duckdb", "pandas")
Row = dict[str, Any]

# --- with this library ----------------------------------------------------------------------------


async def objects(scan: Any, _: Path) -> None:
    async for _ in scan:
        pass


async def batches(scan: Any, _: Path) -> None:
    async for _ in record_batches(scan):
        pass


async def as_dicts(scan: Any) -> AsyncIterator[list[Row]]:
    async for page in scan.pages():
        yield [attrs.asdict(pod) for pod in page.items]


async def by_objects(scan: Any, _: Path) -> None:
    schema = None
    async for rows in as_dicts(scan):
        schema = schema or inferred(rows)
        pa.RecordBatch.from_pylist(rows, schema=schema)


async def parquet_by_objects(scan: Any, folder: Path) -> None:
    await written(as_dicts(scan), folder / "objects.parquet")


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


async def scanned(
    way: Callable[[Any, Path], Awaitable[None]], fleet: Fleet, _: Pods, folder: Path
) -> int:
    async with IefSession(
        fleet.project_id,
        credentials=Token(fleet.token),
        endpoint=fleet.endpoint,
        limits=Limits(concurrency=IN_FLIGHT),
    ) as ief:
        scan = ief.iter_pods(fleet.deployment_ids, page_size=PAGE, concurrency=IN_FLIGHT)
        await way(scan, folder)
        assert scan.report.complete
        return scan.report.items


# --- by hand --------------------------------------------------------------------------------------


def by_hand(fleet: Fleet) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"X-Auth-Token": fleet.token}, raise_for_status=True)


async def pages(
    http: aiohttp.ClientSession, fleet: Fleet, kind: Pods | None
) -> AsyncIterator[list[Row]]:
    """Yield the pages in order, for Arrow or (None) as they are."""

    async def fetch(offset: int) -> bytes:
        async with http.get(fleet.pods_url, params=fleet.query(PAGE, offset)) as answer:
            return await answer.read()

    page = orjson.loads(await fetch(0))
    tasks = (asyncio.create_task(fetch(at)) for at in range(PAGE, page["count"], PAGE))
    pending = deque(itertools.islice(tasks, IN_FLIGHT))
    yield arrowable(page["pods"], kind)
    while pending:
        body = await pending.popleft()
        pending.extend(itertools.islice(tasks, 1))
        yield arrowable(orjson.loads(body)["pods"], kind)


def arrowable(rows: list[Row], kind: Pods | None) -> list[Row]:
    """Make the amounts of the varied fleet texts."""
    for row in rows if kind == "varied" else ():
        for container in (*row.get("containers", ()), *row.get("init_containers", ())):
            for what, amounts in container["resources"].items():
                container["resources"][what] = {name: str(one) for name, one in amounts.items()}
    return rows


def inferred(rows: list[Row]) -> pa.Schema:
    """Return the schema with all fields of some rows; `from_pylist` looks at the first row only."""
    return pa.schema([*writable(pa.infer_type(rows))])


def writable(kind: pa.DataType) -> pa.DataType:
    """Return a type without the structs that have no field, which Parquet does not know."""
    if pa.types.is_list(kind):
        return pa.list_(writable(kind.value_type))
    if not pa.types.is_struct(kind):
        return kind
    fields = [field.with_type(writable(field.type)) for field in kind]
    empty = pa.struct([])
    return pa.struct([field for field in fields if field.type not in {empty, pa.list_(empty)}])


async def batches_by_hand(fleet: Fleet, kind: Pods, _: Path) -> int:
    schema, count = None, 0
    async with by_hand(fleet) as http:
        async for rows in pages(http, fleet, kind):
            schema = schema or inferred(rows)
            count += len(pa.RecordBatch.from_pylist(rows, schema=schema))
    return count


async def parquet_by_hand(fleet: Fleet, kind: Pods, folder: Path) -> int:
    async with by_hand(fleet) as http:
        return await written(pages(http, fleet, kind), folder / "hand.parquet")


async def written(rows_of_pages: AsyncIterator[list[Row]], path: Path) -> int:
    """Write a row group for each page, as most would, with pyarrow's defaults."""
    writer, count = None, 0
    async for rows in rows_of_pages:
        writer = writer or parquet.ParquetWriter(path, inferred(rows))
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=writer.schema))
        count += len(rows)
    assert writer is not None
    writer.close()
    return count


async def ndjson_by_hand(fleet: Fleet, _: Pods, folder: Path) -> int:
    count = 0
    async with by_hand(fleet) as http:
        with (folder / "hand.ndjson").open("wb") as file:
            async for rows in pages(http, fleet, None):
                file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
                count += len(rows)
    return count


# --- the race -------------------------------------------------------------------------------------

OURS = {
    "objects": objects,
    "batches": batches,
    "batches by objects": by_objects,
    "Parquet": parquet_file,
    "Parquet by objects": parquet_by_objects,
    "Parquet, checkpoints": parquet_in_parts,
    "Arrow": arrow_file,
    "NDJSON": ndjson_file,
    "NDJSON, gzip": ndjson_gzip,
}
BY_HAND = {
    "batches by hand": batches_by_hand,
    "Parquet by hand": parquet_by_hand,
    "NDJSON by hand": ndjson_by_hand,
}
RATIOS = [
    ("batches", "batches by hand"),
    ("batches", "batches by objects"),
    ("Parquet", "Parquet by hand"),
    ("Parquet", "Parquet by objects"),
    ("NDJSON", "NDJSON by hand"),
]


def once(name: str, fleet: Fleet, kind: Pods, folder: Path) -> int:
    if name in BY_HAND:
        return asyncio.run(BY_HAND[name](fleet, kind, folder))
    return asyncio.run(scanned(OURS[name], fleet, kind, folder))


def measure(fleet: Fleet, kind: Pods, folder: Path, rounds: int) -> dict[str, Times]:
    given = [json.dumps(attrs.asdict(fleet)), kind, str(folder)]
    ways = {name: [name, *given] for name in (*OURS, *BY_HAND)}
    return race(__file__, ways, rounds=rounds, pods=fleet.pods)


def print_times(found: Mapping[str, Times], pods: int) -> None:
    print(f"{'us a pod':<24}{'CPU, least':>12}{'quartiles':>18}{'wall, least':>14}")
    for name, times in found.items():
        first, third = (1e6 * one / pods for one in times.quartiles())
        print(
            f"{name:<24}{1e6 * times.least / pods:12.1f}{f'{first:.1f} to {third:.1f}':>18}"
            f"{1e6 * min(times.wall) / pods:14.1f}"
        )
    said = [f"{a} takes {found[a].least / found[b].least:.2f} x {b}" for a, b in RATIOS]
    print("CPU time, ratios of the least: " + ", ".join(said))


# --- what the files hold --------------------------------------------------------------------------


async def pods_of(fleet: Fleet) -> list[Pod]:
    async with IefSession(
        fleet.project_id, credentials=Token(fleet.token), endpoint=fleet.endpoint
    ) as ief:
        return await ief.iter_pods(fleet.deployment_ids, page_size=PAGE).collect()


async def rows_of(fleet: Fleet, kind: Pods) -> list[Row]:
    async with by_hand(fleet) as http:
        return [row async for page in pages(http, fleet, kind) for row in page]


def write_naive(fleet: Fleet, kind: Pods, folder: Path) -> None:
    rows = asyncio.run(rows_of(fleet, kind))
    table = pa.Table.from_pylist(rows)
    parquet.write_table(table, folder / "naive.parquet")
    parquet.write_table(table, folder / "naive, zstd.parquet", compression="zstd")


def check(fleet: Fleet, folder: Path) -> None:
    """Hold each file, as four libraries read it, against the objects."""
    import duckdb
    import pandas as pd
    import polars as pl
    from pyarrow import json as arrow_json

    pods = asyncio.run(pods_of(fleet))
    plain = LineReader(structure_of(Pod), for_arrow=True)
    columns = Columns(Pod, of_targets=False)
    lines = [plain.line(pod) for pod in pods]
    steps = range(0, len(lines), PAGE)
    expected = pa.Table.from_batches([columns.batch(lines[at : at + PAGE]) for at in steps])
    ids = [pod.id for pod in pods]
    assert [pod.created for pod in pods] == expected["created_at"].to_pylist()
    assert ids == expected["id"].to_pylist()
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
    for name in ("hand.parquet", "objects.parquet", "naive.parquet", "naive, zstd.parquet"):
        assert parquet.read_table(folder / name, columns=["id"])["id"].to_pylist() == ids
    text = (folder / "hand.ndjson").read_bytes()
    assert [orjson.loads(line)["id"] for line in text.splitlines()] == ids


# --- memory ---------------------------------------------------------------------------------------


def peak(pods: int) -> float:
    """Return how far a process grows while it writes a fleet, in MiB."""
    with serving(pods, kind="varied") as fleet:
        command = [sys.executable, __file__, "peak", json.dumps(attrs.asdict(fleet))]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def grown(fleet: Fleet) -> float:
    with TemporaryDirectory() as name:
        usual = peak_memory()
        assert once("Parquet", fleet, "varied", Path(name)) == fleet.pods
        return peak_memory() - usual


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=20_000, help="of each round, and each file")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="few pods: shows that all of it works")
    arguments = parser.parse_args()
    pods, rounds = (4_000, 1) if arguments.quick else (arguments.pods, arguments.rounds)
    print(*environment(*LIBRARIES).values(), sep="\n")
    kind: Pods
    for kind in get_args(Pods):
        with TemporaryDirectory() as name, serving(pods, kind=kind) as fleet:
            folder = Path(name)
            found = measure(fleet, kind, folder, rounds)
            write_naive(fleet, kind, folder)
            check(fleet, folder)
            sizes = {path.name: path.stat().st_size / pods for path in sorted(folder.iterdir())}
        print(f"\n{kind} pods, {pods:,}, {PAGE:,} a page, {rounds} rounds")
        print_times(found, pods)
        print("bytes a pod: " + ", ".join(f"{size:,.1f} {path}" for path, size in sizes.items()))
    print("\nread back by pyarrow, polars, duckdb and pandas: every row as the objects say")
    few, many = pods, 10 * pods
    print(
        f"peak memory, Parquet: {peak(few):.0f} MiB for {few:,} pods, {peak(many):.0f} for {many:,}"
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["round", way, where, pods_kind, into]:
            served = Fleet(**json.loads(where))
            run_rounds(lambda: once(way, served, pods_kind, Path(into)))  # type: ignore[arg-type]  # one of Pods
        case ["peak", where]:
            print(grown(Fleet(**json.loads(where))))
        case _:
            main()
