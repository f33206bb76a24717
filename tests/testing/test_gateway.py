"""What a `FakeIef` answers: the list of pods, its oddities, and the gateway's checks."""

from collections import Counter

import pytest
from fake_client import ask, rows, target

from ief_async.testing import FakeIef, Motion, Service

pytestmark = pytest.mark.once  # of the fake server, which no interpreter changes

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
    """``count`` is the total of the query on every page, even on one beyond the end."""
    ids = ",".join(fake_ief.deployment_ids)
    pages = [
        (await ask(fake_ief, deployment_ids=ids, limit=30, offset=offset))[2]
        for offset in (0, 30, 60, 90, 120)
    ]
    assert [page["count"] for page in pages] == [100] * 5
    assert [len(page["pods"]) for page in pages] == [30, 30, 30, 10, 0]
    assert [pod for page in pages for pod in page["pods"]] == list(fake_ief.pods)


async def test_comma_raw_or_escaped_and_ids_twice(fake_ief):
    """A raw comma equals an escaped one, and an id that is named twice counts once."""
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
    """A limit above the cap is reduced, or refused with IEF.100005; a limit equal to it passes."""
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
    """An unknown id is an empty list, or a 404 even beside a known one."""
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
    """An offset or limit that is not a number in range is a 400 with its own code."""
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
    """A query with no id, an empty id or several ids is a 400."""
    status, _, body = await ask(fake_ief, f"/v3/{fake_ief.project_id}/edgemgr/pods?{query}")
    assert (status, body["error_code"]) == (400, "IEF.100001")


# --- a listing that errs ---


async def test_offsets_ignored_or_pages():
    """The offset can be ignored, or be the number of a page."""
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
    """If limits are ignored, an answer has all rows from the offset on."""
    async with FakeIef(50, service=Service(limits="ignored")) as fake:
        assert await rows(fake, 7, 10) == (fake.pod_ids()[7:], 50)


async def test_clamp_in_mid_scan(fake_ief):
    """The page cap can be changed while the server runs."""
    sizes = []
    for cap in (None, 6, 30):
        fake_ief.page_cap = cap
        sizes.append(len((await rows(fake_ief, 0, 20))[0]))
    assert sizes == [20, 6, 20]


async def test_shuffled_order():
    """A shuffled list has another order for each request, which follows from the seed."""
    async with (
        FakeIef(60, service=Service(order="shuffled")) as fake,
        FakeIef(60, service=Service(order="shuffled")) as same,
    ):
        lists = [(await rows(fake))[0] for _ in range(3)]
        assert {frozenset(one) for one in lists} == {frozenset(fake.pod_ids())}
        assert len({*lists, fake.pod_ids()}) == 4
        assert [(await rows(same))[0] for _ in range(3)] == lists
        halves = {*(await rows(fake, 0, 30))[0]}, {*(await rows(fake, 30, 30))[0]}
        assert halves[0] & halves[1]


async def test_ties():
    """Ties reorder each three neighbours of the list that was asked for, and nothing else."""
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
    """A count is the true one, absent, that of the page, a fixed number, or a function's result."""
    async with FakeIef(30, service=Service(counts=counts)) as fake:
        assert await rows(fake, 10, 7) == (fake.pod_ids()[10:17], expected)


async def test_counts_can_jitter():
    """A function that counts is given a seeded random generator."""
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
    """An answer shows one of the last states with its count, and finally the present one."""
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
    """A lagging answer has rows of its own query alone."""
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
    """Some pages are empty, with the usual count; the next request gets the rows."""
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
    """The same pods are in no page, though they are counted, and are survivors."""
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
    """Some pods are in two neighbouring rows; the count is that of rows."""
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
    """A missing token and a wrong one have different messages, in the gateway's shape."""
    status, answer_headers, body = await ask(fake_ief, headers=headers)
    assert status == 401
    assert body == {
        "error_msg": f"Incorrect IAM authentication information: {text}",
        "error_code": "APIGW.0301",
        "request_id": answer_headers["X-Request-Id"],
    }


@pytest.mark.fake_ief(token=None)
async def test_token_check_can_be_off(fake_ief):
    """With ``token=None`` lists need no token."""
    assert (await ask(fake_ief, headers={}))[0] == 200


@pytest.mark.parametrize("prefix", ["/", "/v3", "/x", ""])
@pytest.mark.parametrize("suffix", ["/", "s"])
async def test_other_paths(fake_ief, prefix, suffix):
    """A doubled or trailing slash and any other path are a 404 of the gateway."""
    path = prefix + target(fake_ief).replace("/pods?", f"/pods{suffix}?")
    status, _, body = await ask(fake_ief, path)
    assert (status, body["error_code"]) == (404, "APIGW.0101")


async def test_double_slash_and_method(fake_ief):
    """``//v3`` and other methods are a 404 of the gateway."""
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
