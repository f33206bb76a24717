"""What an export writes to: one file in one go, or parts that are joined in the end."""

import os
import re
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import attrs

from ief_async._checkpoint import ScanCheckpoint
from ief_async._errors import CheckpointError
from ief_async.sinks._files import (
    AtomicFile,
    UnclosedFile,
    part_path,
    replace_file,
    size_and_crc,
)
from ief_async.sinks._formats import Format, Writer
from ief_async.sinks._state import START_OVER, ExportState, FilePart, nothing_delivered


class DirectExport:
    """An export in one go: to a path, or to a file object."""

    def __init__(self, form: Format, to: Path | BinaryIO) -> None:
        self._form = form
        self._to = to
        self._writer: Any = None
        self._finish: Callable[[], object] = lambda: None
        self._discard = self._finish

    def begin(self) -> None:
        """Open the file."""
        if isinstance(self._to, Path):
            name = self._to.name
            file = AtomicFile(self._to, lambda unclosed: self._form.writer(unclosed, name))
            self._writer, self._finish, self._discard = file.writer, file.finish, file.discard
        else:
            unclosed = UnclosedFile(self._to)
            writer = self._form.writer(unclosed, "")

            def finish() -> None:
                writer.close()
                unclosed.exact.flush()  # the export failed if the file's buffer can't be written

            self._writer, self._finish = writer, finish
            self._discard = partial(unclosed.abandon, writer)

    def write(self, rows: Sequence[bytes]) -> None:
        """Write some rows."""
        self._writer.write(rows)

    def append_part(self, part: Path) -> int:
        """Write the rows of a part; return how many they are."""
        return int(self._writer.append_part(part))

    def save(self, checkpoint: ScanCheckpoint) -> None:
        """Do nothing: an export in one go has no state to resume from."""

    def finish(self, _: ScanCheckpoint) -> None:
        """Give the file its name."""
        self._finish()

    def stop(self, _: Sequence[bytes], __: ScanCheckpoint | None) -> None:
        """Remove what was written."""
        self._discard()


