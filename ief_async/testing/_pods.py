"""Where pods come from: made from a seed, or given by a test. Each one has a number."""

import hashlib
import json
import random
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from itertools import count, cycle
from typing import Any, Literal, Protocol

import attrs

Kind = Literal["deployment", "node", "group"]

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # the letters of suffixes in Kubernetes
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_DAYS = [str(date(2023, 1, 1) + timedelta(days)) for days in range(366)]
_TIMES = [f"{n % 24:02d}:{n * 7 % 60:02d}:{n % 60:02d}.{n:03d}Z" for n in range(997)]
# Odd, so it has no common factor with a power of two: no two pods get the same id.
STRIDE = 0x9E3779B97F4A7C15F39CC0605CEDC835
ID_MASK = (1 << 128) - 1
# The same for suffixes of five letters.
_SUFFIXES = len(_ALPHABET) ** 5
_SUFFIX_STRIDE = 7_368_787
_RARE_STATES = (
    "PENDING SUCCEEDED FAILED CREATE_FAIL TERMINATING PENDING_DELETE DELETE_FAILED FREEZE UNKNOWN"
)
# A prime length, so that it has no common factor with the number of deployments or nodes.
_STATES = [state for rare in _RARE_STATES.split() for state in (rare, *["RUNNING"] * 10)][:97]
_COMPLETE_EVERY, _COMPLETE_FIRST = 19, 7

