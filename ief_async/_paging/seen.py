"""A set of ids: fast while it is small, small when it is large. Pure."""

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence

MOST_FAST = 100_000  # ids; the set of them takes ten megabytes
HASH_BYTES = 48  # of an integer of 64 bits in CPython, rounded up as its allocator does
LEAST_PLACES = 1 << 18  # of a table
MOST_FULL = 0.6  # of its places; to look for an empty one takes long beyond that
MOST_EXPECTED = 300_000  # ids; a server may count as many as it likes


class IdSet:
    """A set of ids that keeps 64 bits of the hash of each.

    Two of a million ids are taken for one once in thirty million scans. Up to a hundred thousand
    ids are in a `set`, which takes 70 to 150 bytes an id. More are in a table, which takes 14 to 27
    bytes an id, and three times as long.
    """

    def __init__(self) -> None:
        self._few: set[int] = set()
        self._many: _Table | None = None

    def expect(self, ids: int) -> None:
        """Make room for that many ids, as it takes long to make it later."""
        if ids > MOST_FAST:
            self._table().expect(min(ids, MOST_EXPECTED))

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        if self._many is not None:
            return self._many.nbytes
        return sys.getsizeof(self._few) + HASH_BYTES * len(self._few)

    def __len__(self) -> int:
        return len(self._few) if self._many is None else len(self._many)

    def isdisjoint(self, ids: Sequence[str]) -> bool:
        """Tell whether it holds none of them."""
        if self._many is not None:
            return not any(self._many.contains(map(hash, ids)))
        return self._few.isdisjoint(map(hash, ids))

    def issuperset(self, ids: Sequence[str]) -> bool:
        """Tell whether it holds all of them."""
        if self._many is not None:
            return all(self._many.contains(map(hash, ids)))
        return self._few.issuperset(map(hash, ids))

    def add(self, ids: Sequence[str]) -> bool:
        """Add these ids if none is there and none comes twice; else return False, and add none."""
        hashes = list(map(hash, ids))
        if self._many is not None:
            return self._many.add(hashes)
        few = self._few
        if not few.isdisjoint(hashes):
            return False
        before = len(few)
        few.update(hashes)
        if len(few) < before + len(hashes):
            few.difference_update(hashes)
            return False
        if len(few) > MOST_FAST:
            self._table()
        return True

    def update(self, ids: Iterable[str]) -> None:
        """Add those that are not there."""
        for identity in ids:
            self.add([identity])

    def _table(self) -> "_Table":
        """Return the table, which takes the place of the set from now on."""
        if self._many is None:
            self._many = _Table()
            self._many.add(self._few)
            self._few = set()
        return self._many


class _Table:
    """Hashes in one array: each at the place that its last bits name, or the next empty one.

    0 marks an empty place. An id whose hash is 0 is not stored; one in 10**19 is.
    """

    def __init__(self) -> None:
        self._places = array("q", bytes(8 * LEAST_PLACES))
        self._len = 0

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return self._places.itemsize * len(self._places)

    def __len__(self) -> int:
        return self._len

    def expect(self, hashes: int) -> None:
        """Have places for that many hashes."""
        size = len(self._places)
        while size * MOST_FULL < hashes:
            size *= 2
        if size > len(self._places):
            self._resize(size)

    def contains(self, hashes: Iterable[int]) -> Iterator[bool]:
        """Give for each hash whether it is there."""
        places, last = self._places, len(self._places) - 1
        for number in hashes:
            at = number & last
            while (held := places[at]) and held != number:
                at = (at + 1) & last
            yield held == number

    def add(self, hashes: Iterable[int]) -> bool:
        """Add these hashes if none is there and none comes twice; else return False, add none."""
        places, last = self._places, len(self._places) - 1
        added: list[int] = []
        for number in hashes:
            at = number & last
            while held := places[at]:
                if held == number:
                    for one in added:
                        places[one] = 0
                    return False
                at = (at + 1) & last
            places[at] = number
            added.append(at)
        self._len += len(added)
        self.expect(self._len)
        return True

    def _resize(self, size: int) -> None:
        places, last = array("q", bytes(8 * size)), size - 1
        for number in filter(None, self._places):
            at = number & last
            while places[at]:
                at = (at + 1) & last
            places[at] = number
        self._places = places
