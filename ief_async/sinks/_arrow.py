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
from ief_async._structure import Pairs, structure_of, twin_of
from ief_async._worker import Worker
from ief_async.sinks._rows import TARGET, Pages, engine_behind

if TYPE_CHECKING:
    import pyarrow as pa
BATCH = 5_000  # rows made into a batch at a time: fewer cost more each, more cost memory
# as the service writes them today; Arrow reads these by itself
USUAL_TIME = r"^[1-9]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$"


def arrow_schema(model: type = Pod) -> "pa.Schema":
    """Return the Arrow schema of a model's rows.

    Objects are structs, arrays are lists and never null. A mapping is a list of structs of ``key``
    and ``value``, as not every reader knows Arrow's maps. ``created_at`` and ``updated_at`` are
    ``timestamp[us, UTC]``, and what can't be read as a time stands in ``created_at_text`` and
    ``updated_at_text``, which are null else. A value of no type that Arrow has is its JSON text.

    Raises:
        ConfigurationError: `model` is no attrs class, or pyarrow is missing.
    """
    return Columns(structure_of(model).model, of_targets=False).schema


def record_batches(stream: Stream[Any], *, rows: int = BATCH) -> AsyncIterator["pa.RecordBatch"]:
    """Return the rows of a stream as Arrow record batches, which are `arrow_schema`'s.

    They are made of the pages' bytes, without objects in between, and outside of the event loop's
    thread. Each holds whole pages, `rows` rows at least but for the last. A stream without rows
    gives no batch. To leave the loop by ``break`` ends the scan, as with the stream itself; but
    pages are read ahead, so ``stream.checkpoint()`` then knows more than the batches that came.

    Raises:
        ConfigurationError: the stream was iterated before, or pyarrow is missing.
        IefError: whatever ended the scan.
    """
    check_number("rows", rows, least=1, whole=True)
    return _Batches(stream, rows)


async def read_table(stream: Stream[Any]) -> "pa.Table":
    """Return all rows of a stream as a `pyarrow.Table`; for scans that fit into memory.

    It speaks the Arrow PyCapsule protocol (``__arrow_c_stream__``), so polars, duckdb, pandas and
    others take it as it is, without a copy.
    """
    schema = columns_of(stream).schema
    batches = [batch async for batch in record_batches(stream)]
    return import_pyarrow().Table.from_batches(batches, schema=schema)


def import_pyarrow() -> Any:
    try:
        import pyarrow as pa
    except ImportError:
        problem = "Arrow and Parquet need pyarrow: pip install 'ief-async[arrow]'"
    else:
        return pa
    raise ConfigurationError(problem)


def _moment() -> Any:
    return import_pyarrow().timestamp("us", tz="UTC")


class Columns:
    """How JSON lines become record batches of one schema."""

    def __init__(self, model: type, *, of_targets: bool) -> None:
        pa = import_pyarrow()
        twin = twin_of(model)
        self._said = pa.schema(
            [
                *([pa.field(TARGET, pa.string())] if of_targets else []),
                *(pa.field(name, _arrow_type(kind)) for name, kind in _fields(twin)),
            ]
        )
        fields = []
        for field in self._said:
            timed = self._is_time(field)
            fields.append(pa.field(field.name, _moment()) if timed else field)
            if timed:
                fields.append(pa.field(f"{field.name}_text", pa.string()))
        self.schema = pa.schema(fields)
        check_names(self.schema.names)

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
                explicit_schema=self._said, unexpected_field_behavior="error"
            ),
        )
        columns = []
        for field in self._said:
            column = table.column(field.name).combine_chunks()
            columns += self._times(column) if self._is_time(field) else [column]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _times(self, texts: "pa.Array") -> list["pa.Array"]:
        """Return the times that texts stand for, and those texts that stand for none."""
        pa = import_pyarrow()
        from pyarrow import compute

        usual = compute.match_substring_regex(texts, USUAL_TIME)
        if compute.all(usual, min_count=0).as_py():
            with contextlib.suppress(pa.ArrowInvalid):  # such as the 30th of February
                return [texts.cast(_moment()), pa.nulls(len(texts), pa.string())]
        said = texts.to_pylist()
        moments = [parse_timestamp(text) for text in said]
        unread = [None if moment else text for moment, text in zip(moments, said, strict=True)]
        return [pa.array(moments, _moment()), pa.array(unread, pa.string())]


def check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"two columns would be named {twice[0]}: leave the field out, as narrowed() does"
        raise ConfigurationError(message)


def _fields(twin: type) -> list[tuple[str, Any]]:
    return [(field.name, field.type) for field in msgspec.structs.fields(twin)]


def _arrow_type(kind: Any) -> "pa.DataType":
    """Return the Arrow type of a twin's field."""
    pa = import_pyarrow()
    if get_origin(kind) is list:
        return pa.list_(_arrow_type(get_args(kind)[0]))
    if type(None) in get_args(kind):
        return _arrow_type(get_args(kind)[0])
    kind = get_args(kind)[0] if get_args(kind) else kind  # an Annotated
    if kind is Pairs:
        return pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
    if issubclass(kind, msgspec.Struct):
        return pa.struct([(name, _arrow_type(inner)) for name, inner in _fields(kind)])
    known = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), datetime: _moment()}
    if issubclass(kind, Enum):
        kind = type(next(iter(kind)).value)
    return known.get(kind) or pa.string()


def columns_of(stream: Stream[Any]) -> Columns:
    engine = engine_behind(stream)
    return Columns(engine.reader.model, of_targets=engine.of_targets)


class _Batches:
    """What iterates the record batches of a stream."""

    def __init__(self, stream: Stream[Any], rows: int) -> None:
        self._columns = columns_of(stream)
        self._abandon = engine_behind(stream).abandon
        self._pages = Pages(stream, for_arrow=True)
        self._rows = rows
        self._thread = Worker()
        self._over: Exception | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> "pa.RecordBatch":
        made = None
        while made is None and self._over is None:
            rows: list[bytes] = []
            try:
                while len(rows) < self._rows:
                    rows += (await anext(self._pages)).rows
            except Exception as error:  # noqa: BLE001  it comes in its turn, whatever it is
                self._over = error
            except asyncio.CancelledError:  # what was read is gone: nothing may come behind it
                self._thread, self._over = Worker(), StopAsyncIteration()
                raise
            made = await self._end()
            if rows:
                self._thread.begin(self._columns.batch, rows)
        made = await self._end() if made is None else made
        if made is not None:
            return made
        assert self._over is not None  # noqa: S101  the loop's own condition
        over, self._over = self._over, StopAsyncIteration()
        try:
            raise over
        finally:
            del over  # it holds this frame, which would hold it: a cycle

    async def _end(self) -> Any:
        """Return the batch that was begun before; what fails here ends the batches."""
        try:
            return await self._thread.end()
        except BaseException:
            self._over = StopAsyncIteration()
            self._abandon()
            raise
