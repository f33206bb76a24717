"""Whatever ends a task of a scan reaches its consumer, and nothing waits that nothing will wake."""

import asyncio
import signal

import attrs
import pytest
from conftest import session_with

from ief_async import (
    AuthenticationError,
    IefError,
    IefSession,
    PayloadError,
    RetryPolicy,
    Target,
    Token,
    scan_fleet,
)
from ief_async._scan.stream import engine_of
from ief_async.testing import FakeIef, Fault

EMPTY = Fault.body(b'{"count": 1, "pods": []}')  # once
SOON = 30  # seconds: what takes longer waits for ever


@attrs.frozen(kw_only=True)
class Named:
    """Two fields, one of them a number that a server may get wrong."""

    id: str
    name: str
    host_network: bool = False


class Interrupt(BaseException):
    """What a signal handler of an application raises."""


@pytest.fixture
async def fake():
    """Run a fake with some pods."""
    async with FakeIef(60, deployments=6) as fake:
        yield fake


async def ended(awaitable):
    """Return what ended something, and hold that no task of a scan is left behind."""
    error = None
    try:
        async with asyncio.timeout(SOON) as scope:
            await awaitable
    except BaseException as raised:  # noqa: BLE001  that is what is tested
        error = raised
    assert not scope.expired(), "it waits for ever"
    assert not [one for one in asyncio.all_tasks() if "Scan." in repr(one.get_coro())]
    return error


def doors(fake, ief, source):
    """Return the ways in which a source of keys may be met, each as a coroutine function."""

    async def page_by_page():
        async for _ in ief.iter_pods(fake.deployment_ids, batch_size=1).pages():
            pass

    async def fleet():
        target = Target(project_id=fake.project_id, endpoint=fake.endpoint, credentials=source)
        await scan_fleet([target]).collect()

    return {
        "scan": lambda: ief.iter_pods(fake.deployment_ids, batch_size=1).collect(),
        "pages": page_by_page,
        "collect": lambda: ief.iter_pods(fake.deployment_ids, on_error="collect").collect(),
        "found": lambda: ief.iter_pods(ief.iter_deployments()).collect(),
        "list": lambda: ief.iter_nodes().collect(),
        "count": lambda: ief.count_pods(fake.deployment_ids),
        "call": lambda: ief.list_pods(deployment_ids=fake.deployment_ids),
        "fleet": fleet,
    }


DOORS = ["scan", "pages", "collect", "found", "list", "count", "call", "fleet"]


@pytest.mark.parametrize("door", DOORS)
async def test_a_key_source_that_is_cancelled_ends_the_scan(door, fake):
    """A source that awaits a task which somebody cancels gives the consumer its CancelledError."""
    shared = asyncio.ensure_future(asyncio.Event().wait())

    async def source():
        await shared

    async with session_with(fake, credentials=source) as ief:
        asyncio.get_running_loop().call_later(0.01, shared.cancel)
        error = await ended(doors(fake, ief, source)[door]())

        assert isinstance(error, asyncio.CancelledError)
        assert 0 == ief.statistics().in_flight


@pytest.mark.parametrize("door", DOORS)
async def test_what_a_signal_handler_raises_ends_the_scan(door, fake):
    """A BaseException that a signal handler raises inside a page's task is the consumer's."""
    raised = Interrupt()

    def handle(*_):
        raise raised

    async def source():
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        async with session_with(fake, credentials=source) as ief:
            assert raised is await ended(doors(fake, ief, source)[door]())
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("on_error", ["raise", "defer", "collect"])
@pytest.mark.parametrize("raised", [asyncio.CancelledError, Interrupt])
async def test_ids_that_end_by_more_than_an_exception_end_the_scan(raised, on_error, after, fake):
    """An async source of ids that is cancelled or interrupted ends the scan by just that."""
    error = raised("from the source")

    async def ids():
        for identity in fake.deployment_ids[:after]:
            yield identity
        raise error

    async with session_with(fake) as ief:
        stream = ief.iter_pods(ids(), batch_size=1, on_error=on_error)

        assert error is await ended(stream.collect())