# The example of the documentation, then every field that its tables and the SDKs know besides.
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
_COMPLETE_CONTAINER: dict[str, Any] = _CONTAINER | json.loads("""{
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
_PREFERRED, _REQUIRED = (
    f"{word}DuringSchedulingIgnoredDuringExecution" for word in ("preferred", "required")
)
_POD_AFFINITY = {_PREFERRED: [{"weight": 50, "podAffinityTerm": _TERM}], _REQUIRED: [_TERM]}
_CONFIGS = {
    "host_network": True,
    "host_pid": True,
    "migration": True,
    "restart_policy": "Always",
    "toleration_seconds": 300,
}
DOCUMENTED = {
    "description": "this is a test pod",
    "configs": _CONFIGS,
    "containers": [_CONTAINER],
}
COMPLETE = {
    "description": "边缘应用",
    "configs": _CONFIGS | {"dns_policy": "ClusterFirstWithHostNet"},
    "affinity": {
        "nodeAffinity": {
            _PREFERRED: [{"weight": 1, "preference": _EXPRESSIONS}],
            _REQUIRED: {"nodeSelectorTerms": [_EXPRESSIONS]},
        },
        "podAffinity": _POD_AFFINITY,
        "podAntiAffinity": _POD_AFFINITY,
    },
    "init_containers": [_COMPLETE_CONTAINER | {"name": "init-0", "state": "terminated"}],
    "containers": [_CONTAINER, _COMPLETE_CONTAINER],
}


def to_json(value: object) -> bytes:
    """Return compact JSON in UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def uuid_of(*parts: object) -> str:
    """Return a UUID that depends on nothing but these parts."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4))


def fraction_of(*parts: object) -> float:
    """Return a number from 0 up to 1 that depends on nothing but these parts."""
    return int(uuid_of(*parts)[:8], 16) / (1 << 32)


@attrs.frozen
class Ids:
    """The ids of the fleet's deployments, nodes and groups, by kind."""

    deployment: tuple[str, ...]
    node: tuple[str, ...]
    group: tuple[str, ...]

    def of(self, kind: Kind) -> tuple[str, ...]:
        """Return the ids of one kind."""
        ids: tuple[str, ...] = getattr(self, kind)
        return ids


class PodSource(Protocol):
    """Makes pods by number."""

    def __len__(self) -> int:
        """Return how many pods there are at the start; their numbers are below this."""
        ...

    def json_parts(self, number: int) -> Iterable[bytes]:
        """Return the pod's JSON in parts; what pods have in common is always the same object."""

    def owners(self, number: int) -> tuple[str | None, str | None, str | None]:
        """Return the ids of the pod's deployment, node and group; None matches any id."""

    def id_of(self, number: int) -> str:
        """Return the pod's id."""

    def is_running(self, number: int) -> bool:
        """Return whether the pod's state is RUNNING."""

    def create(self, deployment: str | None, chance: random.Random) -> int:
        """Create a pod of this deployment, or of a drawn one; return its number."""


class SeededPods:
    """Pods made on demand from a seed: a fleet of any size costs nothing until it is read."""

    def __init__(self, size: int, seed: int, project_id: str, ids: Ids) -> None:
        self._size = size
        self._rounds = count(-(-size // len(ids.deployment)))
        self._salt = int(uuid_of(seed, "pod").replace("-", ""), 16)
        self._first_state = self._salt % len(_STATES)
        self._ids = ids
        self._names = [
            f"app-{n}-{uuid_of(seed, 'set', n).replace('-', '')[:10]}"
            for n in range(len(ids.deployment))
        ]
        shapes = (DOCUMENTED, COMPLETE)
        self._middles = [b"," + to_json(shape)[1:-1] + b',"node_id":"' for shape in shapes]
        self._nodes = [identity.encode() for identity in ids.node]
        rest = f'"project_id":{json.dumps(project_id)},"reason":"","message":"","created_at":"'
        self._deployments = [f'","deployment_id":"{n}",{rest}'.encode() for n in ids.deployment]

    def __len__(self) -> int:
        return self._size

    def json_parts(self, number: int) -> tuple[bytes, ...]:
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
            self._middles[number % _COMPLETE_EVERY == _COMPLETE_FIRST],
            b"" if state == "PENDING" else self._nodes[node],
            self._deployments[which],
            f'{_DAYS[day]}T{time}","updated_at":"{_DAYS[day + 1]}T{time}",'
            f'"state":"{state}"}}'.encode(),
        )

    def owners(self, number: int) -> tuple[str, str, str]:
        deployments, nodes, groups = self._ids.deployment, self._ids.node, self._ids.group
        node = number % len(nodes)
        return (
            deployments[number % len(deployments)],
            "" if self._state(number) == "PENDING" else nodes[node],
            groups[node % len(groups)],
        )

    def id_of(self, number: int) -> str:
        return self.json_parts(number)[0][7:43].decode()  # behind `{"id":"`

    def is_running(self, number: int) -> bool:
        return self._state(number) == "RUNNING"

    def _state(self, number: int) -> str:
        return _STATES[(number + self._first_state) % len(_STATES)]

    def create(self, deployment: str | None, chance: random.Random) -> int:
        # A number's remainder decides on the deployment; a new multiple makes a new pod.
        known = self._ids.deployment
        which = chance.randrange(len(known)) if deployment is None else known.index(deployment)
        return next(self._rounds) * len(known) + which


class GivenPods:
    """Pods that a test wrote down, served as they are, however odd."""

    def __init__(self, pods: Sequence[object], groups: Mapping[str, str]) -> None:
        self._bodies = [self._body(pod) for pod in pods]
        self._pods = [pod if isinstance(pod, Mapping) else {} for pod in pods]
        self._groups = groups

    @staticmethod
    def _body(pod: object) -> bytes:
        # Plain ASCII, so that even half a surrogate can be served.
        return json.dumps(pod, separators=(",", ":"), default=dict).encode()

    def __len__(self) -> int:
        return len(self._bodies)

    def json_parts(self, number: int) -> Iterable[bytes]:
        return (self._bodies[number],)

    def owners(self, number: int) -> tuple[str | None, str | None, str | None]:
        pod = self._pods[number]
        node = pod.get("node_id")
        return pod.get("deployment_id"), node, self._groups.get(str(node))

    def id_of(self, number: int) -> str:
        return str(self._pods[number].get("id"))

    def is_running(self, number: int) -> bool:
        return self._pods[number].get("state") == "RUNNING"

    def create(self, deployment: str | None, chance: random.Random) -> int:
        number = len(self._bodies)
        copied = chance.choice(self._pods) if self._pods else {}
        owner = {} if deployment is None else {"deployment_id": deployment}
        self._pods.append({**copied, "id": uuid_of("another", number), **owner})
        self._bodies.append(self._body(self._pods[number]))
        return number


def mappings(pods: Iterable[object]) -> list[Mapping[str, Any]]:
    """Return the given pods that are JSON objects."""
    return [pod for pod in pods if isinstance(pod, Mapping)]


def nodes_by_deployment(pods: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the ids of the nodes on which each deployment's pods are."""
    nodes: dict[str, dict[str, None]] = {}
    for pod in pods:
        if pod.get("deployment_id"):
            known = nodes.setdefault(pod["deployment_id"], {})
            if pod.get("node_id"):
                known[pod["node_id"]] = None
    return {identity: [*known] for identity, known in nodes.items()}


def make_pods(
    pods: int | Sequence[Mapping[str, Any]], seed: int, project_id: str, ids: Ids
) -> tuple[PodSource, Ids]:
    """Return the source of the pods, and the ids: given pods bring deployments and nodes along."""
    if isinstance(pods, int):
        return SeededPods(pods, seed, project_id, ids), ids
    given = mappings(pods)
    deployments = _values(given, "deployment_id") or ids.deployment
    nodes = _values(given, "node_id") or ids.node
    groups = dict(zip(nodes, cycle(ids.group), strict=False))
    return GivenPods(pods, groups), Ids(deployments, nodes, ids.group)


def _values(pods: Iterable[Mapping[str, Any]], key: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(pod[key] for pod in pods if pod.get(key)))
