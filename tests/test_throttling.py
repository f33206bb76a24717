"""The gateway's quota: its window is read from the text of a 429, and waited for."""

import asyncio
import contextlib
import json

import pytest
from conftest import FakeClock, session_with
from moving import VirtualLoop

from ief_async import Limits, RetryPolicy, Throttled, ThrottledError
from ief_async._http.limiter import Counters, RetryBudget
from ief_async._http.pacer import Pacer
from ief_async._http.responses import window_seconds
from ief_async._observer import Observer
from ief_async._policies import Clock
from ief_async.testing import FakeIef, Fault, Quota, Service
from ief_async.testing._quota import Meter

WORDS = "The throttling threshold has been reached: policy user over ratelimit,limit:60,time:"
PAGES = 40


@pytest.mark.parametrize("code", ["APIGW.0308", "APIG.0308"])
async def test_window_is_the_services_own_wait(code, fake_clock):
    """A 429 without Retry-After is waited out as its text says; the error, the event tell it."""
    events = []
    async with FakeIef(4, quota=Quota(limit=1, error_code=code, seconds=300)) as fake:
        fake.clock = fake_clock.clock.wall
        async with session_with(fake, on_event=events.append, clock=fake_clock.clock) as ief:
            for _ in range(3):
                await ief.list_pods(deployment_ids=fake.deployment_ids)
            once = ief.with_options(retry=RetryPolicy(attempts=1))
            with pytest.raises(ThrottledError) as caught:
                await once.list_pods(deployment_ids=fake.deployment_ids)

    assert [300.0, 300.0] == fake_clock.sleeps
    assert [300.0] * 3 == [event.retry_after for event in events if isinstance(event, Throttled)]
    error = caught.value
    assert (code, 300.0, 300.0, 1) == (
        error.error_code,
        error.retry_after,
        error.window,
        error.attempts,
    )


async def test_retry_after_wins_over_the_window(fake_clock):
    """Where the answer has a Retry-After, that is the wait, and the text is only text."""
    body = json.dumps({"error_code": "APIGW.0308", "error_msg": WORDS + "1 minute"}).encode()
    async with FakeIef(4) as fake:
        fake.script(Fault.body(body, status=429, headers=[("Retry-After", "7")]))
        async with session_with(fake, clock=fake_clock.clock) as ief:
            await ief.list_pods(deployment_ids=fake.deployment_ids)

    assert [7.0] == fake_clock.sleeps


@pytest.mark.parametrize("code", ["APIGW.0301", "IEF.310003", ""])
async def test_window_of_another_code_is_only_text(code, fake_clock):
    """Only the gateway's own code for a full window makes its text a wait."""
    body = json.dumps({"error_code": code, "error_msg": WORDS + "1 minute"}).encode()
    async with FakeIef(4) as fake:
        fake.script(Fault.body(body, status=429))
        async with session_with(fake, clock=fake_clock.clock) as ief:
            await ief.list_pods(deployment_ids=fake.deployment_ids)

    assert [1.0] == fake_clock.sleeps


@pytest.mark.parametrize(("seconds", "policy"), [(86_400, {}), (60, {"window_cap": 59.0})])
async def test_window_above_its_cap_is_raised_at_once(seconds, policy, fake_clock):
    """A window of a day is not waited for by default; the error says how long it is."""
    async with FakeIef(4, quota=Quota(limit=1, seconds=seconds)) as fake:
        policies = {"retry": RetryPolicy(**policy), "clock": fake_clock.clock}
        async with session_with(fake, **policies) as ief:
            await ief.list_pods(deployment_ids=fake.deployment_ids)
            with pytest.raises(ThrottledError) as caught:
                await ief.list_pods(deployment_ids=fake.deployment_ids)

    assert (seconds, 1, []) == (caught.value.window, caught.value.attempts, fake_clock.sleeps)
    assert "RetryPolicy.window_cap" in caught.value.__notes__[0]


async def test_window_that_passes_the_deadline_is_not_waited_for():
    """A scan whose deadline comes before the window ends fails at once, with the 429."""
    async with (
        FakeIef(1_000, deployments=1, quota=Quota(limit=2)) as fake,
        session_with(fake) as ief,
    ):
        with pytest.raises(ThrottledError) as caught:
            await ief.iter_pods(fake.deployment_ids, deadline=20).collect()

    assert 60 == caught.value.retry_after
    assert "would pass the deadline" in caught.value.__notes__[0]


