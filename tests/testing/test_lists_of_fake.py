"""`FakeIef` and what a fleet has besides pods: deployments, nodes, groups and instances."""

import json
from collections import Counter
from datetime import datetime
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from ief_async.testing import FakeIef, Fault, Motion, Service

pytestmark = pytest.mark.once  # of the fake server, which no interpreter changes

KINDS = ["deployments", "nodes", "groups", "instances"]
PATHS = {
    "deployments": "v3/{}/deployments",
    "nodes": "v2/{}/nodes",
    "groups": "v2/{}/groups",
    "instances": "v2/{}/ief-instances",
}
KEYS = {kind: kind for kind in KINDS} | {"groups": "edge_groups", "instances": "ief_instances"}
SECRETS = {"private_key", "certificate", "ca", "package", "identifier"}
each_kind = pytest.mark.parametrize("kind", KINDS)


async def ask(fake, kind, *, headers=None, project_id=None, **query):
    """One list through aiohttp's client: status and document."""
    path = PATHS[kind].format(f"{project_id or fake.project_id}/edgemgr")
    text = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
    url = URL(f"{fake.endpoint}/{path}?{text}", encoded=True)
    headers = {"X-Auth-Token": fake.token or ""} | (headers or {})
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
        return answer.status, await answer.json()


async def rows(fake, kind, **query):
    """The rows of one answer, after a check of its count."""
    status, document = await ask(fake, kind, **query)
    assert status == 200, document
    assert document["count"] == len(document[KEYS[kind]])
    return document[KEYS[kind]]


async def numbers(fake, kind, **query):
    """The numbers in the names of one answer's rows."""
    return [int(row["name"].rpartition("-")[2]) for row in await rows(fake, kind, **query)]


def sequence(fake, kind):
    """The documents that the fake says it has."""
    return {
        "deployments": fake.deployments,
        "nodes": fake.nodes,
        "groups": fake.groups,
        "instances": fake.instances,
    }[kind]


# --- what there is ---


@pytest.mark.fake_ief(instances=2, empty_nodes=3)
@each_kind
async def test_lists_give_what_there_is(fake_ief, kind):
    """An answer has the documents of the attribute, in its order, under the list's key."""
    there = sequence(fake_ief, kind)
    assert await rows(fake_ief, kind) == list(there) == [there[n] for n in range(len(there))]
    assert len(there) == {"deployments": 10, "nodes": 8, "groups": 2, "instances": 2}[kind]
    assert there[-1] == there[-1:][0]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("deployments", ["count", "deployments"]),
        ("nodes", ["nodes", "count"]),
        ("groups", ["count", "edge_groups"]),
        ("instances", ["count", "ief_instances"]),
    ],
)
async def test_order_of_keys(fake_ief, kind, expected):
    """The count comes first, except in the list of nodes."""
    assert [*(await ask(fake_ief, kind))[1]] == expected


def test_ids_are_those_of_the_pods():
    """Deployments, nodes and groups have the ids that list their pods."""
    fake = FakeIef(empty_nodes=2)
    assert tuple(row["id"] for row in fake.deployments) == fake.deployment_ids
    assert tuple(row["id"] for row in fake.nodes)[:5] == fake.node_ids
    assert tuple(row["id"] for row in fake.groups) == fake.group_ids
    assert len({row["id"] for row in fake.nodes}) == 7


@each_kind
def test_seed_decides_everything(kind):
    """The same seed gives the same documents, another seed other ids and times."""
    first, again, other = (sequence(FakeIef(seed=n, instances=3), kind) for n in (1, 1, 2))
    assert list(first) == list(again)
    for key in ("id", "created_at"):
        assert not {row[key] for row in first} & {row[key] for row in other}


def test_deployments_have_every_field():
    """A deployment has all known fields, and a template with the containers of the pods."""
    deployments = FakeIef().deployments
    for row in deployments:
        assert [*row] == [
            *("id", "name", "replicas", "ready_replicas", "description", "group_id", "node_ids"),
            *("tags", "api_version", "source", "project_id", "created_at", "updated_at"),
            *("template", "state", "source_id", "annotations"),
        ]
    assert {*deployments[0]["annotations"]} == {"ring_controller", "autonomy_edge_selector"}
    assert {row["source"] for row in deployments} == {"userdefine", "userdefined"}


