"""What type checkers must see of the fake server. Never run, only checked."""

from collections.abc import Sequence
from typing import Any, assert_type

from ief_async.testing import (
    DEFAULT_MIX,
    Account,
    FakeIef,
    FakeRequest,
    FakeResolver,
    FakeStatistics,
    Fault,
    Motion,
    Quota,
    Service,
    sign,
)


async def started() -> None:
    """It is a context manager of either kind."""
    async with FakeIef(pods=7, deployments=2, faults=DEFAULT_MIX, fault_rate=0.1) as fake:
        assert_type(fake, FakeIef)
    with FakeIef([{"id": "p"}], token=None, motion=Motion.uniform(inserts=1, deletes=1)) as fake:
        assert_type(fake, FakeIef)


def told_more() -> None:
    """What a test tells it of the account and the service, and may change later."""
    account = Account(passcode="1", projects=[{"id": "a" * 32, "name": "cn-north-4"}])
    service = Service(order="ties", counts=lambda total, chance: total + chance.randint(0, 1))
    fake = FakeIef(5, account=account, service=service)
    fake.expired = "APIGW.0301"
    fake.clock = lambda: 0.0
    fake.page_cap = None
    assert_type(fake.password, str)
    assert_type(fake.passcode, str | None)
    assert_type(fake.project_id, str)


def looked_up() -> None:
    """A resolver that fails as it is told."""
    resolver = FakeResolver(OSError("later"))
    resolver.fail(OSError("later"), port=443)
    assert_type(resolver.asked, list[int])


def used(fake: FakeIef) -> None:
    """What a test gives it, and what it tells."""
    fake.quota = Quota(limit=60, seconds=60, sliding=True)
    assert_type(fake.statistics().throttled, int)
    fake.script(Fault.throttle("0"), Fault.cut(), None)
    assert_type(fake.endpoint, str)
    assert_type(fake.environment(), dict[str, str])
    assert_type(fake.deployment_ids, tuple[str, ...])
    assert_type(fake.node_ids, tuple[str, ...])
    assert_type(fake.group_ids, tuple[str, ...])
    assert_type(fake.pods, Sequence[dict[str, Any]])
    assert_type(fake.requests, list[FakeRequest])
    assert_type(fake.insert(2, at=0), list[str])
    assert_type(fake.delete(0), list[str])
    assert_type(fake.survivors(), frozenset[str])
    assert_type(fake.statistics(), FakeStatistics)
    assert_type(fake.statistics().in_flight_peak, int)

    def intercept(request: FakeRequest) -> Fault | None:
        return Fault.status(503) if request.query.get("offset") == "100" else None

    fake.intercept(intercept)


def signed() -> None:
    """A signature is made of plain values."""
    made = sign("a", "s", method="GET", host="127.0.0.1", path="/v3/", now=0.0)
    assert_type(made, str)
