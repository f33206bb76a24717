"""Files and tables: a stream as NDJSON, as Arrow record batches, and as Parquet or Arrow files.

::

    scan = ief.iter_pods(ids, page_size=1000, resume_from=load_checkpoint("fleet.checkpoint"))
    await write_parquet(scan, "fleet.parquet", checkpoint="fleet.checkpoint")

NDJSON needs nothing besides; all else needs pyarrow: ``pip install 'ief-async[arrow]'``.

Rows are those of the stream, in its order. Each has all fields of the stream's model, whatever the
server left out, so files of different days have the same columns. A stream of `scan_fleet` has one
more in front: ``target``, the target's name. What the stream's ``on_bad_item`` says holds for what
can't be read, and for what fits into no column. A file holds what the pods hold: the values of
their environment variables, too.
"""

import asyncio
import contextlib
import gzip
import io
import json
import os
import re
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, Protocol, Self, get_args, get_origin
from zlib import crc32

import attrs
import msgspec

from ief_async._checkpoint import ScanCheckpoint, fingerprint
from ief_async._errors import CheckpointError, ConfigurationError
from ief_async._models import TIMESTAMPS, Pod, parse_timestamp
from ief_async._pacing import check_number
from ief_async._plain import Pairs, Plain, narrowed, twin_of
from ief_async._stream import Stream, engine_of
from ief_async._structure import structure_of
from ief_async._worker import Worker
from ief_async._writing import Hold, exact

if TYPE_CHECKING:
    import pyarrow as pa

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

ROWS = 20_000  # of a row group: smaller ones are slower to write, and larger when written
BATCH = 5_000  # rows made into a batch at a time: fewer cost more each, more cost memory
PAGES = 200  # between two checkpoints
PIECE = 1 << 20  # bytes of a part that are read at a time
EXPORT = "ief_async_export"
VERSION = 2
UNSUMMED = 1  # the version whose states say nothing of their parts but the names
ANEW = "delete it to start over"
END_OF_BATCHES = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # of an Arrow stream
TARGET = "target"
# as the service writes them today; Arrow reads these by itself
USUAL_TIME = r"^[1-9]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$"

To = str | os.PathLike[str] | BinaryIO
Keep = Callable[[Any], bool]


# ---- tables ------------------------------------------------------------------------------------


def arrow_schema(model: type = Pod) -> "pa.Schema":
    """Return the Arrow schema of a model's rows.

    Objects are structs, arrays are lists and never null. A mapping is a list of structs of ``key``
    and ``value``, as not every reader knows Arrow's maps. ``created_at`` and ``updated_at`` are
    ``timestamp[us, UTC]``, and what can't be read as a time stands in ``created_at_text`` and
    ``updated_at_text``, which are null else. A value of no type that Arrow has is its JSON text.

    Raises:
        ConfigurationError: `model` is no attrs class, or pyarrow is missing.
    """
    return _Columns(structure_of(model).model, of_targets=False).schema


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
    schema = _columns_of(stream).schema
    batches = [batch async for batch in record_batches(stream)]
    return _pyarrow().Table.from_batches(batches, schema=schema)


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
    except ImportError:
        problem = "Arrow and Parquet need pyarrow: pip install 'ief-async[arrow]'"
    else:
        return pa
    raise ConfigurationError(problem)


def _moment() -> Any:
    return _pyarrow().timestamp("us", tz="UTC")


class _Columns:
    """How JSON lines become record batches of one schema."""

    def __init__(self, model: type, *, of_targets: bool) -> None:
        pa = _pyarrow()
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
        _check_names(self.schema.names)

    def _is_time(self, field: "pa.Field") -> bool:
        return field.name in TIMESTAMPS and field.type == _pyarrow().string()

    def batch(self, rows: Sequence[bytes]) -> "pa.RecordBatch":
        """Return lines of JSON, at least one, as one record batch."""
        pa = _pyarrow()
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
        pa = _pyarrow()
        from pyarrow import compute

        usual = compute.match_substring_regex(texts, USUAL_TIME)
        if compute.all(usual, min_count=0).as_py():
            with contextlib.suppress(pa.ArrowInvalid):  # such as the 30th of February
                return [texts.cast(_moment()), pa.nulls(len(texts), pa.string())]
        said = texts.to_pylist()
        moments = [parse_timestamp(text) for text in said]
        unread = [None if moment else text for moment, text in zip(moments, said, strict=True)]
        return [pa.array(moments, _moment()), pa.array(unread, pa.string())]


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"two columns would be named {twice[0]}: leave the field out, as narrowed() does"
        raise ConfigurationError(message)