def test_templates_fit_the_pods():
    """A template's containers are those of the pods without the fields of running ones."""
    fake = FakeIef()
    full, plain = (row["template"] for row in fake.deployments[:2])
    pod = fake.pods[7]
    assert {*full} == {"configs", "affinity", "init_containers", "containers"}
    assert {*plain} == {"configs", "containers"}
    assert (full["affinity"], full["configs"]) == (pod["affinity"], pod["configs"])
    running = {"restarts", "message", "reason", "is_ready", "container_id", "state"}
    for container, given in zip(full["containers"], pod["containers"], strict=True):
        assert not running & {*container}
        assert container == {"run_as_user": 1000} | {
            key: value for key, value in given.items() if key not in running
        }


def test_nodes_have_every_field():
    """Each node has the 55 known fields, those of its parts included."""
    nodes = FakeIef(nodes=12).nodes
    for row in nodes:
        first, *_, last = row
        assert (first, last, len(row)) == ("id", "cert_remaining_valid_time", 55)
    parts = {
        "log_configs": {"id", "size", "level", "rotate_num", "rotate_period", "type", "component"},
        "device_infos": {"relation", "comment", "device_ids"},
        "gpu_info": {"name", "type", "capacity"},
        "npu_info": {"name", "type", "capacity", "driver_version"},
        "nics": {"interface", "ip"},
        "upgrade_history": {
            *("id", "from_version", "to_version", "upgrade_time", "result", "dur_time")
        },
        "attributes": {"key", "value"},
        "tags": {"key", "value"},
    }
    for key, expected in parts.items():
        assert {name for row in nodes for part in row[key] or () for name in part} == expected, key
    assert {*nodes[0]["ntp_configs"]} == {"ntp_enabled", "ntp_servers"}
    assert {*nodes[0]["state_details"]} == {"register_stat", "purchase_stat", "purchase_error"}


def test_nodes_are_as_odd_as_they_are_known_to_be():
    """Some fields are null in some nodes, and a first upgrade has no earlier version."""
    nodes = FakeIef(nodes=12).nodes
    for key in ("comment", "ca", "node_type"):
        assert {type(row[key]) for row in nodes} == {str, type(None)}, key
    assert {None, 0, 1} == {
        None if row["device_infos"] is None else len(row["device_infos"]) for row in nodes
    }
    assert not any("from_version" in row["upgrade_history"][0] for row in nodes)
    assert any(len(row["upgrade_history"]) == 2 for row in nodes)
    states = Counter(row["state"] for row in nodes)
    assert {*states} == {"RUNNING", "FAIL", "UPGRADING", "STOPPED", "UNCONNECTED", "FREEZE"}
    assert states.most_common(1)[0][0] == "RUNNING"


def test_secrets_can_be_told():
    """Each secret of a node begins with a word that can be searched for, and is unique."""
    nodes = FakeIef(nodes=6).nodes
    secrets = [row[key] for row in nodes for key in SECRETS if row[key] is not None]
    assert all(text.startswith("secret-") for text in secrets)
    assert len({*secrets}) == len(secrets) == 6 * 5 - 3
    for row in nodes:
        bare = {key: value for key, value in row.items() if key not in SECRETS}
        assert "secret-" not in json.dumps(bare)


def test_groups_sum_their_nodes_up():
    """A group has its nodes as the list of nodes has them, and the sums of their resources."""
    fake = FakeIef(nodes=7, groups=3, empty_nodes=2)
    for number, group in enumerate(fake.groups):
        assert group["nodes"] == [row for row in fake.nodes if group["id"] in row["group_ids"]]
        assert group["nodes"] == fake.nodes[number::3]
        for key in ("cpu", "memory", "gpu_num"):
            assert group[key] == sum(row[key] for row in group["nodes"])
        assert [*group] == [
            *("id", "name", "description", "created_at", "updated_at", "project_id", "iam_role"),
            *("cpu", "memory", "gpu_num", "nodes", "deployments", "attributes", "tags"),
            *("success_node_add", "success_node_del", "failed_node_add", "failed_node_del"),
        ]


