"""A stream into a file: NDJSON, Parquet and Arrow."""

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

from ief_async._arguments import check_number
from ief_async._checkpoint import ScanCheckpoint
from ief_async._errors import CheckpointError, ConfigurationError
from ief_async._scan import Stream
from ief_async._worker import Worker
from ief_async._writing import Hold
from ief_async.sinks._destinations import DirectExport, ResumableExport
from ief_async.sinks._files import check_replaceable
from ief_async.sinks._formats import GROUP_ROWS, Arrow, Format, Ndjson, Parquet
from ief_async.sinks._rows import Keep, LinePages

CHECKPOINT_PAGES = 200  # between two saves

To = str | os.PathLike[str] | BinaryIO


async def write_ndjson(
    stream: Stream[Any],
    to: To,
    *,
    keep: Keep | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_pages: int = CHECKPOINT_PAGES,
) -> None:
    """Write the rows of a stream as JSON, one row on each line.

    Each line has every field of the model; None is null. A path that ends in ``.gz`` is compressed
    by gzip, one that ends in ``.zst`` by zstd (which needs the extra ``arrow``).

    The file appears under its name only when it is whole: until then it has another name beside it.
    A symbolic link is followed. A file that is replaced keeps its permissions, and a new one gets
    those that the umask leaves. While an export runs, no other one may write to the same path or
    have the same checkpoint: the other one is refused before it sends anything.

    Args:
        stream: the result of `IefSession.iter_pods` or another method or function that scans. It is
            closed in the end.
        to: a path, or a binary file that is open for writing and stays open. A file object may take
            a part of the bytes at a time, or none for a while; its `write` returns how many bytes
            it took, or always None if it always takes all. It is flushed in the end.
        keep: a function of an item; items for which it is false are left out.
        checkpoint: the path of a file for the state of the export while it runs, so that an export
            that was interrupted or killed can go on: give ``resume_from=load_checkpoint(path)`` to
            the stream, and call this again with the same arguments. `to` has to be a path then. The
            state is removed when the file is whole.
        checkpoint_pages: pages between two saves of the state. What was read since the last save is
            read again after a kill.

    Raises:
        ConfigurationError: an argument can't work, or a running export writes to this path.
        CheckpointError: `checkpoint` belongs to another export or is in use by one, the stream does
            not resume from it, or it or a part that it names was changed.
        OSError: a file can't be written, or its `write` returned an impossible number.
        IefError: the scan failed. With `checkpoint` the rows written so far are saved.

    Example:
        ::

            from ief_async.sinks import write_ndjson

            await write_ndjson(ief.iter_pods(ids), "pods.ndjson.gz")
    """
    form = Ndjson.of(stream, GROUP_ROWS)
    await _export(
        form, stream, to, keep=keep, checkpoint=checkpoint, checkpoint_pages=checkpoint_pages
    )


async def write_parquet(
    stream: Stream[Any],
    to: To,
    *,
    rows: int = GROUP_ROWS,
    keep: Keep | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_pages: int = CHECKPOINT_PAGES,
) -> None:
    """Write the rows of a stream as a Parquet file, compressed by zstd.

    The columns are those of `arrow_schema`. The file appears under its name as that of
    `write_ndjson` does. With `checkpoint` the export takes twice the space on the disk while it
    runs.

    Args:
        stream: as for `write_ndjson`.
        to: likewise, but a path that ends in ``.gz`` or ``.zst`` is refused.
        rows: the least rows of a row group, but for the last.
        keep: as for `write_ndjson`.
        checkpoint: likewise.
        checkpoint_pages: likewise.

    Raises:
        ConfigurationError: as for `write_ndjson`; also if pyarrow is not installed.
        CheckpointError: as for `write_ndjson`.
        OSError: likewise.
        IefError: likewise.

    Example:
        ::

            from ief_async.sinks import load_checkpoint, write_parquet

            begun = load_checkpoint("pods.state")  # None the first time
            stream = ief.iter_pods(ids, resume_from=begun)
            await write_parquet(stream, "pods.parquet", checkpoint="pods.state")
    """
    form = Parquet.of(stream, rows)
    await _export(
        form, stream, to, keep=keep, checkpoint=checkpoint, checkpoint_pages=checkpoint_pages
    )