def _fields(twin: type) -> list[tuple[str, Any]]:
    return [(field.name, field.type) for field in msgspec.structs.fields(twin)]


def _arrow_type(kind: Any) -> "pa.DataType":
    """Return the Arrow type of a twin's field."""
    pa = _pyarrow()
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


# ---- a stream as lines of JSON -----------------------------------------------------------------


@attrs.frozen
class _Lines:
    """What a page became: its rows as lines of JSON, and what is done with it."""

    rows: Sequence[bytes]
    checkpoint: ScanCheckpoint


class _Pages:
    """The pages of a stream as lines of JSON. When it dies, the scan ends."""

    def __init__(self, stream: Stream[Any], *, for_arrow: bool, keep: Keep | None = None) -> None:
        engine = _engine(stream)
        self._pages = stream.pages()
        self._of_targets = engine.of_targets
        engine.reader = Plain(engine.reader, for_arrow=for_arrow, keep=keep)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Lines:
        page = await anext(self._pages)
        items: Sequence[Any] = page.items
        begin = b""
        if self._of_targets and items:
            begin = b'{"target":%b,' % msgspec.json.encode(items[0][0].name)
            items = [item for _, item in items]
        lines = [line for line in items if line is not None]  # those that are kept
        if begin:  # in front of each line's own fields
            lines = [begin + line[1:] for line in lines]
        assert page.checkpoint is not None  # noqa: S101  every page of a scan has one
        return _Lines(lines, page.checkpoint)


def _engine(stream: object) -> Any:
    if not isinstance(stream, Stream):
        message = f"a sink takes a stream, as of iter_pods(), but was given {type(stream).__name__}"
        raise ConfigurationError(message)
    return engine_of(stream)


def _columns_of(stream: Stream[Any]) -> _Columns:
    engine = _engine(stream)
    return _Columns(engine.reader.model, of_targets=engine.of_targets)


class _Batches:
    """What iterates the record batches of a stream."""

    def __init__(self, stream: Stream[Any], rows: int) -> None:
        self._columns = _columns_of(stream)
        self._abandon = _engine(stream).abandon
        self._pages = _Pages(stream, for_arrow=True)
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


# ---- files -------------------------------------------------------------------------------------


async def write_ndjson(
    stream: Stream[Any],
    to: To,
    *,
    keep: Keep | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_pages: int = PAGES,
) -> None:
    """Write the rows of a stream as JSON, one on each line.

    Each line has every field of the model, None as null. A path that ends in ``.gz`` is compressed
    by gzip, one in ``.zst`` by zstd (which needs the extra ``arrow``).

    Args:
        stream: what `IefSession.iter_pods` and its kin give; it is closed in the end.
        to: a path, or a binary file that is open for writing and stays open. A path is only there
            when it is whole: until then the file has another name beside it. A symbolic link
            is followed, a file that is replaced keeps its mode, and a new one has what the umask
            leaves. A file object may take a part at a time, or nothing for a while; its `write`
            returns how many bytes it took, or never a number if it always takes all. It is flushed
            in the end.
        keep: leaves out those items for which it is false.
        checkpoint: the path where the state of the export is kept while it is not whole, so that
            one that was interrupted or killed goes on: give ``resume_from=load_checkpoint(path)``
            to the stream, and call this again with the same arguments. Needs `to` to be a path.
        checkpoint_pages: pages between two saves. What a kill loses is read again.

    While it runs no other export writes to the same path or has the same checkpoint: that one is
    refused before it sends anything.

    Raises:
        ConfigurationError: an argument can't work, or another export that runs writes to this path.
        CheckpointError: `checkpoint` is of another export or in use by one, the stream does not
            resume from it, or it or what it stands for is not as it was written.
        OSError: a file can't be written, or its `write` returned what can't be.
        IefError: whatever ended the scan; what is written so far is saved with `checkpoint`.
    """
    form = _form("ndjson", stream, ROWS)
    await _export(form, stream, to, keep, (checkpoint, checkpoint_pages))


