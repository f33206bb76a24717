"""`FakeIef` seen from outside: raw sockets and aiohttp's client, never our own."""

import ast
import asyncio
import contextlib
import gzip
import json
import logging
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import aiohttp
import attrs
import pytest

from ief_async import IefSession, Token
from ief_async.testing import DEFAULT_MIX, Account, FakeIef, Fault, Motion, Service

SAMPLE = json.loads((Path(__file__).parent / "samples/list_pods.200.json").read_bytes())
TEN_STATES = {
    *("RUNNING", "PENDING", "SUCCEEDED", "FAILED", "CREATE_FAIL"),
    *("TERMINATING", "PENDING_DELETE", "DELETE_FAILED", "FREEZE", "UNKNOWN"),
}


def target(fake, **query):
    """The path and query of a list call, by default of the fake's first deployment."""
    query = query or {"deployment_id": fake.deployment_ids[0]}
    text = "&".join(f"{name}={quote(str(value))}" for name, value in query.items())
    return f"/v3/{fake.project_id}/edgemgr/pods?{text}"


async def ask(fake, path=None, *, method="GET", headers=None, **query):
    """One request through aiohttp's client: status, headers, JSON (or bytes that are none)."""
    headers = {"X-Auth-Token": fake.token or ""} if headers is None else headers
    url = fake.endpoint + (path or target(fake, **query))
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, url, headers=headers, allow_redirects=False) as answer,
    ):
        body = await answer.read()
        with contextlib.suppress(ValueError):
            body = json.loads(body)
        return answer.status, answer.headers, body


async def connect(fake):
    """A raw connection."""
    return await asyncio.open_connection(*fake.endpoint.removeprefix("http://").split(":"))


def request_bytes(fake, **query):
    """A request as it stands on the wire."""
    lines = f"GET {target(fake, **query)} HTTP/1.1", "Host: x", f"X-Auth-Token: {fake.token}"
    return "\r\n".join([*lines, "", ""]).encode()


async def wire(fake, **query):
    """All bytes that one request on a connection of its own brings, up to the connection's end."""
    reader, writer = await connect(fake)
    writer.write(request_bytes(fake, **query))
    try:
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()


async def one_answer(reader):
    """Head and body of one answer with a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


async def settled(condition):
    """Wait until something is so; fail when it is not after half a minute."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the server offers no event, on purpose
            await asyncio.sleep(0.002)


def shape(value):
    """The keys of a document, with their places, without their values."""
    if isinstance(value, dict):
        return {f"{k}{rest}" for k, v in value.items() for rest in ("", *_under(v))}
    if isinstance(value, list):
        return {rest for one in value for rest in shape(one)}
    return set()


def _under(value):
    return {f".{rest}" for rest in shape(value)}


# --- the fixture and the life of a server ---


async def test_fixture_gives_a_running_server(fake_ief):
    """The fixture's server answers at once, with its defaults."""
    status, _, body = await ask(fake_ief)
    assert (status, body["count"], len(body["pods"])) == (200, 10, 10)


@pytest.mark.fake_ief(3, deployments=1, token=None)
async def test_marker_gives_the_arguments(fake_ief):
    """Positional and keyword arguments of the marker reach the server."""
    assert (len(fake_ief.pods), len(fake_ief.deployment_ids), fake_ief.token) == (3, 1, None)


def test_fixture_runs_in_strict_mode(tmp_path):
    """Plain pytest-asyncio, without auto mode, can use the fixture; and the marker is known."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.asyncio\n"
        "@pytest.mark.fake_ief(pods=2)\n"
        "async def test_it(fake_ief):\n"
        "    assert len(fake_ief.pods) == 2 and fake_ief.endpoint\n"
    )
    installed = any(entry.name == "ief_async" for entry in entry_points(group="pytest11"))
    options = ["--strict-markers", "-W", "error", "-q", "--rootdir=."]
    options += ["-o", "asyncio_default_fixture_loop_scope=function"]
    options += [] if installed else ["-p", "ief_async.testing"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_it.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_needs_no_pytest():
    """Outside pytest the module imports neither pytest nor any other room of ours."""
    code = (
        "import sys, types\n"
        "package = types.ModuleType('ief_async'); package.__path__ = ['ief_async']\n"
        "sys.modules['ief_async'] = package\n"
        "import ief_async.testing\n"
        "print(sorted(n for n in sys.modules if n.split('.')[0] in ('ief_async', 'pytest')))"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=root, capture_output=True, check=True
    )
    loaded = ast.literal_eval(done.stdout.decode())
    assert "ief_async.testing" in loaded
    assert [n for n in loaded if not n.startswith("ief_async.testing")] == ["ief_async"]


async def test_starting_twice_is_refused(fake_ief):
    """A second start raises and leaves the first one running."""
    with pytest.raises(RuntimeError, match="running already"):
        await fake_ief.start()
    assert (await ask(fake_ief))[0] == 200


async def test_endpoint_needs_a_start():
    """Before the start and after the stop there is no endpoint, and the error says what to do."""
    fake = FakeIef()
    with pytest.raises(RuntimeError, match="async with"):
        _ = fake.endpoint
    await fake.stop()
    async with fake:
        assert fake.endpoint.startswith("http://127.0.0.1:")
    with pytest.raises(RuntimeError):
        _ = fake.endpoint


async def test_a_stopped_server_starts_again():
    """A server may be stopped and started; its counters go on."""
    fake = FakeIef()
    for turn in (1, 2):
        async with fake:
            await ask(fake)
        assert (fake.statistics().requests, fake.statistics().connections) == (turn, turn)


async def test_stop_is_prompt_and_leaves_nothing(caplog):
    """Hanging requests, open connections and unread answers don't hold the stop up."""
    before = asyncio.all_tasks()
    fake = FakeIef()
    await fake.start()
    fake.script(Fault.hang(), Fault.drip(), Fault.body(b" " * 30_000_000), Fault.slow(60))
    pairs = [await connect(fake) for _ in range(6)]
    for _, writer in pairs[:4]:
        writer.write(request_bytes(fake))
    await settled(lambda: fake.statistics().requests == 4)
    stop, turns = asyncio.create_task(fake.stop()), 0
    while not stop.done():  # meanwhile the loop never rests: who waits lets it go round very often
        turns += 1
        await asyncio.sleep(0)
    assert turns < 100
    assert asyncio.all_tasks() == before
    assert fake.statistics().connections_open == fake.statistics().in_flight == 0
    for _, writer in pairs:
        writer.close()
    assert not [r for r in caplog.records if r.name != "asyncio" or r.levelno > logging.DEBUG]


@pytest.mark.parametrize("turns", range(5))
async def test_stop_during_an_arrival(turns):
    """A connection that is just being accepted doesn't survive the stop either."""
    before = asyncio.all_tasks()
    fake = FakeIef()
    await fake.start()
    with socket.create_connection(fake.endpoint[7:].split(":")) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        await fake.stop()
        for _ in range(5):
            await asyncio.sleep(0)
        assert fake.statistics().connections_open == 0
        assert asyncio.all_tasks() == before
        client.settimeout(1)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""


