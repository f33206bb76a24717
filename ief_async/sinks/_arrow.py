"""A stream as Arrow record batches."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Self, get_args, get_origin

import msgspec

from ief_async._arguments import check_number
from ief_async._errors import ConfigurationError
from ief_async._models import TIMESTAMPS, Pod, parse_timestamp
from ief_async._scan import Stream
from ief_async._structure import KeyValues, flat_mirror, structure_of
from ief_async._worker import Worker
from ief_async.sinks._rows import TARGET, LinePages, engine_of_stream

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 5_000  # made into a batch at a time: fewer cost more each, more cost memory
# as the service writes them today; Arrow reads these by itself
USUAL_TIME = r"^[1-9]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$"


def arrow_schema(model: type = Pod) -> "pa.Schema":
    """Return the Arrow schema of a model's rows.

    Objects are structs, arrays are lists and never null. A mapping is a list of structs of ``key``
    and ``value``, as not every reader knows Arrow's maps. ``created_at`` and ``updated_at`` are
    ``timestamp[us, UTC]``; a text that can't be read as a time is in ``created_at_text`` or
    ``updated_at_text``, which are null otherwise. A value of a type that Arrow does not have is its
    JSON text.

    Args:
        model: an attrs class, as given to ``model=``.

    Raises:
        ConfigurationError: `model` is not an attrs class, or pyarrow is not installed.

    Example:
        ::

            from ief_async import Pod
            from ief_async.sinks import arrow_schema, narrowed

            schema = arrow_schema(narrowed(Pod, ["id", "state"]))
            print(schema.names)
    """
    return Columns(structure_of(model).model, of_targets=False).schema


def record_batches(
    stream: Stream[Any], *, rows: int = BATCH_ROWS
) -> AsyncIterator["pa.RecordBatch"]:
    """Return the rows of a stream as Arrow record batches.

    The batches are made from the bytes of the pages, without objects in between, and in a thread
    beside the event loop. Pages are read ahead, so ``stream.checkpoint()`` may be past the batches
    that came: it is not for resuming here.

    Args:
        stream: the result of `IefSession.iter_pods` or another method or function that scans.
        rows: the least rows of a batch, but for the last; a batch holds whole pages.

    Returns:
        An iterator of batches with the `arrow_schema` of the stream's model. A stream without rows
        gives no batch. ``break`` ends the scan, as it does with the stream itself.

    Raises:
        ConfigurationError: the stream was iterated before, `rows` is no positive integer, or
            pyarrow is not installed.
        IefError: the scan failed; raised by the iterator after the rows that came before.

    Example:
        ::

            from ief_async.sinks import record_batches

            async for batch in record_batches(ief.iter_pods(ids)):
                print(batch.num_rows)
    """
    check_number("rows", rows, least=1, whole=True)
    return _Batches(stream, rows)


async def read_table(stream: Stream[Any]) -> "pa.Table":
    """Return all rows of a stream as a `pyarrow.Table`.

    The whole scan has to fit into memory; for more use `record_batches` or `write_parquet`. A table
    speaks the Arrow PyCapsule protocol (``__arrow_c_stream__``), so polars, duckdb, pandas and
    others take it as it is, without a copy.

    Args:
        stream: the result of `IefSession.iter_pods` or another method or function that scans.

    Returns:
        A table with the `arrow_schema` of the stream's model.

    Raises:
        ConfigurationError: the stream was iterated before, or pyarrow is not installed.
        IefError: the scan failed.

    Example:
        ::

            from ief_async.sinks import read_table

            table = await read_table(ief.iter_pods(ids))
            print(table.group_by("state").aggregate([("id", "count")]))
    """
    schema = columns_of(stream).schema
    batches = [batch async for batch in record_batches(stream)]
    return import_pyarrow().Table.from_batches(batches, schema=schema)


def import_pyarrow() -> Any:
    """Return pyarrow.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError:
        problem = "pyarrow is not installed: pip install 'ief-async[arrow]'"
    else:
        return pa
    raise ConfigurationError(problem)


def _time_type() -> Any:
    return import_pyarrow().timestamp("us", tz="UTC")


