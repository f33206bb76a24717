"""The pods of a `FakeIef`: made from a seed, or given."""

import json
from collections import Counter
from pathlib import Path

import pytest
from fake_client import ask

from ief_async.testing import FakeIef, Service

pytestmark = pytest.mark.once  # of the fake server, which no interpreter changes

SAMPLE = json.loads((Path(__file__).parents[1] / "samples/list_pods.200.json").read_bytes())
TEN_STATES = {
    *("RUNNING", "PENDING", "SUCCEEDED", "FAILED", "CREATE_FAIL"),
    *("TERMINATING", "PENDING_DELETE", "DELETE_FAILED", "FREEZE", "UNKNOWN"),
}


def shape(value):
    """The keys of a document, with their places, without their values."""
    if isinstance(value, dict):
        return {f"{k}{rest}" for k, v in value.items() for rest in ("", *_under(v))}
    if isinstance(value, list):
        return {rest for one in value for rest in shape(one)}
    return set()


def _under(value):
    return {f".{rest}" for rest in shape(value)}


# --- the fleet ---


def test_first_pod_is_the_documented_one():
    """A plain pod has the keys and container values of the documented example."""
    documented, pod = SAMPLE["pods"][0], FakeIef().pods[0]
    assert list(pod) == [
        *list(documented)[: list(documented).index("node_id") + 1],
        "deployment_id",
        *list(documented)[list(documented).index("project_id") :],
    ]
    for key in ("description", "configs", "containers", "project_id", "reason", "message"):
        assert pod[key] == documented[key]


def test_every_known_field_stands_somewhere():
    """Every field that the tables or SDKs know is in some of the first pods."""
    seen = shape(FakeIef().pods[:40])
    both = {"init_containers.", "containers."}
    amounts = {"cpu", "memory", "gpu", "npu", "D310", "D310B", "D910"}
    inside = {
        *("version", "is_ready", "privileged", "container_id", "state", "npu_type", "restarts"),
        *("readiness_probe.exec.command", "liveness_probe.http_get.host", "ports.host_ip"),
        *("volumes.default_mode", "envs.value_from.secret.key", "envs.value_from.configmap.name"),
        *("envs.field_path", "ports.host_port_range.max_port"),
    }
    affinity = {
        *("nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",),
        "nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution.preference.matchExpressions",
        "podAffinity.requiredDuringSchedulingIgnoredDuringExecution.labelSelector.matchLabels",
        "podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution.podAffinityTerm.topologyKey",
    }
    expected = {
        *shape(SAMPLE["pods"]),
        *("deployment_id", "configs.dns_policy"),
        *(part + field for part in both for field in inside),
        *(f"containers.resources.limits.{name}" for name in amounts - {"D910"}),
        *(f"containers.resources.requests.{name}" for name in amounts - {"D310", "D310B"}),
        *(f"affinity.{path}" for path in affinity),
    }
    assert expected <= seen, expected - seen


def test_volume_types_and_texts():
    """All four volume types occur, numbers come as numbers and as strings, text beyond ASCII."""
    full = FakeIef().pods[7]
    volumes = [v["type"] for c in full["containers"] for v in c["volumes"]]
    assert {*volumes} == {"configMap", "secret", "emptyDir", "hostPath"}
    assert {type(c["resources"]["limits"]["cpu"]) for c in full["containers"]} == {float, str}
    assert not full["description"].isascii()


def test_states_nodes_and_names():
    """All ten states occur, most pods run, and only a PENDING pod has no node."""
    pods = FakeIef().pods
    states = Counter(pod["state"] for pod in pods)
    assert {*states} == TEN_STATES
    assert states["RUNNING"] > 80
    assert {pod["state"] for pod in pods if not pod["node_id"]} == {"PENDING"}
    assert all(pod["name"].startswith(f"app-{i % 10}-") for i, pod in enumerate(pods))
    assert all(pod["updated_at"] > pod["created_at"] for pod in pods)


def test_ids_are_uuids_and_unique():
    """Ids look like UUIDs, and no two pods share an id or a name."""
    pods = FakeIef(3_000, seed=5).pods
    assert len({pod["id"] for pod in pods}) == len({pod["name"] for pod in pods}) == 3_000
    assert {tuple(map(len, pod["id"].split("-"))) for pod in pods} == {(8, 4, 4, 4, 12)}


def test_seed_decides_everything():
    """The same seed gives the same fleet, another seed other ids."""
    first, again, other = FakeIef(30, seed=1), FakeIef(30, seed=1), FakeIef(30, seed=2)
    assert list(first.pods) == list(again.pods)
    assert first.deployment_ids == again.deployment_ids
    assert not {*first.deployment_ids} & {*other.deployment_ids}
    assert not {p["id"] for p in first.pods} & {p["id"] for p in other.pods}
    assert [p["state"] for p in first.pods] != [p["state"] for p in other.pods]


def test_a_large_fleet_is_lazy():
    """Of ten million pods any one can be read without the others being made."""
    pods = FakeIef(10_000_000).pods
    assert len(pods) == 10_000_000
    assert pods[-1] == pods[9_999_999]
    assert pods[2:4] == [pods[2], pods[3]]


async def test_given_pods_are_served_as_they_are():
    """Given pods are served unchanged; a pod without deployment or node belongs to all."""
    odd = [
        {"id": 7, "name": "\ud800", "x": [None]},
        {"id": "a", "deployment_id": "d1", "node_id": "n1"},
        {"id": "b", "deployment_id": "d2", "node_id": "n1"},
        None,
    ]
    async with FakeIef(odd) as fake:
        assert (fake.deployment_ids, fake.node_ids) == (("d1", "d2"), ("n1",))
        assert (await ask(fake, deployment_id="d1"))[2] == {
            "count": 3,
            "pods": [odd[0], odd[1], None],
        }
        assert (await ask(fake, node_id="n1"))[2]["pods"] == odd
        assert (await ask(fake, group_id=fake.group_ids[0]))[2]["count"] == 4
        assert (await ask(fake, group_id="other"))[2]["count"] == 2


async def test_reversed_order():
    """The reversed fleet is the same one from its end."""
    async with FakeIef(30) as fake, FakeIef(30, service=Service(order="reversed")) as backwards:
        assert list(backwards.pods) == list(fake.pods)[::-1]
        one, other = [(await ask(f))[2]["pods"] for f in (fake, backwards)]
        assert len(one) == 3
        assert one == other[::-1]