def test_deployments_are_on_a_node_or_in_a_group():
    """A deployment on one node names that node; one on several nodes names a group."""
    alone = FakeIef(deployments=10, nodes=5)
    assert [row["node_ids"] for row in alone.deployments] == [[n] for n in alone.node_ids * 2]
    assert {row["group_id"] for row in alone.deployments} == {""}
    assert all(group["deployments"] == [] for group in alone.groups)
    spread = FakeIef(deployments=10, nodes=4, groups=2)
    for row in spread.deployments:
        assert row["node_ids"] == []
        homes = {pod["node_id"] for pod in spread.pods if pod["deployment_id"] == row["id"]} - {""}
        group = spread.groups[spread.group_ids.index(row["group_id"])]
        assert homes == {node["id"] for node in group["nodes"]}
        assert {key: row[key] for key in group["deployments"][0]} in group["deployments"]
    assert sum(len(group["deployments"]) for group in spread.groups) == 10


def test_instances_are_texts():
    """Every field of an instance is a string, and the first one has the given id."""
    fake = FakeIef(instances=2, service=Service(instance_id="platinum"))
    for row in fake.instances:
        assert {type(value) for value in row.values()} == {str}
        assert {"id", "name", "edition", "k8s_version", "quota", "cbc_node_state"} <= {*row}
    assert [row["id"] == "platinum" for row in fake.instances] == [True, False]


def test_times_have_the_known_forms():
    """Each list has another format of times, and no update is earlier than the creation."""
    fake = FakeIef()
    forms = {kind: sequence(fake, kind)[0]["created_at"] for kind in KINDS}
    assert len({len(text) for text in forms.values()}) == 4
    assert datetime.strptime(forms["deployments"], "%Y-%m-%dT%H:%M:%S.%f%z").tzinfo
    assert datetime.strptime(forms["nodes"], "%Y-%m-%dT%H:%M:%S.%f").tzinfo is None  # noqa: DTZ007
    assert forms["instances"].endswith(" +0000 UTC")
    for kind in KINDS:
        for row in sequence(fake, kind):
            assert row["updated_at"] >= row["created_at"]


# --- what fits the pods ---


def on_nodes(fake):
    """How many of the present pods each node has."""
    return Counter(pod["node_id"] for pod in fake.pods)


def test_nodes_count_their_pods():
    """A node counts the pods that run on it; PENDING pods are on no node."""
    fake = FakeIef(1_000, nodes=7, empty_nodes=2)
    counted = {row["id"]: row["deployment_num"] for row in fake.nodes}
    assert counted == {identity: on_nodes(fake)[identity] for identity in counted}
    assert [*counted.values()][-2:] == [0, 0]
    assert sum(counted.values()) == 1_000 - on_nodes(fake)[""] < 1_000


def test_deployments_count_their_pods():
    """``replicas`` counts the present pods, ``ready_replicas`` the running ones."""
    fake = FakeIef(1_000)
    for row in fake.deployments:
        pods = [pod for pod in fake.pods if pod["deployment_id"] == row["id"]]
        assert row["replicas"] == len(pods)
        assert row["ready_replicas"] == sum(pod["state"] == "RUNNING" for pod in pods) < len(pods)


async def test_counts_follow_the_fleet():
    """Inserts, deletes and motion show in the counts at once."""
    async with FakeIef(50, nodes=3, motion=Motion.uniform(3.0, 1.0)) as fake:
        fake.insert(5, deployment_id=fake.deployment_ids[3])
        assert fake.deployments[3]["replicas"] == 10
        fake.delete(0, 5)
        assert fake.deployments[3]["replicas"] == 5
        path = f"/v3/{fake.project_id}/edgemgr/pods?node_id={fake.node_ids[0]}&limit=1000"
        for _ in range(5):
            async with aiohttp.ClientSession(headers={"X-Auth-Token": fake.token}) as http:
                document = await (await http.get(fake.endpoint + path)).json()
            listed = await rows(fake, "nodes")
            assert listed[0]["deployment_num"] == document["count"]
            assert [row["deployment_num"] for row in listed] == [
                on_nodes(fake)[identity] for identity in fake.node_ids
            ]