async def test_leaving_client_ends_its_request(fake_ief, caplog):
    """A client that goes away takes its request out of flight, and nothing is logged."""
    fake_ief.script(Fault.hang(), Fault.drip(0.001, head=True), Fault.slow(9))
    pairs = [await connect(fake_ief) for _ in range(3)]
    for _, writer in pairs:
        writer.write(request_bytes(fake_ief))
    await settled(lambda: fake_ief.statistics().in_flight == 3)
    for _, writer in pairs:
        writer.transport.abort()
    await settled(lambda: fake_ief.statistics().in_flight == 0)
    assert fake_ief.statistics().connections_open == 0
    assert not [r for r in caplog.records if r.levelno > logging.DEBUG]


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
    """What the tables or the SDKs know and the example lacks is in some of the first pods."""
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
    """Ten million pods can be announced, and any of them looked at, without being made."""
    pods = FakeIef(10_000_000).pods
    assert len(pods) == 10_000_000
    assert pods[-1] == pods[9_999_999]
    assert pods[2:4] == [pods[2], pods[3]]


async def test_given_pods_are_served_as_they_are():
    """Odd pods pass unchanged; a pod that names no deployment or node belongs to all."""
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


@pytest.mark.parametrize("counts", [{"deployments": 0}, {"nodes": 0}, {"groups": 0}])
def test_a_fleet_needs_places(counts):
    """No deployments, nodes or groups at all is an error, not a division by zero later."""
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        FakeIef(**counts)


# --- the list call ---


async def test_queries_select_by_each_id(fake_ief):
    """Each of the four filters brings exactly its pods, in the fleet's order."""
    nodes = fake_ief.node_ids
    ask_for = {
        "deployment_id": fake_ief.deployment_ids[3],
        "deployment_ids": ",".join(fake_ief.deployment_ids[4:1:-1]),
        "node_id": nodes[1],
        "group_id": fake_ief.group_ids[1],
    }
    own = {
        "deployment_id": lambda i, _: i % 10 == 3,
        "deployment_ids": lambda i, _: i % 10 in {2, 3, 4},
        "node_id": lambda _, pod: pod["node_id"] == nodes[1],
        "group_id": lambda i, _: i % 5 in {1, 3},
    }
    for name, value in ask_for.items():
        _, _, body = await ask(fake_ief, **{name: value, "limit": 100})
        expected = [pod for i, pod in enumerate(fake_ief.pods) if own[name](i, pod)]
        assert body == {"count": len(expected), "pods": expected}, name


async def test_pages_add_up(fake_ief):
    """``count`` is the total of the query on every page, the one beyond the end included."""
    ids = ",".join(fake_ief.deployment_ids)
    pages = [
        (await ask(fake_ief, deployment_ids=ids, limit=30, offset=offset))[2]
        for offset in (0, 30, 60, 90, 120)
    ]
    assert [page["count"] for page in pages] == [100] * 5
    assert [len(page["pods"]) for page in pages] == [30, 30, 30, 10, 0]
    assert [pod for page in pages for pod in page["pods"]] == list(fake_ief.pods)


async def test_comma_raw_or_escaped_and_ids_twice(fake_ief):
    """A raw comma is an escaped one, an id named twice counts once."""
    first, second, *_ = fake_ief.deployment_ids
    for comma in (",", "%2C", "%2c"):
        path = target(fake_ief, x=1) + f"&deployment_ids={comma.join([first, second, first])}"
        assert (await ask(fake_ief, path))[2]["count"] == 20
    assert (await ask(fake_ief, deployment_id=f"{first},{second}"))[2]["count"] == 0


async def test_default_limit():
    """Without a limit the page has the size that the server chooses."""
    async with (
        FakeIef(50, deployments=1) as ten,
        FakeIef(50, deployments=1, service=Service(default_limit=7)) as seven,
    ):
        assert [len((await ask(fake))[2]["pods"]) for fake in (ten, seven)] == [10, 7]


async def test_page_cap_clamps_or_refuses():
    """A limit over the cap is cut down, or answered with IEF.100005; at the cap it is fine."""
    query = {"limit": 20}
    async with (
        FakeIef(deployments=1, page_cap=8) as clamps,
        FakeIef(deployments=1, page_cap=8, service=Service(over_cap="refuse")) as refuses,
    ):
        query["deployment_id"] = clamps.deployment_ids[0]
        assert len((await ask(clamps, **query))[2]["pods"]) == 8
        status, _, body = await ask(refuses, **query)
        assert (status, body["error_code"]) == (400, "IEF.100005")
        assert len((await ask(refuses, **query | {"limit": 8}))[2]["pods"]) == 8


async def test_unknown_ids_are_empty_or_refused():
    """An id that nobody has is an empty list, or a 404 even beside a known one."""
    async with FakeIef() as empty, FakeIef(service=Service(unknown_ids="refuse")) as refuses:
        assert (await ask(empty, node_id="n"))[2] == {"count": 0, "pods": []}
        assert (await ask(refuses, node_id="n"))[0] == 404
        both = f"{refuses.deployment_ids[0]},other"
        assert (await ask(refuses, deployment_ids=both))[0] == 404
        assert (await ask(refuses))[0] == 200


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"offset": "-1"}, "IEF.100004"),
        ({"offset": "x"}, "IEF.100004"),
        ({"offset": "1.0"}, "IEF.100004"),
        ({"offset": ""}, "IEF.100004"),
        ({"limit": "0"}, "IEF.100005"),
        ({"limit": "-5"}, "IEF.100005"),
        ({"limit": "ten"}, "IEF.100005"),
        ({"limit": "٣"}, "IEF.100005"),
        ({"limit": "9" * 5000}, "IEF.100005"),
    ],
)
async def test_illegal_numbers(fake_ief, query, code):
    """An offset or limit that is no such number is a 400 with its own code."""
    status, headers, body = await ask(fake_ief, deployment_id="d", **query)
    assert (status, [*body], body["error_code"]) == (400, ["error_code", "error_msg"], code)
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "query",
    [
        "limit=5",
        "node_id=",
        "node_id=a&group_id=b",
        "node_id=a&node_id=b",
        "plugin_instance_name=p",
    ],
)
async def test_exactly_one_id(fake_ief, query):
    """No id, an empty one and several of them are a 400."""
    status, _, body = await ask(fake_ief, f"/v3/{fake_ief.project_id}/edgemgr/pods?{query}")
    assert (status, body["error_code"]) == (400, "IEF.100001")


async def test_answer_on_the_wire(fake_ief):
    """Head and body stand in one compact answer with a length, and the connection stays open."""
    reader, writer = await connect(fake_ief)
    ids = set()
    for _ in range(3):
        writer.write(request_bytes(fake_ief))
        head, body = await one_answer(reader)
        lines = head.decode().lower().split("\r\n")
        assert lines[0] == "http/1.1 200 ok"
        assert "content-type: application/json" in lines
        ids.update(line for line in lines if line.startswith("x-request-id: "))
        assert b'{"count":10,"pods":[{"id":"' == body[:27]
    writer.close()
    assert len(ids) == 3
    assert fake_ief.statistics().connections == 1


async def test_connection_close_is_obeyed(fake_ief):
    """A client that asks for the end of the connection gets it, and is told."""
    reader, writer = await connect(fake_ief)
    writer.write(request_bytes(fake_ief)[:-2] + b"Connection: close\r\n\r\n")
    head, _ = await one_answer(reader)
    assert b"connection: close" in head.lower()
    assert await reader.read() == b""
    writer.close()


