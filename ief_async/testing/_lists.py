"""What a fleet has besides pods: deployments, nodes, groups and instances, as documents.

Everything fits the pods, and follows from the seed. Each kind writes its times in another of the
forms that are known, so that no reader relies on one.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol, overload

import attrs

from ief_async.testing._faults import RefusedError
from ief_async.testing._fleet import Fleet
from ief_async.testing._pods import FULL, PLAIN, lot, uuid_of

Document = dict[str, Any]
ListName = Literal["deployments", "nodes", "groups", "instances"]

_BEGIN = datetime(2022, 6, 7, tzinfo=UTC)
_YEAR = timedelta(days=365)
# What a deployment says of a container; the rest is known only once it runs.
_CONTAINER_KEYS = (
    *("name", "image_url", "args", "command", "resources", "envs", "ports", "privileged"),
    *("run_as_user", "readiness_probe", "liveness_probe", "version", "volumes", "npu_type"),
)
_NODE_STATES = ("RUNNING", "FAIL", "UPGRADING", "STOPPED", "UNCONNECTED")
# Of a prime length, with every second one RUNNING; FREEZE is seen, but can't be asked for.
_STATES_IN_TURN = (
    *("RUNNING", "RUNNING", "RUNNING", "UNCONNECTED", "RUNNING", "FAIL", "RUNNING", "UPGRADING"),
    *("RUNNING", "STOPPED", "FREEZE"),
)
_SORTS = {"created_at:asc": False, "created_at:desc": True}


class _Ids(Protocol):
    """What there is, and where it lives; a `FakeIef` knows."""

    project_id: str
    instance_id: str | None
    deployment_ids: tuple[str, ...]
    node_ids: tuple[str, ...]
    group_ids: tuple[str, ...]


class Documents(Sequence[Document]):
    """Documents that are made when they are looked at."""

    def __init__(self, size: int, make: Callable[[int], Document], *, backwards: bool) -> None:
        self._numbers = range(size)[::-1] if backwards else range(size)
        self._make = make

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> Document: ...

    @overload
    def __getitem__(self, at: slice) -> list[Document]: ...

    def __getitem__(self, at: int | slice) -> Document | list[Document]:
        if isinstance(at, slice):
            return [self._make(number) for number in self._numbers[at]]
        return self._make(self._numbers[at])


@attrs.frozen
class Listing:
    """How a kind of document is listed.

    Attributes:
        key: of the rows in the answer.
        documents: all there are, in the server's order.
        filters: what a query's parameter asks of a document.
        usual: the page size when a request names none; None: the server's own.
        most: the largest ``limit``, if it is known.
        count_first: whether ``count`` stands ahead of the rows.
        sorts: whether it can be sorted.
        by_instance: whether its rows belong to an instance.
    """

    key: str
    documents: Documents
    filters: Mapping[str, Callable[[Document, str], bool]] = attrs.field(factory=dict)
    usual: int | None = None
    most: int | None = None
    count_first: bool = True
    sorts: bool = True
    by_instance: bool = True

    def select(self, query: Mapping[str, str]) -> Sequence[Document]:
        """Give the documents that a query asks for."""
        asked = [(fits, query[name]) for name, fits in self.filters.items() if query.get(name)]
        rows: Sequence[Document] = self.documents
        if asked:
            rows = [row for row in rows if all(fits(row, value) for fits, value in asked)]
        if not self.sorts or not query.get("sort"):
            return rows
        if query["sort"] not in _SORTS:
            raise RefusedError(400, "IEF.100001", "The sort is out of specification")
        return sorted(rows, key=lambda row: row["created_at"], reverse=_SORTS[query["sort"]])


class Lists:
    """The documents of one fleet."""

    def __init__(
        self,
        ids: _Ids,
        fleet: Fleet,
        seed: int,
        *,
        homes: Mapping[str, Sequence[str]] | None,
        empty_nodes: int,
        instances: int,
        backwards: bool,
    ) -> None:
        self._ids = ids
        self._fleet = fleet
        self._seed = seed
        self._homes = homes
        self._node_ids = (
            *ids.node_ids,
            *(uuid_of(seed, "empty node", number) for number in range(empty_nodes)),
        )

        def documents(size: int, make: Callable[[int], Document]) -> Documents:
            return Documents(size, make, backwards=backwards)

        self.listings: dict[ListName, Listing] = {
            "deployments": Listing(
                "deployments",
                documents(len(ids.deployment_ids), self._deployment),
                {
                    "name": _has_name,
                    "node_id": lambda row, identity: identity in row["node_ids"],
                    "group_id": lambda row, identity: identity == row["group_id"],
                },
                usual=10,
                most=100,
            ),
            "nodes": Listing(
                "nodes",
                documents(len(self._node_ids), self._node),
                {
                    "name": _has_name,
                    "state": _has_state,
                    "tags": _has_tags,
                    "group_id": lambda row, identity: identity in row["group_ids"],
                    "device_id": _has_device,
                    "device_name": self._has_device_name,
                    "app_name": self._has_app,
                },
                usual=500,
                most=1000,
                count_first=False,
            ),
            "groups": Listing(
                "edge_groups", documents(len(ids.group_ids), self._group), {"name": _has_name}
            ),
            "instances": Listing(
                "ief_instances",
                documents(instances, self._instance),
                sorts=False,
                by_instance=False,
            ),
        }

    def select(self, name: ListName, query: Mapping[str, str]) -> Sequence[Document]:
        """Give the documents that a query asks for."""
        if name == "deployments" and query.get("node_id") and query.get("group_id"):
            message = "Only one of node_id and group_id can be asked for"
            raise RefusedError(400, "IEF.100001", message)
        if name == "nodes" and query.get("tags"):  # which win
            query = {key: value for key, value in query.items() if key != "app_name"}
        return self.listings[name].select(query)

    def _times(self, kind: str, number: int) -> tuple[datetime, datetime]:
        """Say when something was made and changed; no two of a kind at a time."""
        made = _BEGIN + _YEAR * lot(self._seed, kind, "made", number)
        return made, made + _YEAR * lot(self._seed, kind, "changed", number)

    # --- deployments ---

    def _homes_of(self, number: int) -> Sequence[str]:
        """Give the ids of the nodes on which a deployment's pods may be."""
        ids = self._ids
        if self._homes is not None:
            return self._homes.get(ids.deployment_ids[number], ())
        step = math.gcd(len(ids.deployment_ids), len(ids.node_ids))
        return ids.node_ids[number % step :: step]

    def _group_of(self, number: int) -> str:
        """Give the id of the group to which a deployment went; none if it went to one node."""
        homes = self._homes_of(number)
        if len(homes) <= 1:
            return ""
        return self._ids.group_ids[self._ids.node_ids.index(homes[0]) % len(self._ids.group_ids)]

    def _deployment(self, number: int) -> Document:
        identity, group_id = self._ids.deployment_ids[number], self._group_of(number)
        tally, times = self._fleet.tally(), self._times("deployment", number)
        made, changed = (f"{at:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z" for at in times)
        return {
            "id": identity,
            "name": f"app-{number}",
            "replicas": tally.deployments[identity] + tally.deployments[None],
            "ready_replicas": tally.running[identity] + tally.running[None],
            "description": "" if number % 3 else "this is a test deployment",
            "group_id": group_id,
            "node_ids": [] if group_id else [*self._homes_of(number)],
            "tags": _tags(number),
            "api_version": "v3",
            "source": "userdefine" if number % 4 == 1 else "userdefined",
            "project_id": self._ids.project_id,
            "created_at": made,
            "updated_at": changed,
            "template": _template(number),
            "state": "FREEZE" if number % 13 == 12 else "",  # noqa: PLR2004 - now and then
            "source_id": "",
            "annotations": {"ring_controller": "", "autonomy_edge_selector": "true"},
        }

    # --- nodes ---

    def _node(self, number: int) -> Document:
        identity, groups = self._node_ids[number], self._ids.group_ids
        # PENDING pods are on no node; those that name none are on each, but not on an empty one.
        tally = self._fleet.tally().nodes
        pods = tally[identity] + tally[None] if number < len(self._ids.node_ids) else 0
        made, changed = (f"{at:%Y-%m-%dT%H:%M:%S.%f}" for at in self._times("node", number))
        devices = [] if number % 3 else [uuid_of(self._seed, "device", number)]
        relation = {"relation": "camera", "comment": None if number % 2 else "at the door"}
        state = _STATES_IN_TURN[number % len(_STATES_IN_TURN)]
        gpus, npus = int(number % 4 == 1), int(number % 4 == 2)  # noqa: PLR2004 - by turns
        return {
            "id": identity,
            "name": f"node-{number}",
            "description": "边缘节点" if number % 5 == 1 else "",
            "created_at": made,
            "updated_at": changed,
            "project_id": self._ids.project_id,
            **{key: f"secret-{key}-{identity}" for key in ("private_key", "certificate")},
            "ca": None if number % 2 else f"secret-ca-{identity}",
            "state": state,
            "package": f"secret-package-{identity}",
            "master_addr": "192.0.2.1:10002",
            "cpu": (2, 4, 8)[number % 3],
            "memory": (4096, 8192, 16384)[number % 3],
            "os_name": "CentOS Linux 7",
            "os_version": "3.10.0-862.el7.x86_64",
            "pause_docker_image": "pause:3.1",
            "arch": "aarch64" if number % 2 else "x86_64",
            "os_type": "linux",
            "deployment_num": pods,
            "enable_gpu": gpus > 0,
            "log_configs": [_log_config(self._seed, number, part) for part in ("app", "system")],
            "device_infos": (
                None if number % 3 == 2 else [{**relation, "device_ids": devices}][: len(devices)]  # noqa: PLR2004
            ),
            "edged_version": "2.52.0",
            "gpu_num": gpus,
            "host_ips": [f"192.0.2.{number % 250 + 2}"],
            **relation,
            "gpu_info": [{"name": "gpu-0", "type": "nvidia", "capacity": "8192"}][:gpus],
            "device_num": len(devices),
            "enable_npu": npus > 0,
            "npu_type": "D310B" if npus else "",
            "nics": [{"interface": "eth0", "ip": f"192.0.2.{number % 250 + 2}"}],
            "host_name": f"edge-{number}",
            "ief_node_version": "2.52.0",
            "upgrade_flag": number % 7 == 3,  # noqa: PLR2004 - now and then
            "product_id": "",
            "group_ids": [groups[number % len(groups)]],
            "upgrade_history": _upgrades(number),
            "attributes": [{"key": "zone", "value": "a" if number % 2 else "b"}],
            "docker_enable": True,
            "mqtt_mode": "external" if number % 2 else "internal",
            "mqtt_external": "tcp://192.0.2.1:1883" if number % 2 else "",
            "mqtt_internal": "tcp://127.0.0.1:1883",
            "node_type": "edge" if number % 3 else None,
            "ntp_configs": {"ntp_enabled": number % 2 == 0, "ntp_servers": ["192.0.2.123"]},
            "error_reason": "disk full" if state == "FAIL" else "",
            "tags": _tags(number),
            "npu_num": npus,
            "npu_info": [
                {"name": "npu-0", "type": "D310B", "capacity": "1", "driver_version": "23.0"}
            ][:npus],
            "container_runtime_version": "docker://18.09.0",
            "identifier": f"secret-identifier-{identity}",
            "purchase_id": "",
            "state_details": {
                "register_stat": "registered",
                "purchase_stat": "",
                "purchase_error": "",
            },
            "cert_remaining_valid_time": 365 - number % 365,
        }

    def _has_device_name(self, row: Document, name: str) -> bool:
        return row["device_num"] > 0 and name == f"device-{row['name'].removeprefix('node-')}"

    def _has_app(self, row: Document, name: str) -> bool:
        number = name.removeprefix("app-")
        if name == number or not (number.isascii() and number.isdecimal()):
            return False
        known = range(len(self._ids.deployment_ids))
        return int(number) in known and row["id"] in self._homes_of(int(number))

    # --- groups and instances ---

    def _group(self, number: int) -> Document:
        identity, many = self._ids.group_ids[number], len(self._ids.group_ids)
        nodes = [self._node(one) for one in range(number, len(self._node_ids), many)]
        made, changed = (
            f"{at:%Y-%m-%dT%H:%M:%S.%f}{number % 1000:03}Z" for at in self._times("group", number)
        )
        return {
            "id": identity,
            "name": f"group-{number}",
            "description": "",
            "created_at": made,
            "updated_at": changed,
            "project_id": self._ids.project_id,
            "iam_role": "",
            **{key: sum(node[key] for node in nodes) for key in ("cpu", "memory", "gpu_num")},
            "nodes": nodes,
            "deployments": [
                self._brief(one)
                for one in range(len(self._ids.deployment_ids))
                if self._group_of(one) == identity
            ],
            "attributes": [{"key": "zone", "value": "a"}],
            "tags": _tags(number),
            "success_node_add": [node["id"] for node in nodes[:1]],
            "success_node_del": [],
            "failed_node_add": [],
            "failed_node_del": None if number % 2 else [],
        }

    def _brief(self, number: int) -> Document:
        deployment = self._deployment(number)
        keys = ("id", "name", "description", "project_id", "created_at", "updated_at")
        return {key: deployment[key] for key in keys}

    def _instance(self, number: int) -> Document:
        usual = uuid_of(self._seed, "instance", number)
        identity = self._ids.instance_id if number == 0 and self._ids.instance_id else usual
        made, changed = (
            f"{at:%Y-%m-%d %H:%M:%S.%f} +0000 UTC" for at in self._times("instance", number)
        )
        return {
            "id": identity,
            "name": f"instance-{number}",
            "domain_id": uuid_of(self._seed, "domain").replace("-", ""),
            "project_id": self._ids.project_id,
            "dimension": "50",
            "edition": "platinum",
            "version": "2.52.0",
            "cluster_id": uuid_of(self._seed, "cluster", number),
            "bandwidth": "5",
            "k8s_version": "v1.15.11",
            "access_domain": "access.example.com",
            "telemetry_domain": "telemetry.example.com",
            "access_eip": "192.0.2.1",
            "status": "available",
            "percentage": "100",
            "tasks": "",
            "created_at": made,
            "updated_at": changed,
            "node_used_count": str(len(self._node_ids)),
            "tags": "[]",
            "quota": json.dumps({"edge_node": 50}),
            "type": "charge",
            "stargate_domain": "stargate.example.com",
            "stargate_eip": "192.0.2.2",
            "cluster_az": "az1",
            "support_functions": "gpu,npu",
            "framework": "x86_64",
            "billing_mode": "0",
            "node_manage_mode": "auto",
            "sku_code": "ief.platinum.50",
            "metadata": "{}",
            "cbc_state": "",
            "cbc_node_state": "",
        }


