"""Checkpoints in files, and the state of an export that was interrupted."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ief_async._checkpoint import ScanCheckpoint, fingerprint
from ief_async._errors import CheckpointError
from ief_async.sinks._files import replace_file

if TYPE_CHECKING:
    pass
EXPORT = "ief_async_export"
VERSION = 2
UNSUMMED = 1  # the version whose states say nothing of their parts but the names
ANEW = "delete it to start over"


@attrs.frozen
class FilePart:
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
class ExportState:
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
    parts: tuple[FilePart, ...]
    checkpoint: ScanCheckpoint

    def to_json(self) -> bytes:
        said = {EXPORT: VERSION, **attrs.asdict(self, recurse=False)}
        said["parts"] = [attrs.astuple(part) for part in self.parts]
        said["checkpoint"] = json.loads(self.checkpoint.to_json())
        return json.dumps({**said, "sum": sum_of(said)}, indent=1).encode()

    @classmethod
    def read(cls, text: bytes) -> "ExportState | None":
        """Read what `to_json` wrote; None if it is the checkpoint of no export."""
        version: object = None
        try:
            said = json.loads(text)
            version = said.pop(EXPORT, None)
            if version is None:
                return None
            if version == UNSUMMED:
                return cls._of(said, [FilePart(str(name)) for name in said["parts"]])
            if version == VERSION and said.pop("sum") == sum_of({EXPORT: version, **said}):
                return cls._of(said, [FilePart(*part) for part in said["parts"]])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            if version != VERSION:  # no JSON, or no such: the checkpoint's own reader says what
                return None
        message = "the state of the export is damaged: delete it to start over"
        if version != VERSION:
            message = f"the export is of version {version!r:.20}, and this release reads {VERSION}"
        raise CheckpointError(message)

    @classmethod
    def _of(cls, said: dict[str, Any], parts: Sequence[FilePart]) -> "ExportState":
        return cls(
            file=said["file"],
            form=said["form"],
            fields=tuple(said["fields"]),
            parts=tuple(parts),
            checkpoint=ScanCheckpoint.from_json(json.dumps(said["checkpoint"])),
        )


def sum_of(said: dict[str, Any]) -> str:
    return f"{fingerprint(json.dumps(said, sort_keys=True)):016x}"


def begins(checkpoint: ScanCheckpoint) -> bool:
    """Tell whether nothing was delivered before this."""
    entries = [entry for part in checkpoint.parts for entry in part.entries]
    unread = all(entry.mark is not None and entry.mark.offset == 0 for entry in entries)
    return unread and all(map(begins, checkpoint.targets))


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
    saved = ExportState.read(text)
    return ScanCheckpoint.from_json(text) if saved is None else saved.checkpoint


def export_of(path: str | os.PathLike[str]) -> str | None:
    """Return the name of the file whose export keeps its state here; None if none does."""
    try:
        saved = ExportState.read(Path(path).read_bytes())
    except FileNotFoundError:
        return None
    return None if saved is None else saved.file


def save_checkpoint(checkpoint: ScanCheckpoint, path: str | os.PathLike[str]) -> None:
    """Write a checkpoint to a file, which has the old one or the new one, and never half of it."""
    replace_file(Path(path), checkpoint.to_json().encode())
