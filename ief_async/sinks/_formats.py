"""File formats: each a class, chosen by the file's name."""

import contextlib
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from zlib import crc32

import attrs

from ief_async._arguments import check_number
from ief_async._scan import Stream
from ief_async._writing import exact
from ief_async.sinks._arrow import BATCH, Columns, check_names, columns_of, import_pyarrow
from ief_async.sinks._files import PIECE
from ief_async.sinks._rows import TARGET, engine_behind

if TYPE_CHECKING:
    import pyarrow as pa


ROWS = 20_000  # of a row group: smaller ones are slower to write, and larger when written
END_OF_BATCHES = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # of an Arrow stream


class Writer(Protocol):
    """A format in the act of being written to a file, which stays open."""

    def write(self, rows: Sequence[bytes]) -> None:
        """Write some rows, given as lines of JSON."""

    def take(self, part: Path) -> int:
        """Write the rows of a part; return how many that were."""

    def close(self) -> None:
        """Write what has to stand at the end."""


class Kept:
    """A file for writers that close what they write to, and that write when they are closed."""

    closed = False

    def __init__(self, file: Any) -> None:
        self.exact = exact(file)
        self.crc = 0
        self._dropped = False

    def write(self, data: Any) -> int:
        if self._dropped:
            return memoryview(data).nbytes
        self.crc = crc32(data, self.crc)
        return self.exact.write(data)

    def flush(self) -> None:
        """Leave it to the file's owner."""

    def close(self) -> None:
        """Leave it to the file's owner."""

    def drop(self, writer: Writer) -> None:
        """End a writer whose file is not to be finished."""
        self._dropped = True
        with contextlib.suppress(Exception):
            writer.close()


class Ndjson:
    """Lines of JSON, compressed as the name says."""

    def __init__(self, file: Kept, name: str) -> None:
        self._file: Any = file
        if name.endswith(".gz"):
            self._file = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
        elif name.endswith(".zst"):
            pa = import_pyarrow()
            self._file = pa.CompressedOutputStream(pa.PythonFile(file, mode="w"), "zstd")

    def write(self, rows: Sequence[bytes]) -> None:
        self._file.write(b"\n".join([*rows, b""]))

    def take(self, part: Path) -> int:
        rows = 0
        with part.open("rb") as lines:
            while some := lines.read(PIECE):
                self._file.write(some)
                rows += some.count(b"\n")
        return rows

    def close(self) -> None:
        self._file.close()


class Columnar:
    """Record batches, by a writer of pyarrow's."""

    def __init__(self, columns: Columns, rows: int, writer: Any) -> None:
        self._columns = columns
        self._rows = rows
        self._writer = writer
        self._held: list[pa.RecordBatch] = []  # too few for a row group

    def write(self, rows: Sequence[bytes]) -> None:
        self._add(self._columns.batch(rows))

    def take(self, part: Path) -> int:
        pa = import_pyarrow()
        rows = 0
        with pa.memory_map(str(part)) as source:
            for batch in pa.ipc.open_stream(source):
                self._add(batch)
                rows += len(batch)
        return rows

    def _add(self, batch: "pa.RecordBatch") -> None:
        self._held.append(batch)
        if sum(map(len, self._held)) >= self._rows:
            self._release()

    def _release(self) -> None:
        if self._held:
            table = import_pyarrow().Table.from_batches(self._held).combine_chunks()
            self._writer.write_table(table, self._rows + len(table))  # as one
            self._held = []

    def close(self) -> None:
        self._release()
        self._writer.close()


@attrs.frozen
class Form:
    """What is written: in which format, which columns, how many rows at a time."""

    name: str
    fields: tuple[str, ...]
    columns: Columns | None
    rows: int

    @property
    def piece(self) -> int:
        """How many rows are handed to the writer at least: lines of JSON by the page."""
        return 1 if self.columns is None else min(self.rows, BATCH)

    def writer(self, file: Kept, path: Path | None) -> Writer:
        """Begin a file; None stands for a file object."""
        name = path.name if path is not None else ""
        if self.columns is None:
            return Ndjson(file, name)
        ipc = import_pyarrow().ipc
        if self.name == "parquet":
            from pyarrow import parquet

            writer = parquet.ParquetWriter(file, self.columns.schema, compression="zstd")
        else:
            new = ipc.new_file if name and not name.endswith(".arrows") else ipc.new_stream
            options = ipc.IpcWriteOptions(compression="zstd")
            writer = new(file, self.columns.schema, options=options)
        return Columnar(self.columns, self.rows, writer)

    def part_writer(self, file: Kept) -> Writer:
        """Begin a part: of lines or of batches, whatever becomes of them."""
        return attrs.evolve(self, name="arrow").writer(file, None)


def form_of(name: str, stream: Stream[Any], rows: int) -> Form:
    check_number("rows", rows, least=1, whole=True)
    engine = engine_behind(stream)
    fields = [field.name for field in attrs.fields(engine.reader.model)]
    names = (*([TARGET] if engine.of_targets else []), *fields)
    check_names(names)
    columns = None if name == "ndjson" else columns_of(stream)
    return Form(name, names, columns, rows)
