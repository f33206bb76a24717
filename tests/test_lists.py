"""What a scan starts from: the lists of deployments, nodes, groups and instances."""

import asyncio
import json
from collections import Counter

import attrs
import pytest
from conftest import quiet, session_with

from ief_async import (
    ConfigurationError,
    Deployment,
    Instance,
    Node,
    PayloadError,
    Pod,
    ScanCheckpoint,
)
from ief_async._endpoints import LISTINGS
from ief_async.testing import FakeIef, Fault

LISTS = {name: row for name, row in LISTINGS.items() if name != "pods"}
each_list = pytest.mark.parametrize("name", LISTS)


@pytest.fixture
async def fake():
    """Run a fake fleet of 900 pods with lists of several pages each."""
    options = {"deployments": 230, "nodes": 120, "groups": 7, "instances": 3, "empty_nodes": 15}
    async with FakeIef(900, **options) as running:
        yield running


@pytest.fixture
async def ief(fake):
    """Give a session with the fake fleet."""
    async with session_with(fake) as session:
        yield session


def stream_of(ief, which, /, **options):
    """Return the stream of a list."""
    return getattr(ief, LISTS[which].operation)(**options)


# ---- the lists -----------------------------------------------------------------------------------


@each_list
async def test_list_is_read_whole_and_in_order(fake, ief, name):
    """Every row comes once, in the server's order, as its documented model, nothing unknown."""
    stream = stream_of(ief, name, page_size=50)
    rows = await stream.collect()
    report = stream.report

    assert [row["id"] for row in getattr(fake, name)] == [row.id for row in rows]
    assert {LISTS[name].model} == {type(row) for row in rows}
    assert "exact" == report.batches[0].drift
    assert ({}, {}, True) == (report.unknown_fields, report.unknown_values, report.complete)
    assert set(json.loads(json.dumps(getattr(fake, name)[0]))) <= {
        field.name for field in attrs.fields(LISTS[name].model)
    }


@each_list
async def test_nothing_of_a_row_is_lost(fake, ief, name):
    """What the server sends of a row stands in the object, texts and numbers as they were."""
    rows = await stream_of(ief, name).collect()

    for sent, row in zip(getattr(fake, name), rows, strict=True):
        for key, value in sent.items():
            if isinstance(value, str | int | float | None) and value is not None:
                assert value == getattr(row, key), key
            elif isinstance(value, list):
                assert len(value) == len(getattr(row, key)), key


@each_list
async def test_page_has_so_many_rows_at_most(ief, name):
    """A page size above what the service gives is refused, not sent."""
    most = LISTS[name].most_rows
    assert stream_of(ief, name, page_size=most)
    with pytest.raises(ConfigurationError, match=f"^page_size must be .* 1 to {most}"):
        stream_of(ief, name, page_size=most + 1)


@each_list
async def test_list_takes_a_model(fake, ief, name):
    """A model of one field reads that field."""

    @attrs.frozen
    class Name:
        name: str | None = None

    rows = await stream_of(ief, name, model=Name).collect()

    assert [row.get("name") for row in getattr(fake, name)] == [row.name for row in rows]


@each_list
async def test_list_that_moves_or_ends_early_is_no_short_list(fake, ief, name):
    """A cut answer is asked for again, an HTML page is an error: neither is an empty list."""
    fake.script(Fault.cut())
    assert len(getattr(fake, name)) == len(await stream_of(ief, name).collect())
    fake.intercept(lambda _: Fault.body(b'{"count": 3}'))
    with pytest.raises(PayloadError):
        await stream_of(ief, name).collect()


@each_list
async def test_list_is_cut_at_max_items(ief, name):
    """max_items, concurrency, on_drift and deadline mean what they mean for pods."""
    options = {"max_items": 2, "concurrency": 1, "on_drift": "report", "deadline": 60}

    assert 2 == len(await stream_of(ief, name, **options).collect())


@each_list
async def test_list_goes_on_from_a_checkpoint(fake, ief, name):
    """A checkpoint of a list gives the rest of it, and fits no list of other filters or size."""
    every = [row["id"] for row in getattr(fake, name)]
    stream = stream_of(ief, name, page_size=2)
    first = [(await anext(aiter(stream))).id]
    saved = stream.checkpoint().to_json()
    await stream.aclose()
    rest = await stream_of(ief, name, page_size=2, resume_from=saved).collect()

    assert every == [*first, *(row.id for row in rest)][-len(every) :]
    assert isinstance(ScanCheckpoint.from_json(saved), ScanCheckpoint)


