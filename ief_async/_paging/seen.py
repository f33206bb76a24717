"""The ids that a batch has brought so far, in sixteen bytes each. Pure: no I/O at all."""

import struct
import sys
from collections.abc import Iterable, Sequence

KEY_BYTES = 8
FULL = 8  # keys on a shelf, on average: a few hundred bytes are searched faster than found
GROWTH = 4
MOST_EXPECTED = 1_000_000
SHELF_BYTES = 8 + sys.getsizeof(b"") + 7  # its place, its header, and what it is rounded up by


class IdSet:
    """A set of ids that keeps 64 bits of the hash of each: an eighth of what a set of texts takes.

    Two of a million ids are taken for one once in thirty million scans.
    """

    def __init__(self) -> None:
        self._shelves = [b""] * FULL
        self._len = 0

    def expect(self, ids: int) -> None:
        """Make room for so many, as to make it later takes long; nothing comes of it but that."""
        size = len(self._shelves)
        while size * FULL < min(ids, MOST_EXPECTED):
            size *= 2
        if size > len(self._shelves):
            self._spread(size)

    @property
    def nbytes(self) -> int:
        """What it takes: the keys, and a header for each shelf of them."""
        return self._len * KEY_BYTES + len(self._shelves) * SHELF_BYTES

    def __len__(self) -> int:
        return self._len

    def _places(self, ids: Sequence[str]) -> list[tuple[int, bytes]]:
        """Return for each id its shelf and its key."""
        hashes = list(map(hash, ids))
        packed = struct.pack(f"<{len(hashes)}q", *hashes)
        last = len(self._shelves) - 1
        return [
            (number & last, packed[at : at + KEY_BYTES])
            for number, at in zip(hashes, range(0, len(packed), KEY_BYTES), strict=True)
        ]

    def isdisjoint(self, ids: Sequence[str]) -> bool:
        """Tell whether none of them is there."""
        return not any(key in self._shelves[shelf] for shelf, key in self._places(ids))

    def issuperset(self, ids: Sequence[str]) -> bool:
        """Tell whether all of them are there."""
        return all(key in self._shelves[shelf] for shelf, key in self._places(ids))

    def add(self, ids: Sequence[str]) -> bool:
        """Add ids of which none is there, and none comes twice; else tell so, and add none."""
        shelves = self._shelves
        places = self._places(ids)
        for done, (shelf, key) in enumerate(places):
            if key in shelves[shelf]:
                for at, _ in reversed(places[:done]):
                    shelves[at] = shelves[at][:-KEY_BYTES]
                return False
            shelves[shelf] += key
        self._len += len(ids)
        if self._len > FULL * len(shelves):
            self._spread(GROWTH * len(shelves))
        return True

    def update(self, ids: Iterable[str]) -> None:
        """Add those that are not there."""
        for identity in ids:
            self.add([identity])

    def _spread(self, size: int) -> None:
        """Put what is there on so many shelves."""
        shelves = [b""] * size
        for held in self._shelves:
            for (number,) in struct.iter_unpack("<q", held):
                shelves[number & (size - 1)] += number.to_bytes(KEY_BYTES, "little", signed=True)
        self._shelves = shelves
