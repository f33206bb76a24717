"""Checkpoints: which part of a scan is done. Small, versioned, without secrets. Pure.

A scan's ids have an order and are cut into batches. A checkpoint stores them as a sequence of
entries: a `Run` of ids that is done, or an unfinished batch and the `Mark` where it continues. A
run is identified by its number of ids and the sum of their hashes, so adjacent finished runs merge
into one: the size of a checkpoint depends only on what is unfinished.

As JSON::

    {"ief_async_checkpoint": 1, "scan": "…", "parts": [{"first": "…", "entries": [
        [200, "…"],                          # ids, and their hash: done
        [100, "…", 1900, 2140, ["…", "…"]]   # read up to row 1,900 of 2,140, behind these pods
    ]}], "sum": "…"}

A part is the sequence of ids of one worker; only a merged checkpoint has several.
"""

import json
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Self

import attrs

from ief_async._errors import CheckpointError
from ief_async._values import Value

VERSION = 1
NAME = "ief_async_checkpoint"
MODULUS = 2**64


def fingerprint(*parts: object) -> int:
    """Return a 64-bit hash of these values."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest())


@attrs.frozen(eq=False, repr=False)
class Run(Value):
    """Consecutive ids of a scan: how many there are, and the sum of their hashes."""

    ids: int = 0
    digest: int = 0

    @classmethod
    def of(cls, ids: Iterable[str]) -> Self:
        """Return the run of these ids."""
        hashes = [fingerprint(identity) for identity in ids]
        return cls(len(hashes), sum(hashes) % MODULUS)

    def __add__(self, other: "Run") -> "Run":
        return Run(self.ids + other.ids, (self.digest + other.digest) % MODULUS)


@attrs.frozen(eq=False, repr=False)
class Mark(Value):
    """Where one unfinished batch continues.

    Attributes:
        offset: the position after the last row that is done.
        count: the server's count at that time, or None.
        anchors: the ids of the last rows before `offset`; the page there must contain one of them.
    """

    offset: int = 0
    count: int | None = None
    anchors: tuple[str, ...] = ()


@attrs.frozen(eq=False, repr=False)
class Entry(Value):
    """A run of ids: done if it has no mark, else a batch that continues at its mark."""

    run: Run
    mark: Mark | None = None


@attrs.frozen(eq=False, repr=False)
class Part(Value):
    """The ids of one worker that a scan has started, identified by the hash of the first one."""

    first: int
    entries: tuple[Entry, ...]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ScanCheckpoint(Value):
    """What the consumer of a scan has processed: pass it to ``resume_from=`` to read the rest.

    It contains no token and no pod, only hashes of the requested ids and, for each unfinished
    batch, its position and the ids of a few pods before it: a few hundred bytes.

    Attributes:
        scan: a hash of what is read: project, instance, selector, page and batch size.
        parts: one for each scan, with the ids it has started; several only in a merged checkpoint.
        targets: for `scan_fleet`, the checkpoint of each target, in the order of the targets.
    """

    scan: int
    parts: tuple[Part, ...] = attrs.field(repr=lambda parts: f"<{len(parts)} parts>")
    targets: "tuple[ScanCheckpoint, ...]" = ()

    def to_json(self) -> str:
        """Return the checkpoint as one line of JSON."""
        said = {NAME: VERSION, **_checkpoint_json(self)}
        return json.dumps({**said, "sum": _sum(said)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            CheckpointError: the text is damaged, is no checkpoint, or has a newer version.
        """
        version: object = VERSION
        try:
            said = json.loads(text)
            version = said.pop(NAME)
            if version == VERSION and said.pop("sum") == _sum({NAME: version, **said}):
                return cls._read(said)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            version = VERSION
        message = "the checkpoint is damaged: use an older one, or start over"
        if version != VERSION:
            message = (
                f"the checkpoint has version {version!r:.20}, and this release reads version "
                f"{VERSION}: resume with a newer release of ief-async, or start over"
            )
        raise CheckpointError(message)

    @classmethod
    def _read(cls, said: Any) -> Self:
        return cls(
            scan=int(said["scan"], 16),
            parts=tuple(_part(part) for part in said["parts"]),
            targets=tuple(cls._read(target) for target in said.get("targets", ())),
        )

    @classmethod
    def merge(cls, *checkpoints: "ScanCheckpoint") -> "ScanCheckpoint":
        """Merge the checkpoints of scans with the same options over disjoint ids.

        A scan that resumes from the result must get the ids of all of them. The scans may follow
        each other in any order, but the ids of each must be contiguous and in their order.

        Raises:
            CheckpointError: the scans differ, two have the same ids, or no checkpoint is given.
        """
        if any(checkpoint.targets for checkpoint in checkpoints):
            message = "a checkpoint of scan_fleet can't be merged: merge only those of iter_pods"
            raise CheckpointError(message)
        if len({checkpoint.scan for checkpoint in checkpoints}) != 1:
            message = (
                "only checkpoints with one project, selector, page and batch size can be merged"
            )
            raise CheckpointError(message)
        parts = tuple(part for checkpoint in checkpoints for part in checkpoint.parts)
        if len({part.first for part in parts}) < len(parts):
            message = "two of the checkpoints begin with the same id: give each worker its own ids"
            raise CheckpointError(message)
        return cls(scan=checkpoints[0].scan, parts=parts)


def _hex(number: int) -> str:
    return f"{number:016x}"


def _sum(said: dict[str, Any]) -> str:
    return _hex(fingerprint(json.dumps(said, separators=(",", ":"))))


def _checkpoint_json(checkpoint: ScanCheckpoint) -> dict[str, Any]:
    parts = [
        {"first": _hex(part.first), "entries": [_entry_json(entry) for entry in part.entries]}
        for part in checkpoint.parts
    ]
    said: dict[str, Any] = {"scan": _hex(checkpoint.scan), "parts": parts}
    if checkpoint.targets:
        said["targets"] = [_checkpoint_json(target) for target in checkpoint.targets]
    return said


def _entry_json(entry: Entry) -> list[Any]:
    run = [entry.run.ids, _hex(entry.run.digest)]
    mark = entry.mark
    return run if mark is None else [*run, mark.offset, mark.count, list(mark.anchors)]


def _part(said: dict[str, Any]) -> Part:
    entries = []
    for ids, digest, *rest in said["entries"]:
        mark = Mark(rest[0], rest[1], tuple(rest[2])) if rest else None
        entries.append(Entry(Run(ids, int(digest, 16)), mark))
    return Part(int(said["first"], 16), tuple(entries))