async def write_parquet(
    stream: Stream[Any],
    to: To,
    *,
    rows: int = ROWS,
    keep: Keep | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_pages: int = PAGES,
) -> None:
    """Write the rows of a stream as a Parquet file, compressed by zstd.

    Arguments and errors are those of `write_ndjson`, and `rows` is how many a row group has at
    least, but for the last. With `checkpoint` the export takes twice the room while it runs.
    """
    form = _form("parquet", stream, rows)
    await _export(form, stream, to, keep, (checkpoint, checkpoint_pages))


async def write_arrow(
    stream: Stream[Any],
    to: To,
    *,
    rows: int = ROWS,
    keep: Keep | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_pages: int = PAGES,
) -> None:
    """Write the rows of a stream as an Arrow IPC file (Feather), compressed by zstd.

    A path that ends in ``.arrows``, and a file object, get the streaming format. Arguments and
    errors are those of `write_parquet`.
    """
    form = _form("arrow", stream, rows)
    await _export(form, stream, to, keep, (checkpoint, checkpoint_pages))


class _Writer(Protocol):
    """A format in the act of being written to a file, which stays open."""

    def write(self, rows: Sequence[bytes]) -> None:
        """Write some rows, given as lines of JSON."""

    def take(self, part: Path) -> int:
        """Write the rows of a part; return how many that were."""

    def close(self) -> None:
        """Write what has to stand at the end."""


class _Kept:
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

    def drop(self, writer: _Writer) -> None:
        """End a writer whose file is not to be finished."""
        self._dropped = True
        with contextlib.suppress(Exception):
            writer.close()


class _Ndjson:
    """Lines of JSON, compressed as the name says."""

    def __init__(self, file: _Kept, name: str) -> None:
        self._file: Any = file
        if name.endswith(".gz"):
            self._file = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
        elif name.endswith(".zst"):
            pa = _pyarrow()
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


class _Columnar:
    """Record batches, by a writer of pyarrow's."""

    def __init__(self, columns: _Columns, rows: int, writer: Any) -> None:
        self._columns = columns
        self._rows = rows
        self._writer = writer
        self._held: list[pa.RecordBatch] = []  # too few for a row group

    def write(self, rows: Sequence[bytes]) -> None:
        self._add(self._columns.batch(rows))

    def take(self, part: Path) -> int:
        pa = _pyarrow()
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
            table = _pyarrow().Table.from_batches(self._held).combine_chunks()
            self._writer.write_table(table, self._rows + len(table))  # as one
            self._held = []

    def close(self) -> None:
        self._release()
        self._writer.close()


@attrs.frozen
class _Form:
    """What is written: in which format, which columns, how many rows at a time."""

    name: str
    fields: tuple[str, ...]
    columns: _Columns | None
    rows: int

    @property
    def piece(self) -> int:
        """How many rows are handed to the writer at least: lines of JSON by the page."""
        return 1 if self.columns is None else min(self.rows, BATCH)

    def writer(self, file: _Kept, path: Path | None) -> _Writer:
        """Begin a file; None stands for a file object."""
        name = path.name if path is not None else ""
        if self.columns is None:
            return _Ndjson(file, name)
        ipc = _pyarrow().ipc
        if self.name == "parquet":
            from pyarrow import parquet

            writer = parquet.ParquetWriter(file, self.columns.schema, compression="zstd")
        else:
            new = ipc.new_file if name and not name.endswith(".arrows") else ipc.new_stream
            options = ipc.IpcWriteOptions(compression="zstd")
            writer = new(file, self.columns.schema, options=options)
        return _Columnar(self.columns, self.rows, writer)

    def part_writer(self, file: _Kept) -> _Writer:
        """Begin a part: of lines or of batches, whatever becomes of them."""
        return attrs.evolve(self, name="arrow").writer(file, None)


def _beside(path: Path) -> Path:
    """Return another name beside a path: of a part, or of what is not whole yet."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")


def _hidden(path: Path) -> Path:
    return _beside(path.with_name(f".{path.name}"))


def _check_place(path: Path) -> None:
    """Refuse what a file can't replace, before it is written rather than then."""
    if path.exists() and not path.is_file():
        message = f"{path} is no file that can be replaced: give a file's name, or open it yourself"
        raise ConfigurationError(message)


