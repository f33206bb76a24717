"""`Account`, `Service` and the arguments of `FakeIef`."""

import asyncio
import inspect

import attrs
import pytest
from fake_client import ask, settled

from ief_async.testing import Account, FakeIef, Motion, Service

pytestmark = pytest.mark.once  # of the fake server, which no interpreter changes

# The arguments of version 0.1.
FIRST = {
    *("pods", "deployments", "nodes", "groups", "empty_nodes", "instances", "instance_id", "seed"),
    *("project_id", "token", "domain", "user", "user_id", "password", "passcode", "access_key"),
    *("secret_key", "region", "projects", "token_lifetime", "token_characters", "keys_lifetime"),
    *("metadata", "clock", "expired", "latency", "default_limit", "page_cap", "over_cap", "order"),
    *("offsets", "limits", "counts", "lag", "empty_rate", "cached_rate", "hidden_rate"),
    *("repeated_rate", "motion", "unknown_ids", "quota", "fault_rate", "faults"),
}
AT_HAND = {
    *("pods", "deployments", "nodes", "groups", "instances", "empty_nodes", "seed", "motion"),
    *("token", "latency", "page_cap", "quota", "fault_rate", "faults"),
}
PARTS = {"service": Service, "account": Account}


def fields_of(owner):
    """The names of a class's fields."""
    return {field.name for field in attrs.fields(owner)}


def test_each_argument_is_in_one_place():
    """What version 0.1 took is an argument or a field of one class, and nothing is both."""
    arguments = {*inspect.signature(FakeIef).parameters} - {"moved", *PARTS}
    places = [arguments, *map(fields_of, PARTS.values())]
    assert arguments == AT_HAND
    assert set().union(*places) == FIRST
    assert sum(map(len, places)) == len(FIRST)


@pytest.mark.parametrize("name", sorted(FIRST - AT_HAND))
def test_a_moved_argument_says_where_it_went(name):
    """An argument of version 0.1 that moved raises a TypeError with the new spelling."""
    part = next(part for part, owner in PARTS.items() if name in fields_of(owner))
    with pytest.raises(TypeError) as caught:
        FakeIef(**{name: None})
    assert f"FakeIef({part}={PARTS[part].__name__}({name}=…))" in str(caught.value)


def test_an_unknown_argument_is_refused():
    """An argument that never was one raises a TypeError that names it."""
    with pytest.raises(TypeError, match=r"^FakeIef\(\) has no argument 'pod'$"):
        FakeIef(pod=3)


async def test_attributes_may_be_changed_while_it_runs(loop_time):
    """A page cap, token and latency that are changed hold for the next request."""
    async with FakeIef(100, deployments=1) as fake:
        fake.page_cap = 7
        fake.token = "another"
        fake.latency = 100.0
        asked = asyncio.create_task(ask(fake, deployment_id=fake.deployment_ids[0], limit=50))
        await settled(lambda: fake.statistics().in_flight == 1)
        loop_time.let_pass(100)
        assert 7 == len((await asked)[2]["pods"])


def test_fakes_share_no_attribute():
    """What one fake's attribute is changed to, no other fake has."""
    account = Account(password="first")
    one, other = FakeIef(account=account), FakeIef(account=account)
    one.password = "second"
    one.clock = lambda: 7.0
    assert ("second", "first", "first") == (one.password, other.password, account.password)
    assert other.clock() > 7.0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "expired",
            "IEF.1",
            "expired must be one of 'APIGW.0307', 'APIGW.0301', 'IEF.310002', got",
        ),
        ("metadata", None, "metadata must be one of 'token', 'plain', 'none', got None"),
        ("page_cap", 0, "page_cap must be at least 1, got 0"),
        ("latency", -1, "latency must be at least 0, got -1"),
    ],
)
def test_a_changed_attribute_is_checked(name, value, message):
    """An attribute that is set to an impossible value raises, and stays as it was."""
    fake = FakeIef()
    before = getattr(fake, name)
    with pytest.raises(ValueError, match=message):
        setattr(fake, name, value)
    assert before == getattr(fake, name)


def test_the_project_is_fixed():
    """The project of a fake can't be changed, as its pods name it."""
    with pytest.raises(AttributeError):
        FakeIef().project_id = "0" * 32


def test_settings_hide_their_secrets():
    """A printed `Account` shows neither password nor passcode nor secret key."""
    account = Account(password="hidden-1", passcode="hidden-2", secret_key="hidden-3")
    assert "hidden" not in repr(account)


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
        lambda: FakeIef(service=Service(default_limit=0)),
        lambda: FakeIef(service=Service(over_cap="cut")),
        lambda: FakeIef(service=Service(unknown_ids="none")),
        lambda: FakeIef(account=Account(keys_lifetime=-1)),
        lambda: FakeIef(fault_rate=1.1),
        lambda: FakeIef(page_cap=0),
        lambda: FakeIef(latency=-1),
    ],
)
def test_impossible_values_are_refused(make):
    """An impossible value raises an error that names it, says what it must be and what it is."""
    with pytest.raises(ValueError, match=r"^\w+ must be .*, got "):
        make()


@pytest.mark.parametrize("counts", [{"deployments": 0}, {"nodes": 0}, {"groups": 0}])
def test_a_fleet_needs_places(counts):
    """A fleet without any deployment, node or group raises an error when it is made."""
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        FakeIef(**counts)