async def write_arrow(
    stream: Stream[Any],
    to: To,
    *,
    rows: int = GROUP_ROWS,
    keep: Keep | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_pages: int = CHECKPOINT_PAGES,
) -> None:
    """Write the rows of a stream as an Arrow IPC file (Feather), compressed by zstd.

    A path that ends in ``.arrows``, and a file object, get the streaming format.

    Args:
        stream: as for `write_ndjson`.
        to: likewise, but a path that ends in ``.gz`` or ``.zst`` is refused.
        rows: the least rows of a record batch, but for the last.
        keep: as for `write_ndjson`.
        checkpoint: likewise.
        checkpoint_pages: likewise.

    Raises:
        ConfigurationError: as for `write_ndjson`; also if pyarrow is not installed.
        CheckpointError: as for `write_ndjson`.
        OSError: likewise.
        IefError: likewise.

    Example:
        ::

            from ief_async.sinks import write_arrow

            await write_arrow(ief.iter_pods(ids), "pods.arrow", keep=lambda pod: pod.node_id)
    """
    form = Arrow.of(stream, rows)
    await _export(
        form, stream, to, keep=keep, checkpoint=checkpoint, checkpoint_pages=checkpoint_pages
    )


async def _export(
    form: Format,
    stream: Stream[Any],
    to: To,
    *,
    keep: Keep | None,
    checkpoint: str | os.PathLike[str] | None,
    checkpoint_pages: int,
) -> None:
    """Write a stream; reading goes on while a thread writes."""
    check_number("checkpoint_pages", checkpoint_pages, least=1, whole=True)
    path_or_file, state_path = _check_destination(form, to, keep, checkpoint)
    pages = LinePages(stream, for_arrow=form.columns is not None, keep=keep)
    export: DirectExport | ResumableExport
    if state_path is not None and isinstance(path_or_file, Path):
        export = ResumableExport(form, path_or_file, state_path, stream.checkpoint())
    else:
        export = DirectExport(form, path_or_file)
    hold = Hold()
    thread = Worker()
    rows: list[bytes] = []  # that the thread does not have yet
    unsaved = 0
    done: ScanCheckpoint | None = None
    try:
        thread.begin(_begin, export, path_or_file, state_path, hold)
        await thread.end()
        async for page in pages:
            rows += page.rows
            done = page.checkpoint
            unsaved += 1
            due = state_path is not None and unsaved >= checkpoint_pages
            if len(rows) >= form.write_rows or (rows and due):
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
        except Exception as problem:  # noqa: BLE001  the error that ended the export is raised
            error.add_note(f"The rows since the last checkpoint are not saved: {problem!r}.")
        raise
    finally:
        hold.release()
        await stream.aclose()


def _check_destination(
    form: Format, to: Any, keep: object, checkpoint: Any
) -> tuple[Path | BinaryIO, Path | None]:
    """Return where to write and where to keep the state, or refuse arguments that can't work."""
    path_or_file = Path(to).absolute() if isinstance(to, str | os.PathLike) else to
    state_path = None if checkpoint is None else Path(checkpoint).absolute()
    problem = ""
    if keep is not None and not callable(keep):
        problem = f"keep must be a function of an item, got {type(keep).__name__}"
    elif not isinstance(path_or_file, Path):
        if isinstance(to, io.TextIOBase) or not callable(getattr(to, "write", None)):
            problem = f"to must be a path or a binary file, got {type(to).__name__}"
        elif getattr(to, "closed", False) is True:
            problem = "to must be an open file, got a closed one"
        elif state_path is not None:
            problem = "to must be a path where checkpoint is given, got a file object"
    elif state_path is not None and state_path.resolve() == path_or_file.resolve():
        problem = "checkpoint must be another path than to, got the same"
    else:
        form.check_path(path_or_file)
    if problem:
        raise ConfigurationError(problem)
    return path_or_file, state_path


def _begin(
    export: DirectExport | ResumableExport,
    path_or_file: Path | BinaryIO,
    state_path: Path | None,
    hold: Hold,
) -> None:
    """Begin an export once no other one can write to its files."""
    if isinstance(path_or_file, Path):
        check_replaceable(path_or_file)
        if state_path is not None:
            hold.take(state_path, CheckpointError)
        hold.take(path_or_file, ConfigurationError)
    export.begin()