def _mode_of(path: Path) -> int | None:
    """Return who may read and write a file, or None where there is none."""
    try:
        return stat.S_IMODE(path.stat().st_mode) & 0o777
    except FileNotFoundError:
        return None


def _new_file(path: Path, mode: int | None) -> BinaryIO:
    """Make a file that nobody may read who could not read the one that it is to replace."""
    given = 0o666 if mode is None else mode | 0o600  # this process writes and reads it
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, given))


class _File:
    """A file that has another name until it is whole.

    Where its name is that of a symbolic link, it is the file that the link leads to. One that
    replaces a file, or is a part of what will (`of`), is as open to others as that file is.
    """

    def __init__(
        self, path: Path, begin: Callable[[_Kept], _Writer], *, of: Path | None = None
    ) -> None:
        _check_place(path)
        self._path = Path(os.path.realpath(path))
        self._replaces = of or self._path
        self._hidden = _hidden(self._path)
        self._file = _new_file(self._hidden, _mode_of(self._replaces))
        self._kept = _Kept(self._file)
        try:
            self.writer = begin(self._kept)
        except BaseException:
            self._file.close()
            self._hidden.unlink()
            raise

    @property
    def figures(self) -> tuple[int, int]:
        """Its bytes, and their CRC."""
        return self._kept.exact.taken, self._kept.crc

    def finish(self) -> None:
        """Bring it to the disk, and give it its name; what can't be finished is discarded."""
        try:
            self.writer.close()
            self._kept.exact.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if (mode := _mode_of(self._replaces)) is not None:  # the umask may have narrowed it
                self._hidden.chmod(mode)
            self._hidden.replace(self._path)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Leave nothing of it."""
        self._kept.drop(self.writer)
        with contextlib.suppress(OSError):
            self._file.close()
        self._hidden.unlink(missing_ok=True)


class _Whole:
    """An export in one go: to a path, or to a file object."""

    def __init__(self, form: _Form, to: Path | BinaryIO) -> None:
        self._form = form
        self._to = to
        self._writer: Any = None
        self._finish: Callable[[], object] = lambda: None
        self._discard = self._finish

    def begin(self) -> None:
        """Open the file."""
        if isinstance(self._to, Path):
            path = self._to
            file = _File(path, lambda kept: self._form.writer(kept, path))
            self._writer, self._finish, self._discard = file.writer, file.finish, file.discard
        else:
            kept = _Kept(self._to)
            writer = self._form.writer(kept, None)

            def finish() -> None:
                writer.close()
                kept.exact.flush()  # what its buffer can't bring out is no success

            self._writer, self._finish = writer, finish
            self._discard = partial(kept.drop, writer)

    def write(self, rows: Sequence[bytes]) -> None:
        self._writer.write(rows)

    def take(self, part: Path) -> int:
        return int(self._writer.take(part))

    def save(self, checkpoint: ScanCheckpoint) -> None:
        """Nothing of it can be used before it is whole."""

    def finish(self, _: ScanCheckpoint) -> None:
        self._finish()

    def stop(self, _: Sequence[bytes], __: ScanCheckpoint | None) -> None:
        self._discard()


@attrs.frozen
class _Part:
    """A file beside the export's own, with some of its rows.

    Attributes:
        name: its name.
        size: its bytes; None where a state of an older version does not say.
        crc: of all of its bytes; None likewise.
        rows: how many it holds; None likewise.
    """

    name: str
    size: int | None = None
    crc: int | None = None
    rows: int | None = None


@attrs.frozen(kw_only=True)
class _State:
    """What is known of an export that is not whole.

    Attributes:
        file: the name of the file that it is to be.
        form: its format.
        fields: the names of its columns.
        parts: the files that its rows are in, beside it.
        checkpoint: what they hold.
    """

    file: str
    form: str
    fields: tuple[str, ...]
    parts: tuple[_Part, ...]
    checkpoint: ScanCheckpoint

    def to_json(self) -> bytes:
        said = {EXPORT: VERSION, **attrs.asdict(self, recurse=False)}
        said["parts"] = [attrs.astuple(part) for part in self.parts]
        said["checkpoint"] = json.loads(self.checkpoint.to_json())
        return json.dumps({**said, "sum": _sum(said)}, indent=1).encode()

    @classmethod
    def read(cls, text: bytes) -> "_State | None":
        """Read what `to_json` wrote; None if it is the checkpoint of no export."""
        version: object = None
        try:
            said = json.loads(text)
            version = said.pop(EXPORT, None)
            if version is None:
                return None
            if version == UNSUMMED:
                return cls._of(said, [_Part(str(name)) for name in said["parts"]])
            if version == VERSION and said.pop("sum") == _sum({EXPORT: version, **said}):
                return cls._of(said, [_Part(*part) for part in said["parts"]])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            if version != VERSION:  # no JSON, or no such: the checkpoint's own reader says what
                return None
        message = "the state of the export is damaged: delete it to start over"
        if version != VERSION:
            message = f"the export is of version {version!r:.20}, and this release reads {VERSION}"
        raise CheckpointError(message)

    @classmethod
    def _of(cls, said: dict[str, Any], parts: Sequence[_Part]) -> "_State":
        return cls(
            file=said["file"],
            form=said["form"],
            fields=tuple(said["fields"]),
            parts=tuple(parts),
            checkpoint=ScanCheckpoint.from_json(json.dumps(said["checkpoint"])),
        )


def _sum(said: dict[str, Any]) -> str:
    return f"{fingerprint(json.dumps(said, sort_keys=True)):016x}"


def _begins(checkpoint: ScanCheckpoint) -> bool:
    """Tell whether nothing was delivered before this."""
    entries = [entry for part in checkpoint.parts for entry in part.entries]
    unread = all(entry.mark is not None and entry.mark.offset == 0 for entry in entries)
    return unread and all(map(_begins, checkpoint.targets))


def _figures(path: Path) -> tuple[int, int]:
    """Return the bytes of a file, and their CRC."""
    size = crc = 0
    with path.open("rb") as file:
        while some := file.read(PIECE):
            size, crc = size + len(some), crc32(some, crc)
    return size, crc


class _Parts:
    """An export that can be interrupted: in parts beside the file, which are joined in the end."""

    def __init__(self, form: _Form, to: Path, saved_at: Path, begun: ScanCheckpoint) -> None:
        self._form = form
        self._to = to
        self._saved_at = saved_at
        self._next = to  # the part that is written now
        self._part: _File | None = None
        self._rows = 0  # of that part
        self._torn = False  # what is on the disk is not all that was to be
        self._part_name = re.compile(rf"{re.escape(to.name)}\.[0-9a-f]{{8}}\.part")
        self._state = _State(
            file=to.name, form=form.name, fields=form.fields, parts=(), checkpoint=begun
        )

    def begin(self) -> None:
        """Go on with what was saved, if something was, and remove what nobody goes on with."""
        self._resume()
        _replace(self._saved_at, self._state.to_json())  # if that can't be, nothing is sent
        for path in {self._to, Path(os.path.realpath(self._to))}:
            self._clean(path, rf"\.?{re.escape(path.name)}(\.[0-9a-f]{{8}}\.part){{1,2}}")
        path = Path(os.path.realpath(self._saved_at))
        self._clean(path, rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.part")

    def _clean(self, path: Path, names: str) -> None:
        kept = {part.name for part in self._state.parts}
        for left in path.parent.iterdir():
            if re.fullmatch(names, left.name) and left.name not in kept:
                left.unlink(missing_ok=True)

    def _resume(self) -> None:
        """Go on with the state that was saved, or refuse what would leave rows out."""
        begun = self._state.checkpoint
        if not self._saved_at.exists():
            if not _begins(begun):
                self._refuse(
                    "is not there, but the stream goes on from a checkpoint: what came before it "
                    "would be missing; give the stream no resume_from"
                )
            return
        saved = _State.read(self._saved_at.read_bytes())
        if saved is None:
            self._refuse("is no export's; or delete it to start over")
        elif attrs.evolve(saved, parts=(), checkpoint=begun) != self._state:
            self._refuse(
                f"is of another export: to {saved.file} as {saved.form}, {saved.fields}; "
                "or delete it to start over"
            )
        elif saved.checkpoint.to_json() == begun.to_json():
            parts = tuple(map(self._verified, saved.parts))
            if len({part.name for part in parts}) < len(parts):
                self._refuse("names a part twice: delete it to start over")
            self._state = attrs.evolve(saved, parts=parts)
        elif saved.parts or not _begins(begun):
            self._refuse(
                "is of an export that was not finished: give the stream "
                "resume_from=load_checkpoint(…) to go on; or delete it to start over"
            )

    def _refuse(self, problem: str) -> NoReturn:
        message = f"{self._saved_at} {problem}"
        raise CheckpointError(message)

    def _verified(self, part: _Part) -> _Part:
        """Return a part with its figures, or refuse one that is not what was written."""
        path = self._to.with_name(part.name) if self._part_name.fullmatch(part.name) else None
        if path is None:
            self._refuse(f"names a part that is not its own, {part.name!r:.80}: {ANEW}")
        try:
            is_file = stat.S_ISREG(path.lstat().st_mode)
        except FileNotFoundError:
            self._refuse(f"is of an export whose parts are gone, such as {part.name}: {ANEW}")
        size, crc = _figures(path) if is_file else (0, 0)
        if part.crc is None:
            whole = is_file and self._ends_well(path, size)
        else:
            whole = is_file and (part.size, part.crc) == (size, crc)
        if not whole:
            self._refuse(f"is of an export whose part {part.name} is not as it was written: {ANEW}")
        return attrs.evolve(part, size=size, crc=crc)

    def _ends_well(self, path: Path, size: int) -> bool:
        """Tell whether a part of which no CRC is known is at least not cut."""
        end = b"\n" if self._form.columns is None else END_OF_BATCHES
        with path.open("rb") as file:
            file.seek(max(size - len(end), 0))
            return file.read() == end

    def write(self, rows: Sequence[bytes]) -> None:
        self._torn = True
        if self._part is None:
            self._next = _beside(self._to)
            self._rows = 0
            self._part = _File(self._next, self._form.part_writer, of=self._to)
        self._part.writer.write(rows)
        self._rows += len(rows)
        self._torn = False

    def save(self, checkpoint: ScanCheckpoint) -> None:
        """Close the part, and note what the parts hold."""
        self._torn = True
        parts = self._state.parts
        if self._part is not None:
            part, self._part = self._part, None
            part.finish()
            parts += (_Part(self._next.name, *part.figures, self._rows),)
        self._state = attrs.evolve(self._state, parts=parts, checkpoint=checkpoint)
        _replace(self._saved_at, self._state.to_json())
        self._torn = False

    def finish(self, checkpoint: ScanCheckpoint) -> None:
        """Join the parts, and remove what is needed no more: the state before the parts."""
        self.save(checkpoint)
        self._torn = True
        whole = _Whole(self._form, self._to)
        try:
            whole.begin()
            for part in self._state.parts:
                rows = whole.take(self._to.with_name(self._verified(part).name))
                if part.rows not in {None, rows}:
                    self._refuse(f"is of an export whose part {part.name} has {rows} rows: {ANEW}")
            whole.finish(checkpoint)
        except BaseException:
            whole.stop((), None)
            raise
        self._saved_at.unlink()
        for part in self._state.parts:
            self._to.with_name(part.name).unlink(missing_ok=True)

    def stop(self, rows: Sequence[bytes], checkpoint: ScanCheckpoint | None) -> None:
        """Save what was written, and these rows; if it can't be, what was saved before stands."""
        try:
            if checkpoint is not None and not self._torn:
                if rows:
                    self.write(rows)
                self.save(checkpoint)
        finally:
            if self._part is not None:
                self._part.discard()


