"""The vendor's own client as a judge: what it reads from the fake server, and how it takes faults.

Two clients that share no code, over real HTTP. Where they agree on the fake, it is no misreading of
ours; what the vendor's loses is written down here as it was found, and the README tells it.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import aiohttp
import attrs
import pytest
from conftest import session_with, until

from ief_async import (
    AccessKey,
    ApiError,
    AuthenticationError,
    IefSession,
    Limits,
    PayloadError,
    RetryPolicy,
    ThrottledError,
    TransportError,
)
from ief_async.testing import Account, FakeIef, Fault, Service

pytestmark = pytest.mark.once  # of the vendor's client, which no interpreter changes

SCRIPT = Path(__file__).parent / "samples" / "vendor.py"
INSTANCE = "5f6a1e1c-2e7b-4f7a-9d3c-0b8e6a5d4c3b"
ONCE = RetryPolicy(attempts=1)

# How the vendor's client is asked for each list: its call, its page size (its nodes want a text),
# and under which key the rows are.
CALLS = {
    "pods": ("list_pods", 40, "pods"),
    "deployments": ("list_deployments", 4, "deployments"),
    "nodes": ("list_edge_nodes", "3", "nodes"),
    "groups": ("list_edge_groups", 2, "edge_groups"),
}
each_list = pytest.mark.parametrize("kind", CALLS)

# Of all that the fake sends, fields without an attribute: of the vendor's objects, and of ours.
# No document gives `Env` and `Port` these where they are a pod's; a deployment's are kept by both.
# Neither loses the body: it is the vendor's `raw_content`, and our `Page.raw`.
THEY_LOSE = {
    "Pod": {"affinity", "description", "updated_at"},
    "Env": {"field_path", "value_from"},
    "Port": {"host_port_range"},
}
WE_LOSE = {
    "Env": {"field_path", "value_from"},
    "Port": {"host_port_range"},
}
# Values that become another type, of those that the fake sends: it sends amounts in either.
THEY_CHANGE = {
    "ResourceAmounts": {
        "D310B: integer to text",
        "cpu: number to text",
        "gpu: integer to text",
        "memory: integer to text",
    },
}
WE_CHANGE = {
    "Group": {"failed_node_del: null to array"},
    "Node": {"device_infos: null to array"},
    "ResourceAmounts": {
        "D310: text to number",
        "D310B: integer to number",
        "D910: text to number",
        "cpu: text to number",
        "gpu: integer to number",
        "gpu: text to number",
        "memory: integer to number",
        "memory: text to number",
        "npu: text to number",
    },
}


class Vendor:
    """The vendor's client, in a process with a home of its own."""

    def __init__(self, home):
        self.home = home
        kept = {
            name: value
            for name, value in os.environ.items()
            if "HUAWEICLOUD" not in name and not name.lower().endswith("_proxy")
        }
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**kept, "HOME": str(home)},
        )
        self.calls = self._line()

    def _line(self):
        line = self.process.stdout.readline()
        assert line, "the vendor's client has ended"
        return json.loads(line)

    def _told(self, order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self._line()

    async def ask(self, fake, call, arguments=None, **options):
        """Let it send one request to this fake, signed with its keys if no others are given."""
        order = {
            "call": call,
            "arguments": arguments or {},
            "endpoint": fake.endpoint,
            "access_key": fake.access_key,
            "secret_key": fake.secret_key,
            "security_token": None,
            "project_id": fake.project_id,
            "region": None,
            "iam_endpoint": None,
            "retry_times": 0,
            "at_once": 0,
            "environment": {},
        }
        assert options.keys() <= order.keys()
        return await asyncio.to_thread(self._told, order | options)

    async def rows(self, fake, kind, **arguments):
        """Read a whole list as its users have to: offset after offset."""
        call, limit, key = CALLS[kind]
        rows = []
        while True:
            offset = type(limit)(len(rows))
            given = arguments | {"limit": limit, "offset": offset, "ief_instance_id": INSTANCE}
            got = await self.ask(fake, call, given)
            assert 200 == got.get("status"), got
            rows += got["answer"][key]
            if len(rows) >= got["answer"]["count"]:
                return rows


@pytest.fixture(scope="module")
def vendor(tmp_path_factory):
    """Run the vendor's client; it takes a while to import, so once for all tests."""
    running = Vendor(tmp_path_factory.mktemp("home"))
    with running.process:  # which ends with its input
        yield running


@pytest.fixture
async def fake():
    """Run a fleet with every field that is known, of which each request must name the instance."""
    async with FakeIef(
        150, deployments=13, nodes=7, groups=3, service=Service(instance_id=INSTANCE)
    ) as running:
        yield running


def signing(fake, **options):
    """Return a session that signs its requests, and tries each once."""
    key = AccessKey(fake.access_key, fake.secret_key)
    options = {"credentials": key, "retry": ONCE, "instance_id": fake.instance_id} | options
    return session_with(fake, **options)


async def ours(fake, kind):
    """Read a whole list with this library."""
    async with signing(fake) as ief:
        stream = {
            "pods": lambda: ief.iter_pods(fake.deployment_ids),
            "deployments": ief.iter_deployments,
            "nodes": ief.iter_nodes,
            "groups": ief.iter_groups,
        }[kind]()
        return await stream.collect()


async def theirs(vendor, fake, kind):
    """Read the same list with the vendor's client."""
    ids = {"deployment_ids": ",".join(fake.deployment_ids)} if kind == "pods" else {}
    return await vendor.rows(fake, kind, **ids)


def sent(fake, kind):
    """Return the list as the fake sends it."""
    lists = {"deployments": fake.deployments, "nodes": fake.nodes, "groups": fake.groups}
    return [*lists.get(kind, fake.pods)]


def differences(their, our, path):
    """Say where the vendor's client read something else than we did, of what it has at all."""
    if attrs.has(type(our)) and isinstance(their, dict):
        return [
            found
            for key, value in their.items()
            for found in differences(value, getattr(our, key, "no such field"), f"{path}.{key}")
        ]
    if isinstance(our, tuple):
        their = [] if their is None else their  # a list that is null is empty to us
        if not isinstance(their, list) or len(their) != len(our):
            return [f"{path}: {their!r:.80} is not {our!r:.80}"]
        pairs = enumerate(zip(their, our, strict=True))
        return [found for n, pair in pairs for found in differences(*pair, f"{path}[{n}]")]
    if isinstance(our, float) and isinstance(their, str):  # its amounts are texts
        their = float(their)
    elif type(their) is not type(our):
        return [f"{path}: {their!r:.80} is not {our!r:.80}"]
    return [] if their == our else [f"{path}: {their!r:.80} is not {our!r:.80}"]


NAMES = {str: "text", int: "integer", float: "number", bool: "boolean", type(None): "null"}
NAMES |= {list: "array", dict: "object"}


def compare(document, read, shape, lost, changed):
    """Note which fields of a document were not read, and which became of another type.

    What stands at a place has the name of our class for it.
    """
    if isinstance(document, list):
        shape = shape or [None] * len(document)
        for triple in zip(document, read, shape, strict=True):
            compare(*triple, lost, changed)
        return
    if not (isinstance(document, dict) and attrs.has(type(shape))):
        assert document == read
        return
    name = type(shape).__name__
    for key, value in document.items():
        if key not in read:
            lost[name].add(key)
        elif type(value) is not type(read[key]):
            change = f"{NAMES[type(value)]} to {NAMES[type(read[key])]}"
            changed[name].add(f"{key}: {change}")
        else:
            compare(value, read[key], getattr(shape, key, None), lost, changed)


# ---- what both read ------------------------------------------------------------------------------


@each_list
async def test_both_clients_read_the_same(vendor, fake, kind):
    """In whatever the vendor's objects have, there is what ours have: every row, every part."""
    our, their = await ours(fake, kind), await theirs(vendor, fake, kind)

    assert [row["id"] for row in sent(fake, kind)] == [row["id"] for row in their]
    assert [row.id for row in our] == [row["id"] for row in their]
    found = [
        line for pair in zip(their, our, strict=True) for line in differences(*pair, pair[1].id)
    ]
    assert [] == found


async def test_what_each_client_loses(vendor, fake):
    """Of all that the server sends, these fields have no attribute, these become another type."""
    notes = [defaultdict(set) for _ in range(4)]
    for kind in CALLS:
        our, their = await ours(fake, kind), await theirs(vendor, fake, kind)
        plain = json.loads(json.dumps([attrs.asdict(row) for row in our]))
        compare(sent(fake, kind), their, our, *notes[:2])
        compare(sent(fake, kind), plain, our, *notes[2:])

    assert [THEY_LOSE, THEY_CHANGE] == notes[:2]
    assert [WE_LOSE, WE_CHANGE] == notes[2:]


async def test_what_we_lose_is_named(fake):
    """A scan's report names each field that our objects had no attribute for."""
    async with signing(fake) as ief:
        stream = ief.iter_pods(fake.deployment_ids)
        await stream.collect()

    names = {path.rpartition(".")[2] for path in stream.report.unknown_fields}
    assert {name for lost in WE_LOSE.values() for name in lost} == names


@pytest.mark.parametrize("selector", ["deployment_id", "node_id", "group_id"])
async def test_both_find_the_same_pods(vendor, fake, selector):
    """Each of the other ways to ask for pods finds the same ones, in the same order."""
    known = {"deployment_id": fake.deployment_ids, "node_id": fake.node_ids}
    asked = {selector: known.get(selector, fake.group_ids)[1]}
    their = [row["id"] for row in await vendor.rows(fake, "pods", **asked)]
    async with signing(fake) as ief:
        page = await ief.list_pods(**asked, limit=1000)

    assert 0 < len(their) < 150
    assert [pod.id for pod in page.items] == their


async def test_who_names_no_instance_finds_nothing(vendor, fake):
    """Without the instance's id both get an empty list of a platinum fleet, and no error."""
    got = await vendor.ask(fake, "list_pods", {"node_id": fake.node_ids[0]})
    async with signing(fake, instance_id=None) as ief:
        page = await ief.list_pods(node_id=fake.node_ids[0])

    assert {"count": 0, "pods": []} == got["answer"]
    assert (0, ()) == (page.count, tuple(page.items))


async def test_the_vendor_has_no_call_for_instances(vendor, fake):
    """Of the lists that a scan starts from, that of instances is ours alone."""
    assert {call for call, _, _ in CALLS.values()} <= {*vendor.calls}
    assert not [name for name in vendor.calls if "instance" in name]
    async with signing(fake) as ief:
        assert [INSTANCE] == [one.id async for one in ief.iter_instances()]


# ---- authentication ------------------------------------------------------------------------------


async def test_vendor_signs_what_it_sends(vendor):
    """A fake that asks for a token accepts its signature instead."""
    async with FakeIef(3) as fake:
        got = await vendor.ask(fake, "list_pods", {"node_id": fake.node_ids[0]})

    assert 200 == got["status"]
    (seen,) = fake.requests
    assert seen.headers["authorization"].startswith("SDK-HMAC-SHA256 ")
    assert "x-auth-token" not in seen.headers
    assert fake.project_id == seen.headers["x-project-id"]
    assert {} == fake.wrong_signatures


async def test_wrong_secret_key_is_refused(vendor, fake):
    """A signature by another key is a 401 with the same code to both clients."""
    got = await vendor.ask(fake, "list_edge_groups", secret_key="another")
    async with signing(fake, credentials=AccessKey(fake.access_key, "another")) as ief:
        with pytest.raises(AuthenticationError) as caught:
            await ief.iter_groups().collect()

    assert ("huaweicloudsdkcore.ClientRequestException", 401) == (got["error"], got["status"])
    assert "APIGW.0301" == got["code"] == caught.value.error_code
    assert {fake.access_key: 2} == fake.wrong_signatures


async def test_temporary_keys_are_let_in_with_their_token(vendor):
    """Keys of the metadata service need their security token, and end when they are revoked."""
    async with FakeIef(3) as fake, aiohttp.ClientSession() as http:
        base, ttl = fake.metadata_endpoint, {"X-Metadata-Token-Ttl-Seconds": "60"}
        async with http.put(f"{base}/meta-data/latest/api/token", headers=ttl) as answer:
            headers = {"X-Metadata-Token": await answer.text()}
        async with http.get(f"{base}/openstack/latest/securitykey", headers=headers) as answer:
            given = (await answer.json())["credential"]
        bare = {"access_key": given["access"], "secret_key": given["secret"]}
        whole = bare | {"security_token": given["securitytoken"]}
        let_in = await vendor.ask(fake, "list_edge_nodes", **whole)
        without = await vendor.ask(fake, "list_edge_nodes", **bare)
        fake.revoke_keys()
        late = await vendor.ask(fake, "list_edge_nodes", **whole)

    assert [200, 401, 401] == [got["status"] for got in (let_in, without, late)]
    assert 5 == let_in["answer"]["count"]


async def test_vendor_gets_its_own_keys_from_the_metadata_service(vendor):
    """Without keys it asks the fake's metadata service for some, which are accepted."""
    async with FakeIef(3) as fake:
        got = await vendor.ask(fake, "list_edge_nodes", access_key=None, secret_key=None)

    assert 200 == got["status"], got
    assert ["PUT", "GET", "GET"] == [seen.method for seen in fake.requests]
    assert "/openstack/latest/securitykey" == fake.requests[1].path
    assert "x-security-token" in fake.requests[2].headers


@pytest.mark.parametrize("how", ["argument", "environment"])
async def test_both_look_the_project_up(vendor, how):
    """Without a project's id each client gets it from IAM, by the region's name, signed."""
    # The vendor's remembers it by key and region for as long as its process lives.
    async with FakeIef(
        3, account=Account(access_key=f"FAKEACCESSKEY{how.upper()}", project_id="0" * 32)
    ) as fake:
        where = (
            {"iam_endpoint": fake.iam_endpoint}
            if how == "argument"
            else {"environment": {"HUAWEICLOUD_SDK_IAM_ENDPOINT": fake.iam_endpoint}}
        )
        asked_for = {"project_id": None, "region": fake.region, **where}
        got = await vendor.ask(fake, "list_edge_nodes", **asked_for)
        async with IefSession(
            credentials=AccessKey(fake.access_key, fake.secret_key),
            region=fake.region,
            endpoint=fake.endpoint,
            iam_endpoint=fake.iam_endpoint,
        ) as ief:
            ids = [node.id async for node in ief.iter_nodes()]

    assert ids == [row["id"] for row in got["answer"]["nodes"]]
    looked_up = [seen for seen in fake.requests if seen.path == "/v3/projects"]
    assert ["name=cn-north-4"] * 2 == [seen.raw_query for seen in looked_up]
    assert all("authorization" in seen.headers for seen in looked_up)


async def test_one_of_several_projects_is_not_guessed(vendor):
    """Where IAM gives two projects for a region's name, the vendor's client says so."""
    projects = [{"id": letter * 32, "name": "cn-north-4"} for letter in "ab"]
    async with FakeIef(
        3, account=Account(access_key="FAKEACCESSKEYOFTWO00", projects=projects)
    ) as fake:
        asked_for = {"project_id": None, "region": fake.region, "iam_endpoint": fake.iam_endpoint}
        got = await vendor.ask(fake, "list_edge_nodes", **asked_for)

    assert "huaweicloudsdkcore.SdkException" == got["error"]
    assert "Multiple project ids found" in got["message"]


# ---- malformed answers ---------------------------------------------------------------------------


REFUSAL = b'{"error_code":"IEF.100158","error_msg":"Failed to extract the GPU information"}'


def half(body):
    """Cut JSON in two, under a length that fits."""
    return body[: len(body) // 2]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(Fault.html(), PayloadError, id="html"),
        pytest.param(Fault.edit(half), PayloadError, id="cut JSON"),
        pytest.param(Fault.empty(), PayloadError, id="empty"),
        pytest.param(Fault.body(b"[]"), PayloadError, id="array"),
        pytest.param(Fault.body(REFUSAL), ApiError, id="error"),
    ],
)
async def test_what_is_no_answer_is_an_empty_one_to_the_vendor(vendor, fake, fault, error):
    """A 200 that is no list: to the vendor an object without pods and count; to us an error."""
    fake.intercept(lambda _: fault)
    ids = fake.deployment_ids
    got = await vendor.ask(fake, "list_pods", {"deployment_ids": ",".join(ids)})
    async with signing(fake) as ief:
        with pytest.raises(error) as caught:
            await ief.iter_pods(ids).collect()

    assert type(caught.value) is error
    assert {"status": 200, "answer": {"count": None, "pods": None}} == got


