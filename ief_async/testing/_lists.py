"""The lists besides that of pods: deployments, nodes, groups and instances, as documents.

All documents agree with the pods and follow from the seed. Each list writes its times in another
one of the known formats, so that no client can rely on one.

A new list is a row in `Lists.__init__` and a method that makes one of its documents.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, overload

import attrs

from ief_async.testing._answers import RefusedError
from ief_async.testing._fleet import Fleet
from ief_async.testing._pods import COMPLETE, DOCUMENTED, Ids, fraction_of, uuid_of
from ief_async.testing._settings import Settings

Document = dict[str, Any]

_BEGIN = datetime(2022, 6, 7, tzinfo=UTC)
_YEAR = timedelta(days=365)
# What a deployment knows of a container; the rest is known only when it runs.
_CONTAINER_KEYS = (
    *("name", "image_url", "args", "command", "resources", "envs", "ports", "privileged"),
    *("run_as_user", "readiness_probe", "liveness_probe", "version", "volumes", "npu_type"),
)
_NODE_STATES = ("RUNNING", "FAIL", "UPGRADING", "STOPPED", "UNCONNECTED")
# A prime length, half of it RUNNING. FREEZE occurs, though a query can't ask for it.
_STATES_BY_NUMBER = (
    *("RUNNING", "RUNNING", "RUNNING", "UNCONNECTED", "RUNNING", "FAIL", "RUNNING", "UPGRADING"),
    *("RUNNING", "STOPPED", "FREEZE"),
)
_SORTS = {"created_at:asc": False, "created_at:desc": True}


class Documents(Sequence[Document]):
    """Documents that are made when they are read."""

    def __init__(self, size: int, make: Callable[[int], Document], *, reverse: bool) -> None:
        self._numbers = range(size)[::-1] if reverse else range(size)
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


Filter = Callable[[Document, str], bool]


@attrs.frozen
class DocumentList:
    """One list: where it is, which documents it has, and how they can be asked for.

    Attributes:
        path: The version and name in its URL.
        key: The key of its documents in an answer.
        documents: All documents, in the server's order.
        filters: The parameters that select documents, and what each one asks of a document.
        exclusive: Parameters that may not be used together.
        ignored: Parameters that are ignored if another one is given: the name of each one, and
            that of the other.
        default_limit: The page size of a request without ``limit``; None means that of `Service`.
        max_limit: The largest ``limit``, if there is one.
        count_first: Whether ``count`` precedes the documents in an answer.
        can_sort: Whether the parameter ``sort`` is known.
        by_instance: Whether its documents belong to an instance.
    """

    path: str
    key: str
    documents: Documents
    filters: Mapping[str, Filter] = attrs.field(factory=dict)
    exclusive: tuple[str, ...] = ()
    ignored: Mapping[str, str] = attrs.field(factory=dict)
    default_limit: int | None = None
    max_limit: int | None = None
    count_first: bool = True
    can_sort: bool = True
    by_instance: bool = True

    def select(self, query: Mapping[str, str]) -> Sequence[Document]:
        """Return the documents that a query asks for."""
        if self.exclusive and all(query.get(name) for name in self.exclusive):
            message = f"Only one of {' and '.join(self.exclusive)} can be asked for"
            raise RefusedError(400, "IEF.100001", message)
        asked = [
            (fits, query[name])
            for name, fits in self.filters.items()
            if query.get(name) and not query.get(self.ignored.get(name, ""))
        ]
        rows: Sequence[Document] = self.documents
        if asked:
            rows = [row for row in rows if all(fits(row, value) for fits, value in asked)]
        if not self.can_sort or not query.get("sort"):
            return rows
        if query["sort"] not in _SORTS:
            raise RefusedError(400, "IEF.100001", "The sort is out of specification")
        return sorted(rows, key=lambda row: row["created_at"], reverse=_SORTS[query["sort"]])


class Lists:
    """The documents of one fleet, in lists."""

    def __init__(
        self,
        settings: Settings,
        ids: Ids,
        fleet: Fleet,
        seed: int,
        *,
        nodes_of: Mapping[str, Sequence[str]] | None,
        empty_nodes: int,
        instances: int,
    ) -> None:
        self._settings = settings
        self._ids = ids
        self._fleet = fleet
        self._seed = seed
        self._nodes_by_deployment = nodes_of
        self._node_ids = (
            *ids.node,
            *(uuid_of(seed, "empty node", number) for number in range(empty_nodes)),
        )
        reverse = settings.service.order == "reversed"

        def documents(size: int, make: Callable[[int], Document]) -> Documents:
            return Documents(size, make, reverse=reverse)

        lists = (
            DocumentList(
                "v3/deployments",
                "deployments",
                documents(len(ids.deployment), self._deployment),
                {
                    "name": _has_name,
                    "node_id": lambda row, identity: identity in row["node_ids"],
                    "group_id": lambda row, identity: identity == row["group_id"],
                },
                exclusive=("node_id", "group_id"),
                default_limit=10,
                max_limit=100,
            ),
            DocumentList(
                "v2/nodes",
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
                ignored={"app_name": "tags"},
                default_limit=500,
                max_limit=1000,
                count_first=False,
            ),
            DocumentList(
                "v2/groups",
                "edge_groups",
                documents(len(ids.group), self._group),
                {"name": _has_name},
            ),
            DocumentList(
                "v2/ief-instances",
                "ief_instances",
                documents(instances, self._instance),
                can_sort=False,
                by_instance=False,
            ),
        )
        self.by_path = {one.path: one for one in lists}

    def _times(self, kind: str, number: int) -> tuple[datetime, datetime]:
        """Return when a document was made and changed; no two of a kind are made at once."""
        made = _BEGIN + _YEAR * fraction_of(self._seed, kind, "made", number)
        return made, made + _YEAR * fraction_of(self._seed, kind, "changed", number)

    # --- deployments ---

    def _nodes_of(self, number: int) -> Sequence[str]:
        """Return the ids of the nodes on which a deployment's pods may be."""
        ids = self._ids
        if self._nodes_by_deployment is not None:
            return self._nodes_by_deployment.get(ids.deployment[number], ())
        step = math.gcd(len(ids.deployment), len(ids.node))
        return ids.node[number % step :: step]

    def _group_of(self, number: int) -> str:
        """Return the id of the group on which a deployment is; empty if it is on one node."""
        nodes, groups = self._nodes_of(number), self._ids.group
        return "" if len(nodes) <= 1 else groups[self._ids.node.index(nodes[0]) % len(groups)]

    def _deployment(self, number: int) -> Document:
        identity, group_id = self._ids.deployment[number], self._group_of(number)
        pods, times = self._fleet.counts(), self._times("deployment", number)
        made, changed = (f"{at:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z" for at in times)
        return {
            "id": identity,
            "name": f"app-{number}",
            "replicas": pods.deployments[identity] + pods.deployments[None],
            "ready_replicas": pods.running[identity] + pods.running[None],
            "description": "" if number % 3 else "this is a test deployment",
            "group_id": group_id,
            "node_ids": [] if group_id else [*self._nodes_of(number)],
            "tags": _tags(number),
            "api_version": "v3",
            "source": "userdefine" if number % 4 == 1 else "userdefined",
            "project_id": self._settings.account.project_id,
            "created_at": made,
            "updated_at": changed,
            "template": _template(number),
            "state": "FREEZE" if number % 13 == 12 else "",  # noqa: PLR2004 - now and then
            "source_id": "",
            "annotations": {"ring_controller": "", "autonomy_edge_selector": "true"},
        }

    # --- nodes ---

    def _node(self, number: int) -> Document:
        identity, groups = self._node_ids[number], self._ids.group
        # A PENDING pod is on no node; a given pod without a node is on each but the empty ones.
        counts = self._fleet.counts().nodes
        pods = counts[identity] + counts[None] if number < len(self._ids.node) else 0
        made, changed = (f"{at:%Y-%m-%dT%H:%M:%S.%f}" for at in self._times("node", number))
        devices = [] if number % 3 else [uuid_of(self._seed, "device", number)]
        relation = {"relation": "camera", "comment": None if number % 2 else "at the door"}
        state = _STATES_BY_NUMBER[number % len(_STATES_BY_NUMBER)]
        gpus, npus = int(number % 4 == 1), int(number % 4 == 2)  # noqa: PLR2004 - by turns
        return {
            "id": identity,
            "name": f"node-{number}",
            "description": "边缘节点" if number % 5 == 1 else "",
            "created_at": made,
            "updated_at": changed,
            "project_id": self._settings.account.project_id,
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
        known = range(len(self._ids.deployment))
        return int(number) in known and row["id"] in self._nodes_of(int(number))

    # --- groups and instances ---

    def _group(self, number: int) -> Document:
        identity, many = self._ids.group[number], len(self._ids.group)
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
            "project_id": self._settings.account.project_id,
            "iam_role": "",
            **{key: sum(node[key] for node in nodes) for key in ("cpu", "memory", "gpu_num")},
            "nodes": nodes,
            "deployments": [
                self._brief(one)
                for one in range(len(self._ids.deployment))
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
        first = self._settings.service.instance_id if number == 0 else None
        made, changed = (
            f"{at:%Y-%m-%d %H:%M:%S.%f} +0000 UTC" for at in self._times("instance", number)
        )
        return {
            "id": first or uuid_of(self._seed, "instance", number),
            "name": f"instance-{number}",
            "domain_id": uuid_of(self._seed, "domain").replace("-", ""),
            "project_id": self._settings.account.project_id,
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


def _tags(number: int) -> list[dict[str, str]]:
    line = {"key": "line", "value": str(number % 3)}
    return [line, {"key": "site", "value": "v1.2"}] if number % 2 else [line]


def _template(number: int) -> Document:
    template: Document = COMPLETE if number % 2 == 0 else DOCUMENTED
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