class ResumableExport:
    """An export that can go on after an interruption: its rows are in parts beside the file.

    What is written between two saves is one part. The state names the parts that are whole, so
    after a crash the next run knows which files to join and removes the others.
    """

    def __init__(self, form: Format, to: Path, state_path: Path, begun: ScanCheckpoint) -> None:
        self._form = form
        self._to = to
        self._state_path = state_path
        self._part_path = to  # of the part that is being written
        self._part: AtomicFile[Writer] | None = None
        self._part_rows = 0
        self._torn = False  # a write failed halfway: the part lacks rows, or has half of one
        self._part_name = re.compile(rf"{re.escape(to.name)}\.[0-9a-f]{{8}}\.part")
        self._state = ExportState(
            file=to.name, form=form.name, fields=form.fields, parts=(), checkpoint=begun
        )

    def begin(self) -> None:
        """Load the saved state, if there is one, and remove files that no state names."""
        self._resume()
        # if the state can't be written, the export fails before the first request
        replace_file(self._state_path, self._state.to_json())
        for path in {self._to, Path(os.path.realpath(self._to))}:
            self._remove_leftovers(
                path, rf"\.?{re.escape(path.name)}(\.[0-9a-f]{{8}}\.part){{1,2}}"
            )
        path = Path(os.path.realpath(self._state_path))
        self._remove_leftovers(path, rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.part")

    def _remove_leftovers(self, path: Path, names: str) -> None:
        kept = {part.name for part in self._state.parts}
        for found in path.parent.iterdir():
            if re.fullmatch(names, found.name) and found.name not in kept:
                found.unlink(missing_ok=True)

    def _resume(self) -> None:
        """Load the saved state; refuse one with which rows would be missing or written twice."""
        begun = self._state.checkpoint
        if not self._state_path.exists():
            if not nothing_delivered(begun):
                self._refuse(
                    "does not exist, but the stream resumes from a checkpoint, and the rows before "
                    "it would be missing: give the stream no resume_from"
                )
            return
        saved = ExportState.read(self._state_path.read_bytes())
        if saved is None:
            self._refuse(f"is not the state of an export: give another path, or {START_OVER}")
        elif attrs.evolve(saved, parts=(), checkpoint=begun) != self._state:
            self._refuse(
                f"belongs to another export, to {saved.file} as {saved.form} with the columns "
                f"{', '.join(saved.fields)}: give another path, or {START_OVER}"
            )
        elif saved.checkpoint.to_json() == begun.to_json():
            parts = tuple(map(self._checked_part, saved.parts))
            if len({part.name for part in parts}) < len(parts):
                self._refuse(f"names a part twice: {START_OVER}")
            self._state = attrs.evolve(saved, parts=parts)
        elif saved.parts or not nothing_delivered(begun):
            self._refuse(
                "belongs to an export that was not finished: give the stream "
                f"resume_from=load_checkpoint(…) to go on, or {START_OVER}"
            )

    def _refuse(self, problem: str) -> NoReturn:
        message = f"{self._state_path} {problem}"
        raise CheckpointError(message)

    def _checked_part(self, part: FilePart) -> FilePart:
        """Return a part with its size and CRC; refuse one that is not as it was written."""
        path = self._to.with_name(part.name) if self._part_name.fullmatch(part.name) else None
        if path is None:
            self._refuse(
                f"names {part.name!r:.80}, which is not a part of this export: {START_OVER}"
            )
        try:
            is_file = stat.S_ISREG(path.lstat().st_mode)
        except FileNotFoundError:
            self._refuse(f"names the part {part.name}, which is gone: {START_OVER}")
        size, crc = size_and_crc(path) if is_file else (0, 0)
        if part.crc is None:
            whole = is_file and self._has_ending(path, size)
        else:
            whole = is_file and (part.size, part.crc) == (size, crc)
        if not whole:
            self._refuse(f"names the part {part.name}, which was changed or cut: {START_OVER}")
        return attrs.evolve(part, size=size, crc=crc)

    def _has_ending(self, path: Path, size: int) -> bool:
        """Tell whether a part without a known CRC is at least not cut."""
        end = self._form.part_ending
        with path.open("rb") as file:
            file.seek(max(size - len(end), 0))
            return file.read() == end

    def write(self, rows: Sequence[bytes]) -> None:
        """Write some rows to the part."""
        self._torn = True
        if self._part is None:
            self._part_path = part_path(self._to)
            self._part_rows = 0
            self._part = AtomicFile(self._part_path, self._form.part_writer, mode_from=self._to)
        self._part.writer.write(rows)
        self._part_rows += len(rows)
        self._torn = False

    def save(self, checkpoint: ScanCheckpoint) -> None:
        """Close the part, and write the state that names it."""
        self._torn = True
        parts = self._state.parts
        if self._part is not None:
            part, self._part = self._part, None
            part.finish()
            parts += (FilePart(self._part_path.name, *part.size_and_crc, self._part_rows),)
        self._state = attrs.evolve(self._state, parts=parts, checkpoint=checkpoint)
        replace_file(self._state_path, self._state.to_json())
        self._torn = False

    def finish(self, checkpoint: ScanCheckpoint) -> None:
        """Join the parts to the file; then remove the state, and after it the parts."""
        self.save(checkpoint)
        self._torn = True
        file = DirectExport(self._form, self._to)
        try:
            file.begin()
            for part in self._state.parts:
                rows = file.append_part(self._to.with_name(self._checked_part(part).name))
                if part.rows not in {None, rows}:
                    self._refuse(
                        f"names the part {part.name}, which has {rows} rows instead of "
                        f"{part.rows}: {START_OVER}"
                    )
            file.finish(checkpoint)
        except BaseException:
            file.stop((), None)
            raise
        self._state_path.unlink()
        for part in self._state.parts:
            self._to.with_name(part.name).unlink(missing_ok=True)

    def stop(self, rows: Sequence[bytes], checkpoint: ScanCheckpoint | None) -> None:
        """Save what was written and these rows too; if that fails, the last saved state stands."""
        try:
            if checkpoint is not None and not self._torn:
                if rows:
                    self.write(rows)
                self.save(checkpoint)
        finally:
            if self._part is not None:
                self._part.discard()