# --- a fleet that moves ---


async def rows(fake, offset=0, limit=1000, **query):
    """One page of the whole fleet, or of a query: its ids, and its count ("none" if left out)."""
    query = query or {"deployment_ids": ",".join(fake.deployment_ids)}
    status, _, body = await ask(fake, **query, offset=offset, limit=limit)
    assert status == 200, body
    return tuple(pod["id"] for pod in body["pods"]), body.get("count", "none")


def ids(fake):
    """What ``fake.pods`` shows."""
    return tuple(pod["id"] for pod in fake.pods)


async def test_scripted_changes_show_at_once():
    """Inserts, deletes and touches are at the places where they were made, in every listing."""
    async with FakeIef(20, deployments=4) as fake:
        old = fake.pod_ids()
        assert old == ids(fake)
        head, middle, tail = fake.insert(), fake.insert(2, at=6), fake.insert(at=None)
        expected = (*head, *old[:5], *middle, *old[5:], *tail)
        assert fake.pod_ids() == ids(fake) == expected
        assert await rows(fake) == (expected, 24)
        assert fake.delete(6, 2) == middle
        assert fake.delete(-2, 9) == [old[-1], *tail]
        assert fake.delete(99) == []
        fake.touch(old[3])
        expected = (old[3], *head, *old[:3], *old[4:-1])
        assert await rows(fake) == (expected, 20)
        assert await rows(fake, 5, 3) == (expected[5:8], 20)


async def test_inserts_keep_to_their_deployment():
    """A new pod is of the deployment named or of a drawn one, and its node's and group's."""
    async with FakeIef(8, deployments=4) as fake:
        third = fake.deployment_ids[2]
        new = fake.insert(3, at=4, deployment_id=third)
        own = tuple(pod["id"] for pod in fake.pods if pod["deployment_id"] == third)
        assert (
            (await rows(fake, deployment_id=third))[0] == own == (fake.pod_ids()[2], *new, own[4])
        )
        assert fake.insert(200, at=-1) == [*fake.pod_ids()[11:]]
        assert {pod["deployment_id"] for pod in list(fake.pods)[11:]} == {*fake.deployment_ids}
        for node in fake.node_ids:
            own = tuple(pod["id"] for pod in fake.pods if pod["node_id"] == node)
            assert await rows(fake, node_id=node) == (own, len(own))
        counts = [(await rows(fake, group_id=group))[1] for group in fake.group_ids]
        assert sum(counts) == len(fake.pods) == 211
        with pytest.raises(ValueError, match="must be one of the fleet's, got 'x'"):
            fake.insert(deployment_id="x")
        with pytest.raises(ValueError, match="not in"):
            fake.touch("x")


async def test_given_pods_move_too():
    """A pod inserted among given ones is a copy of one of them, with an id of its own."""
    given = [{"id": f"p{n}", "deployment_id": "ab"[n % 2], "odd": n} for n in range(4)]
    async with FakeIef([*given, "no pod"], service=Service(order="reversed")) as fake:
        assert fake.pod_ids() == ("None", "p3", "p2", "p1", "p0")
        fake.delete(0)
        fake.touch("p0")
        (new,) = fake.insert(at=2, deployment_id="b")
        assert await rows(fake) == (("p0", "p3", new, "p2", "p1"), 5)
        assert await rows(fake, deployment_id="b") == (("p3", new, "p1"), 3)
        assert fake.pods[2]["odd"] in range(4)
        assert fake.survivors() == {"p0", "p1", "p2", "p3"}
        new = {*fake.insert(9, deployment_id="a")}
        assert {pod["deployment_id"] for pod in fake.pods if pod["id"] in new} == {"a"}
        assert len({pod["odd"] for pod in fake.pods if pod["id"] in new}) > 2
    assert len(FakeIef([]).insert(2)) == 2


def test_survivors():
    """A survivor has been there since the start or the mark; no id ever comes back."""
    fake = FakeIef(10)
    old = fake.pod_ids()
    assert fake.survivors() == {*old}
    new = fake.insert(5, at=3)
    gone = fake.delete(0, 4)
    fake.touch(old[-1])
    assert gone == [*old[:3], new[0]]
    assert fake.survivors() == {*old[3:]}
    fake.mark()
    assert fake.survivors() == {*fake.pod_ids()} == {*old[3:], *new[1:]}
    seen = {*old, *new}
    for _ in range(50):
        fake.delete(0, 7)
        seen |= {*fake.insert(7)}
    assert len(seen) == 365
    assert fake.survivors() <= {*old, *new}


async def test_a_hook_moves_the_fleet_between_two_requests(fake_ief):
    """What the hook changes is in the very answer of the request that it was called with."""

    def delete(_):
        fake_ief.delete(0, 5)

    fake_ief.intercept(delete)
    first, _ = await rows(fake_ief, 0, 10)
    assert first == fake_ief.pod_ids()[:10]
    assert await rows(fake_ief, 10, 10) == (fake_ief.pod_ids()[10:20], 90)


async def moved(motion, requests=40, pods=400, **options):
    """The order before and after each of some requests for the whole fleet."""
    async with FakeIef(pods, motion=motion, **options) as fake:
        orders = [fake.pod_ids()]
        for _ in range(requests):
            listed, count = await rows(fake)
            assert listed == fake.pod_ids()
            assert count == len(listed)
            orders.append(listed)
        return orders


def changes(orders):
    """Which pods came and which went with each request."""
    pairs = list(pairwise(orders))
    came = [[pod for pod in new if pod not in {*old}] for old, new in pairs]
    went = [[pod for pod in old if pod not in {*new}] for old, new in pairs]
    return came, went


async def test_uniform_motion_has_its_rates():
    """Whole rates happen with each request, the rest of a rate is drawn; the others stay put."""
    orders = await moved(Motion.uniform(2, 1.5))
    came, went = changes(orders)
    assert {len(one) for one in came} == {2}
    assert Counter(len(one) for one in went).keys() == {1, 2}
    assert 45 <= sum(map(len, went)) <= 75
    places = [order.index(pod) for order, new in zip(orders[1:], came, strict=True) for pod in new]
    assert min(places) < 100
    assert max(places) > 300
    for old, new in pairwise(orders):
        assert [pod for pod in old if pod in new] == [pod for pod in new if pod in old]


@pytest.mark.parametrize("at", ["head", "tail"])
async def test_motion_at_an_end(at):
    """At the head or tail, what comes takes the place of what goes."""
    for old, new in pairwise(await moved(Motion.uniform(1, 1, at=at), 5)):
        assert new[1:] == old[1:] if at == "head" else new[:-1] == old[:-1]
        assert {*new} != {*old}


async def test_bursts_take_neighbours():
    """A burst is one run of neighbours of a size within its bounds; nothing comes for it."""
    orders = await moved(Motion.bursts(0.5, 5, 10), 20)
    came, went = changes(orders)
    assert not any(came)
    sizes = {len(one) for one in went}
    assert 0 in sizes
    assert 2 < len(sizes) <= 7
    assert sizes <= {0, *range(5, 11)}
    for old, gone in zip(orders, went, strict=False):
        first = old.index(gone[0]) if gone else 0
        assert [*old[first : first + len(gone)]] == gone