async def test_cut_body_escapes_as_an_error_of_another_library(vendor, fake):
    """A body shorter than its length: the vendor's caller gets an error of requests."""
    fake.intercept(lambda _: Fault.cut())
    got = await vendor.ask(fake, "list_pods", {"node_id": fake.node_ids[0]})
    async with signing(fake) as ief:
        with pytest.raises(TransportError):
            await ief.list_pods(node_id=fake.node_ids[0])

    assert "requests.ChunkedEncodingError" == got["error"]


@pytest.mark.parametrize(
    ("key", "value", "their", "our"),
    [
        ("privileged", "false", True, False),
        ("restarts", "", "builtins.ValueError", None),
        ("restarts", 2.5, 2, "PayloadError at pods[0].containers[0].restarts"),
        ("is_ready", True, "True", "true"),
    ],
)
async def test_values_of_a_type_that_is_not_documented(vendor, key, value, their, our):
    """Of such a value the vendor's client makes what Python's `bool`, `int` and `str` do."""
    async with FakeIef([{"id": "a", "containers": [{key: value}]}]) as fake, signing(fake) as ief:
        got = await vendor.ask(fake, "list_pods", {"node_id": "n"})
        try:
            (pod,) = (await ief.list_pods(node_id="n")).items
            read = getattr(pod.containers[0], key)
        except PayloadError as error:
            read = f"PayloadError at {error.path}"

    if "answer" in got:
        got["error"] = got["answer"]["pods"][0]["containers"][0][key]
    assert (type(their), their) == (type(got["error"]), got["error"])
    assert our is read or our == read


