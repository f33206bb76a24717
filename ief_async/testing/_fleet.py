"""The fleet: which pods there are, in which order, and which of them a query matches."""

import functools
import json
import random
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from itertools import chain
from typing import Any, Literal, Self, TypeVar, get_args, overload

import attrs

from ief_async.testing._pods import Kind, Pods

Place = Literal["anywhere", "head", "tail"]

_REMEMBERED_QUERIES = 4096
_KINDS: tuple[Kind, ...] = get_args(Kind)  # in the order of `Pods.belongs`
_T = TypeVar("_T")

_is_rate = attrs.validators.ge(0.0)
is_share = attrs.validators.and_(_is_rate, attrs.validators.le(1.0))
_is_place = attrs.validators.in_(get_args(Place))


@attrs.frozen(kw_only=True)
class Motion:
    """What happens to the server's pods before each list request is answered.

    Made by the class methods. All rates are expected numbers per request: of 2.5 inserts there
    are two, and half the time a third.

    Attributes:
        inserts: pods that come, one at a time.
        deletes: pods that go, one at a time.
        touches: pods that jump to the head.
        at: where single inserts go and single deletes hit.
        chance: how likely a request meets an upheaval.
        least: the fewest pods that go in one.
        most: the most pods that go in one.
        new: None: those that go are neighbours. Else they stand anywhere, and as many of the same
            deployments come here.
    """

    inserts: float = attrs.field(default=0.0, validator=_is_rate)
    deletes: float = attrs.field(default=0.0, validator=_is_rate)
    touches: float = attrs.field(default=0.0, validator=_is_rate)
    at: Place = attrs.field(default="anywhere", validator=_is_place)
    chance: float = attrs.field(default=0.0, validator=is_share)
    least: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    most: int = attrs.field(default=1)
    new: Place | None = attrs.field(default=None, validator=attrs.validators.optional(_is_place))

    @most.validator
    def _reaches_least(self, _: object, most: int) -> None:
        if most < self.least:
            msg = f"at most {most} pods can't be at least {self.least}"
            raise ValueError(msg)

    @classmethod
    def uniform(cls, inserts: float = 0.5, deletes: float = 0.5, *, at: Place = "anywhere") -> Self:
        """Let single pods come and go."""
        return cls(inserts=inserts, deletes=deletes, at=at)

    @classmethod
    def bursts(cls, chance: float = 0.1, least: int = 50, most: int = 300) -> Self:
        """Let neighbours vanish at once."""
        return cls(chance=chance, least=least, most=most)

    @classmethod
    def rolling(
        cls,
        chance: float = 0.1,
        least: int = 50,
        most: int = 300,
        *,
        new: Place = "tail",
        churn: float = 0.5,
    ) -> Self:
        """Replace pods that stand anywhere; besides, single ones come and go, ``churn`` in all."""
        half = churn / 2
        return cls(chance=chance, least=least, most=most, new=new, inserts=half, deletes=half)

    @classmethod
    def touch(cls, rate: float) -> Self:
        """Let pods jump to the head, as in a list that is ordered by the time of update."""
        return cls(touches=rate)


@attrs.frozen
class Tally:
    """How many pods there are, by the id of what they belong to; None: pods that belong to all."""

    nodes: Counter[str | None]
    deployments: Counter[str | None]
    running: Counter[str | None]


class Memo(dict[int, _T]):
    """What a function says of each number, which is asked once."""

    def __init__(self, function: Callable[[int], _T]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, number: int) -> _T:
        value = self[number] = self._function(number)
        return value