@pytest.mark.parametrize("new", ["head", "tail", "anywhere"])
async def test_rolling_updates_replace(new):
    """As many come as go, from anywhere to where they are said to, in the same deployments."""
    motion = Motion.rolling(1, 20, 30, new=new, churn=0)
    async with FakeIef(200, deployments=4, motion=motion) as fake:
        old = fake.pod_ids()
        listed, count = await rows(fake)
        homes = Counter(pod["deployment_id"] for pod in fake.pods)
    assert (count, set(homes.values())) == (200, {50})
    (came,), (went,) = changes([old, listed])
    assert 20 <= len(came) == len(went) <= 30
    assert old.index(went[-1]) - old.index(went[0]) > 30
    ends = {"head": [*listed[: len(came)]] == came, "tail": [*listed[-len(came) :]] == came}
    assert {end for end, holds in ends.items() if holds} == {new} - {"anywhere"}
    churned = await moved(Motion.rolling(0, churn=4), 3)
    assert [[len(one) for one in some] for some in changes(churned)] == [[2] * 3] * 2


async def test_touched_pods_jump_to_the_head():
    """A touched pod is the first; none comes or goes."""
    orders = await moved(Motion.touch(1), 6)
    assert len({order[0] for order in orders}) > 4
    for old, new in pairwise(orders):
        assert new == (new[0], *(pod for pod in old if pod != new[0]))


async def test_motions_combine_and_are_seeded():
    """Several motions all happen; the seed decides on what they do."""
    both = [Motion.uniform(3, 0, at="tail"), Motion.uniform(0, 2, at="head"), Motion.touch(0.5)]
    runs = [await moved(both, 6, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    shapes = [[(len({*a} - {*b}), len({*b} - {*a})) for a, b in pairwise(run)] for run in runs]
    assert shapes == [[(2, 3)] * 6] * 3
    places = [[run[0].index(pod) for pod in run[-1] if pod in run[0]] for run in runs]
    assert places[0] != places[2]


async def test_an_emptied_fleet_goes_on():
    """Motion without pods is none, and refused requests move nothing."""
    gone = [Motion.uniform(0, 30), Motion.bursts(1, 5, 9), Motion.rolling(1), Motion.touch(2)]
    async with FakeIef(40, motion=gone) as fake:
        await ask(fake, limit=0)
        assert len(fake.pods) == 40
        listed = [await rows(fake) for _ in range(3)]
        assert listed[-1] == ((), 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Motion.uniform(-1),
        lambda: Motion.uniform(at="middle"),
        lambda: Motion.bursts(2),
        lambda: Motion.bursts(least=0),
        lambda: Motion.bursts(least=9, most=8),
        lambda: Motion.rolling(new="middle"),
        lambda: FakeIef(service=Service(order="sorted")),
        lambda: FakeIef(service=Service(offsets="page")),
        lambda: FakeIef(service=Service(limits="none")),
        lambda: FakeIef(service=Service(counts="false")),
        lambda: FakeIef(service=Service(lag=-1)),
        lambda: FakeIef(account=Account(expired="APIGW.0308")),
        lambda: FakeIef(account=Account(metadata="tokens")),
        lambda: FakeIef(service=Service(empty_rate=1.1)),
        lambda: FakeIef(service=Service(cached_rate=-0.1)),
        lambda: FakeIef(service=Service(hidden_rate=2)),
        lambda: FakeIef(service=Service(repeated_rate=2)),
    ],
)
def test_impossible_motions_and_switches(make):
    """A motion or switch that can't be is refused when it is made."""
    with pytest.raises(ValueError, match=r"must be"):
        make()


async def test_a_large_moving_fleet_is_quick():
    """A request to a moving list of 2,000 pods costs about what one to a list at rest does."""

    async def cost(**options):
        async with FakeIef(2000, **options) as fake:
            query = target(fake, deployment_ids=",".join(fake.deployment_ids), limit=100)
            async with aiohttp.ClientSession(headers={"X-Auth-Token": fake.token}) as http:
                began = time.process_time()
                for _ in range(100):
                    async with http.get(fake.endpoint + query) as answer:
                        await answer.read()
            return time.process_time() - began

    at_rest = await cost()
    assert await cost(motion=[Motion.uniform(3, 3), Motion.rolling(0.5)]) < 20 * at_rest


# --- a listing that errs ---


async def test_offsets_ignored_or_pages():
    """The offset is ignored, or a page's number."""
    async with (
        FakeIef(50, service=Service(offsets="ignored")) as ignores,
        FakeIef(50, service=Service(offsets="pages")) as pages,
    ):
        every = ignores.pod_ids()
        assert [(await rows(ignores, at, 10))[0] for at in (0, 10, 49)] == [every[:10]] * 3
        assert [(await rows(pages, at, 10))[0] for at in (0, 2, 10)] == [
            every[:10],
            every[20:30],
            (),
        ]


async def test_limits_ignored():
    """Without regard to the limit, all rows from the offset on come."""
    async with FakeIef(50, service=Service(limits="ignored")) as fake:
        assert await rows(fake, 7, 10) == (fake.pod_ids()[7:], 50)


async def test_clamp_in_mid_scan(fake_ief):
    """The cap on pages can be changed while the server runs."""
    sizes = []
    for cap in (None, 6, 30):
        fake_ief.page_cap = cap
        sizes.append(len((await rows(fake_ief, 0, 20))[0]))
    assert sizes == [20, 6, 20]


async def test_shuffled_order():
    """A shuffled list is another permutation of the whole for each request; its seed decides."""
    async with (
        FakeIef(60, service=Service(order="shuffled")) as fake,
        FakeIef(60, service=Service(order="shuffled")) as twin,
    ):
        lists = [(await rows(fake))[0] for _ in range(3)]
        assert {frozenset(one) for one in lists} == {frozenset(fake.pod_ids())}
        assert len({*lists, fake.pod_ids()}) == 4
        assert [(await rows(twin))[0] for _ in range(3)] == lists
        halves = {*(await rows(fake, 0, 30))[0]}, {*(await rows(fake, 30, 30))[0]}
        assert halves[0] & halves[1]


async def test_ties():
    """Ties permute every three neighbours of the list that was asked for, and no more."""
    async with FakeIef(62, deployments=2, service=Service(order="ties")) as fake:
        for query in ({}, {"deployment_id": fake.deployment_ids[1]}):
            exact = fake.pod_ids()[1::2] if query else fake.pod_ids()
            lists = [(await rows(fake, **query))[0] for _ in range(3)]
            assert len({*lists, exact}) == 4
            for one in lists:
                for at in range(0, len(exact), 3):
                    assert {*one[at : at + 3]} == {*exact[at : at + 3]}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ("true", 30),
        ("none", "none"),
        ("page", 7),
        (0, 0),
        (10**9, 10**9),
        (lambda total, _: total + 37, 67),
        (lambda total, _: str(total), "30"),
        (lambda _, __: None, "none"),
    ],
)
async def test_counts(counts, expected):
    """A count is true, left out, the page's, a fixed number, or what a function says."""
    async with FakeIef(30, service=Service(counts=counts)) as fake:
        assert await rows(fake, 10, 7) == (fake.pod_ids()[10:17], expected)


