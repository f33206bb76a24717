"""A fleet that changes, by hand or by `Motion`."""

from collections import Counter
from itertools import pairwise

import pytest
from fake_client import ask, rows

from ief_async.testing import FakeIef, Motion, Service, _pods

pytestmark = pytest.mark.once  # of the fake server, which no interpreter changes

# --- a fleet that moves ---


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
    """A new pod belongs to the named deployment or a drawn one, and to a node and its group."""
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
    """A change by the hook shows in the answer of the request that called it."""

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
    """Which pods came and which ones went with each request."""
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
    """At the head or tail, pods that come take the places of those that go."""
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
    """As many pods come as go, of the same deployments: they go anywhere, and come where told."""
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
    """A touched pod becomes the first one; no pod comes or goes."""
    orders = await moved(Motion.touch(1), 6)
    assert len({order[0] for order in orders}) > 4
    for old, new in pairwise(orders):
        assert new == (new[0], *(pod for pod in old if pod != new[0]))


async def test_motions_combine_and_are_seeded():
    """Several motions all happen; the seed decides what they do."""
    both = [Motion.uniform(3, 0, at="tail"), Motion.uniform(0, 2, at="head"), Motion.touch(0.5)]
    runs = [await moved(both, 6, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    shapes = [[(len({*a} - {*b}), len({*b} - {*a})) for a, b in pairwise(run)] for run in runs]
    assert shapes == [[(2, 3)] * 6] * 3
    places = [[run[0].index(pod) for pod in run[-1] if pod in run[0]] for run in runs]
    assert places[0] != places[2]


async def test_an_emptied_fleet_goes_on():
    """Motion of an empty fleet does nothing, and a refused request moves nothing."""
    gone = [Motion.uniform(0, 30), Motion.bursts(1, 5, 9), Motion.rolling(1), Motion.touch(2)]
    async with FakeIef(40, motion=gone) as fake:
        await ask(fake, limit=0)
        assert len(fake.pods) == 40
        listed = [await rows(fake) for _ in range(3)]
        assert listed[-1] == ((), 0)


async def test_a_request_to_a_moving_fleet_makes_its_page_alone(monkeypatch):
    """A page of a moving list of 2,000 pods makes the pods of that page and no others."""
    made = Counter()
    make = _pods.SeededPods.json_parts

    def counted(source, number):
        made["pods"] += 1
        return make(source, number)

    monkeypatch.setattr(_pods.SeededPods, "json_parts", counted)
    async with FakeIef(2000, motion=[Motion.uniform(3, 3), Motion.rolling(0.5)]) as fake:
        query = {"deployment_ids": ",".join(fake.deployment_ids), "limit": 100}
        for _ in range(10):
            assert 100 == len((await ask(fake, **query))[2]["pods"])
    assert 1000 == made["pods"]


async def test_queries_are_bounded(fake_ief, monkeypatch):
    """The number of remembered queries is bounded, and their answers stay right."""
    monkeypatch.setattr("ief_async.testing._fleet._REMEMBERED_QUERIES", 2)
    for identity in fake_ief.deployment_ids * 2:
        assert (await ask(fake_ief, deployment_id=identity))[2]["count"] == 10
    assert len(fake_ief._fleet._found) <= 2