# ---- refusals ------------------------------------------------------------------------------------


async def test_throttling_loses_its_code(vendor, fake):
    """Of a 429 the vendor's client keeps nothing that the server sent: no code, no request id."""
    fake.intercept(lambda _: Fault.throttle())
    got = await vendor.ask(fake, "list_pods", {"node_id": fake.node_ids[0]})
    async with signing(fake) as ief:
        with pytest.raises(ThrottledError) as caught:
            await ief.list_pods(node_id=fake.node_ids[0])

    assert ("huaweicloudsdkcore.ClientRequestException", 429) == (got["error"], got["status"])
    assert ("429", "") == (got["code"], got["request_id"])
    assert "APIGW" not in got["message"]
    assert "APIGW.0308" == caught.value.error_code
    assert caught.value.request_id


async def test_vendor_repeats_the_throttled_at_once(vendor, fake):
    """Its retries of a 429 wait for nothing, and send the same signature again."""
    fake.intercept(lambda _: Fault.throttle())
    got = await vendor.ask(fake, "list_pods", {"node_id": fake.node_ids[0]}, retry_times=3)

    assert 429 == got["status"]
    assert 4 == len(fake.requests)
    assert 1 == len({seen.headers["authorization"] for seen in fake.requests})
    assert 0 == got["slept"]


