"""What type checkers must see of files, tables and engines. Never run, only checked.

pyarrow, dask and pyspark have no types of their own, so what comes from them is anything.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, assert_type

import attrs
import pyarrow as pa

from ief_async import IefSession, Pod, ScanCheckpoint, Stream, Target
from ief_async.engines import Partition, plan_pods, read_partition
from ief_async.engines.dask import read_pods as dask_pods
from ief_async.engines.spark import IefPods
from ief_async.engines.spark import read_pods as spark_pods
from ief_async.sinks import (
    arrow_schema,
    load_checkpoint,
    narrowed,
    read_table,
    record_batches,
    save_checkpoint,
    write_arrow,
    write_ndjson,
    write_parquet,
)


@attrs.frozen
class Row:
    """A class of a user's own."""

    id: str


async def tables(pods: Stream[Pod], rows: Stream[Row], fleet: Stream[tuple[Target, Row]]) -> None:
    """Any stream becomes batches or a table."""
    assert_type(arrow_schema(), pa.Schema)
    assert_type(arrow_schema(Row), pa.Schema)
    assert_type(record_batches(pods), AsyncIterator[pa.RecordBatch])
    async for batch in record_batches(rows, rows=500):
        assert_type(batch, pa.RecordBatch)
    assert_type(await read_table(fleet), pa.Table)


async def files(ief: IefSession, pods: Stream[Pod], file: BinaryIO) -> None:
    """Paths and open files are written, and what an export has saved is gone on with."""
    assert_type(ief.iter_pods(["d"], model=narrowed(Pod, ["id", "state"])), Stream[Any])
    await write_ndjson(pods, "pods.ndjson.gz", keep=lambda pod: pod.state == "RUNNING")
    await write_arrow(pods, file, rows=1_000)
    checkpoint = load_checkpoint("saved")
    assert_type(checkpoint, ScanCheckpoint | None)
    scan = ief.iter_pods(["d"], resume_from=checkpoint)
    await write_parquet(scan, Path("pods.parquet"), checkpoint=Path("saved"), checkpoint_pages=10)
    save_checkpoint(scan.checkpoint(), "saved")


def engines(spark: object) -> None:
    """A plan is made of partitions, which are read one by one or by an engine."""
    partitions = plan_pods(["d"], region="cn-north-4", columns=["id"], workers=2)
    assert_type(partitions, tuple[Partition, ...])
    assert_type(partitions[0].rows, int)
    assert_type(partitions[0].schema, pa.Schema)
    assert_type(read_partition(partitions[0]), Iterator[pa.RecordBatch])
    assert_type(IefPods.name(), str)
    dask_pods(partitions)
    spark_pods(spark, partitions)
