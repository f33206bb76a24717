"""A fake Huawei Cloud IEF on loopback: seeded, scripted and counted.

::

    from ief_async.testing import FakeIef, Fault

    async with FakeIef(pods=1_000, deployments=20) as fake:
        fake.script(Fault.throttle("2"), Fault.cut())
        ...  # send requests to fake.endpoint with fake.project_id and fake.token
        assert fake.statistics().in_flight_peak <= 8

The fleet does not change unless it is given a `Motion` or changed by hand (`FakeIef.insert`,
`FakeIef.delete`, `FakeIef.touch`). `Service` says what lists get wrong: order, offsets, counts,
stale or empty pages. `Quota` is a throttling window of the gateway. `FakeIef.forget_connections`
lets the open connections be dead, and `FakeResolver` fails to find host names.

The same address is the IAM that issues tokens and knows projects, and the metadata service that
gives a machine its temporary keys; `Account` says which ones. Requests may be signed instead of
carrying a token (`sign`).

The fake shares no code with the client, so that one misunderstanding can't be on both sides. Under
pytest this module is a plugin: the fixture ``fake_ief`` is a running `FakeIef`, whose arguments
come from ``@pytest.mark.fake_ief(pods=7, token=None)``.
"""

import sys
from collections.abc import Iterator

from ief_async.testing._answers import FakeRequest
from ief_async.testing._faults import DEFAULT_MIX, Fault
from ief_async.testing._motion import Motion
from ief_async.testing._quota import Quota
from ief_async.testing._resolver import FakeResolver
from ief_async.testing._server import FakeIef, FakeStatistics
from ief_async.testing._settings import Account, Service
from ief_async.testing._signatures import sign

__all__ = [
    "DEFAULT_MIX",
    "Account",
    "FakeIef",
    "FakeRequest",
    "FakeResolver",
    "FakeStatistics",
    "Fault",
    "Motion",
    "Quota",
    "Service",
    "sign",
]

# --- pytest ---------------------------------------------------------------------------------------

# As a plugin this module is imported by pytest. Without pytest nobody needs the rest.
if "pytest" in sys.modules:
    import pytest

    @pytest.fixture
    def fake_ief(request: pytest.FixtureRequest) -> Iterator[FakeIef]:
        """Run a `FakeIef` with the arguments of the test's ``fake_ief`` marker, if any."""
        marker = request.node.get_closest_marker("fake_ief")
        args, kwargs = (marker.args, marker.kwargs) if marker else ((), {})
        with FakeIef(*args, **kwargs) as fake:
            yield fake

    def pytest_configure(config: pytest.Config) -> None:
        """Make the marker known."""
        line = "fake_ief(pods=100, **options): the arguments of the FakeIef that `fake_ief` runs"
        config.addinivalue_line("markers", line)
