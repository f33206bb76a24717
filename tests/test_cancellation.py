"""Whoever cancels gets back what was thrown: asyncio's and anyio's scopes end as they say."""

import asyncio
import gc
import threading
import traceback
from tempfile import TemporaryDirectory

import aiohttp
import anyio
import pytest
from conftest import session_with, turns, until
from weather import serving

from ief_async import AccessKey, IefSession, PasswordCredentials, RetryPolicy, Target, scan_fleet
from ief_async.sinks import read_table, write_ndjson
from ief_async.testing import FakeIef, Fault

CANARY = "canary-security-token"
FAULTS = {
    "hang": Fault.hang(),
    "drip": Fault.drip(0.05),
    "window": Fault.throttle("30"),
    "repeat": Fault.status(503),
}


@pytest.fixture
async def fake():
    """Run a fake fleet that never comes to an end."""
    async with FakeIef(600) as running:
        running.intercept(lambda _: Fault.hang())
        yield running


def key_of(fake):
    """Return a key whose secrets would be seen."""
    return AccessKey(fake.access_key, fake.secret_key, CANARY)


async def one_call(fake, options):
    """Ask for one page."""
    async with session_with(fake, **options) as ief:
        await ief.list_pods(node_id="n")


async def bare_scan(fake, options):
    """Scan, with nothing around it."""
    async with session_with(fake, **options) as ief:
        async for _ in ief.iter_pods(fake.deployment_ids, batch_size=2):
            pass


async def closed_scan(fake, options):
    """Scan within `async with`."""
    async with (
        session_with(fake, **options) as ief,
        ief.iter_pods(fake.deployment_ids, batch_size=2) as stream,
    ):
        async for _ in stream.pages():
            pass


async def fleet(fake, options):
    """Scan two targets within `async with`."""
    place = {"endpoint": fake.endpoint, "credentials": key_of(fake)}
    targets = [Target(project_id=fake.project_id, instance_id=name, **place) for name in ("a", "b")]
    async with scan_fleet(targets, **options) as stream:
        async for _ in stream:
            pass


async def login(fake, options):
    """Wait for a token."""
    password = {"domain": fake.domain, "user": fake.user, "password": fake.password}
    credentials = PasswordCredentials(**password)
    async with IefSession(
        credentials=credentials,
        region=fake.region,
        endpoint=fake.endpoint,
        iam_endpoint=fake.endpoint,
        **options,
    ) as ief:
        await asyncio.gather(ief.list_pods(node_id="n"), ief.list_pods(node_id="n"))


async def export(fake, options):
    """Write a file that can be gone on with."""
    with TemporaryDirectory() as folder:
        async with session_with(fake, **options) as ief:
            scan = ief.iter_pods(fake.deployment_ids, batch_size=2)
            await write_ndjson(scan, f"{folder}/a.ndjson", checkpoint=f"{folder}/state")


async def table(fake, options):
    """Read a table."""
    async with session_with(fake, **options) as ief:
        await read_table(ief.iter_pods(fake.deployment_ids, batch_size=2))


DOORS = [one_call, bare_scan, closed_scan, fleet, login, export, table]
NOT_CLOSED = {bare_scan, table}  # streams that nobody closes


async def in_the_middle(fake, asked):
    """Wait until a request has come after so many, and all have gone on as far as they can."""
    await until(lambda: fake.statistics().requests > asked)
    await turns()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("door", DOORS)
async def test_anyio_scopes_end_as_they_say(fake, door, fault):
    """`move_on_after` moves on, `fail_after` is a TimeoutError, and no request runs after it."""
    fake.intercept(lambda _: FAULTS[fault])
    patient = {"retry": RetryPolicy(base=60, cap=60)}
    before = asyncio.all_tasks()
    with anyio.move_on_after(0.05) as scope:
        await door(fake, patient)
    assert scope.cancelled_caught
    if door in NOT_CLOSED:
        await turns()  # its tasks are cancelled, and not waited for
    assert not [task for task in asyncio.all_tasks() - before if "Scan." in repr(task)]

    with pytest.raises(TimeoutError):
        with anyio.fail_after(0.05):
            await door(fake, patient)
    asked = fake.statistics().requests
    async with anyio.create_task_group() as group:
        group.start_soon(door, fake, patient)
        await in_the_middle(fake, asked)
        group.cancel_scope.cancel()
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("door", DOORS)
async def test_scope_that_is_over_before_it_begins_ends_as_it_says(fake, door):
    """In a scope that is cancelled from its beginning nothing is left behind."""
    with anyio.move_on_after(0) as scope:
        await door(fake, {})

    assert scope.cancelled_caught


