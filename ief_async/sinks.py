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
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Self, get_args, get_origin

import attrs
import msgspec

from ief_async._checkpoint import ScanCheckpoint
from ief_async._errors import CheckpointError, ConfigurationError
from ief_async._models import TIMESTAMPS, Pod, parse_timestamp
from ief_async._pacing import check_number
from ief_async._plain import Pairs, Plain, narrowed, twin_of
from ief_async._stream import Stream, engine_of
from ief_async._structure import structure_of

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
EXPORT = "ief_async_export"
VERSION = 1
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


class _Thread:
    """Does one thing after the other outside of the event loop."""

    def __init__(self) -> None:
        self._doing: asyncio.Future[Any] | None = None

    def begin(self, work: Callable[..., Any], *given: Any) -> None:
        """Begin something; what was begun before has ended."""
        self._doing = asyncio.get_running_loop().run_in_executor(None, work, *given)
        # its error is not to be logged as lost where nobody waits for it any more
        self._doing.add_done_callback(asyncio.Future.exception)

    async def rest(self) -> bool:
        """Wait for what was begun, however often this is cancelled; tell whether it was."""
        cancelled = False
        while self._doing is not None and not self._doing.done():
            try:
                await asyncio.wait([self._doing])
            except asyncio.CancelledError:
                cancelled = True
        return cancelled

    async def end(self) -> Any:
        """Wait likewise, and return what came of it; None if nothing was begun."""
        cancelled = await self.rest()
        doing, self._doing = self._doing, None
        if cancelled:
            raise asyncio.CancelledError
        return None if doing is None else doing.result()


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
        self._thread = _Thread()
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
                self._thread, self._over = _Thread(), StopAsyncIteration()
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
            when it is whole: until then the file has another name beside it.
        keep: leaves out those items for which it is false.
        checkpoint: the path where the state of the export is kept while it is not whole, so that
            one that was interrupted or killed goes on: give ``resume_from=load_checkpoint(path)``
            to the stream, and call this again with the same arguments. Needs `to` to be a path.
        checkpoint_pages: pages between two saves. What a kill loses is read again.

    Raises:
        ConfigurationError: an argument can't work.
        CheckpointError: `checkpoint` is of another export, or the stream does not resume from it.
        OSError: a file can't be written.
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

    def take(self, part: Path) -> None:
        """Write the rows of a part."""

    def close(self) -> None:
        """Write what has to stand at the end."""


class _Kept:
    """A file for writers that close what they write to, and that write when they are closed."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._dropped = False

    def write(self, data: Any) -> int:
        rest = memoryview(b"" if self._dropped else data)
        while rest:  # a file without a buffer may take a part of it
            rest = rest[self._file.write(rest) or len(rest) :]
        return len(data)

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

    def take(self, part: Path) -> None:
        with part.open("rb") as lines:
            shutil.copyfileobj(lines, self._file, 1 << 20)

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

    def take(self, part: Path) -> None:
        pa = _pyarrow()
        with pa.memory_map(str(part)) as source:
            for batch in pa.ipc.open_stream(source):
                self._add(batch)

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


class _File:
    """A file that has another name until it is whole."""

    def __init__(self, path: Path, begin: Callable[[_Kept], _Writer]) -> None:
        _check_place(path)
        self._path = path
        self._hidden = _hidden(path)
        self._file = self._hidden.open("xb")
        self._kept = _Kept(self._file)
        try:
            self.writer = begin(self._kept)
        except BaseException:
            self._file.close()
            self._hidden.unlink()
            raise

    def finish(self) -> None:
        """Bring it to the disk, and give it its name; what can't be finished is discarded."""
        try:
            self.writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
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
            self._writer, self._finish = writer, writer.close
            self._discard = partial(kept.drop, writer)

    def write(self, rows: Sequence[bytes]) -> None:
        self._writer.write(rows)

    def take(self, part: Path) -> None:
        self._writer.take(part)

    def save(self, checkpoint: ScanCheckpoint) -> None:
        """Nothing of it can be used before it is whole."""

    def finish(self, _: ScanCheckpoint) -> None:
        self._finish()

    def stop(self, _: Sequence[bytes], __: ScanCheckpoint | None) -> None:
        self._discard()


@attrs.frozen(kw_only=True)
class _State:
    """What is known of an export that is not whole.

    Attributes:
        file: the name of the file that it is to be.
        form: its format.
        fields: the names of its columns.
        parts: the names of the files that its rows are in, beside it.
        checkpoint: what they hold.
    """

    file: str
    form: str
    fields: tuple[str, ...]
    parts: tuple[str, ...]
    checkpoint: ScanCheckpoint

    def to_json(self) -> bytes:
        said = {EXPORT: VERSION, **attrs.asdict(self, recurse=False)}
        said["checkpoint"] = json.loads(self.checkpoint.to_json())
        return json.dumps(said, indent=1).encode()

    @classmethod
    def read(cls, text: bytes) -> "_State | None":
        """Read what `to_json` wrote; None if it is the checkpoint of no export."""
        try:
            said = json.loads(text)
            version = said.pop(EXPORT, None)
            if version is None:
                return None
            if version == VERSION:
                return cls(
                    file=said["file"],
                    form=said["form"],
                    fields=tuple(said["fields"]),
                    parts=tuple(map(str, said["parts"])),
                    checkpoint=ScanCheckpoint.from_json(json.dumps(said["checkpoint"])),
                )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # no JSON, or no such: the checkpoint's own reader says what is wrong
        message = f"the export is of version {version!r:.20}, and this release reads {VERSION}"
        raise CheckpointError(message)