def test_documents_of_given_pods():
    """Given pods bring their deployments and nodes; a pod without them counts everywhere."""
    pods = [
        {"id": "a", "deployment_id": "d1", "node_id": "n1", "state": "RUNNING"},
        {"id": "b", "deployment_id": "d1", "node_id": "n2"},
        {"id": "c", "deployment_id": "d2", "node_id": "n2", "state": "FAILED"},
        {"id": "d", "deployment_id": "d3"},
        {"id": "e", "state": "RUNNING"},
    ]
    fake = FakeIef(pods, empty_nodes=1)
    assert [(row["id"], row["replicas"], row["ready_replicas"]) for row in fake.deployments] == [
        ("d1", 3, 2),
        ("d2", 2, 1),
        ("d3", 2, 1),
    ]
    assert [row["node_ids"] for row in fake.deployments] == [[], ["n2"], []]
    assert fake.deployments[0]["group_id"] == fake.group_ids[0]
    assert [row["deployment_num"] for row in fake.nodes] == [3, 4, 0]


def test_a_large_fleet_is_lazy():
    """Nodes of ten million pods can be counted and named without any pod being made."""
    fake = FakeIef(10_000_000, nodes=100_000)
    assert (len(fake.nodes), fake.node_ids[-1]) == (100_000, fake.node_ids[99_999])


# --- pages ---


@each_kind
async def test_pages_add_up(kind):
    """Pages of any size add up to the whole list, and a page beyond its end is empty."""
    async with FakeIef(deployments=7, nodes=7, groups=7, instances=7) as fake:
        key, whole = KEYS[kind], list(sequence(fake, kind))
        pages = [(await ask(fake, kind, offset=at, limit=3))[1] for at in (0, 3, 6, 9)]
        assert [len(page[key]) for page in pages] == [3, 3, 1, 0]
        assert [row for page in pages for row in page[key]] == whole
        assert {page["count"] for page in pages} == {7}


@pytest.mark.parametrize(
    ("kind", "usual", "most"),
    [("deployments", 10, 100), ("nodes", 500, 1_000), ("groups", 4, None), ("instances", 4, None)],
)
async def test_limits(kind, usual, most):
    """Each list has its own default and largest page."""
    many = 120 if kind == "deployments" else 600
    sizes = {kind: many}
    async with FakeIef(20, service=Service(default_limit=4), **sizes) as fake:
        key = KEYS[kind]
        assert len((await ask(fake, kind))[1][key]) == usual
        if most is None:
            assert len((await ask(fake, kind, limit=many + 1))[1][key]) == many
            return
        assert len((await ask(fake, kind, limit=most))[1][key]) == min(many, most)
        status, error = await ask(fake, kind, limit=most + 1)
        assert (status, error["error_code"]) == (400, "IEF.100005")


@each_kind
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"limit": "0"}, "IEF.100005"),
        ({"limit": "x"}, "IEF.100005"),
        ({"limit": ""}, "IEF.100005"),
        ({"offset": "-1"}, "IEF.100004"),
        ({"offset": "1.5"}, "IEF.100004"),
    ],
)
async def test_illegal_numbers(fake_ief, kind, query, code):
    """A limit or offset out of range is a 400 with its own code."""
    status, error = await ask(fake_ief, kind, **query)
    assert (status, error["error_code"]) == (400, code)


@each_kind
async def test_listings_can_be_as_odd_as_that_of_pods(kind):
    """Page cap, order, offsets, limits, counts and rates of `Service` apply to every list."""
    sizes = {"deployments": 9, "nodes": 9, "groups": 9, "instances": 9}
    key = KEYS[kind]

    async def page(**options):
        query = {name: options.pop(name) for name in ("offset", "limit") if name in options}
        async with FakeIef(20, **sizes, **options) as fake:
            _, document = await ask(fake, kind, **query)
            whole = [row["id"] for row in sequence(fake, kind)]
            shown = [whole.index(row["id"]) for row in document.get(key, ())]
            return shown, document.get("count"), document.get("error_code")

    straight = [*range(9)]
    assert await page(page_cap=2) == ([0, 1], 9, None)
    assert (await page(page_cap=2, service=Service(over_cap="refuse"), limit=3))[2] == "IEF.100005"
    assert await page(service=Service(offsets="ignored"), offset=3, limit=2) == ([0, 1], 9, None)
    assert await page(service=Service(offsets="pages"), offset=2, limit=2) == ([4, 5], 9, None)
    assert await page(service=Service(limits="ignored"), offset=3, limit=2) == (
        straight[3:],
        9,
        None,
    )
    assert await page(service=Service(counts="none")) == (straight, None, None)
    assert await page(service=Service(counts="page"), limit=2) == ([0, 1], 2, None)
    assert await page(service=Service(empty_rate=1.0)) == ([], 9, None)
    assert await page(service=Service(cached_rate=1.0), offset=5, limit=1) == ([0], 9, None)
    shuffled = (await page(service=Service(order="shuffled")))[0]
    assert shuffled != straight == sorted(shuffled)


