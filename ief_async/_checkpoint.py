"""What of a scan is done: small, versioned, without ids in clear or secrets. Pure.

A scan's ids come in an order, cut into batches. A checkpoint keeps that line as entries: a `Run` of
ids that is done with, or a batch that is not and the `Mark` where it goes on. A run is known by how
many ids it has and by the sum of their hashes, so that neighbours which are done join into one: the
size of a checkpoint is that of what is unfinished.

As JSON::

    {"ief_async_checkpoint": 1, "scan": "…", "parts": [{"first": "…", "entries": [
        [200, "…"],                          # ids, and their hash: done
        [100, "…", 1900, 2140, ["…", "…"]]   # read up to row 1,900 of 2,140, behind these pods
    ]}], "sum": "…"}

A part is one worker's line of ids; only a merged checkpoint has several.
"""

import json
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Self

import attrs

from ief_async._errors import CheckpointError

VERSION = 1
NAME = "ief_async_checkpoint"
MODULUS = 2**64


def fingerprint(*parts: object) -> int:
    """Return 64 bits that stand for these values."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest())


@attrs.frozen
class Run:
    """Some of a scan's ids that follow each other: how many, and the sum of their hashes."""

    ids: int = 0
    digest: int = 0

    @classmethod
    def of(cls, ids: Iterable[str]) -> Self:
        """Sum up these ids."""
        hashes = [fingerprint(identity) for identity in ids]
        return cls(len(hashes), sum(hashes) % MODULUS)

    def __add__(self, other: "Run") -> "Run":
        return Run(self.ids + other.ids, (self.digest + other.digest) % MODULUS)


@attrs.frozen
class Mark:
    """Where the reading of one batch goes on.

    Attributes:
        offset: the position behind the last row that was finished with.
        count: what the server counted then, or None.
        anchors: the ids of the last rows before `offset`; the page there has to share one.
    """

    offset: int = 0
    count: int | None = None
    anchors: tuple[str, ...] = ()


@attrs.frozen
class Entry:
    """A run of ids, and where the batch of them goes on; without a mark they are done."""

    run: Run
    mark: Mark | None = None


@attrs.frozen
class Part:
    """One worker's line of ids, known by its first one, as far as it was begun."""

    first: int
    entries: tuple[Entry, ...]


@attrs.frozen(kw_only=True)
class ScanCheckpoint:
    """What a scan's consumer has finished with: give it to ``resume_from=`` to read the rest.

    It holds no token and no pod, only hashes of the ids that were asked for and, for each batch
    that is not finished, its position and the ids of a few pods before it: a few hundred bytes.

    Attributes:
        scan: a fingerprint of what is asked: project, instance, selector, page and batch size.
        parts: for each scan that it is of, what was begun of its ids; one, unless it is merged.
        targets: of `scan_fleet`, the checkpoint of each target, in the order of the targets.
    """

    scan: int
    parts: tuple[Part, ...] = attrs.field(repr=lambda parts: f"<{len(parts)} parts>")
    targets: "tuple[ScanCheckpoint, ...]" = ()

    def to_json(self) -> str:
        """Return it as one line of JSON, to be kept anywhere."""
        said = {NAME: VERSION, **_checkpoint_json(self)}
        return json.dumps({**said, "sum": _sum(said)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            CheckpointError: it is damaged, is something else, or was written by a newer version.
        """
        version: object = VERSION
        try:
            said = json.loads(text)
            version = said.pop(NAME)
            if version == VERSION and said.pop("sum") == _sum({NAME: version, **said}):
                return cls._read(said)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            version = VERSION
        message = "the checkpoint is damaged: take an older one, or start over"
        if version != VERSION:
            message = (
                f"the checkpoint is of version {version!r:.20}, and this release reads version "
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
        """Join the checkpoints of scans over disjoint ids that else ask for the same.

        One scan that resumes from the result takes the ids of all of them, each one's in their
        order and unbroken, one after the other in any order.

        Raises:
            CheckpointError: they ask for different things, two hold the same ids, or none is given.
        """
        if any(checkpoint.targets for checkpoint in checkpoints):
            message = "a checkpoint of scan_fleet is whole already: merge those of iter_pods alone"
            raise CheckpointError(message)
        if len({checkpoint.scan for checkpoint in checkpoints}) != 1:
            message = "only checkpoints of one project, selector, page and batch size can be merged"
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