class _Parts:
    """An export that can be interrupted: in parts beside the file, which are joined in the end."""

    def __init__(self, form: _Form, to: Path, saved_at: Path, begun: ScanCheckpoint) -> None:
        self._form = form
        self._to = to
        self._saved_at = saved_at
        self._next = to  # the part that is written now
        self._part: _File | None = None
        self._torn = False  # what is on the disk is not all that was to be
        self._state = _State(
            file=to.name, form=form.name, fields=form.fields, parts=(), checkpoint=begun
        )

    def begin(self) -> None:
        """Go on with what was saved, if something was, and remove what nobody goes on with."""
        _check_place(self._to)
        if self._saved_at.exists():
            self._resume()
        _replace(self._saved_at, self._state.to_json())  # if that can't be, nothing is sent
        self._clean(self._to, rf"\.?{re.escape(self._to.name)}(\.[0-9a-f]{{8}}\.part){{1,2}}")
        self._clean(self._saved_at, rf"\.{re.escape(self._saved_at.name)}\.[0-9a-f]{{8}}\.part")

    def _clean(self, path: Path, names: str) -> None:
        for left in path.parent.iterdir():
            if re.fullmatch(names, left.name) and left.name not in self._state.parts:
                left.unlink(missing_ok=True)

    def _resume(self) -> None:
        saved = _State.read(self._saved_at.read_bytes())
        begun = self._state.checkpoint
        problem = ""
        if saved is None:
            problem = "is no export's"
        elif attrs.evolve(saved, parts=(), checkpoint=begun) != self._state:
            problem = f"is of another export: to {saved.file} as {saved.form}, {saved.fields}"
        elif not saved.parts:
            return  # nothing is lost, wherever the stream begins
        elif saved.checkpoint.to_json() != begun.to_json():
            problem = (
                "is of an export that was not finished: give the stream "
                "resume_from=load_checkpoint(…) to go on"
            )
        elif not all(self._to.with_name(part).exists() for part in saved.parts):
            problem = "is of an export whose parts are gone"
        if saved is None or problem:
            message = f"{self._saved_at} {problem}; or delete it to start over"
            raise CheckpointError(message)
        self._state = saved

    def write(self, rows: Sequence[bytes]) -> None:
        self._torn = True
        if self._part is None:
            self._next = _beside(self._to)
            self._part = _File(self._next, self._form.part_writer)
        self._part.writer.write(rows)
        self._torn = False

    def save(self, checkpoint: ScanCheckpoint) -> None:
        """Close the part, and note what the parts hold."""
        self._torn = True
        parts = self._state.parts
        if self._part is not None:
            part, self._part = self._part, None
            part.finish()
            parts += (self._next.name,)
        self._state = attrs.evolve(self._state, parts=parts, checkpoint=checkpoint)
        _replace(self._saved_at, self._state.to_json())
        self._torn = False

    def finish(self, checkpoint: ScanCheckpoint) -> None:
        """Join the parts, and remove what is needed no more: the state before the parts."""
        self.save(checkpoint)
        self._torn = True
        whole = _Whole(self._form, self._to)
        parts = [self._to.with_name(part) for part in self._state.parts]
        try:
            whole.begin()
            for part in parts:
                whole.take(part)
            whole.finish(checkpoint)
        except BaseException:
            whole.stop((), None)
            raise
        self._saved_at.unlink()
        for part in parts:
            part.unlink()

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
        elif saved_at is not None:
            problem = "checkpoint= needs a path to write to: what a file has can't be taken back"
    elif saved_at is not None and saved_at.resolve() == place.resolve():
        problem = "checkpoint= needs a path of its own, beside the file's"
    elif form.columns is None and place.suffix == ".zst":
        _pyarrow()  # it compresses
    if problem:
        raise ConfigurationError(problem)
    return place, saved_at


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
    thread = _Thread()
    rows: list[bytes] = []  # that no thread has yet
    unsaved = 0
    done: ScanCheckpoint | None = None
    try:
        thread.begin(export.begin)
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
        await stream.aclose()


# ---- checkpoints -------------------------------------------------------------------------------


def load_checkpoint(path: str | os.PathLike[str]) -> ScanCheckpoint | None:
    """Return the checkpoint in a file that an export or `save_checkpoint` wrote; None without one.

    Raises:
        CheckpointError: the file is damaged, something else, or of a newer version.
        OSError: it can't be read.
    """
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    saved = _State.read(text)
    return ScanCheckpoint.from_json(text) if saved is None else saved.checkpoint


def save_checkpoint(checkpoint: ScanCheckpoint, path: str | os.PathLike[str]) -> None:
    """Write a checkpoint to a file, which has the old one or the new one, and never half of it."""
    _replace(Path(path), checkpoint.to_json().encode())


def _replace(path: Path, text: bytes) -> None:
    hidden = _hidden(path)
    try:
        with hidden.open("xb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