@each_kind
async def test_reversed_order(kind):
    """Reversed lists are the same ones from their ends, in answers and attributes."""
    async with (
        FakeIef(10, instances=3) as fake,
        FakeIef(10, instances=3, service=Service(order="reversed")) as backwards,
    ):
        listed = [row["id"] for row in await rows(backwards, kind)]
        assert listed == [row["id"] for row in sequence(backwards, kind)]
        assert listed == [row["id"] for row in sequence(fake, kind)][::-1]


# --- filters ---


@pytest.mark.parametrize("kind", ["deployments", "nodes", "groups"])
async def test_names_are_found_by_a_part(kind):
    """The parameter ``name`` selects by a part of the name; an empty one selects all."""
    async with FakeIef(
        50, deployments=12, nodes=12, groups=12, service=Service(default_limit=100)
    ) as fake:
        assert await numbers(fake, kind, name="-1", limit=100) == [1, 10, 11]
        assert await numbers(fake, kind, name="nobody") == []
        assert len(await numbers(fake, kind, name="", limit=100)) == 12


@pytest.mark.parametrize("kind", ["deployments", "nodes", "groups"])
async def test_sorted_by_time(kind):
    """``sort`` puts the oldest or newest first; any other value is refused."""
    async with FakeIef(
        50, deployments=10, nodes=10, groups=10, service=Service(order="shuffled")
    ) as fake:
        times = sorted(row["created_at"] for row in sequence(fake, kind))
        assert times != [row["created_at"] for row in sequence(fake, kind)]
        for sort, expected in (("asc", times), ("desc", times[::-1])):
            listed = await rows(fake, kind, sort=f"created_at:{sort}")
            assert [row["created_at"] for row in listed] == expected
        _, page = await ask(fake, kind, sort="created_at:desc", offset=1, limit=2)
        assert [row["created_at"] for row in page[KEYS[kind]]] == times[::-1][1:3]
        assert (await ask(fake, kind, sort="name:asc"))[0] == 400


async def test_deployments_of_a_node_or_a_group():
    """Deployments are selected by node or by group; both at once are refused."""
    async with FakeIef(deployments=10, nodes=5) as fake:
        node, group = fake.node_ids[2], fake.group_ids[0]
        assert await numbers(fake, "deployments", node_id=node) == [2, 7]
        assert await numbers(fake, "deployments", group_id=group) == []
        assert await numbers(fake, "deployments", node_id=node, name="7") == [7]
        status, error = await ask(fake, "deployments", node_id=node, group_id=group)
        assert (status, error["error_code"]) == (400, "IEF.100001")
    async with FakeIef(deployments=10, nodes=4) as fake:
        assert await numbers(fake, "deployments", group_id=fake.group_ids[1]) == [1, 3, 5, 7, 9]
        assert await numbers(fake, "deployments", node_id=fake.node_ids[0]) == []


async def test_unknown_ids_are_empty_or_refused():
    """An unknown node or group selects nothing, or is a 404, as with pods."""
    async with FakeIef() as lenient, FakeIef(service=Service(unknown_ids="refuse")) as strict:
        for kind, name in (("deployments", "node_id"), ("nodes", "group_id")):
            assert await rows(lenient, kind, **{name: "x"}) == []
            assert (await ask(strict, kind, **{name: "x"}))[0] == 404


async def test_nodes_by_state():
    """Nodes are selected by five states; FREEZE occurs, but is refused in a query."""
    async with FakeIef(nodes=22) as fake:
        assert await numbers(fake, "nodes", state="FAIL") == [5, 16]
        assert {row["state"] for row in await rows(fake, "nodes", state="STOPPED")} == {"STOPPED"}
        for state in ("FREEZE", "running"):
            assert (await ask(fake, "nodes", state=state))[0] == 400


