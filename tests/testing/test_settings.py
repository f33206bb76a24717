"""`Account`, `Service` and the arguments of `FakeIef`."""

import pytest

from ief_async.testing import Account, FakeIef, Motion, Service


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


@pytest.mark.parametrize("counts", [{"deployments": 0}, {"nodes": 0}, {"groups": 0}])
def test_a_fleet_needs_places(counts):
    """No deployments, nodes or groups at all is an error, not a division by zero later."""
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        FakeIef(**counts)