def _form(name: str, stream: Stream[Any], rows: int) -> _Form:
    check_number("rows", rows, least=1, whole=True)
    engine = _engine(stream)
    fields = [field.name for field in attrs.fields(engine.reader.model)]
    names = (*([TARGET] if engine.of_targets else []), *fields)
    _check_names(names)
    columns = None if name == "ndjson" else _columns_of(stream)
    return _Form(name, names, columns, rows)


def _checked(
    form: _Form, to: Any, keep: object, saves: tuple[Any, int]
) -> tuple[Path | BinaryIO, Path | None]:
    """Return where to write and where to keep the state, or refuse what can't work."""
    check_number("checkpoint_pages", saves[1], least=1, whole=True)
    place = Path(to).absolute() if isinstance(to, str | os.PathLike) else to
    saved_at = None if saves[0] is None else Path(saves[0]).absolute()
    problem = ""
    if keep is not None and not callable(keep):
        problem = f"keep takes a function of an item, but was given {type(keep).__name__}"
    elif not isinstance(place, Path):
        if isinstance(to, io.TextIOBase) or not callable(getattr(to, "write", None)):
            problem = f"to takes a path or a binary file, but was given {type(to).__name__}"
        elif getattr(to, "closed", False) is True:
            problem = "to takes a file that is open, but was given one that is closed"
        elif saved_at is not None:
            problem = "checkpoint= needs a path to write to: what a file has can't be taken back"
    elif saved_at is not None and saved_at.resolve() == place.resolve():
        problem = "checkpoint= needs a path of its own, beside the file's"
    elif form.columns is None and place.suffix == ".zst":
        _pyarrow()  # it compresses
    if problem:
        raise ConfigurationError(problem)
    return place, saved_at


