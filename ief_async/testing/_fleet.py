"""The fleet: which pods there are, in which order, and which of them a query matches."""

import functools
import json
import random
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, MutableSequence, Sequence
from itertools import chain
from typing import Any, get_args, overload

import attrs

from ief_async.testing._motion import Motion, Place
from ief_async.testing._pods import Kind, PodSource

_REMEMBERED_QUERIES = 4096
_KINDS: tuple[Kind, ...] = get_args(Kind)  # in the order of `PodSource.owners`


@attrs.frozen
class PodCounts:
    """How many pods there are by the id of their owner; None counts the pods that match any id."""

    nodes: Counter[str | None]
    deployments: Counter[str | None]
    running: Counter[str | None]


class _Owners(dict[int, tuple[str | None, str | None, str | None]]):
    """The owners of pods by number, each computed once. Reading a dict is faster than a call."""

    def __init__(self, source: PodSource) -> None:
        super().__init__()
        self._source = source

    def __missing__(self, number: int) -> tuple[str | None, str | None, str | None]:
        owners = self[number] = self._source.owners(number)
        return owners


class Fleet(Sequence[dict[str, Any]]):
    """Pods in the server's order, and which of them a query matches."""

    def __init__(
        self, source: PodSource, *, reverse: bool, lag: int, chance: random.Random
    ) -> None:
        self._source = source
        self._chance = chance
        numbers = range(len(source))
        self._initial_order = numbers[::-1] if reverse else numbers
        self._order: Sequence[int] = self._initial_order  # a list as soon as something moves
        # The orders that the last requests found. The newest may be the present one, unchanged.
        self._past_orders: deque[Sequence[int]] = deque([self._order], lag + 1)
        self._inserted: set[int] = set()  # since the mark
        self._owners = _Owners(source)
        self.id_of = functools.cache(source.id_of)
        self._found: dict[tuple[Kind, tuple[str, ...]], Sequence[int]] = {}
        self._counts: PodCounts | None = None

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, at: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, at: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(at, slice):
            return [self._pod(number) for number in self._order[at]]
        return self._pod(self._order[at])

    def _pod(self, number: int) -> dict[str, Any]:
        pod: dict[str, Any] = json.loads(b"".join(self._source.json_parts(number)))
        return pod

    # --- changes ---

    @property
    def numbers(self) -> Sequence[int]:
        """The pods' numbers, in the server's order."""
        return self._order

    def survivors(self) -> Iterable[int]:
        """Return the numbers of the pods that were there at the mark."""
        return (number for number in self._order if number not in self._inserted)

    def mark(self) -> None:
        """Let `survivors` start from the present pods."""
        self._inserted.clear()

    def insert(self, at: int, number: int = 1, deployment: str | None = None) -> list[int]:
        """Insert new pods at a place; return their numbers."""
        new = [self._source.create(deployment, self._chance) for _ in range(number)]
        self._changing()[at:at] = new
        self._inserted.update(new)
        return new

    def delete(self, places: Iterable[int]) -> list[int]:
        """Delete the pods at these places; return their numbers."""
        order = self._changing()
        return [order.pop(place) for place in sorted(places, reverse=True)][::-1]

    def touch(self, at: int) -> None:
        """Move the pod at a place to the head."""
        order = self._changing()
        order.insert(0, order.pop(at))

    def _changing(self) -> list[int]:
        """Return the order as a list that may be changed: no earlier request looks at it."""
        self._found.clear()
        self._counts = None
        order = self._order
        if not isinstance(order, list) or self._past_orders[-1] is order:
            order = self._order = list(order)
        return order

    def move(self, motion: Motion) -> None:
        """Do what a motion says happens before one request."""
        chance = self._chance
        if chance.random() < motion.chance:
            self._burst(chance.randint(motion.least, motion.most), motion.new)
        for _ in range(min(self._draw_number(motion.deletes), len(self._order))):
            self.delete([self._draw_place(motion.at, len(self._order))])
        for _ in range(self._draw_number(motion.inserts)):
            self.insert(self._draw_place(motion.at, len(self._order) + 1))
        for _ in range(min(self._draw_number(motion.touches), len(self._order))):
            self.touch(chance.randrange(len(self._order)))

    def _burst(self, number: int, new: Place | None) -> None:
        number = min(number, len(self._order))
        if new is None:
            first = self._chance.randrange(len(self._order) - number + 1)
            self.delete(range(first, first + number))
            return
        for gone in self.delete(self._chance.sample(range(len(self._order)), number)):
            deployment, _, _ = self._owners[gone]
            self.insert(self._draw_place(new, len(self._order) + 1), deployment=deployment)

    def _draw_number(self, rate: float) -> int:
        return int(rate) + (self._chance.random() < rate % 1)

    def _draw_place(self, where: Place, places: int) -> int:
        match where:
            case "head":
                return 0
            case "tail":
                return places - 1
            case "anywhere":
                return self._chance.randrange(places)

    # --- queries ---

    def counts(self) -> PodCounts:
        """Count the present pods."""
        if self._counts is None:
            owners, is_running = self._source.owners, self._source.is_running
            pods = [(*owners(number), is_running(number)) for number in self._order]
            self._counts = PodCounts(
                Counter(node for _, node, _, _ in pods),
                Counter(deployment for deployment, _, _, _ in pods),
                Counter(deployment for deployment, _, _, running in pods if running),
            )
        return self._counts

    def lagging_order(self, chance: random.Random) -> Sequence[int]:
        """Return the order as this request or one of the last ones found it."""
        if self._past_orders.maxlen == 1:
            return self._order
        self._past_orders.append(self._order)
        return chance.choice(self._past_orders)

    def matching(self, kind: Kind, ids: tuple[str, ...], order: Sequence[int]) -> Sequence[int]:
        """Return the numbers of these ids' pods, in the present order or a past one."""
        if order is not self._order:
            return self._select(kind, {None, *ids}, order)
        found = self._found.get((kind, ids))
        if found is None:
            if len(self._found) >= _REMEMBERED_QUERIES:
                self._found.clear()
            found = self._found[kind, ids] = self._select(kind, {None, *ids}, order)
        return found

    def _select(self, kind: Kind, ids: set[str | None], order: Sequence[int]) -> Sequence[int]:
        if order is not self._initial_order:
            owners, which = self._owners, _KINDS.index(kind)
            return [number for number in order if owners[number][which] in ids]
        places = [self._index[kind, one] for one in ids if (kind, one) in self._index]
        merged = places[0] if len(places) == 1 else sorted(chain(*places))
        return array("l", [order[place] for place in merged])

    @functools.cached_property
    def _index(self) -> dict[tuple[Kind, str | None], MutableSequence[int]]:
        """The places of the pods in the initial order, by owner."""
        index: dict[tuple[Kind, str | None], MutableSequence[int]] = defaultdict(lambda: array("l"))
        for place, number in enumerate(self._initial_order):
            deployment, node, group = self._source.owners(number)
            index["deployment", deployment].append(place)
            index["node", node].append(place)
            index["group", group].append(place)
        return dict(index)

    def page(self, numbers: Iterable[int], total: int | str | None) -> bytes:
        """Return the JSON of a page with these pods and this count."""
        count = b"" if total is None else b'"count":%b,' % json.dumps(total).encode()
        parts = [part for number in numbers for part in (*self._source.json_parts(number), b",")]
        return b'{%b"pods":[%b]}' % (count, b"".join(parts[:-1]))
