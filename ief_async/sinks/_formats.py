"""File formats: one class each.

A new format is, for the name "csv":

- its line in `ief_async._file_formats`, which gives it to the command, too;
- a class here;
- ``write_csv`` in `_export`, which is exported by ``sinks/__init__.py``;
- its use in ``tests/typing/pipelines.py``, for the type checkers;
- how its files are read, in `rows_in` and `expected_in` of ``tests/exports.py``.

A test fails for each that is forgotten: in ``tests/sinks/test_formats.py`` for the first three.
"""

import gzip
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import attrs

from ief_async._arguments import check_number, refuse
from ief_async._file_formats import required_path
from ief_async._scan import Stream
from ief_async.sinks._arrow import (
    BATCH_ROWS,
    Columns,
    check_column_names,
    columns_of,
    import_pyarrow,
)
from ief_async.sinks._files import READ_BYTES, Closable, UnclosedFile
from ief_async.sinks._rows import TARGET, engine_of_stream

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS = 20_000  # of a row group: smaller ones are slower to write, and larger when written
UNIQUE = ("id", "name")  # columns with another value in nearly every row


class Writer(Closable, Protocol):
    """A format in the act of being written to a file, which stays open."""

    def write(self, rows: Sequence[bytes]) -> None:
        """Write some rows, given as lines of JSON."""

    def append_part(self, part: Path) -> int:
        """Write the rows of a part that `Format.part_writer` wrote; return how many they are."""


class Format(ABC):
    """How the rows of one export are written.

    Attributes:
        name: what the state of an export and `FILE_FORMATS` call the format.
        part_ending: the bytes that each part ends in; used to detect a truncated part of a state
            without CRC.
        columns: how rows become record batches, or None. It decides which rows the writer gets:
            with columns, lines of JSON made for Arrow, in which a mapping is a list of keys and
            values; with None, lines of JSON as a user reads them.
        fields: the names of the columns.
        write_rows: how many rows are handed to a writer at a time, at least.
    """

    name: ClassVar[str]
    part_ending: ClassVar[bytes]
    columns: Columns | None
    fields: tuple[str, ...]
    write_rows: int

    @classmethod
    @abstractmethod
    def of(cls, stream: Stream[Any], group_rows: int) -> "Format":
        """Return the format of an export of this stream, with so many rows in a row group."""

    def check_path(self, path: Path) -> None:
        """Refuse a compression that the format can't have, or whose package is missing."""
        if required := required_path(self.name, path):
            refuse("to", required, path.name)
        if path.suffix == ".zst":
            import_pyarrow()

    @abstractmethod
    def writer(self, file: UnclosedFile, name: str) -> Writer:
        """Begin a file with this name; a file object has the name ""."""

    @abstractmethod
    def part_writer(self, file: UnclosedFile) -> Writer:
        """Begin a part, which `Writer.append_part` reads."""


@attrs.frozen
class Ndjson(Format):
    """Lines of JSON. ``.gz`` and ``.zst`` behind the suffix compress them."""

    name: ClassVar[str] = "ndjson"
    part_ending: ClassVar[bytes] = b"\n"
    fields: tuple[str, ...]
    columns: None = None
    write_rows: int = 1

    @classmethod
    def of(cls, stream: Stream[Any], group_rows: int) -> "Ndjson":  # noqa: ARG003  lines have no row groups
        """Return the format of an export of this stream."""
        return cls(_field_names(stream))

    def writer(self, file: UnclosedFile, name: str) -> Writer:
        """Begin a file, compressed if its name says so."""
        if name.endswith(".gz"):
            return LineWriter(gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0))
        if name.endswith(".zst"):
            pa = import_pyarrow()
            return LineWriter(pa.CompressedOutputStream(pa.PythonFile(file, mode="w"), "zstd"))
        return LineWriter(file)

    def part_writer(self, file: UnclosedFile) -> Writer:
        """Begin a part: lines, not compressed."""
        return LineWriter(file)


@attrs.frozen
class _RecordBatches(Format):
    """What the formats of Arrow have in common: their parts are Arrow streams."""

    part_ending: ClassVar[bytes] = b"\xff\xff\xff\xff\x00\x00\x00\x00"
    fields: tuple[str, ...]
    columns: Columns
    group_rows: int

    @classmethod
    def of(cls, stream: Stream[Any], group_rows: int) -> "_RecordBatches":
        """Return the format of an export of this stream."""
        check_number("rows", group_rows, least=1, whole=True)
        return cls(_field_names(stream), columns_of(stream), group_rows)

    @property
    def write_rows(self) -> int:  # type: ignore[override]  # it is only read
        """Batches are small enough to be made quickly."""
        return min(self.group_rows, BATCH_ROWS)

    def part_writer(self, file: UnclosedFile) -> Writer:
        """Begin a part: an Arrow stream, whatever the format of the file."""
        return self._batch_writer(file, import_pyarrow().ipc.new_stream)

    def _batch_writer(self, file: UnclosedFile, begin: Callable[..., Any]) -> Writer:
        options = import_pyarrow().ipc.IpcWriteOptions(compression="zstd")
        writer = begin(file, self.columns.schema, options=options)
        return BatchWriter(self.columns, self.group_rows, writer)