async def test_counts_can_jitter():
    """A function that counts has a source of chance, which is seeded."""
    seen = []
    for _ in range(2):
        async with FakeIef(
            30, service=Service(counts=lambda total, rng: total + rng.randint(-5, 5))
        ) as fake:
            seen.append([(await rows(fake, 0, 1))[1] for _ in range(12)])
    assert seen[0] == seen[1]
    assert 3 < len({*seen[0]}) <= 11
    assert {*seen[0]} <= {*range(25, 36)}


async def test_lag():
    """An answer is one of the last states, count and all; a fleet at rest is caught up with."""
    async with FakeIef(10, service=Service(lag=2)) as fake:
        states = [(fake.pod_ids(), 10)]
        stale = 0
        for _ in range(30):
            fake.delete(0)
            fake.insert(2)
            states.append((fake.pod_ids(), len(fake.pods)))
            listed = await rows(fake)
            assert listed in states[-3:]
            stale += listed != states[-1]
        assert 10 <= stale <= 28
        for _ in range(2):
            await rows(fake)
        assert [await rows(fake) for _ in range(6)] == states[-1:] * 6


async def test_lag_of_a_single_deployment():
    """A past state is one of the query asked."""
    async with FakeIef(60, deployments=3, service=Service(lag=1)) as fake:
        first = fake.deployment_ids[0]
        own = fake.pod_ids()[::3]
        stale = 0
        for at in range(12):
            fake.delete(0)
            fake.insert(3, at=2, deployment_id=fake.deployment_ids[1])
            fake.delete(0, 5)
            left = {*fake.pod_ids()}
            before, own = own, tuple(pod for pod in own if pod in left)
            listed, _ = await rows(fake, deployment_id=first)
            assert listed in {before, own}, at
            stale += listed != own
        assert stale


async def test_empty_pages_come_and_go():
    """Some pages are empty under the usual count; asked again, the rows are there."""
    async with FakeIef(30, service=Service(empty_rate=0.5)) as fake:
        seen = Counter([await rows(fake, 10, 5) for _ in range(30)])
        assert seen.keys() == {((), 30), (fake.pod_ids()[10:15], 30)}
        assert min(seen.values()) > 4


async def test_pages_from_a_cache():
    """Some answers have the rows of the query's first page, and the present count."""
    async with FakeIef(40, deployments=2, service=Service(cached_rate=0.5)) as fake:
        own = fake.pod_ids()[1::2]
        seen = Counter(
            [await rows(fake, 10, 5, deployment_id=fake.deployment_ids[1]) for _ in range(30)]
        )
        assert seen.keys() == {(own[:5], 20), (own[10:15], 20)}
        assert min(seen.values()) > 4


async def test_hidden_rows():
    """The same pods are cut out of every page and counted all the same; they are survivors."""
    async with FakeIef(400, service=Service(hidden_rate=0.1), motion=Motion.touch(1)) as fake:
        hidden = fake.hidden_ids()
        assert 20 < len(hidden) < 60
        assert hidden < fake.survivors()
        for offset in (0, 100, 0):
            listed, count = await rows(fake, offset, 100)
            page = fake.pod_ids()[offset : offset + 100]
            assert listed == tuple(pod for pod in page if pod not in hidden)
            assert count == 400
            assert len(listed) < 100
    assert FakeIef(400).hidden_ids() == frozenset()


async def test_repeated_rows():
    """Some pods stand in two neighbouring rows; the count is of rows."""
    async with FakeIef(400, service=Service(repeated_rate=0.1)) as fake:
        listed, count = await rows(fake)
        assert count == len(listed)
        times = Counter(listed)
        assert tuple(times) == fake.pod_ids()
        assert {*times.values()} == {1, 2}
        assert 20 < count - 400 < 60
        assert listed == tuple(pod for pod in times for _ in range(times[pod]))
        assert (await rows(fake, 0, 50))[0] == listed[:50]


# --- the gateway ---


@pytest.mark.parametrize(
    ("headers", "text"),
    [({}, "x-auth-token not found"), ({"X-Auth-Token": "other"}, "decrypt token fail")],
)
async def test_token_is_checked(fake_ief, headers, text):
    """A missing and a wrong token have texts of their own, in the gateway's shape."""
    status, answer_headers, body = await ask(fake_ief, headers=headers)
    assert status == 401
    assert body == {
        "error_msg": f"Incorrect IAM authentication information: {text}",
        "error_code": "APIGW.0301",
        "request_id": answer_headers["X-Request-Id"],
    }


@pytest.mark.fake_ief(token=None)
async def test_token_check_can_be_off(fake_ief):
    """With ``token=None`` nobody asks for one."""
    assert (await ask(fake_ief, headers={}))[0] == 200


@pytest.mark.parametrize("prefix", ["/", "/v3", "/x", ""])
@pytest.mark.parametrize("suffix", ["/", "s"])
async def test_other_paths(fake_ief, prefix, suffix):
    """A doubled or trailing slash and any other path are a 404 of the gateway."""
    path = prefix + target(fake_ief).replace("/pods?", f"/pods{suffix}?")
    status, _, body = await ask(fake_ief, path)
    assert (status, body["error_code"]) == (404, "APIGW.0101")


async def test_double_slash_and_method(fake_ief):
    """``//v3`` and another method are no published API."""
    for path, method in (("/" + target(fake_ief), "GET"), (target(fake_ief), "POST")):
        status, _, body = await ask(fake_ief, path, method=method)
        assert (status, body["error_code"]) == (404, "APIGW.0101")


async def test_other_project(fake_ief):
    """Another project is a 400 of IEF, once the token is right."""
    path = target(fake_ief).replace(fake_ief.project_id, "0" * 32)
    status, _, body = await ask(fake_ief, path)
    assert (status, body["error_code"]) == (400, "IEF.100001")
    assert (await ask(fake_ief, path, headers={}))[0] == 401


async def test_line_limit(fake_ief):
    """A URI up to 32 KB passes, a longer one is a 414."""
    base = target(fake_ief, deployment_ids="")
    fits = base + "x" * (32 * 1024 - len(base) + 1)
    assert (await ask(fake_ief, fits))[0] == 200
    status, _, body = await ask(fake_ief, fits + "x")
    assert (status, body["error_code"]) == (414, "APIGW.0201")


async def test_header_limit():
    """A header up to 32 KB passes, a longer one is a 494, and so are 128 KB of headers."""
    token = "t" * (32 * 1024 - len("X-Auth-Token"))
    async with FakeIef(token=token) as fake:
        assert (await ask(fake))[0] == 200
        status, _, body = await ask(fake, headers={"X-Auth-Token": token + "t"})
        assert (status, body["error_code"]) == (494, "APIGW.0201")
        many = {"X-Auth-Token": token} | {f"X-{n}": "y" * 30_000 for n in range(4)}
        assert (await ask(fake, headers=many))[0] == 494


# --- what the server saw ---


async def test_requests_are_kept_as_sent(fake_ief):
    """A request is kept with its escapes, its decoded query and its lower-case headers."""
    reader, writer = await connect(fake_ief)
    writer.write(
        b"GET /v3/%7Bx/../edgemgr/pods?deployment_ids=a%2Cb&limit= HTTP/1.1\r\n"
        b"Host: h\r\nX-Two: 1\r\nX-TWO: 2\r\n\r\n"
    )
    await one_answer(reader)
    writer.close()
    seen = fake_ief.requests[-1]
    assert (seen.method, seen.path) == ("GET", "/v3/%7Bx/../edgemgr/pods")
    assert seen.raw_query == "deployment_ids=a%2Cb&limit="
    assert seen.query == {"deployment_ids": "a,b", "limit": ""}
    assert seen.headers == {"host": "h", "x-two": "1, 2"}
    assert 0 <= asyncio.get_running_loop().time() - seen.at < 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        seen.path = "/"


