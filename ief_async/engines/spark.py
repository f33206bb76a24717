"""Pods as a Spark data frame. pyspark is the cluster's; ``pip install 'ief-async[spark]'``.

Spark 4::

    spark.dataSource.register(IefPods)
    pods = spark.read.format("ief_pods").option("region", "cn-north-4").load()

Spark 3.5 and 4::

    pods = read_pods(spark, plan_pods(region="cn-north-4"))

Spark reads a partition that failed, or whose worker was killed, again as a whole, where it may try
more than once: clusters do, ``local[2]`` does not, ``local[2,4]`` does. A list that leaves rows in
doubt fails its partition, too, unless `plan_pods` or the option ``on_drift`` says otherwise.
"""

import json
import pickle
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ief_async._arguments import refuse
from ief_async._errors import ConfigurationError
from ief_async._models import TIMESTAMPS, Pod
from ief_async.engines import Partition, plan_pods, read_partition
from ief_async.sinks import arrow_schema

try:
    from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
except ImportError:  # before 4.0 there are none; read_pods() does without
    DataSource = DataSourceReader = InputPartition = object

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["IefPods", "read_pods"]

WHOLE = ("page_size", "batch_size", "concurrency", "workers")
TEXTS = (
    *("credentials", "project_id", "region", "endpoint", "iam_endpoint", "instance_id"),
    *("on_error", "on_drift", "on_bad_item"),
)
IDS = ("deployment_ids", "node_ids", "group_ids")
RATE = "requests_per_second"


class IefPods(DataSource):  # type: ignore[misc]  # pyspark need not be there
    """The data source ``ief_pods``, for Spark 4.

    Its options are the arguments of `plan_pods`: ids as a JSON array or separated by commas, and
    numbers as text. ``workers``, by which `requests_per_second` is divided, is by default how many
    tasks Spark runs at a time. With a schema of your own, as in ``schema("id string, state
    string")``, only those columns are read: Spark tells a Python source nothing else of columns.

    Example:
        ::

            spark.dataSource.register(IefPods)
            pods = spark.read.format("ief_pods").option("page_size", "500").load()
            print(pods.count(), "pods")
    """

    @classmethod
    def name(cls) -> str:
        """Return the name for ``spark.read.format``."""
        return "ief_pods"

    def schema(self) -> Any:
        """Return all columns of a pod."""
        return _spark_schema(arrow_schema(Pod))

    def reader(self, schema: Any) -> "_Reader":
        """Return what plans and reads the columns of a schema."""
        return _Reader(dict(self.options), tuple(schema.names))


class _Reader(DataSourceReader):  # type: ignore[misc]  # likewise
    def __init__(self, options: dict[str, str], names: tuple[str, ...]) -> None:
        self._options = options
        self._names = names

    def partitions(self) -> "Sequence[InputPartition]":
        """Plan the scan."""
        fields = {field.name for field in arrow_schema(Pod)}
        unknown = [name for name in self._names if name not in fields]
        if unknown:
            message = f"a pod has no column {', '.join(unknown)}; it has {', '.join(fields)}"
            raise ConfigurationError(message)
        columns = dict.fromkeys(_field_of(name) for name in self._names)
        planned = plan_pods(columns=tuple(columns), **_arguments(self._options))
        return [_Piece(partition) for partition in planned]

    def read(self, partition: "_Piece") -> "Iterator[pa.RecordBatch]":
        """Read one partition."""
        for batch in read_partition(partition.value):
            yield batch.select(list(self._names))


class _Piece(InputPartition):  # type: ignore[misc]  # likewise
    def __init__(self, value: Partition) -> None:
        self.value = value


def read_pods(spark: Any, partitions: Sequence[Partition]) -> Any:
    """Return a Spark data frame of the pods of partitions, one task for each; Spark 3.5 or newer.

    Args:
        spark: the Spark session.
        partitions: those that `plan_pods` returned.

    Returns:
        The data frame; nothing is read before an action needs it.

    Raises:
        ConfigurationError: there is no partition.

    Example:
        ::

            from ief_async.engines import plan_pods

            pods = read_pods(spark, plan_pods(deployment_ids))
            pods.groupBy("state").count().show()
    """
    if not partitions:
        message = "partitions must not be empty: plan_pods() found no deployment"
        raise ConfigurationError(message)
    schema = _spark_schema(partitions[0].schema)
    rows = [(number, pickle.dumps(one)) for number, one in enumerate(partitions)]
    frame = spark.createDataFrame(rows, "number long, partition binary")
    return frame.repartitionByRange(len(rows), "number").mapInArrow(_read, schema)


def _read(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    for batch in batches:
        for pickled in batch.column("partition"):
            yield from read_partition(pickle.loads(pickled.as_py()))  # noqa: S301  of our own driver


def _spark_schema(schema: "pa.Schema") -> Any:
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema)


def _field_of(column: str) -> str:
    """Return the field of a pod that a column comes from."""
    return next((name for name in TIMESTAMPS if column == f"{name}_text"), column)


def _arguments(options: dict[str, str]) -> dict[str, Any]:
    """Return the arguments of `plan_pods` that options say."""
    unknown = sorted(options.keys() - {*WHOLE, *TEXTS, *IDS, RATE})
    if unknown:
        names = ", ".join([*IDS, *TEXTS, *WHOLE, RATE])
        problem = f"{', '.join(unknown)} (keys are never options)"
        refuse("an option of ief_pods", f"one of {names}", problem)
    given: dict[str, Any] = {name: options[name] for name in TEXTS if name in options}
    try:
        given |= {name: int(options[name]) for name in WHOLE if name in options}
        given |= {name: float(options[name]) for name in (RATE,) if name in options}
        given |= {name: _ids(options[name]) for name in IDS if name in options}
    except ValueError:
        numbers = ", ".join([*WHOLE, RATE])
        message = (
            f"{numbers} must be numbers, and {', '.join(IDS)} JSON arrays or ids between commas"
        )
    else:
        return {"workers": _tasks(), **given}
    raise ConfigurationError(message)


def _ids(text: str) -> list[str]:
    if text.lstrip().startswith("["):
        return [str(one) for one in json.loads(text)]
    return [one.strip() for one in text.split(",") if one.strip()]


def _tasks() -> int:
    """Return how many tasks Spark runs at a time, or 1 where it does not say."""
    from pyspark.sql import SparkSession

    spark = SparkSession.getActiveSession()
    return spark.sparkContext.defaultParallelism if spark is not None else 1
