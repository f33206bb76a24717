"""The server in the box: a fake Huawei Cloud IEF on loopback, seeded, scripted and counted.

::

    async with FakeIef(pods=1_000, deployments=20) as fake:
        fake.script(Fault.throttle("2"), Fault.cut())
        ...  # send requests to fake.endpoint with fake.project_id and fake.token
        assert fake.statistics().in_flight_peak <= 8

`Quota` is the gateway's: so many requests in a window. `FakeIef.forget_connections` makes a pool of
dead connections, and `FakeResolver` fails to find names.

The fleet stands still unless it is given a `Motion` or changed by hand (`FakeIef.insert`,
`FakeIef.delete`, `FakeIef.touch`); what a listing gets wrong (order, offsets, counts, stale or
empty pages) is an argument each. All of it follows from the seed.

The same address is the IAM that issues tokens and knows projects, and the metadata service that
gives a machine its temporary keys. Requests may be signed instead (`sign`).

It shares no code with the client, so that one misunderstanding can't be on both sides. Under
pytest this module is a plugin: the fixture ``fake_ief`` is a running `FakeIef`, its arguments come
from ``@pytest.mark.fake_ief(pods=7, token=None)``.
"""

import sys
from collections.abc import Iterator

from ief_async.testing._faults import DEFAULT_MIX, FakeRequest, Fault
from ief_async.testing._fleet import Motion
from ief_async.testing._quota import Quota
from ief_async.testing._resolver import FakeResolver
from ief_async.testing._server import FakeIef, FakeStatistics
from ief_async.testing._signatures import sign

__all__ = [
    "DEFAULT_MIX",
    "FakeIef",
    "FakeRequest",
    "FakeResolver",
    "FakeStatistics",
    "Fault",
    "Motion",
    "Quota",
    "sign",
]

# --- pytest ---------------------------------------------------------------------------------------

# As a plugin this is imported by pytest; whoever imports it without pytest has no use for the rest.
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