FILTERS = {
    "deployments": {"name": "app-1", "node_id": "n", "sort": "created_at:desc"},
    "nodes": {
        "name": "node",
        "state": "RUNNING",
        "tags": "zone.a,line.b",
        "group_id": "g",
        "device_id": "d",
        "device_name": "e",
        "app_name": "f",
        "sort": "created_at:asc",
    },
    "groups": {"name": "边缘 a+b", "sort": "created_at:asc"},
}


@pytest.mark.parametrize("name", FILTERS)
async def test_filters_are_sent_as_documented(fake, ief, name):
    """Each documented filter goes out under its own name, encoded; others are refused."""
    fake.intercept(lambda _: Fault.body(b'{"count": 0, "%s": []}' % key.encode()))
    key = LISTS[name].key

    assert [] == await stream_of(ief, name, **FILTERS[name]).collect()
    assert {**FILTERS[name], "limit": "100", "offset": "0"} == fake.requests[0].query
    with pytest.raises(
        ConfigurationError, match=rf"iter_{name} must be one of model, .*got colour$"
    ):
        stream_of(ief, name, colour="red")
    with pytest.raises(ConfigurationError, match=r"^name must be a string"):
        stream_of(ief, name, name=7)


async def test_filter_that_is_none_is_not_sent(fake, ief):
    """A filter of None is as good as none."""
    await ief.iter_nodes(name=None, state="RUNNING").collect()

    assert {"state", "limit", "offset"} == fake.requests[0].query.keys()


async def test_filters_filter(fake, ief):
    """What comes back fits the filter."""
    nodes = await ief.iter_nodes(state="RUNNING").collect()
    group = fake.group_ids[0]
    deployments = await ief.iter_deployments(group_id=group).collect()

    assert {"RUNNING"} == {node.state for node in nodes}
    assert 0 < len(nodes) < len(fake.nodes)
    assert {group} == {deployment.group_id for deployment in deployments}


def test_deployments_of_a_node_or_a_group(ief):
    """The service takes one of the two."""
    with pytest.raises(ConfigurationError, match="only one of"):
        ief.iter_deployments(node_id="n", group_id="g")


@pytest.mark.parametrize(
    "body",
    [
        b'{"ief_instances": [{"id": "a"}], "count": 1}',
        b'{"count": 1, "instances": [{"id": "a"}]}',
        b'  [{"id": "a"}]',
    ],
    ids=["ief_instances", "instances", "bare"],
)
async def test_instances_are_read_in_any_envelope(fake, ief, body):
    """No document shows the envelope of this list: both names, and none at all, are understood."""
    fake.script(Fault.body(body))

    assert [Instance(id="a")] == await ief.iter_instances().collect()


async def test_instance_lists_are_of_one_instance(fake, ief):
    """The id of an instance is what the other lists and the scan take."""
    instance = (await ief.iter_instances().collect())[0]
    fake.instance_id = instance.id
    platinum = ief.with_options(instance_id=instance.id)

    assert [] == await ief.iter_deployments().collect()
    assert 230 == len(await platinum.iter_deployments().collect())


def test_every_filter_of_a_row_is_tried():
    """The filters that the tests above try are those of the table, and some of them all."""
    tried = {name: {*filters} for name, filters in FILTERS.items()}

    assert {name for name, row in LISTS.items() if row.filters} == tried.keys()
    for name, filters in tried.items():
        assert filters <= {*LISTS[name].filters}


# ---- from nothing to a fleet ---------------------------------------------------------------------


async def test_scan_of_what_is_discovered(fake, ief):
    """iter_pods(iter_deployments()) reads every pod of the project once, no id given."""
    pods = await ief.iter_pods(ief.iter_deployments()).collect()

    assert Counter(fake.pod_ids()) == Counter(pod.id for pod in pods)


async def test_discovery_and_scan_run_at_the_same_time(fake, ief):
    """The first batch is asked for while the list of deployments is still being read."""
    await ief.iter_pods(ief.iter_deployments(concurrency=1, page_size=50), batch_size=50).collect()

    paths = [request.path.rsplit("/", 1)[1] for request in fake.requests]
    assert paths.index("pods") < len(paths) - 1 - paths[::-1].index("deployments")


