"""Bodies that no service sends: far more rows than asked for, far more keys than a row has."""

from functools import partial

import pytest
from conftest import session_with

from ief_async import PayloadError, RetryPolicy
from ief_async._structure.envelope import read_within, split
from ief_async.testing import FakeIef, Fault, Service

MILLION = 1_000_000


def body_of(rows, *, row=b'{"id":"%d"}', key=b"pods"):
    """Return a list of so many rows, each the smallest there is."""
    return b'{"count":%d,"%b":[%b]}' % (rows, key, b",".join(row % n for n in range(rows)))


@pytest.mark.parametrize(
    "row", [b'{"id":"%d"}', b'{"id":"%d","name":"\\ud800"}', b'{"id":"%d","of":{"id":"x"}}']
)
def test_flood_is_refused_unread(row):
    """What holds far more rows than were asked for is never given to a reader."""
    given = []

    with pytest.raises(PayloadError, match=r"more than 10 times .*\(100\)") as caught:
        read_within(given.append, body_of(MILLION // 5, row=row), key="pods", limit=100)
    assert [] == given
    assert "pods" == caught.value.path


@pytest.mark.parametrize(("limit", "most"), [(1, 10), (7, 70), (100, 1_000), (None, 10_000)])
@pytest.mark.parametrize("row", [b'{"id":"%d"}', b'{"\\u0069d":"%d"}', b'{"id":"%d","x":{"id":7}}'])
def test_bound_is_ten_times_the_limit(limit, most, row):
    """Ten times as many rows are read, however they are written; one more is refused."""
    read = partial(split, key="pods")

    within = read_within(read, body_of(most, row=row), key="pods", limit=limit)
    assert most == len(within.ids)
    with pytest.raises(PayloadError, match="more than 10 times"):
        read_within(read, body_of(most + 1, row=row), key="pods", limit=limit)


@pytest.mark.parametrize("pods", [1_000, 1_001])
async def test_server_that_ignores_the_limit_is_read_within_bounds(pods):
    """Scans, single calls and counts take ten pages at once for one; more is a PayloadError."""
    async with (
        FakeIef(pods, deployments=1, service=Service(limits="ignored")) as fake,
        session_with(fake, retry=RetryPolicy(base=0)) as ief,
    ):
        counted = await ief.count_pods(fake.deployment_ids)
        free = await ief.list_pods(deployment_ids=fake.deployment_ids)
        for read in (
            lambda: ief.list_pods(deployment_ids=fake.deployment_ids, limit=100),
            lambda: ief.iter_pods(fake.deployment_ids).collect(),
        ):
            if pods > 1_000:
                before = fake.statistics().requests
                with pytest.raises(PayloadError, match="got 1001 rows, more than 10 times"):
                    await read()
                assert before + 1 == fake.statistics().requests
            else:
                await read()

    assert (pods, pods) == (counted.total, len(free.items))


async def test_flood_is_refused_through_a_session():
    """A flood is an error of the call, with the request id, and is not asked for again."""
    async with FakeIef(4) as fake, session_with(fake) as ief:
        fake.script(Fault.body(body_of(MILLION // 4)))
        with pytest.raises(PayloadError, match="got 250000 rows, more than 10 times") as caught:
            await ief.iter_pods(fake.deployment_ids).collect()

    assert (1, 1) == (caught.value.attempts, fake.statistics().requests)