async def test_a_printed_request_shows_no_headers(fake_ief):
    """The token is in no ``repr``."""
    await ask(fake_ief)
    assert fake_ief.token not in repr(fake_ief.requests)


async def test_requests_are_bounded(fake_ief, monkeypatch):
    """Old requests are forgotten, half of the bound at a time; the counters forget nothing."""
    monkeypatch.setattr("ief_async.testing._server._REMEMBERED_REQUESTS", 4)
    for limit in range(1, 8):
        await ask(fake_ief, deployment_id="d", limit=limit)
    assert [seen.query["limit"] for seen in fake_ief.requests] == ["5", "6", "7"]
    assert fake_ief.statistics().requests == 7


async def test_queries_are_bounded(fake_ief, monkeypatch):
    """Answers to queries are remembered, but not without end, and stay right."""
    monkeypatch.setattr("ief_async.testing._fleet._REMEMBERED_QUERIES", 2)
    for identity in fake_ief.deployment_ids * 2:
        assert (await ask(fake_ief, deployment_id=identity))[2]["count"] == 10
    assert len(fake_ief._fleet._found) <= 2


async def test_peaks_and_connections(held_back):
    """In-flight peak and connections are those of the server, and connections have numbers."""
    async with FakeIef() as fake:
        fake.script(*[Fault.slow(1)] * 5)
        asked = asyncio.gather(*(ask(fake) for _ in range(5)))
        await settled(lambda: fake.statistics().in_flight == 5)
        held_back.set()
        await asked
        await settled(lambda: fake.statistics().connections_open == 0)
        await ask(fake)
        seen = fake.statistics()
    assert (seen.requests, seen.in_flight, seen.in_flight_peak) == (6, 0, 5)
    assert (seen.connections, seen.faults) == (6, 5)
    assert {request.connection for request in fake.requests} == {1, 2, 3, 4, 5, 6}


async def test_idle_connections_count(fake_ief):
    """A connection counts from its opening, request or no request."""
    _, writer = await connect(fake_ief)
    await settled(lambda: fake_ief.statistics().connections_open == 1)
    writer.close()
    await settled(lambda: fake_ief.statistics().connections_open == 0)
    assert fake_ief.statistics().connections == 1


async def test_latency(loop_time):
    """Each answer takes the latency, and requests wait for it side by side."""
    async with FakeIef(latency=100) as fake:
        asked = asyncio.gather(*(ask(fake) for _ in range(4)))
        await settled(lambda: fake.statistics().in_flight == 4)
        loop_time.let_pass(90)
        await asyncio.sleep(0.05)
        assert fake.statistics().in_flight == 4
        loop_time.let_pass(10)
        await asked


# --- who gets a fault ---


async def test_script_is_used_up_in_order(fake_ief):
    """Scripted faults go to the next requests, one each; then all is well again."""
    fake_ief.script(Fault.status(500), Fault.status(403))
    fake_ief.script(Fault.throttle())
    assert [(await ask(fake_ief))[0] for _ in range(4)] == [500, 403, 429, 200]
    assert fake_ief.statistics().faults == 3


async def test_hook_decides_by_request(fake_ief):
    """The hook sees the request; None is the normal answer; the script comes before it."""
    fake_ief.intercept(lambda seen: Fault.status(502) if "offset=3" in seen.raw_query else None)
    fake_ief.script(Fault.status(500))
    offsets = (3, 3, 0, 3)
    statuses = [(await ask(fake_ief, deployment_id="d", offset=o))[0] for o in offsets]
    assert statuses == [500, 502, 200, 502]
    fake_ief.intercept(None)
    assert (await ask(fake_ief, deployment_id="d", offset=3))[0] == 200


async def test_broken_hook_is_no_secret(fake_ief, caplog):
    """A hook that raises is a 500, and its traceback is logged."""
    fake_ief.intercept(lambda seen: seen.nothing)
    assert (await ask(fake_ief))[0] == 500
    assert "AttributeError" in caplog.text
    assert fake_ief.statistics().in_flight == 0


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
async def test_fault_rate_is_never_exceeded(rate):
    """At no moment is the share of faults above the rate; in the end it is close to it."""
    faults = [Fault.status(503), Fault.empty()]
    async with (
        FakeIef(fault_rate=rate, faults=faults, seed=3) as fake,
        aiohttp.ClientSession() as http,
    ):
        for sent in range(1, 201):
            async with http.get(fake.endpoint + target(fake)):
                assert fake.statistics().faults <= rate * sent + 1e-6
        assert fake.statistics().faults >= 200 * rate - 6


async def test_fault_rate_is_seeded():
    """The same seed draws the same faults for the same requests, another seed others."""
    runs = []
    for seed in (1, 1, 2):
        faults = [Fault.status(status) for status in range(500, 510)]
        async with FakeIef(fault_rate=0.3, faults=faults, seed=seed) as fake:
            runs.append([(await ask(fake))[0] for _ in range(40)])
    assert runs[0] == runs[1] != runs[2]


def test_default_mix():
    """The mix has one of each kind of trouble that is worth a retry."""
    kinds = Counter(fault.name for fault in DEFAULT_MIX)
    expected = {"status": 4, "throttle": 1, "drop": 1, "reset": 1, "cut": 1, "html": 1, "empty": 1}
    assert kinds == expected


# --- faults: answers ---


@pytest.mark.parametrize(
    ("shape_name", "status", "expected"),
    [
        ("ief", 500, {"error_code": "E", "error_msg": "M"}),
        ("iam", 401, {"error": {"code": 401, "message": "M", "title": "Unauthorized"}}),
        ("iam_v30", 403, {"error_msg": "M", "error_code": "E"}),
        ("code_message", 400, {"code": "E", "message": "M"}),
        ("message_only", 409, {"error_msg": "M"}),
    ],
)
async def test_error_shapes(fake_ief, shape_name, status, expected):
    """Each shape of an error body is the contract's."""
    fake_ief.script(Fault.status(status, shape=shape_name, error_code="E", error_msg="M"))
    answered, headers, body = await ask(fake_ief)
    assert (answered, body) == (status, expected)
    assert headers["X-Request-Id"]


async def test_gateway_shape_names_its_request(fake_ief):
    """The gateway's shape carries the id of the header in its body."""
    fake_ief.script(Fault.status(403, shape="apigw"))
    _, headers, body = await ask(fake_ief)
    assert body["request_id"] == headers["X-Request-Id"]
    assert body["error_code"] == "APIGW.0302"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.status(500), "IEF.100158"),
        (Fault.status(503), "IEF.310003"),
        (Fault.status(502, shape="apigw"), "APIGW.0201"),
        (Fault.status(401, shape="apigw"), "APIGW.0301"),
        (Fault.status(401, shape="iam_v30"), "IAM.0011"),
    ],
)
async def test_usual_codes(fake_ief, fault, code):
    """Where no code is given, the one that the contract names for the status stands."""
    fake_ief.script(fault)
    assert (await ask(fake_ief))[2]["error_code"] == code