async def test_silent_handshake_in_a_scope_ends_as_it_says():
    """While a connection is being made, a scope ends as it says, too."""
    async with (
        serving(lambda *_: asyncio.sleep(9)) as port,
        IefSession(
            "p" * 32, credentials=AccessKey("a", "s"), endpoint=f"https://localhost:{port}"
        ) as ief,
    ):
        with anyio.move_on_after(0.05) as scope:
            await ief.list_pods(node_id="n")

    assert scope.cancelled_caught


async def test_cancelled_scope_leaves_no_task_of_a_scan(fake):
    """After `async with stream` in a cancelled scope no request is in flight, as anywhere."""
    async with session_with(fake) as ief:
        with anyio.move_on_after(0.05):
            async with ief.iter_pods(fake.deployment_ids, batch_size=2) as stream:
                try:
                    async for _ in stream:
                        pass
                finally:
                    assert stream._engine._tasks._running
        assert not stream._engine._tasks._running
        assert 0 == ief.statistics().in_flight


async def test_cancellation_is_the_same_object(fake):
    """What was thrown in comes out: the object, its message, no frame that holds a secret."""
    thrown, arrived = [], asyncio.Event()
    fake.intercept(lambda _: arrived.set() or Fault.hang())

    async def middleware(request, handler):
        try:
            return await handler(request)
        except asyncio.CancelledError as error:
            thrown.append(error)
            raise

    async with aiohttp.ClientSession(middlewares=(middleware,)) as http:
        task = asyncio.create_task(one_call(fake, {"http": http, "credentials": key_of(fake)}))
        await arrived.wait()
        task.cancel("for this reason")
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

    assert caught.value is thrown[0]
    assert ("for this reason",) == caught.value.args
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert CANARY not in "".join(shown.format())


async def test_cancellation_that_was_made_anew_is_known_by_what_it_was_made_of(fake):
    """A borrowed middleware that raises a bare one of its own does not hide whose scope it was."""
    lengths = []

    async def middleware(request, handler):
        try:
            return await handler(request)
        except asyncio.CancelledError:
            lengths.append(len(request.headers["X-Security-Token"]))
            raise asyncio.CancelledError  # noqa: B904  as some do

    async with aiohttp.ClientSession(middlewares=(middleware,)) as http:
        options = {"http": http, "credentials": key_of(fake)}
        with anyio.move_on_after(0.05) as scope:
            try:
                await one_call(fake, options)
            except asyncio.CancelledError as error:
                shown = traceback.TracebackException.from_exception(error, capture_locals=True)
                assert CANARY not in "".join(shown.format())
                raise

    assert scope.cancelled_caught
    assert [len(CANARY)] == lengths


async def test_asyncio_scopes_end_as_they_say(fake):
    """`asyncio.timeout`, `wait_for` and task groups know their own cancellations."""
    for door in DOORS:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await door(fake, {})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(door(fake, {}), 0.05)
        asked = fake.statistics().requests
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(door(fake, {}))
                await in_the_middle(fake, asked)
                raise LookupError
        assert asyncio.current_task().cancelling() == 0
    gc.collect()


class Stuck:
    """A file on a disk that does not answer until it is let go."""

    def __init__(self):
        self.entered, self.go_on = threading.Event(), threading.Event()

    def write(self, data):
        """Take all of it, some time."""
        self.entered.set()
        self.go_on.wait(30)
        return len(data)


@pytest.mark.parametrize("scope", ["anyio", "asyncio", "task"])
async def test_an_export_that_waits_for_its_disk_ends_as_its_scope_says(scope):
    """What a thread writes is waited for, and then the cancellation goes on as what it was."""
    stuck = Stuck()
    async with FakeIef(30) as fake, session_with(fake) as ief:

        async def when_stuck(end):
            await asyncio.to_thread(stuck.entered.wait, 30)
            end()
            await asyncio.sleep(0)  # it is cancelled while the disk does not answer
            asyncio.get_running_loop().call_soon(stuck.go_on.set)

        async def write_until(end):
            helper = asyncio.ensure_future(when_stuck(end))
            try:
                await write_ndjson(ief.iter_pods(fake.deployment_ids), stuck)
            finally:
                assert helper.done()

        if scope == "anyio":
            with anyio.CancelScope() as over:
                await write_until(over.cancel)
            assert over.cancelled_caught
        elif scope == "asyncio":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(None) as over:
                    await write_until(lambda: over.reschedule(0))
        else:
            task = asyncio.current_task()
            with pytest.raises(asyncio.CancelledError) as caught:
                await write_until(lambda: task.cancel("because of that"))
            task.uncancel()
            assert ("because of that",) == caught.value.args
        assert not [one for one in asyncio.all_tasks() if "Scan." in repr(one.get_coro())]