async def test_nodes_by_tags_and_app():
    """Nodes must have all tags; a value may have dots; ``app_name`` is ignored beside tags."""
    async with FakeIef(deployments=10, nodes=6) as fake:
        assert await numbers(fake, "nodes", tags="line.1") == [1, 4]
        assert await numbers(fake, "nodes", tags="line.1,site.v1.2") == [1]
        assert await numbers(fake, "nodes", tags="line.1,site.v1") == []
        assert await numbers(fake, "nodes", app_name="app-3") == [1, 3, 5]
        assert await numbers(fake, "nodes", app_name="app-3", tags="line.1") == [1, 4]
        for nobody in ("app-99", "3", "app-", "app-²"):
            assert await numbers(fake, "nodes", app_name=nobody) == []


async def test_nodes_by_group_and_device():
    """Nodes are selected by group, and by the id or name of a device."""
    async with FakeIef(nodes=7, groups=3) as fake:
        assert await numbers(fake, "nodes", group_id=fake.group_ids[1]) == [1, 4]
        (device,) = fake.nodes[3]["device_infos"][0]["device_ids"]
        assert await numbers(fake, "nodes", device_id=device) == [3]
        assert await numbers(fake, "nodes", device_name="device-6") == [6]
        assert await numbers(fake, "nodes", device_name="device-1") == []


# --- who may see them ---


@each_kind
async def test_lists_are_for_the_known(fake_ief, kind):
    """A request without a valid token is refused, and another project is not found."""
    assert (await ask(fake_ief, kind, headers={"X-Auth-Token": "x"}))[0] == 401
    status, error = await ask(fake_ief, kind, project_id="0" * 32)
    assert (status, error["error_code"]) == (400, "IEF.100001")


@each_kind
async def test_faults_hit_every_list(fake_ief, kind):
    """A script applies to every list."""
    fake_ief.script(Fault.throttle())
    assert (await ask(fake_ief, kind))[0] == 429
    assert await rows(fake_ief, kind)


@pytest.mark.fake_ief(service=Service(instance_id="platinum"), instances=2)
async def test_instance_has_to_be_named(fake_ief):
    """If the service asks for an instance, a request without its id sees instances alone."""
    named = {"ief-instance-id": "platinum"}
    for kind in ("deployments", "nodes", "groups"):
        for headers in ({}, {"ief-instance-id": "other"}, {"ief-instance-id": ""}):
            assert await rows(fake_ief, kind, headers=headers) == []
        assert await rows(fake_ief, kind, headers=named)
    assert len(await rows(fake_ief, "instances")) == 2
    path = f"/v3/{fake_ief.project_id}/edgemgr/pods?node_id={fake_ief.node_ids[0]}"
    token = {"X-Auth-Token": fake_ief.token}
    async with aiohttp.ClientSession() as http:
        without = await (await http.get(fake_ief.endpoint + path, headers=token)).json()
        within = await (await http.get(fake_ief.endpoint + path, headers=token | named)).json()
    assert without == {"count": 0, "pods": []}
    assert within["count"] > 0
    fake_ief.instance_id = None
    assert await rows(fake_ief, "nodes")


async def test_paths_have_their_versions(fake_ief):
    """A list under the other version, or with a slash at its end, is a 404."""
    paths = ["v2/{}/deployments", "v3/{}/nodes", "v3/{}/groups", "v2/{}/pods", "v2/{}/nodes/"]
    async with aiohttp.ClientSession(headers={"X-Auth-Token": fake_ief.token}) as http:
        for path in paths:
            place = path.format(f"{fake_ief.project_id}/edgemgr")
            assert (await http.get(f"{fake_ief.endpoint}/{place}")).status == 404


async def test_large_lists_are_counted_again_when_they_move():
    """A thousand nodes count ten thousand pods as they are at that moment."""
    async with FakeIef(10_000, nodes=1_000, motion=Motion.uniform()) as fake:
        for _ in range(3):
            fake.insert()
            nodes = await rows(fake, "nodes", limit=1_000)
            pods = Counter(pod["node_id"] for pod in fake.pods)
            assert all(node["deployment_num"] == pods[node["id"]] for node in nodes)
            assert len(nodes) == 1_000
