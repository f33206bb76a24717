"""Sessions with a server, and what has to be so after a call that failed."""

import asyncio

import pytest
from conftest import session_with

from ief_async import IefError, IefSession, RetryPolicy, Token

PROJECT = "bcd83056c918480f8f190844bd425b23"
TWICE = RetryPolicy(attempts=2)
QUICK = RetryPolicy(attempts=2, base=0, throttled_base=0)
MEBIBYTE = 1 << 20


def patient_session(fake, clock):
    """Return a session that sends twice at most, and waits on a fake clock."""
    return session_with(fake, retry=TWICE, clock=clock)


def session_at(endpoint, **options):
    """Return a session with any server."""
    options = {"retry": QUICK, **options}
    return IefSession(PROJECT, credentials=Token("token"), endpoint=endpoint, **options)


async def failure_of(ief):
    """Return the error that one call of list_pods ends with."""
    with pytest.raises(IefError) as caught:
        await ief.list_pods(node_id="n")
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    return error


async def assert_well(ief, fake):
    """Show that nothing is left of a failure: the next call works, no connection is taken."""
    before = fake.statistics().requests
    page = await ief.list_pods(deployment_ids=fake.deployment_ids)
    assert (10, 60, 1) == (len(page.items), page.count, page.attempts)
    assert before + 1 == fake.statistics().requests
    assert_idle(ief)


def assert_idle(ief):
    """Show that no connection is taken, no request counted as running, no task left."""
    http = ief._transport.connections.session()
    assert not http.connector._acquired
    assert 0 == ief.statistics().in_flight
    names = [repr(task.get_coro()) for task in asyncio.all_tasks()]
    assert not [name for name in names if "Scan." in name or "Transport." in name]