@attrs.frozen
class Parquet(_RecordBatches):
    """Parquet, compressed by zstd.

    A column whose values repeat has a dictionary. Where every row has another value (`UNIQUE`, and
    times), a dictionary holds all of them and the indexes come on top: with pyarrow's defaults,
    which give one to each column, the file of a varied fleet is almost twice as large. Times are
    written as differences instead.

    The schema is not stored a second time, as Arrow's: Parquet's own types say all of it. And no
    reader skips rows by the statistics of a field of a list, so only columns of plain values have
    them. Both are for the size of small files, as a `Pod` has more than a hundred such fields.
    """

    name: ClassVar[str] = "parquet"

    def writer(self, file: UnclosedFile, name: str) -> Writer:  # noqa: ARG002  its name changes nothing
        """Begin a file."""
        from pyarrow import parquet, types

        schema = self.columns.schema
        times = [field.name for field in schema if types.is_timestamp(field.type)]
        paths = [path for field in schema for path in _paths(field.name, field.type)]
        writer = parquet.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=[path for path in paths if path not in {*UNIQUE, *times}],
            column_encoding=dict.fromkeys(times, "DELTA_BINARY_PACKED"),
            write_statistics=[path for path in paths if path in schema.names],
            store_schema=False,
        )
        return BatchWriter(self.columns, self.group_rows, writer)


@attrs.frozen
class Arrow(_RecordBatches):
    """Arrow IPC, compressed by zstd; the streaming format for ``.arrows`` and file objects."""

    name: ClassVar[str] = "arrow"

    def writer(self, file: UnclosedFile, name: str) -> Writer:
        """Begin a file."""
        ipc = import_pyarrow().ipc
        streamed = not name or name.endswith(".arrows")
        return self._batch_writer(file, ipc.new_stream if streamed else ipc.new_file)


class LineWriter:
    """Writes lines of JSON."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, rows: Sequence[bytes]) -> None:
        """Write some rows."""
        self._file.write(b"\n".join([*rows, b""]))

    def append_part(self, part: Path) -> int:
        """Write the lines of a part; return how many they are."""
        rows = 0
        with part.open("rb") as lines:
            while some := lines.read(READ_BYTES):
                self._file.write(some)
                rows += some.count(b"\n")
        return rows

    def close(self) -> None:
        """Write the end of what is compressed."""
        self._file.close()


class BatchWriter:
    """Writes record batches, in row groups of some size, by a writer of pyarrow's."""

    def __init__(self, columns: Columns, group_rows: int, writer: Any) -> None:
        self._columns = columns
        self._group_rows = group_rows
        self._writer = writer
        self._pending: list[pa.RecordBatch] = []  # too few rows for a row group

    def write(self, rows: Sequence[bytes]) -> None:
        """Write some rows, as soon as there are enough for a row group."""
        self._append(self._columns.batch(rows))

    def append_part(self, part: Path) -> int:
        """Write the batches of a part; return how many rows they have."""
        pa = import_pyarrow()
        rows = 0
        with pa.memory_map(str(part)) as source:
            for batch in pa.ipc.open_stream(source):
                self._append(batch)
                rows += len(batch)
        return rows

    def _append(self, batch: "pa.RecordBatch") -> None:
        self._pending.append(batch)
        if sum(map(len, self._pending)) >= self._group_rows:
            self._write_group()

    def _write_group(self) -> None:
        if self._pending:
            table = import_pyarrow().Table.from_batches(self._pending).combine_chunks()
            self._writer.write_table(table, self._group_rows + len(table))  # as one
            self._pending = []

    def close(self) -> None:
        """Write the last row group, and the end of the file."""
        self._write_group()
        self._writer.close()


def _paths(path: str, kind: "pa.DataType") -> Iterator[str]:
    """Yield what Parquet calls the columns of a field of this type."""
    from pyarrow import types

    if types.is_list(kind):
        yield from _paths(f"{path}.list.element", kind.value_type)
    elif types.is_struct(kind):
        for field in kind:
            yield from _paths(f"{path}.{field.name}", field.type)
    else:
        yield path


def _field_names(stream: Stream[Any]) -> tuple[str, ...]:
    """Return the columns of an export: the model's fields, and the target of a fleet's scan."""
    engine = engine_of_stream(stream)
    fields = [field.name for field in attrs.fields(engine.reader.model)]
    names = (*([TARGET] if engine.of_targets else []), *fields)
    check_column_names(names)
    return names
