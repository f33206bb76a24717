"""Checkpoints in files, and the state of an export that was interrupted.

The JSON that is written here is read by later releases: its keys and versions are a format.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from ief_async._checkpoint import ScanCheckpoint, fingerprint
from ief_async._errors import CheckpointError
from ief_async.sinks._files import replace_file

EXPORT_KEY = "ief_async_export"
VERSION = 2
VERSION_WITHOUT_SUMS = 1  # whose states have the names of their parts alone
START_OVER = "delete it to start over"


@attrs.frozen
class FilePart:
    """A file beside the export's own, with some of its rows.

    Attributes:
        name: the name of the file.
        size: its length in bytes; None if the state was written by an older version.
        crc: the CRC-32 of its content; None likewise.
        rows: how many rows it holds; None likewise.
    """

    name: str
    size: int | None = None
    crc: int | None = None
    rows: int | None = None


@attrs.frozen(kw_only=True)
class ExportState:
    """The state of an export that is not finished.

    Attributes:
        file: the name of the file that it writes.
        form: the name of its format.
        fields: the names of its columns.
        parts: the files beside it that hold the rows written so far.
        checkpoint: where the scan goes on behind these rows.
    """

    file: str
    form: str
    fields: tuple[str, ...]
    parts: tuple[FilePart, ...]
    checkpoint: ScanCheckpoint

    def to_json(self) -> bytes:
        """Return the state as it is kept in a file."""
        document = {EXPORT_KEY: VERSION, **attrs.asdict(self, recurse=False)}
        document["parts"] = [attrs.astuple(part) for part in self.parts]
        document["checkpoint"] = json.loads(self.checkpoint.to_json())
        return json.dumps({**document, "sum": checksum(document)}, indent=1).encode()

    @classmethod
    def read(cls, text: bytes) -> "ExportState | None":
        """Read what `to_json` wrote; None if the text is not the state of an export.

        Raises:
            CheckpointError: it is the state of an export, but damaged or of another version.
        """
        version: object = None
        try:
            document = json.loads(text)
            version = document.pop(EXPORT_KEY, None)
            if version is None:
                return None
            if version == VERSION_WITHOUT_SUMS:
                return cls._of(document, [FilePart(str(name)) for name in document["parts"]])
            if version == VERSION and document.pop("sum") == checksum(
                {EXPORT_KEY: version, **document}
            ):
                return cls._of(document, [FilePart(*part) for part in document["parts"]])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            if version != VERSION:  # something else, of which the reader of checkpoints says what
                return None
        message = f"the state of the export is damaged: {START_OVER}"
        if version != VERSION:
            message = (
                f"the state of the export has version {version!r:.20}, and this release reads "
                f"{VERSION}: update ief-async, or {START_OVER}"
            )
        raise CheckpointError(message)

    @classmethod
    def _of(cls, document: dict[str, Any], parts: Sequence[FilePart]) -> "ExportState":
        return cls(
            file=document["file"],
            form=document["form"],
            fields=tuple(document["fields"]),
            parts=tuple(parts),
            checkpoint=ScanCheckpoint.from_json(json.dumps(document["checkpoint"])),
        )


def checksum(document: dict[str, Any]) -> str:
    """Return the checksum that is kept with the state of an export."""
    return f"{fingerprint(json.dumps(document, sort_keys=True)):016x}"


def nothing_delivered(checkpoint: ScanCheckpoint) -> bool:
    """Tell whether a checkpoint is one of a scan that delivered nothing yet."""
    entries = [entry for part in checkpoint.parts for entry in part.entries]
    unread = all(entry.mark is not None and entry.mark.offset == 0 for entry in entries)
    return unread and all(map(nothing_delivered, checkpoint.targets))


def load_checkpoint(path: str | os.PathLike[str]) -> ScanCheckpoint | None:
    """Return the checkpoint in a file, to give to a stream as ``resume_from=``.

    Args:
        path: the file that an export or `save_checkpoint` wrote.

    Returns:
        The checkpoint, or None if there is no such file: the scan begins at its start then.

    Raises:
        CheckpointError: the file was changed, is something else, or was written by a newer version.
        OSError: the file can't be read.

    Example:
        ::

            from ief_async.sinks import load_checkpoint

            stream = ief.iter_pods(ids, resume_from=load_checkpoint("fleet.checkpoint"))
    """
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    saved = ExportState.read(text)
    return ScanCheckpoint.from_json(text) if saved is None else saved.checkpoint


def export_of(path: str | os.PathLike[str]) -> str | None:
    """Return the name of the file whose export keeps its state here, or None."""
    try:
        saved = ExportState.read(Path(path).read_bytes())
    except FileNotFoundError:
        return None
    return None if saved is None else saved.file


def save_checkpoint(checkpoint: ScanCheckpoint, path: str | os.PathLike[str]) -> None:
    """Write a checkpoint to a file, for `load_checkpoint`.

    The file is replaced in one step: it holds the old checkpoint or the new one, never a part of
    one, even if the process or the machine stops meanwhile.

    Args:
        checkpoint: what ``stream.checkpoint()``, `Page.checkpoint` or ``error.checkpoint`` is.
        path: the file.

    Raises:
        OSError: the file can't be written.

    Example:
        ::

            from ief_async.sinks import save_checkpoint

            stream = ief.iter_pods(ids)
            async for page in stream.pages():
                print(len(page.items))
                save_checkpoint(page.checkpoint, "fleet.checkpoint")
    """
    replace_file(Path(path), checkpoint.to_json().encode())