async def test_vendor_retries_no_other_refusal(vendor, fake):
    """A 503 is final to it, however many retries it has; to us it is worth one."""
    fake.script(Fault.status(503), Fault.status(503))
    got = await vendor.ask(fake, "list_pods", {"node_id": fake.node_ids[0]}, retry_times=3)
    assert ("huaweicloudsdkcore.ServerResponseException", 503) == (got["error"], got["status"])
    assert 1 == len(fake.requests)

    async with signing(fake, retry=RetryPolicy(attempts=2, base=0)) as ief:
        assert (await ief.list_pods(node_id=fake.node_ids[0])).items
    assert 3 == len(fake.requests)


# ---- concurrency and files -----------------------------------------------------------------------


async def test_vendor_has_eight_requests_in_flight(vendor, held_back):
    """Its asynchronous client is a pool of eight threads; ours has as many as it is allowed."""
    async with FakeIef(240, deployments=1) as fake:
        # a first page comes at once, as it says how many there are
        fake.intercept(lambda seen: Fault.slow(1) if seen.query.get("offset") != "0" else None)
        asked_for = {"deployment_id": fake.deployment_ids[0]}
        asked = asyncio.create_task(vendor.ask(fake, "list_pods", asked_for, at_once=24))
        await until(lambda: fake.statistics().in_flight == 8)
        held_back.set()
        assert 24 == len((await asked)["answers"])
        assert 8 == fake.statistics().in_flight_peak

        held_back.clear()
        async with signing(fake, limits=Limits(concurrency=24)) as ief:
            stream = ief.iter_pods(fake.deployment_ids, page_size=10, concurrency=24)
            pods = asyncio.create_task(stream.collect())
            await until(lambda: fake.statistics().in_flight == 24)
            held_back.set()
            assert 240 == len(await pods)
        assert 24 == fake.statistics().in_flight_peak


async def test_vendor_writes_into_the_home_directory(vendor, fake):
    """It leaves a file with a random id there, and sends that id with every request."""
    await vendor.ask(fake, "list_edge_groups")
    identity = (vendor.home / ".huaweicloud" / "application_id").read_text()

    assert identity
    assert identity in fake.requests[0].headers["user-agent"]
