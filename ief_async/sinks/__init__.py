"""Files and tables: a stream as NDJSON, as Arrow record batches, and as Parquet or Arrow files.

::

    scan = ief.iter_pods(ids, page_size=1000, resume_from=load_checkpoint("fleet.checkpoint"))
    await write_parquet(scan, "fleet.parquet", checkpoint="fleet.checkpoint")

NDJSON works without further packages; Parquet and Arrow need pyarrow:
``pip install 'ief-async[arrow]'``.

The rows are those of the stream, in its order. Each has all fields of the stream's model, whatever
the server left out, so files of different days have the same columns. A stream of `scan_fleet` has
one more column in front: ``target``, the target's name. The stream's ``on_bad_item`` decides about
rows that can't be read, and about values that fit into no column.

A file holds what the pods hold: the values of their environment variables, too.
"""

from ief_async._structure import narrowed
from ief_async.sinks._arrow import arrow_schema, read_table, record_batches
from ief_async.sinks._export import write_arrow, write_ndjson, write_parquet
from ief_async.sinks._state import export_of as export_of
from ief_async.sinks._state import load_checkpoint, save_checkpoint

__all__ = [
    "arrow_schema",
    "load_checkpoint",
    "narrowed",
    "read_table",
    "record_batches",
    "save_checkpoint",
    "write_arrow",
    "write_ndjson",
    "write_parquet",
]