async def test_bodies_that_are_no_json(fake_ief):
    """HTML, nothing, and any bytes can stand behind a status, with any headers."""
    fake_ief.script(
        Fault.status(502, shape="html"),
        Fault.status(503, shape="empty"),
        Fault.status(500, body=b"oh", headers=[("X-One", "1"), ("Content-Type", "text/plain")]),
    )
    html, empty, given = [await ask(fake_ief) for _ in range(3)]
    assert html[0] == 502
    assert html[1]["Content-Type"].startswith("text/html")
    assert html[2].startswith(b"<html>")
    assert (empty[0], empty[2]) == (503, b"")
    assert "Content-Type" not in empty[1]
    assert (given[0], given[2], given[1]["X-One"]) == (500, b"oh", "1")
    assert given[1].getall("Content-Type") == ["text/plain"]


@pytest.mark.parametrize("status", [0, 101, 204, 206, 304, 494, 501, 505, 99999])
async def test_odd_statuses(fake_ief, status):
    """Any number can be the status; those that have no body get none."""
    fake_ief.script(attrs.evolve(Fault.status(status), end="close"))
    head, _, body = (await wire(fake_ief)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %03d " % status)
    assert (body == b"") == (status in {101, 204, 304})
    assert (b"Content-Length" in head) == bool(body)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, []), ("2", ["2"]), ("", [""]), (("1", "Wed, 21 Oct 2099 07:28:00 GMT"), None)],
)
async def test_throttle(fake_ief, given, expected):
    """A 429 has the ``Retry-After`` headers that were asked for, word for word."""
    fake_ief.script(Fault.throttle(given))
    status, headers, body = await ask(fake_ief)
    assert (status, body["error_code"]) == (429, "APIGW.0308")
    assert headers.getall("Retry-After", []) == (list(given) if expected is None else expected)


@pytest.mark.parametrize("location", ["http://127.0.0.1:9/x", "file:///x", None])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect(fake_ief, location, status):
    """A redirect leads where the test says, or nowhere."""
    fake_ief.script(Fault.redirect(location, status))
    answered, headers, body = await ask(fake_ief)
    assert (answered, headers.get("Location"), body) == (status, location, b"")