async def test_collected_objects_are_as_good(fake, ief):
    """A list of objects, a tuple of ids, a generator of both: all are ids."""
    deployments = await ief.iter_deployments().collect()
    mixed = (one if at % 2 else one.id for at, one in enumerate(deployments))

    for ids in (deployments, mixed):
        assert len(fake.pods) == len(await ief.iter_pods(ids).collect())


async def test_empty_nodes_are_skipped(fake, ief):
    """Nodes that report no pods are not asked for, unless one wants them to be."""
    running = [node for node in fake.nodes if node["deployment_num"]]
    found = await ief.iter_pods(node_ids=ief.iter_nodes()).collect()
    asked = {request.query.get("node_id") for request in fake.requests} - {None}
    fake.requests.clear()
    every = await ief.iter_pods(node_ids=ief.iter_nodes(), skip_empty_nodes=False).collect()
    asked_all = {request.query.get("node_id") for request in fake.requests} - {None}

    assert asked == {node["id"] for node in running}
    assert asked_all == {node["id"] for node in fake.nodes}
    assert 15 <= len(fake.nodes) - len(running)
    on_nodes = {pod["id"] for pod in fake.pods if pod["node_id"]}
    assert on_nodes == {pod.id for pod in found} == {pod.id for pod in every}


async def test_nodes_by_id_alone_are_asked(fake, ief):
    """Of an id nobody knows how many pods are there: it is asked for."""
    ids = [node["id"] for node in fake.nodes]
    await ief.iter_pods(node_ids=ids).collect()

    assert {*ids} == {request.query["node_id"] for request in fake.requests}


async def test_groups_are_scanned(fake, ief):
    """iter_pods(group_ids=iter_groups()) reads what is on the nodes of all groups."""
    pods = await ief.iter_pods(group_ids=ief.iter_groups()).collect()

    assert {*fake.pod_ids()} == {pod.id for pod in pods}


async def test_pods_of_discovered_nodes_are_counted(fake, ief):
    """count_pods takes the same."""
    counted = await ief.count_pods(node_ids=ief.iter_nodes())

    assert sum(bool(pod["node_id"]) for pod in fake.pods) == counted.total


@pytest.mark.parametrize(
    ("argument", "row", "words"),
    [
        ("deployment_ids", Node(id="n"), "got a Node: pass it as node_ids="),
        ("node_ids", Deployment(id="d"), "got a Deployment: pass it as deployment_ids="),
        ("group_ids", Node(id="n"), "got a Node: pass it as node_ids="),
        ("deployment_ids", Pod(id="p"), "got a Pod: pass its deployment_id or node_id"),
        (
            "node_ids",
            Instance(id="i"),
            "got an Instance: pass its id as instance_id= to IefSession",
        ),
    ],
)
async def test_objects_of_another_list_are_refused(ief, argument, row, words):
    """Nodes or pods given as deployments would be an empty fleet: an error, sync or async."""

    async def found():
        yield row

    with pytest.raises(ConfigurationError, match=words):
        ief.iter_pods(**{argument: [row]})
    with pytest.raises(ConfigurationError, match=words):
        await ief.iter_pods(**{argument: found()}).collect()


async def test_failed_discovery_is_the_scans_error(fake, ief):
    """What ends the list of deployments ends the scan, as itself."""
    fake.intercept(
        lambda request: Fault.status(403) if request.path.endswith("deployments") else None
    )
    with pytest.raises(Exception, match="edgemgr/deployments was answered 403") as caught:
        await ief.iter_pods(ief.iter_deployments()).collect()

    assert "PermissionDeniedError" == type(caught.value).__name__


async def test_left_scan_leaves_its_discovery_too(fake, ief):
    """After a break neither the scan nor the list that feeds it has a task or a request."""
    async with ief.iter_pods(ief.iter_deployments(page_size=10), batch_size=10) as scan:
        async for _ in scan:
            break
    await quiet(fake, ief)

    assert not [task for task in asyncio.all_tasks() if "Scan." in repr(task)]


async def test_model_of_a_list_may_hold_the_id_alone(fake, ief):
    """A class of one's own with an id is enough for discovery."""

    @attrs.frozen
    class Found:
        id: str

    pods = await ief.iter_pods(ief.iter_deployments(model=Found)).collect()

    assert len(fake.pods) == len(pods)
    assert {Pod} == {type(pod) for pod in pods}
