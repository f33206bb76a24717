"""What an export writes to: one file, or the parts of one."""

import contextlib
import os
import re
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import attrs

from ief_async._checkpoint import ScanCheckpoint
from ief_async._errors import CheckpointError
from ief_async.sinks._files import (
    beside,
    check_place,
    figures_of,
    hidden_path,
    mode_of,
    new_file,
    replace_file,
)
from ief_async.sinks._formats import END_OF_BATCHES, Form, Kept, Writer
from ief_async.sinks._state import ANEW, ExportState, FilePart, begins

if TYPE_CHECKING:
    pass


class File:
    """A file that has another name until it is whole.

    Where its name is that of a symbolic link, it is the file that the link leads to. One that
    replaces a file, or is a part of what will (`of`), is as open to others as that file is.
    """

    def __init__(
        self, path: Path, begin: Callable[[Kept], Writer], *, of: Path | None = None
    ) -> None:
        check_place(path)
        self._path = Path(os.path.realpath(path))
        self._replaces = of or self._path
        self._hidden = hidden_path(self._path)
        self._file = new_file(self._hidden, mode_of(self._replaces))
        self._kept = Kept(self._file)
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
            if (mode := mode_of(self._replaces)) is not None:  # the umask may have narrowed it
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


class Whole:
    """An export in one go: to a path, or to a file object."""

    def __init__(self, form: Form, to: Path | BinaryIO) -> None:
        self._form = form
        self._to = to
        self._writer: Any = None
        self._finish: Callable[[], object] = lambda: None
        self._discard = self._finish

    def begin(self) -> None:
        """Open the file."""
        if isinstance(self._to, Path):
            path = self._to
            file = File(path, lambda kept: self._form.writer(kept, path))
            self._writer, self._finish, self._discard = file.writer, file.finish, file.discard
        else:
            kept = Kept(self._to)
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


class Parts:
    """An export that can be interrupted: in parts beside the file, which are joined in the end."""

    def __init__(self, form: Form, to: Path, saved_at: Path, begun: ScanCheckpoint) -> None:
        self._form = form
        self._to = to
        self._saved_at = saved_at
        self._next = to  # the part that is written now
        self._part: File | None = None
        self._rows = 0  # of that part
        self._torn = False  # what is on the disk is not all that was to be
        self._part_name = re.compile(rf"{re.escape(to.name)}\.[0-9a-f]{{8}}\.part")
        self._state = ExportState(
            file=to.name, form=form.name, fields=form.fields, parts=(), checkpoint=begun
        )

    def begin(self) -> None:
        """Go on with what was saved, if something was, and remove what nobody goes on with."""
        self._resume()
        replace_file(self._saved_at, self._state.to_json())  # if that can't be, nothing is sent
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
            if not begins(begun):
                self._refuse(
                    "is not there, but the stream goes on from a checkpoint: what came before it "
                    "would be missing; give the stream no resume_from"
                )
            return
        saved = ExportState.read(self._saved_at.read_bytes())
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
        elif saved.parts or not begins(begun):
            self._refuse(
                "is of an export that was not finished: give the stream "
                "resume_from=load_checkpoint(…) to go on; or delete it to start over"
            )

    def _refuse(self, problem: str) -> NoReturn:
        message = f"{self._saved_at} {problem}"
        raise CheckpointError(message)

    def _verified(self, part: FilePart) -> FilePart:
        """Return a part with its figures, or refuse one that is not what was written."""
        path = self._to.with_name(part.name) if self._part_name.fullmatch(part.name) else None
        if path is None:
            self._refuse(f"names a part that is not its own, {part.name!r:.80}: {ANEW}")
        try:
            is_file = stat.S_ISREG(path.lstat().st_mode)
        except FileNotFoundError:
            self._refuse(f"is of an export whose parts are gone, such as {part.name}: {ANEW}")
        size, crc = figures_of(path) if is_file else (0, 0)
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
            self._next = beside(self._to)
            self._rows = 0
            self._part = File(self._next, self._form.part_writer, of=self._to)
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
            parts += (FilePart(self._next.name, *part.figures, self._rows),)
        self._state = attrs.evolve(self._state, parts=parts, checkpoint=checkpoint)
        replace_file(self._saved_at, self._state.to_json())
        self._torn = False

    def finish(self, checkpoint: ScanCheckpoint) -> None:
        """Join the parts, and remove what is needed no more: the state before the parts."""
        self.save(checkpoint)
        self._torn = True
        whole = Whole(self._form, self._to)
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