async def test_login_page_and_nothing(fake_ief):
    """A 200 can be HTML, and it can be empty while it says that it is JSON."""
    fake_ief.script(Fault.html(), Fault.empty())
    html, empty = await ask(fake_ief), await ask(fake_ief)
    assert (html[0], html[1]["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"Please log in" in html[2]
    assert (empty[0], empty[1]["Content-Type"], empty[2]) == (200, "application/json", b"")


async def test_other_body(fake_ief):
    """A body comes byte for byte, with the type, status and headers that go with it."""
    data = b'\xef\xbb\xbf{"request":"{request_id}"}\xff'
    fake_ief.script(
        Fault.body(data),
        Fault.body(b"null", status=203, content_type=None, headers=[("X-A", "b")]),
        Fault.body(b"{}", content_type="application/json; charset=utf-16"),
    )
    first, second, third = [await ask(fake_ief) for _ in range(3)]
    assert first[2] == data
    assert (second[0], second[1]["X-A"], second[2]) == (203, "b", None)
    assert "Content-Type" not in second[1]
    assert third[1]["Content-Type"].endswith("utf-16")


async def test_unframed_body(fake_ief):
    """An unframed body has no length and ends with its connection."""
    fake_ief.script(Fault.body(b'{"count":', framed=False))
    head, _, body = (await wire(fake_ief)).partition(b"\r\n\r\n")
    assert b"Content-Length" not in head
    assert b"Connection: close" in head
    assert body == b'{"count":'


async def test_edited_answer(fake_ief):
    """The real body can be changed on its way, and its length fits."""
    fake_ief.script(Fault.edit(lambda body: body.replace(b'"count":10', b'"count":4711')))
    _, _, body = await ask(fake_ief)
    assert (body["count"], len(body["pods"])) == (4711, 10)


async def test_headers_and_cookie(fake_ief):
    """The real answer can carry more headers, or others in place of its own."""
    fake_ief.script(
        Fault.cookie(), Fault.headers(("content-type", "text/plain"), ("A", "x" * 9000))
    )
    status, headers, body = await ask(fake_ief)
    assert (status, headers["Set-Cookie"], body["count"]) == (200, "lb=7; Path=/", 10)
    reader, writer = await connect(fake_ief)
    writer.write(request_bytes(fake_ief))
    head, _ = await one_answer(reader)
    writer.close()
    assert head.lower().count(b"content-type:") == 1
    assert b"content-type: text/plain\r\nA: " + b"x" * 9000 + b"\r\n" in head


async def test_length_can_lie(fake_ief):
    """A length that the test gives stands, ten gigabytes before nothing included."""
    fake_ief.script(Fault.body(b"", headers=[("Content-Length", "10000000000")]))
    reader, writer = await connect(fake_ief)
    writer.write(request_bytes(fake_ief))
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert head.count(b"Content-Length") == 1
    assert b"Content-Length: 10000000000\r\n" in head


# --- faults: the wire ---


async def test_raw_bytes(fake_ief):
    """Raw bytes are all that comes, and with ``close=False`` the connection goes on."""
    garbage = b"\x16\x03\x01 no HTTP at all"
    fake_ief.script(Fault.raw(garbage), Fault.raw(b"HTTP/1.1 103 Early Hints\r\n\r\n", close=False))
    assert await wire(fake_ief) == garbage
    reader, writer = await connect(fake_ief)
    writer.write(request_bytes(fake_ief))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 103 Early Hints\r\n\r\n"
    writer.write(request_bytes(fake_ief))
    assert (await one_answer(reader))[0].startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


async def test_bytes_around_the_answer(fake_ief):
    """Bytes can stand before the real answer and after its length."""
    hints = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    fake_ief.script(attrs.evolve(Fault.around(before=hints, after=b"more"), end="close"))
    got = await wire(fake_ief)
    assert got.startswith(hints + b"HTTP/1.1 200 OK\r\n")
    head, _, rest = got.removeprefix(hints).partition(b"\r\n\r\n")
    length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
    assert json.loads(rest[:length])["count"] == 10
    assert rest[length:] == b"more"


async def test_drop_and_reset(fake_ief):
    """A drop is a FIN before any byte, a reset is an RST."""
    fake_ief.script(Fault.drop(), Fault.reset())
    assert await wire(fake_ief) == b""
    with pytest.raises(ConnectionResetError):
        await wire(fake_ief)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
async def test_cut(fake_ief, keep):
    """A cut answer promises more than it sends: a share of the real body, then FIN."""
    fake_ief.script(Fault.cut(keep))
    head, _, body = (await wire(fake_ief)).partition(b"\r\n\r\n")
    length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
    assert len(body) == int(length * keep) < length
    assert b'{"count":10,"pods":['.startswith(body[:20])


async def test_cut_by_reset(fake_ief):
    """A cut can be a reset in mid-body: some of it arrives, then the connection is gone."""
    fake_ief.script(Fault.cut(reset=True))
    reader, writer = await connect(fake_ief)
    writer.write(request_bytes(fake_ief))
    assert await reader.readuntil(b"\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_large_cut_by_reset(fake_ief):
    """Of a body that fills every buffer, most of what is kept arrives before the reset."""
    fake_ief.script(attrs.evolve(Fault.body(b"x" * 20_000_000), keep=0.5, end="reset"))
    received = []
    with (
        socket.create_connection(fake_ief.endpoint[7:].split(":")) as client,
        pytest.raises(ConnectionResetError),
    ):
        await _receive(client, request_bytes(fake_ief), received)
    assert 4_000_000 < sum(received) < 10_001_000


async def _receive(client, request, received):
    client.settimeout(0)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, request)
    while size := len(await loop.sock_recv(client, 1 << 16)):
        received.append(size)


async def test_cut_without_a_length(fake_ief):
    """A cut answer without a length looks whole: only its JSON is not."""
    fake_ief.script(Fault.cut(framed=False))
    status, headers, body = await ask(fake_ief)
    assert (status, "Content-Length" in headers) == (200, False)
    assert body.startswith(b'{"count":10')


async def test_chunked_faults(fake_ief):
    """Chunks can end without an end, and a size can be no number."""
    fake_ief.script(Fault.cut_chunk(), Fault.bad_chunk())
    for _ in range(2):
        head, _, body = (await wire(fake_ief)).partition(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        assert b"Content-Length" not in head
        size, _, data = body.partition(b"\r\n")
        if len(data) > int(size, 16):
            assert data[int(size, 16) :] == b"\r\nzz\r\n"
            break
        assert 0 < len(data) < int(size, 16)
    else:
        pytest.fail("no bad chunk came")


async def test_close_after(fake_ief):
    """The answer is whole and says nothing of the end, then the connection closes."""
    fake_ief.script(Fault.close_after())
    reader, writer = await connect(fake_ief)
    writer.write(request_bytes(fake_ief))
    head, body = await one_answer(reader)
    assert b"connection" not in head.lower()
    assert json.loads(body)["count"] == 10
    assert await reader.read() == b""
    writer.close()


# --- faults: compression ---


async def body_of(fake, fault):
    """Head and body of a fault, as on the wire."""
    fake.script(fault)
    reader, writer = await connect(fake)
    writer.write(request_bytes(fake))
    answer = await one_answer(reader)
    writer.close()
    return answer


async def test_gzip_right_and_wrong(fake_ief):
    """Compressed bodies are right, cut under a fitting length, plain, or fail their checksum."""
    head, body = await body_of(fake_ief, Fault.gzip())
    assert b"Content-Encoding: gzip\r\n" in head
    real = gzip.decompress(body)
    assert json.loads(real)["count"] == 10
    _, half = await body_of(fake_ief, Fault.gzip_cut())
    assert half == body[: len(body) // 2]
    head, plain = await body_of(fake_ief, Fault.gzip_plain())
    assert b"Content-Encoding: gzip\r\n" in head
    assert plain == real
    _, wrong = await body_of(fake_ief, Fault.gzip_crc())
    with pytest.raises(gzip.BadGzipFile, match="CRC"):
        gzip.decompress(wrong)
    assert zlib.decompress(wrong[10:-8], wbits=-15) == real


@pytest.mark.parametrize("size", [0, 5, 1 << 20, 3_000_001])
async def test_bomb_is_valid(fake_ief, size):
    """The bomb unpacks to exactly its size, checksum and all."""
    _, bomb = await body_of(fake_ief, Fault.gzip_bomb(size))
    assert gzip.decompress(bomb) == b" " * size


async def test_bomb_is_small(fake_ief):
    """256 MiB of blanks are less than 400 KiB on the wire."""
    _, bomb = await body_of(fake_ief, Fault.gzip_bomb())
    assert len(bomb) < 400 << 10
    assert int.from_bytes(bomb[-4:], "little") == 256 << 20


async def test_gzip_members(fake_ief):
    """Very many empty members come as one body."""
    _, body = await body_of(fake_ief, Fault.gzip_members(1000))
    assert body.count(b"\x1f\x8b\x08") == 1000
    assert gzip.decompress(body) == b""


# --- faults: time ---


async def test_hang(fake_ief):
    """A hanging request gets no byte, and others are not held up by it."""
    fake_ief.script(Fault.hang())
    reader, writer = await connect(fake_ief)
    writer.write(request_bytes(fake_ief))
    await settled(lambda: fake_ief.statistics().in_flight == 1)
    assert (await ask(fake_ief))[0] == 200
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.05)
    writer.close()
    await settled(lambda: fake_ief.statistics().in_flight == 0)


async def test_slow(fake_ief):
    """A slow answer is the real one, later."""
    fake_ief.script(Fault.slow(0.1))
    start = time.monotonic()
    assert (await ask(fake_ief))[2]["count"] == 10
    assert time.monotonic() - start >= 0.099


@pytest.mark.parametrize("head", [False, True])
async def test_drip(head, loop_time):
    """A dripping answer comes byte by byte: the body after a whole head, or all of it."""
    async with FakeIef() as fake:
        fake.script(Fault.drip(60, head=head))
        reader, writer = await connect(fake)
        writer.write(request_bytes(fake))
        if not head:
            assert await reader.readuntil(b"\r\n\r\n")
        for _ in range(5):
            assert len(await reader.read(1000)) == 1
            loop_time.let_pass(60)
        writer.close()


async def test_drip_is_whole_in_the_end():
    """Byte by byte, the real answer arrives."""
    async with FakeIef([{"id": "a"}]) as fake:
        fake.script(Fault.drip(0, head=True))
        assert (await ask(fake))[2] == {"count": 1, "pods": [{"id": "a"}]}


def test_faults_are_values():
    """Equal faults are equal, frozen, and print their name but not their bytes."""
    assert Fault.cut() == Fault.cut() != Fault.cut(0.1)
    assert "drop" in repr(Fault.drop())
    assert len(repr(Fault.gzip_members())) < 200
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Fault.drop().name = "x"


# ---- in a thread of its own --------------------------------------------------------------------


def test_a_fake_in_a_thread_of_its_own():
    """With plain `with` the server serves code that starts event loops itself, and then ends."""
    threads = threading.active_count()

    async def read(fake):
        async with IefSession(
            fake.project_id, credentials=Token(fake.token), endpoint=fake.endpoint
        ) as ief:
            return len(await ief.iter_pods(fake.deployment_ids).collect())

    with FakeIef(pods=50) as fake:
        assert 50 == asyncio.run(read(fake))
        assert 3 == len(fake.insert(3))
        assert 53 == asyncio.run(read(fake))
        assert 50 == len(fake.survivors())
        assert 53 == len(fake.pod_ids())

    assert threads == threading.active_count()
    with pytest.raises(RuntimeError, match="isn't running"):
        _ = fake.endpoint


def test_changes_wait_for_the_server_to_be_idle():
    """What looks at a fleet that has a thread is done in that thread."""
    with FakeIef(pods=5) as fake:
        inside = set()
        fake._fleet.mark = lambda: inside.add(threading.current_thread().name)
        fake.mark()

    assert {"FakeIef"} == inside


async def test_environment_leads_to_the_fake(fake_ief, monkeypatch):
    """The variables that a fake names are all that a session needs."""
    for name, value in fake_ief.environment().items():
        monkeypatch.setenv(name, value)

    async with IefSession.from_env() as ief:
        assert len(fake_ief.pods) == len(await ief.iter_pods(fake_ief.deployment_ids).collect())
