"""The pods: made from a seed or given, moving or still, and which of them a query matches."""

import functools
import hashlib
import json
import random
import uuid
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence
from datetime import date, timedelta
from itertools import chain, count
from typing import Any, Literal, Protocol, Self, TypeVar, get_args, overload

import attrs

Place = Literal["anywhere", "head", "tail"]
Kind = Literal["deployment", "node", "group"]

_REMEMBERED_QUERIES = 4096
_KINDS: tuple[Kind, ...] = get_args(Kind)  # in the order of `Pods.belongs`
_T = TypeVar("_T")

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # what Kubernetes makes its suffixes of
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_DAYS = [str(date(2023, 1, 1) + timedelta(days)) for days in range(366)]
_TIMES = [f"{n % 24:02d}:{n * 7 % 60:02d}:{n % 60:02d}.{n:03d}Z" for n in range(997)]
# Odd, hence without a common factor with a power of two: no two pods get the same id.
STRIDE = 0x9E3779B97F4A7C15F39CC0605CEDC835
ID_MASK = (1 << 128) - 1
# Likewise for the suffixes of five letters.
_SUFFIXES = len(_ALPHABET) ** 5
_SUFFIX_STRIDE = 7_368_787
_RARE_STATES = (
    "PENDING SUCCEEDED FAILED CREATE_FAIL TERMINATING PENDING_DELETE DELETE_FAILED FREEZE UNKNOWN"
)
# Prime lengths, so that no number of deployments or nodes falls into step with them.
_STATES = [state for rare in _RARE_STATES.split() for state in (rare, *["RUNNING"] * 10)][:97]
_FULL_EVERY, _FULL_FIRST = 19, 7

