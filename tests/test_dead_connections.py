"""Idle connections that are dead: a laptop that slept, a NAT that forgot."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest
from conftest import session_with

from ief_async import EcsMetadata, IefSession, PasswordCredentials, RetryPolicy, Timeouts
from ief_async.testing import FakeIef, Fault

IDLE = 12
HASTY = {"retry": RetryPolicy(base=0), "timeout": Timeouts(read=1.5)}
WAYS = ["silent", "reset", "closed"]


@asynccontextmanager
async def sessions(fake, *, borrowed):
    """Give a session of its own connections, or of somebody else's."""
    if not borrowed:
        async with session_with(fake, **HASTY) as ief:
            yield ief
        return
    async with aiohttp.ClientSession() as http, session_with(fake, http=http, **HASTY) as ief:
        yield ief


async def leave_idle(ief, fake, number=IDLE):
    """Open so many connections, and leave them idle."""
    fake.intercept(lambda _: None)
    started = asyncio.Event()
    waiting = []

    async def request():
        waiting.append(1)
        if len(waiting) == number:
            started.set()
        await started.wait()
        await ief.list_pods(deployment_ids=fake.deployment_ids)

    await asyncio.gather(*(request() for _ in range(number)))
    assert fake.statistics().connections_open >= number


@pytest.mark.parametrize("borrowed", [False, True], ids=["owned", "borrowed"])
@pytest.mark.parametrize("how", WAYS)
async def test_repeat_after_a_dead_connection_opens_a_new_one(how, borrowed):
    """With twelve dead connections idle, a request takes two attempts, and drops the other ones."""
    async with FakeIef(60, latency=0.02) as fake, sessions(fake, borrowed=borrowed) as ief:
        await leave_idle(ief, fake)
        fake.forget_connections(how)
        page = await ief.list_pods(deployment_ids=fake.deployment_ids)
        connector = ief._transport.connections.session().connector
        idle = sum(len(some) for some in connector._conns.values())
        again = await ief.list_pods(deployment_ids=fake.deployment_ids)

    assert (2, 1) == (page.attempts, again.attempts)
    assert (1, IDLE + 1) == (idle, fake.statistics().connections)


@pytest.mark.parametrize("how", WAYS)
async def test_scan_over_dead_connections_costs_each_request_one_repeat(how):
    """A scan that finds all its connections dead goes on over new ones."""
    async with FakeIef(400, latency=0.01) as fake, sessions(fake, borrowed=False) as ief:
        await leave_idle(ief, fake)
        fake.forget_connections(how)
        stream = ief.iter_pods(fake.deployment_ids, page_size=10, concurrency=IDLE)
        pods = await stream.collect()

    assert 400 == len(pods)
    assert stream.report.retries <= IDLE


async def test_requests_for_a_key_have_their_repeat_on_a_new_connection():
    """POSTs for a token, and the lookup of the project, are repeated on a new connection, too."""
    async with FakeIef(4, latency=0.02) as fake, aiohttp.ClientSession() as http:
        hosts = {"endpoint": fake.endpoint, "iam_endpoint": fake.endpoint, "http": http}
        password = {"domain": fake.domain, "user": fake.user, "password": fake.password}
        async with session_with(fake, http=http) as before:
            await leave_idle(before, fake)
        fake.forget_connections("silent")
        async with IefSession(
            credentials=PasswordCredentials(**password), region=fake.region, **hosts, **HASTY
        ) as ief:
            await ief.list_pods(deployment_ids=fake.deployment_ids)
            retries = ief.statistics().retries

    assert 1 == retries
    assert ["POST", "GET"] == [seen.method for seen in fake.requests[IDLE:]]


async def test_metadata_service_is_asked_on_a_new_connection():
    """What is sent once only never goes out on a connection that may be dead."""
    async with FakeIef(4, latency=0.02) as fake, aiohttp.ClientSession() as http:
        async with session_with(fake, http=http) as before:
            await leave_idle(before, fake)
        fake.forget_connections("reset")
        keys = EcsMetadata(endpoint=fake.endpoint)
        async with session_with(fake, http=http, credentials=keys, **HASTY) as ief:
            page = await ief.list_pods(deployment_ids=fake.deployment_ids)

    assert 1 == page.attempts


async def test_dead_connections_to_another_host_are_left_alone():
    """What fails at one host says nothing of another's connections."""
    async with (
        FakeIef(4) as fake,
        FakeIef(4) as other,
        aiohttp.ClientSession() as http,
        session_with(other, http=http) as elsewhere,
        session_with(fake, http=http, **HASTY) as ief,
    ):
        await elsewhere.list_pods(deployment_ids=other.deployment_ids)
        await ief.list_pods(deployment_ids=fake.deployment_ids)
        fake.forget_connections("reset")
        await ief.list_pods(deployment_ids=fake.deployment_ids)
        await elsewhere.list_pods(deployment_ids=other.deployment_ids)

    assert (2, 1) == (fake.statistics().connections, other.statistics().connections)


async def test_failure_on_a_new_connection_leaves_idle_ones_alone(fake_clock):
    """An answer that says no, or a first connection that fails, costs no other connection."""
    async with (
        FakeIef(60, latency=0.02) as fake,
        session_with(fake, clock=fake_clock.clock) as ief,
    ):
        await leave_idle(ief, fake, 3)
        fake.script(Fault.status(503), Fault.throttle("1"))
        await ief.list_pods(deployment_ids=fake.deployment_ids)

    assert 3 == fake.statistics().connections