async def test_tasks_that_somebody_cancels_end_the_scan(fake):
    """Where an application cancels the tasks that it finds, a scan ends."""
    async with session_with(fake) as ief:
        held = asyncio.Event()
        fake.intercept(lambda _: held.set() or Fault.slow(60))
        consumer = asyncio.ensure_future(ief.iter_pods(fake.deployment_ids).collect())
        await held.wait()
        for task in asyncio.all_tasks():
            if task.get_coro().__qualname__ == "Scan._read_page":
                task.cancel()

        assert isinstance(await ended(consumer), asyncio.CancelledError)


@pytest.mark.parametrize("way", ["itself", "derived", "in a circle"])
async def test_a_key_source_may_not_use_the_session_it_serves(way, fake):
    """A source that asks its own session, whose project is to be looked up, is told so."""
    sessions = {}

    async def source():
        asked = sessions["other" if way == "in a circle" else "first"]
        if way == "derived":
            asked = asked.with_options(retry=RetryPolicy(attempts=1))
        await asked.list_pods(node_id="n")
        return Token(fake.token)

    async def other():
        await sessions["first"].list_pods(node_id="n")
        return Token(fake.token)

    where = {"region": fake.region, "endpoint": fake.endpoint, "iam_endpoint": fake.iam_endpoint}
    async with (
        IefSession(credentials=source, **where) as first,
        IefSession(credentials=other, **where) as second,
    ):
        sessions |= {"first": first, "other": second}
        error = await ended(first.iter_pods(fake.deployment_ids).collect())

    assert isinstance(error, AuthenticationError)
    assert "uses the session that waits for its key" in str(error)
    assert not fake.requests


# ---- max_items -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("pods", [0, 1])
@pytest.mark.parametrize("first", [None, Fault.status(504), EMPTY])
async def test_fewer_rows_than_wanted_end_a_scan(first, pods, ordered):
    """With max_items below the page size a list that is empty, or seems so, comes to its end."""
    async with FakeIef(pods, deployments=3) as fake, session_with(fake) as ief:
        fake.script(first)
        scans = [
            ief.iter_pods(fake.deployment_ids, batch_size=1, max_items=10, ordered=ordered),
            ief.iter_pods(node_ids=fake.node_ids[:3], max_items=10, ordered=ordered),
            ief.iter_pods(deployment_ids=["nobodys"], max_items=10, ordered=ordered),
            ief.iter_deployments(name="nobodys", max_items=10),
            ief.iter_groups(name="nobodys", max_items=10),
        ]
        for scan in scans:
            assert await ended(scan.collect()) is None


async def test_max_items_is_exact_where_a_batch_breaks_off():
    """Rows that a batch did not give, as one of them can't be read, are taken from the next."""
    pods = [{"id": f"p{one}", "name": "n", "deployment_id": f"d{one // 20}"} for one in range(40)]
    pods[5]["host_network"] = {"no": "truth"}
    async with FakeIef(pods) as fake, session_with(fake) as ief:
        scan = ief.iter_pods(
            ["d0", "d1"], batch_size=1, max_items=20, on_error="collect", model=Named
        )

        error = await ended(scan.collect())

    assert error is None
    assert isinstance(scan.report.failures[0].error, PayloadError)
    assert 20 == scan.report.items


# ---- guards --------------------------------------------------------------------------------------


async def test_a_scan_that_has_nothing_to_wait_for_says_so(fake, monkeypatch):
    """Should the planner ever ask for nothing, the scan ends, and asks for a report."""
    async with session_with(fake) as ief:
        stream = ief.iter_pods(fake.deployment_ids)
        plan = engine_of(stream).plan
        monkeypatch.setattr(type(plan), "_may_ask", lambda _: ())

        error = await ended(stream.collect())

    assert isinstance(error, IefError)
    assert "please report it" in str(error)
