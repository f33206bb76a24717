"""Pods as a Dask data frame: ``pip install 'ief-async[dask]'``.

::

    pods = read_pods(plan_pods(region="cn-north-4", workers=2))
    print(pods.groupby("state").size().compute(retries=3))

Dask reads a partition whose worker was killed again as a whole, and with ``retries=`` one that
failed. A list that leaves rows in doubt fails its partition, unless `plan_pods` was told otherwise.
"""

from collections.abc import Sequence
from typing import Any

from ief_async._errors import ConfigurationError
from ief_async.engines import Partition, read_partition

__all__ = ["read_pods"]


def read_pods(partitions: Sequence[Partition]) -> Any:
    """Return a `dask.dataframe.DataFrame` of the pods of partitions, one task for each.

    Its columns have Arrow's types, as `ief_async.sinks.arrow_schema` lists them.

    Args:
        partitions: those that `plan_pods` returned.

    Returns:
        The data frame; nothing is read before it is computed.

    Raises:
        ConfigurationError: there is no partition, or dask is missing.

    Example:
        ::

            from ief_async.engines import plan_pods

            pods = read_pods(plan_pods(deployment_ids, columns=["id", "state"]))
            print(pods.groupby("state").size().compute(retries=3))
    """
    if not partitions:
        message = "partitions must not be empty: plan_pods() found no deployment"
        raise ConfigurationError(message)
    try:
        from dask import dataframe
    except ImportError:
        problem = "Dask data frames need dask: pip install 'ief-async[dask]'"
    else:
        return dataframe.from_map(_frame, partitions, meta=_to_pandas(partitions[0], []))
    raise ConfigurationError(problem)


def _frame(partition: Partition) -> Any:
    return _to_pandas(partition, list(read_partition(partition)))


def _to_pandas(partition: Partition, batches: Sequence[Any]) -> Any:
    import pandas as pd
    import pyarrow as pa

    table = pa.Table.from_batches(batches, schema=partition.schema)
    return table.to_pandas(types_mapper=pd.ArrowDtype)
