"""A stream as NDJSON, as Arrow record batches, and as Parquet or Arrow files."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ief_async._arguments import check_number
from ief_async._checkpoint import ScanCheckpoint
from ief_async._errors import CheckpointError, ConfigurationError
from ief_async._scan import Stream
from ief_async._worker import Worker
from ief_async._writing import Hold
from ief_async.sinks._arrow import import_pyarrow
from ief_async.sinks._files import To, check_place
from ief_async.sinks._formats import ROWS, Form, form_of
from ief_async.sinks._parts import Parts, Whole
from ief_async.sinks._rows import Keep, Pages

if TYPE_CHECKING:
    pass
PAGES = 200  # between two checkpoints


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
    form = form_of("ndjson", stream, ROWS)
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
    form = form_of("parquet", stream, rows)
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
    form = form_of("arrow", stream, rows)
    await _export(form, stream, to, keep, (checkpoint, checkpoint_pages))


def _checked(
    form: Form, to: Any, keep: object, saves: tuple[Any, int]
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
        import_pyarrow()  # it compresses
    if problem:
        raise ConfigurationError(problem)
    return place, saved_at


def _begin(
    export: Whole | Parts, place: Path | BinaryIO, saved_at: Path | None, hold: Hold
) -> None:
    """Begin an export once it has its files for itself."""
    if isinstance(place, Path):
        check_place(place)
        if saved_at is not None:
            hold.take(saved_at, CheckpointError)
        hold.take(place, ConfigurationError)
    export.begin()


async def _export(
    form: Form,
    stream: Stream[Any],
    to: To,
    keep: Keep | None,
    saves: tuple[str | os.PathLike[str] | None, int],
) -> None:
    """Write a stream; `saves` are where its state is kept, and after how many pages."""
    place, saved_at = _checked(form, to, keep, saves)
    pages = Pages(stream, for_arrow=form.columns is not None, keep=keep)
    export: Whole | Parts
    if saved_at is not None and isinstance(place, Path):
        export = Parts(form, place, saved_at, stream.checkpoint())
    else:
        export = Whole(form, place)
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