def _begin(
    export: _Whole | _Parts, place: Path | BinaryIO, saved_at: Path | None, hold: Hold
) -> None:
    """Begin an export once it has its files for itself."""
    if isinstance(place, Path):
        _check_place(place)
        if saved_at is not None:
            hold.take(saved_at, CheckpointError)
        hold.take(place, ConfigurationError)
    export.begin()


async def _export(
    form: _Form,
    stream: Stream[Any],
    to: To,
    keep: Keep | None,
    saves: tuple[str | os.PathLike[str] | None, int],
) -> None:
    """Write a stream; `saves` are where its state is kept, and after how many pages."""
    place, saved_at = _checked(form, to, keep, saves)
    pages = _Pages(stream, for_arrow=form.columns is not None, keep=keep)
    export: _Whole | _Parts
    if saved_at is not None and isinstance(place, Path):
        export = _Parts(form, place, saved_at, stream.checkpoint())
    else:
        export = _Whole(form, place)
    hold = Hold()
    thread = Worker()
    rows: list[bytes] = []  # that no thread has yet
    unsaved = 0
    done: ScanCheckpoint | None = None
    try:
        thread.begin(_begin, export, place, saved_at, hold)
        await thread.end()
        async for page in pages:
            rows += page.rows
            done = page.checkpoint
            unsaved += 1
            due = saved_at is not None and unsaved >= saves[1]
            if len(rows) >= form.piece or (rows and due):
                await thread.end()
                given, rows = rows, []
                thread.begin(export.write, given)
            if due:
                await thread.end()
                unsaved = 0
                thread.begin(export.save, done)
        await thread.end()
        if rows:
            given, rows = rows, []
            thread.begin(export.write, given)
            await thread.end()
        thread.begin(export.finish, stream.checkpoint())
        await thread.end()
    except BaseException as error:
        await thread.rest()
        thread.begin(export.stop, rows, done)
        try:
            await thread.end()
        except Exception as problem:  # noqa: BLE001  what ended the export is told first
            error.add_note(f"What came since the last checkpoint is not saved: {problem!r}.")
        raise
    finally:
        hold.release()
        await stream.aclose()


# ---- checkpoints -------------------------------------------------------------------------------


def load_checkpoint(path: str | os.PathLike[str]) -> ScanCheckpoint | None:
    """Return the checkpoint in a file that an export or `save_checkpoint` wrote; None without one.

    Raises:
        CheckpointError: the file was changed, is something else, or of a newer version.
        OSError: it can't be read.
    """
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    saved = _State.read(text)
    return ScanCheckpoint.from_json(text) if saved is None else saved.checkpoint


def export_of(path: str | os.PathLike[str]) -> str | None:
    """Return the name of the file whose export keeps its state here; None if none does."""
    try:
        saved = _State.read(Path(path).read_bytes())
    except FileNotFoundError:
        return None
    return None if saved is None else saved.file


def save_checkpoint(checkpoint: ScanCheckpoint, path: str | os.PathLike[str]) -> None:
    """Write a checkpoint to a file, which has the old one or the new one, and never half of it."""
    _replace(Path(path), checkpoint.to_json().encode())


def _replace(path: Path, text: bytes) -> None:
    path = Path(os.path.realpath(path))
    mode = _mode_of(path)
    hidden = _hidden(path)
    try:
        with _new_file(hidden, mode) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            hidden.chmod(mode)
        hidden.replace(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