# The documented example, then everything that the tables and the SDKs know besides.
_CONTAINER: dict[str, Any] = json.loads("""{
    "args": ["-c", "sleep 1000"], "command": ["/bin/bash"], "name": "container-0",
    "envs": [{"name": "CERT_PATH", "value": "/opt/cert"}], "image_url": "", "npu_type": "",
    "liveness_probe": {"http_get": {"path": "/", "port": 80, "scheme": "http"},
        "initial_delay_seconds": 10, "timeout_seconds": 10},
    "readiness_probe": {"http_get": {"path": "/", "port": 80, "scheme": "http"},
        "initial_delay_seconds": 10, "timeout_seconds": 10},
    "ports": [{"container_port": 80, "host_port": 80}],
    "resources": {"limits": {"cpu": 0.25, "memory": 500, "gpu": 500},
        "requests": {"cpu": 0.25, "memory": 500, "gpu": 500}},
    "volumes": [{"name": "log-volume", "type": "hostPath", "read_only": false,
        "source": "/var/IEF", "destination": "/var/IEF"}],
    "restarts": 0, "message": "", "reason": ""
}""")
_FULL_CONTAINER: dict[str, Any] = _CONTAINER | json.loads("""{
    "name": "container-1", "image_url": "swr.example.com/edge/app", "version": "1.4.2",
    "npu_type": "D310B", "restarts": 3, "reason": "Error", "message": "exit code 1",
    "is_ready": "true", "privileged": false, "container_id": "0f1e2d3c", "state": "running",
    "envs": [{"name": "PLAIN", "value": "1"},
        {"name": "USER", "value_from": {"secret": {"name": "login", "key": "user"}}},
        {"name": "LEVEL", "value_from": {"configmap": {"name": "settings", "key": "level"}}},
        {"name": "HOST_IP", "field_path": "status.hostIP"}],
    "liveness_probe": {"http_get":
            {"path": "/live", "port": 8080, "host": "127.0.0.1", "scheme": "HTTPS"},
        "initial_delay_seconds": 1, "timeout_seconds": 3600},
    "readiness_probe": {"exec": {"command": "test -f /ready"},
        "initial_delay_seconds": 10, "timeout_seconds": 1},
    "ports": [{"container_port": 8080, "host_port": 18080, "host_ip": "192.0.2.7"},
        {"container_port": 9090, "host_port_range": {"min_port": 20000, "max_port": 20100}}],
    "resources": {
        "limits": {"cpu": "0.25", "memory": "500", "npu": "1", "D310": "1", "D310B": 1},
        "requests": {"cpu": "0.25", "memory": "500", "gpu": "500", "npu": "1", "D910": "1"}},
    "volumes": [
        {"name": "settings", "type": "configMap", "read_only": true, "source": "settings",
            "destination": "/etc/app", "default_mode": 420},
        {"name": "login", "type": "secret", "read_only": true, "source": "login",
            "destination": "/etc/login", "default_mode": 256},
        {"name": "cache", "type": "emptyDir", "read_only": false, "source": "memory",
            "destination": "/cache"}]
}""")
_EXPRESSIONS = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}
_TERM = {
    "labelSelector": _EXPRESSIONS | {"matchLabels": {"app": "test"}},
    "namespaces": ["default"],
    "topologyKey": "kubernetes.io/hostname",
}
_WISHED, _NEEDED = (
    f"{word}DuringSchedulingIgnoredDuringExecution" for word in ("preferred", "required")
)
_POD_AFFINITY = {_WISHED: [{"weight": 50, "podAffinityTerm": _TERM}], _NEEDED: [_TERM]}
_CONFIGS = {
    "host_network": True,
    "host_pid": True,
    "migration": True,
    "restart_policy": "Always",
    "toleration_seconds": 300,
}
PLAIN = {
    "description": "this is a test pod",
    "configs": _CONFIGS,
    "containers": [_CONTAINER],
}
FULL = {
    "description": "边缘应用",
    "configs": _CONFIGS | {"dns_policy": "ClusterFirstWithHostNet"},
    "affinity": {
        "nodeAffinity": {
            _WISHED: [{"weight": 1, "preference": _EXPRESSIONS}],
            _NEEDED: {"nodeSelectorTerms": [_EXPRESSIONS]},
        },
        "podAffinity": _POD_AFFINITY,
        "podAntiAffinity": _POD_AFFINITY,
    },
    "init_containers": [_FULL_CONTAINER | {"name": "init-0", "state": "terminated"}],
    "containers": [_CONTAINER, _FULL_CONTAINER],
}


def to_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def uuid_of(*parts: object) -> str:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4))


def lot(*parts: object) -> float:
    """Draw a share; what it is for decides on it."""
    return int(uuid_of(*parts)[:8], 16) / (1 << 32)


class Pods(Protocol):
    """Where pods come from, by number."""

    def __len__(self) -> int: ...

    def pieces(self, number: int) -> Iterable[bytes]:
        """Give the pod's JSON, in as few new bytes objects as can be."""

    def belongs(self, number: int) -> tuple[str | None, str | None, str | None]:
        """Name the pod's deployment, node and group; None stands for any."""

    def identity(self, number: int) -> str:
        """Give the pod's id."""

    def runs(self, number: int) -> bool:
        """Say whether the pod is RUNNING."""

    def another(self, deployment: str | None, chance: random.Random) -> int:
        """Give the number of a pod that never was, of this deployment or a drawn one."""