class Fleet(Sequence[dict[str, Any]]):
    """Pods in the server's order, and which of them a query matches."""

    def __init__(self, source: Pods, *, backwards: bool, lag: int, chance: random.Random) -> None:
        self._source = source
        self._chance = chance
        numbers = range(len(source))
        self._still = numbers[::-1] if backwards else numbers
        self._order: Sequence[int] = self._still  # a list once something moves
        # What the last requests found. The newest may be the present order, not yet changed.
        self._states: deque[Sequence[int]] = deque([self._order], lag + 1)
        self._born: set[int] = set()  # since the mark
        self._homes = Memo(source.belongs)
        self.identities = Memo(source.identity)
        self._found: dict[tuple[Kind, tuple[str, ...]], Sequence[int]] = {}
        self._tally: Tally | None = None

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
        pod: dict[str, Any] = json.loads(b"".join(self._source.pieces(number)))
        return pod

    @property
    def numbers(self) -> Sequence[int]:
        """The pods' numbers, in the server's order."""
        return self._order

    def survivors(self) -> Iterable[int]:
        """Give the numbers of the pods that are older than the mark."""
        return (number for number in self._order if number not in self._born)

    def mark(self) -> None:
        """Let no pod be new."""
        self._born.clear()

    def insert(self, at: int, number: int = 1, deployment: str | None = None) -> list[int]:
        """Put new pods at a place; give their numbers."""
        new = [self._source.another(deployment, self._chance) for _ in range(number)]
        self._changing()[at:at] = new
        self._born.update(new)
        return new

    def delete(self, places: Iterable[int]) -> list[int]:
        """Take the pods at these places away; give their numbers."""
        order = self._changing()
        return [order.pop(place) for place in sorted(places, reverse=True)][::-1]

    def touch(self, at: int) -> None:
        """Bring the pod at a place to the head."""
        order = self._changing()
        order.insert(0, order.pop(at))

    def _changing(self) -> list[int]:
        self._found.clear()
        self._tally = None
        order = self._order
        if not isinstance(order, list) or self._states[-1] is order:
            order = self._order = list(order)
        return order

    def move(self, motion: Motion) -> None:
        """Do what happens ahead of one request."""
        chance = self._chance
        if chance.random() < motion.chance:
            self._upheave(chance.randint(motion.least, motion.most), motion.new)
        for _ in range(min(self._times(motion.deletes), len(self._order))):
            self.delete([self._spot(motion.at, len(self._order))])
        for _ in range(self._times(motion.inserts)):
            self.insert(self._spot(motion.at, len(self._order) + 1))
        for _ in range(min(self._times(motion.touches), len(self._order))):
            self.touch(chance.randrange(len(self._order)))

    def _upheave(self, number: int, new: Place | None) -> None:
        number = min(number, len(self._order))
        if new is None:
            first = self._chance.randrange(len(self._order) - number + 1)
            self.delete(range(first, first + number))
            return
        for gone in self.delete(self._chance.sample(range(len(self._order)), number)):
            deployment, _, _ = self._homes[gone]
            self.insert(self._spot(new, len(self._order) + 1), deployment=deployment)

    def _times(self, rate: float) -> int:
        return int(rate) + (self._chance.random() < rate % 1)

    def _spot(self, where: Place, places: int) -> int:
        match where:
            case "head":
                return 0
            case "tail":
                return places - 1
            case "anywhere":
                return self._chance.randrange(places)

    def tally(self) -> Tally:
        """Count the present pods."""
        if self._tally is None:
            belongs, runs = self._source.belongs, self._source.runs
            homes = [(*belongs(number), runs(number)) for number in self._order]
            self._tally = Tally(
                Counter(node for _, node, _, _ in homes),
                Counter(deployment for deployment, _, _, _ in homes),
                Counter(deployment for deployment, _, _, running in homes if running),
            )
        return self._tally

    def recall(self, chance: random.Random) -> Sequence[int]:
        """Give the order as one of the last requests found it, this one among them."""
        if self._states.maxlen == 1:
            return self._order
        self._states.append(self._order)
        return chance.choice(self._states)

    def matching(self, kind: Kind, ids: tuple[str, ...], order: Sequence[int]) -> Sequence[int]:
        """Give the numbers of these ids' pods, in the present order or a past one."""
        if order is not self._order:
            return self._select(kind, {None, *ids}, order)
        found = self._found.get((kind, ids))
        if found is None:
            if len(self._found) >= _REMEMBERED_QUERIES:
                self._found.clear()
            found = self._found[kind, ids] = self._select(kind, {None, *ids}, order)
        return found

    def _select(self, kind: Kind, ids: set[str | None], order: Sequence[int]) -> Sequence[int]:
        if order is not self._still:
            homes, which = self._homes, _KINDS.index(kind)
            return [number for number in order if homes[number][which] in ids]
        rows = [self._index[kind, one] for one in ids if (kind, one) in self._index]
        places = rows[0] if len(rows) == 1 else sorted(chain(*rows))
        return array("l", [order[place] for place in places])

    @functools.cached_property
    def _index(self) -> dict[tuple[Kind, str | None], MutableSequence[int]]:
        index: dict[tuple[Kind, str | None], MutableSequence[int]] = defaultdict(lambda: array("l"))
        for place, number in enumerate(self._still):
            deployment, node, group = self._source.belongs(number)
            index["deployment", deployment].append(place)
            index["node", node].append(place)
            index["group", group].append(place)
        return dict(index)

    def page(self, numbers: Iterable[int], total: int | str | None) -> bytes:
        head = b"" if total is None else b'"count":%b,' % json.dumps(total).encode()
        pieces = [piece for number in numbers for piece in (*self._source.pieces(number), b",")]
        return b'{%b"pods":[%b]}' % (head, b"".join(pieces[:-1]))