def homes_in(pods: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Say on which nodes each deployment's pods are."""
    homes: dict[str, dict[str, None]] = {}
    for pod in pods:
        if pod.get("deployment_id"):
            known = homes.setdefault(pod["deployment_id"], {})
            known |= {node_id: None for node_id in (pod.get("node_id"),) if node_id}
    return {identity: [*known] for identity, known in homes.items()}


def _tags(number: int) -> list[dict[str, str]]:
    line = {"key": "line", "value": str(number % 3)}
    return [line, {"key": "site", "value": "v1.2"}] if number % 2 else [line]


def _template(number: int) -> Document:
    template: Document = FULL if number % 2 == 0 else PLAIN
    shape = {key: value for key, value in template.items() if key != "description"}
    for part in ("init_containers", "containers"):
        if part in shape:
            shape[part] = [
                {
                    key: container[key]
                    for key in _CONTAINER_KEYS
                    if key in (container := {"run_as_user": 1000, **one})
                }
                for one in shape[part]
            ]
    return shape


def _log_config(seed: int, number: int, component: str) -> Document:
    return {
        "id": uuid_of(seed, "log", number, component),
        "size": 50,
        "level": "info",
        "rotate_num": 5,
        "rotate_period": "daily",
        "type": "LTS",
        "component": component,
    }


def _upgrades(number: int) -> list[Document]:
    first = {
        "id": 1,
        "to_version": "2.51.0",
        "upgrade_time": 1_594_171_405,
        "result": "success",
        "dur_time": 30,
    }
    later = {"from_version": "2.51.0", "to_version": "2.52.0", "upgrade_time": 1_654_590_065}
    return [first, first | {"id": 2} | later] if number % 2 == 0 else [first]


def _has_name(row: Document, part: str) -> bool:
    return part in row["name"]


def _has_state(row: Document, state: str) -> bool:
    if state not in _NODE_STATES:
        raise RefusedError(400, "IEF.100001", "The state is out of specification")
    return bool(row["state"] == state)


def _has_tags(row: Document, tags: str) -> bool:
    pairs = [tag.partition(".") for tag in tags.split(",")]
    return all({"key": key, "value": value} in row["tags"] for key, _, value in pairs)


def _has_device(row: Document, identity: str) -> bool:
    return any(identity in info["device_ids"] for info in row["device_infos"] or ())