@pytest.mark.parametrize("concurrency", [1, 2, 7, 16])
@pytest.mark.parametrize(
    ("limit", "seconds", "sliding"),
    [
        (1, 60, False),
        (1, 60, True),
        (3, 900, True),
        (7, 1, False),
        (10, 300, True),
        (15, 60, False),
    ],
)
async def test_scan_of_more_pages_than_the_quota_ends_well(limit, seconds, sliding, concurrency):
    """Whatever window the gateway enforces, a scan waits it out and ends without an error."""
    clock = FakeClock()
    quota = Quota(limit=limit, seconds=seconds, sliding=sliding)
    async with FakeIef(
        PAGES, deployments=PAGES, quota=quota, service=Service(clock=clock.clock.wall)
    ) as fake:
        async with session_with(fake, clock=clock.clock) as ief:
            pods = await ief.iter_pods(
                fake.deployment_ids, batch_size=1, concurrency=concurrency
            ).collect()
            assert ief._transport.pacer.budget.tokens > 300
        statistics = fake.statistics()

    assert PAGES == len(pods)
    assert PAGES == statistics.requests - statistics.throttled


@pytest.mark.parametrize("concurrency", [1, 2, 5, 16])
@pytest.mark.parametrize("seconds", [1, 10, 60, 300, 900])
@pytest.mark.parametrize("sliding", [False, True], ids=["fixed", "sliding"])
def test_windows_are_used_and_waited_out(seconds, concurrency, sliding):
    """Five windows' worth of requests take six windows of virtual time, and none fails."""
    quota, meter = Quota(limit=40, seconds=seconds, sliding=sliding), Meter()
    loop = VirtualLoop()
    clock = Clock(now=loop.time, wall=loop.time)
    pacer = Pacer(
        limits=Limits(concurrency=16),
        budget=RetryBudget(500),
        clock=clock,
        counters=Counters(),
        observer=Observer(),
    )

    async def attempt(_):
        await asyncio.sleep(0.01)
        if not meter.admit(quota, loop.time()):
            said = window_seconds(quota.text)
            full = ThrottledError("no", status=429, retry_after=said, transient=True)
            full.window = said
            raise full

    async def worker(rest):
        while rest:
            rest.pop()
            await pacer.run(attempt, retry=RetryPolicy(), path="/pods")

    async def scan():
        rest = [None] * 5 * quota.limit
        began = loop.time()
        await asyncio.gather(*(worker(rest) for _ in range(concurrency)))
        return loop.time() - began

    with contextlib.closing(loop):
        assert loop.run_until_complete(scan()) <= 6 * (seconds + 0.5)
    assert pacer.budget.tokens == 500


async def test_two_scans_share_a_quota():
    """Scans side by side that eat each other's window both end without an error."""
    clock = FakeClock()
    quota = Quota(limit=3)
    async with (
        FakeIef(
            PAGES, deployments=PAGES, quota=quota, service=Service(clock=clock.clock.wall)
        ) as fake,
        session_with(fake, clock=clock.clock) as ief,
    ):
        scans = [ief.iter_pods(fake.deployment_ids, batch_size=1) for _ in range(2)]
        found = await asyncio.gather(*(scan.collect() for scan in scans))

    assert [PAGES, PAGES] == [len(pods) for pods in found]


async def test_request_that_never_gets_its_share_ends():
    """One that is refused however often others are answered meanwhile is raised at last."""
    clock = FakeClock()
    async with FakeIef(4) as fake, session_with(fake, clock=clock.clock) as ief:
        refused = fake.deployment_ids[0]
        full = Fault.throttle("2")
        fake.intercept(lambda seen: full if refused in seen.raw_query else None)
        waiting = asyncio.create_task(ief.list_pods(deployment_id=refused))
        while not waiting.done():
            await ief.list_pods(deployment_id=fake.deployment_ids[1])
        with pytest.raises(ThrottledError) as caught:
            await waiting

    assert 100 < caught.value.attempts < 110


async def test_quota_that_is_never_free_ends_by_the_attempts():
    """Where nobody gets through, a 429 counts: after all attempts it is raised."""
    clock = FakeClock()
    async with (
        FakeIef(4, quota=Quota(limit=1)) as fake,  # whose own clock does not move
        session_with(fake, clock=clock.clock) as ief,
    ):
        await ief.list_pods(deployment_ids=fake.deployment_ids)
        with pytest.raises(ThrottledError) as caught:
            await ief.list_pods(deployment_ids=fake.deployment_ids)

    assert (6, [60.0] * 5) == (caught.value.attempts, clock.sleeps)