class Columns:
    """How JSON lines become record batches of one schema."""

    def __init__(self, model: type, *, of_targets: bool) -> None:
        pa = import_pyarrow()
        mirror = flat_mirror(model)
        self._read_schema = pa.schema(
            [
                *([pa.field(TARGET, pa.string())] if of_targets else []),
                *(pa.field(name, _arrow_type(kind)) for name, kind in _fields(mirror)),
            ]
        )
        fields = []
        for field in self._read_schema:
            timed = self._is_time(field)
            fields.append(pa.field(field.name, _time_type()) if timed else field)
            if timed:
                fields.append(pa.field(f"{field.name}_text", pa.string()))
        self.schema = pa.schema(fields)
        check_column_names(self.schema.names)

    def _is_time(self, field: "pa.Field") -> bool:
        return field.name in TIMESTAMPS and field.type == import_pyarrow().string()

    def batch(self, rows: Sequence[bytes]) -> "pa.RecordBatch":
        """Return lines of JSON, at least one, as one record batch."""
        pa = import_pyarrow()
        from pyarrow import json as arrow_json

        lines = b"\n".join(rows)
        table = arrow_json.read_json(
            pa.py_buffer(lines),
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
            parse_options=arrow_json.ParseOptions(
                explicit_schema=self._read_schema, unexpected_field_behavior="error"
            ),
        )
        columns = []
        for field in self._read_schema:
            column = table.column(field.name).combine_chunks()
            columns += self._times(column) if self._is_time(field) else [column]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _times(self, texts: "pa.Array") -> list["pa.Array"]:
        """Return the column of times, and the column of those texts that are not a time."""
        pa = import_pyarrow()
        from pyarrow import compute

        usual = compute.match_substring_regex(texts, USUAL_TIME)
        if compute.all(usual, min_count=0).as_py():
            with contextlib.suppress(pa.ArrowInvalid):  # such as the 30th of February
                return [texts.cast(_time_type()), pa.nulls(len(texts), pa.string())]
        given = texts.to_pylist()
        times = [parse_timestamp(text) for text in given]
        unread = [None if time else text for time, text in zip(times, given, strict=True)]
        return [pa.array(times, _time_type()), pa.array(unread, pa.string())]


def check_column_names(names: Sequence[str]) -> None:
    """Refuse two columns of one name.

    Raises:
        ConfigurationError: a name is there twice.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = (
            f"the model has a field {twice[0]!r}, which is also the name of a column that is added:"
            " leave the field out with narrowed()"
        )
        raise ConfigurationError(message)


def _fields(mirror: type) -> list[tuple[str, Any]]:
    return [(field.name, field.type) for field in msgspec.structs.fields(mirror)]


def _arrow_type(kind: Any) -> "pa.DataType":
    """Return the Arrow type of a field of a flat mirror."""
    pa = import_pyarrow()
    if get_origin(kind) is list:
        return pa.list_(_arrow_type(get_args(kind)[0]))
    if type(None) in get_args(kind):
        return _arrow_type(get_args(kind)[0])
    kind = get_args(kind)[0] if get_args(kind) else kind  # an Annotated
    if kind is KeyValues:
        return pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
    if issubclass(kind, msgspec.Struct):
        return pa.struct([(name, _arrow_type(inner)) for name, inner in _fields(kind)])
    known = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), datetime: _time_type()}
    if issubclass(kind, Enum):
        kind = type(next(iter(kind)).value)
    return known.get(kind) or pa.string()


def columns_of(stream: Stream[Any]) -> Columns:
    """Return how the rows of a stream become record batches."""
    engine = engine_of_stream(stream)
    return Columns(engine.reader.model, of_targets=engine.of_targets)


class _Batches:
    """Iterates the record batches of a stream: one is made while the next pages are awaited."""

    def __init__(self, stream: Stream[Any], rows: int) -> None:
        self._columns = columns_of(stream)
        self._abandon = engine_of_stream(stream).abandon
        self._pages = LinePages(stream, for_arrow=True)
        self._rows = rows
        self._thread = Worker()
        self._error: Exception | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> "pa.RecordBatch":
        batch = None
        while batch is None and self._error is None:
            rows: list[bytes] = []
            try:
                while len(rows) < self._rows:
                    rows += (await anext(self._pages)).rows
            except Exception as error:  # noqa: BLE001  it comes after the rows before it
                self._error = error
            except asyncio.CancelledError:  # rows were lost: nothing may come after them
                self._thread, self._error = Worker(), StopAsyncIteration()
                raise
            batch = await self._made()
            if rows:
                self._thread.begin(self._columns.batch, rows)
        batch = await self._made() if batch is None else batch
        if batch is not None:
            return batch
        assert self._error is not None  # noqa: S101  the loop's own condition
        failure, self._error = self._error, StopAsyncIteration()
        try:
            raise failure
        finally:
            del failure  # it holds this frame, which would hold it: a cycle

    async def _made(self) -> Any:
        """Return the batch that is being made, or None; a failure here ends the scan."""
        try:
            return await self._thread.end()
        except BaseException:
            self._error = StopAsyncIteration()
            self._abandon()
            raise