class SeededPods:
    """Pods made up on demand from a seed: a fleet of any size costs nothing until it is read."""

    def __init__(
        self, size: int, seed: int, project_id: str, ids: Mapping[Kind, Sequence[str]]
    ) -> None:
        self._size = size
        self._rounds = count(-(-size // len(ids["deployment"])))
        self._salt = int(uuid_of(seed, "pod").replace("-", ""), 16)
        self._turn = self._salt % len(_STATES)
        self._ids = ids
        self._names = [
            f"app-{n}-{uuid_of(seed, 'set', n).replace('-', '')[:10]}"
            for n in range(len(ids["deployment"]))
        ]
        self._middles = [b"," + to_json(shape)[1:-1] + b',"node_id":"' for shape in (PLAIN, FULL)]
        self._nodes = [identity.encode() for identity in ids["node"]]
        rest = f'"project_id":{json.dumps(project_id)},"reason":"","message":"","created_at":"'
        self._deployments = [f'","deployment_id":"{n}",{rest}'.encode() for n in ids["deployment"]]

    def __len__(self) -> int:
        return self._size

    def pieces(self, number: int) -> tuple[bytes, ...]:
        # What pods have in common is shared, so a page is little more than one join.
        key = f"{number * STRIDE + self._salt & ID_MASK:032x}"
        suffix = (number * _SUFFIX_STRIDE + self._salt) % _SUFFIXES
        which, node = number % len(self._deployments), number % len(self._nodes)
        day, time = number % 365, _TIMES[number % len(_TIMES)]
        state = self._state(number)
        return (
            f'{{"id":"{key[:8]}-{key[8:12]}-4{key[13:16]}-8{key[17:20]}-{key[20:]}",'
            f'"name":"{self._names[which]}-{_PAIRS[suffix % 729]}{_PAIRS[suffix // 729 % 729]}'
            f'{_ALPHABET[suffix // 531_441]}"'.encode(),
            self._middles[number % _FULL_EVERY == _FULL_FIRST],
            b"" if state == "PENDING" else self._nodes[node],
            self._deployments[which],
            f'{_DAYS[day]}T{time}","updated_at":"{_DAYS[day + 1]}T{time}",'
            f'"state":"{state}"}}'.encode(),
        )

    def belongs(self, number: int) -> tuple[str, str, str]:
        deployments, nodes, groups = self._ids.values()
        node = number % len(nodes)
        return (
            deployments[number % len(deployments)],
            "" if self._state(number) == "PENDING" else nodes[node],
            groups[node % len(groups)],
        )

    def identity(self, number: int) -> str:
        return self.pieces(number)[0][7:43].decode()  # behind `{"id":"`

    def runs(self, number: int) -> bool:
        return self._state(number) == "RUNNING"

    def _state(self, number: int) -> str:
        return _STATES[(number + self._turn) % len(_STATES)]

    def another(self, deployment: str | None, chance: random.Random) -> int:
        # The remainder decides on the deployment, a new round each time on everything else.
        known = self._ids["deployment"]
        which = chance.randrange(len(known)) if deployment is None else known.index(deployment)
        return next(self._rounds) * len(known) + which


class GivenPods:
    """Pods that a test wrote down, served as they are, however odd."""

    def __init__(self, pods: Sequence[Mapping[str, Any]], groups: Mapping[str, str]) -> None:
        self._bodies = [self._body(pod) for pod in pods]
        self._pods = [pod if isinstance(pod, Mapping) else {} for pod in pods]
        self._groups = groups

    @staticmethod
    def _body(pod: object) -> bytes:
        # Plain ASCII, so that even half a surrogate can be served.
        return json.dumps(pod, separators=(",", ":"), default=dict).encode()

    def __len__(self) -> int:
        return len(self._bodies)

    def pieces(self, number: int) -> Iterable[bytes]:
        return (self._bodies[number],)

    def belongs(self, number: int) -> tuple[str | None, str | None, str | None]:
        pod = self._pods[number]
        node = pod.get("node_id")
        return pod.get("deployment_id"), node, self._groups.get(str(node))

    def identity(self, number: int) -> str:
        return str(self._pods[number].get("id"))

    def runs(self, number: int) -> bool:
        return self._pods[number].get("state") == "RUNNING"

    def another(self, deployment: str | None, chance: random.Random) -> int:
        number = len(self._bodies)
        given = chance.choice(self._pods) if self._pods else {}
        home = {} if deployment is None else {"deployment_id": deployment}
        self._pods.append({**given, "id": uuid_of("another", number), **home})
        self._bodies.append(self._body(self._pods[number]))
        return number


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
