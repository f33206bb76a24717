"""`Quota`: windows that the fake enforces."""

import pytest
from fake_client import ask

from ief_async.testing import FakeIef, Quota, Service
from ief_async.testing._quota import Meter

pytestmark = pytest.mark.once  # of the fake server, which no interpreter changes


def passed(quota, times):
    """Which requests at these times a quota lets pass."""
    meter = Meter()
    return [meter.admit(quota, now) for now in times]


def test_a_fixed_window_begins_with_the_first_request():
    """Windows follow one another from the first request on, and idle ones count."""
    quota = Quota(limit=2, seconds=10)
    times = [5, 6, 7, 14.9, 15, 15, 15, 47, 47, 54.9, 55]
    expected = [True, True, False, False, True, True, False, True, True, False, True]
    assert passed(quota, times) == expected


def test_a_sliding_window_is_the_last_seconds():
    """A request passes when fewer than the limit passed within the seconds before it."""
    quota = Quota(limit=2, seconds=10, sliding=True)
    times = [0, 9, 9.5, 10, 18.9, 19]
    assert passed(quota, times) == [True, True, False, True, False, True]


def test_refused_requests_do_not_count():
    """However many requests are refused, the next window is empty."""
    assert passed(Quota(limit=1, seconds=10), [0, *[1] * 50, 10])[-1]


@pytest.mark.parametrize(
    ("seconds", "window"),
    [
        (60, "1 minute"),
        (90, "90 second"),
        (7_200, "2 hour"),
        (86_400, "1 day"),
        (0.5, "0.5 second"),
    ],
)
def test_the_message_names_the_window(seconds, window):
    """The window is named in the largest unit that divides it."""
    assert Quota(limit=3, seconds=seconds).text.endswith(f",limit:3,time:{window}")


async def test_a_refusal_is_a_429_for_lists_alone():
    """Lists beyond the quota are a 429 that is counted; the project lookup is not affected."""
    now = [0.0]
    quota = Quota(limit=1, error_code="APIGW.0311")
    async with FakeIef(quota=quota, service=Service(clock=lambda: now[0])) as fake:
        assert (await ask(fake))[0] == 200
        status, headers, body = await ask(fake)
        assert (status, body["error_code"]) == (429, "APIGW.0311")
        assert (body["error_msg"], "Retry-After" in headers) == (quota.text, False)
        assert (await ask(fake, "/v3/projects"))[0] == 200
        now[0] = 60.0
        assert (await ask(fake))[0] == 200
        fake.quota = None
        assert (await ask(fake))[0] == 200
        assert fake.statistics().throttled == 1


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1, "seconds": 0}])
def test_an_impossible_quota_is_refused(wrong):
    """A window without requests or without length raises an error that names the argument."""
    (name,) = [name for name, value in wrong.items() if value == 0]
    with pytest.raises(ValueError, match=f"^{name} must be .*, got 0$"):
        Quota(**wrong)
