"""A scan at work: what ends it, what it keeps, and the turns that it leaves to the event loop."""

import asyncio
import traceback
from typing import Any

import attrs
import pytest
from conftest import session_with, until

from ief_async import (
    Node,
    PartialScanError,
    RetryPolicy,
    ServerError,
    Target,
    Token,
    TransportError,
    scan_fleet,
)
from ief_async._structure import schema_watch, structure_of
from ief_async.testing import FakeIef, Fault

ONCE = RetryPolicy(attempts=1)
MANY = 20_000  # ids


@pytest.fixture
async def fake():
    """Run a fake with some pods."""
    async with FakeIef(60, deployments=6) as fake:
        yield fake


# ---- the deadline --------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["raise", "defer", "collect"])
async def test_a_passed_deadline_ends_a_scan_under_every_policy(on_error, fake, loop_time):
    """Requests that are in flight at the deadline are no failed batches: the scan has ended."""
    waiting = asyncio.Event()
    fake.intercept(lambda _: waiting.set() or Fault.hang())
    async with session_with(fake, clock=loop_time.clock) as ief:
        scan = ief.iter_pods(fake.deployment_ids, batch_size=1, on_error=on_error, deadline=50)
        consumer = asyncio.ensure_future(scan.collect())
        await waiting.wait()
        loop_time.let_pass(51)
        with pytest.raises(TransportError, match="deadline") as caught:
            await consumer

    assert () == scan.report.failures
    assert caught.value.checkpoint == scan.checkpoint()


@pytest.mark.parametrize("on_error", ["raise", "defer", "collect"])
async def test_a_request_that_fails_behind_the_deadline_ends_the_scan(on_error, fake, fake_clock):
    """Should a request notice first that time is up, that is no failed batch either."""

    def answer(_):
        fake_clock.time += 60
        return Fault.status(500)

    fake.intercept(answer)
    async with session_with(fake, clock=fake_clock.clock, retry=ONCE) as ief:
        scan = ief.iter_pods(fake.deployment_ids, batch_size=1, on_error=on_error, deadline=50)
        with pytest.raises((ServerError, TransportError)):
            await scan.collect()

    assert () == scan.report.failures


async def test_pages_that_came_before_the_deadline_are_delivered_behind_it(fake, loop_time):
    """A consumer that takes longer than the deadline still gets what was read in time."""
    async with session_with(fake, clock=loop_time.clock) as ief:
        scan = ief.iter_pods(fake.deployment_ids, batch_size=1, deadline=50)
        pods = []
        async for pod in scan:
            pods.append(pod.id)
            if len(pods) == 1:
                plan = scan._engine.plan
                await until(lambda: plan.closed and not plan.in_flight)  # noqa: B023  at once
                loop_time.let_pass(51)
            await asyncio.sleep(0)

    assert 60 == len(pods)
    assert scan.report.complete


async def test_no_request_is_sent_behind_the_deadline(fake, loop_time):
    """What was not asked for in time ends the scan, behind what was."""
    async with session_with(fake, clock=loop_time.clock) as ief:
        scan = ief.iter_pods(
            fake.deployment_ids, batch_size=1, concurrency=1, deadline=50, page_size=5
        )
        pods, sent = [], None
        with pytest.raises(TransportError, match="deadline"):
            async for pod in scan:
                pods.append(pod.id)
                if sent is None:
                    await until(lambda: not scan._engine.plan.in_flight)
                    sent = len(fake.requests)
                    loop_time.let_pass(51)
                await asyncio.sleep(0)

    assert sent == len(fake.requests)
    assert 5 <= len(pods) < 60


# ---- what is kept --------------------------------------------------------------------------------


def chain_of(error):
    """Return an error and all that led to it."""
    found = [error]
    for one in found:
        found += [other for other in (one.__cause__, one.__context__) if other is not None]
        found += getattr(one, "exceptions", ())
    return found


@pytest.mark.parametrize("fault", [Fault.status(400), Fault.reset(), Fault.html()])
@pytest.mark.parametrize("on_error", ["defer", "collect"])
async def test_a_kept_failure_holds_no_frames(fault, on_error, fake):
    """Its text, its notes and what it says of its cause are there; the frames are not."""
    bad = fake.deployment_ids[2]
    fake.intercept(lambda seen: fault if bad in seen.raw_query else None)
    async with session_with(fake, retry=ONCE) as ief:
        scan = ief.iter_pods(fake.deployment_ids, batch_size=1, on_error=on_error)
        if on_error == "defer":
            with pytest.raises(PartialScanError):
                await scan.collect()
        else:
            await scan.collect()
        (failure,) = scan.report.failures

    assert [None] * len(chain_of(failure.error)) == [
        one.__traceback__ for one in chain_of(failure.error)
    ]
    assert str(failure.error)
    assert f"deployment_ids {bad}" in failure.error.__notes__[-1]


async def test_a_row_that_fails_its_batch_holds_no_frames():
    """So does an error that shows only when a row is structured."""
    async with FakeIef([{"id": "a", "containers": 5}]) as fake, session_with(fake) as ief:
        scan = ief.iter_pods(["d"], on_error="collect")
        await scan.collect()
        (failure,) = scan.report.failures

    assert "containers" in str(failure.error)
    assert [None] == [one.__traceback__ for one in chain_of(failure.error)]


async def test_an_error_that_is_raised_has_its_frames(fake):
    """Whoever gets it from the loop sees where it came from."""
    fake.intercept(lambda _: Fault.status(400))
    async with session_with(fake) as ief:
        try:
            await ief.iter_pods(fake.deployment_ids).collect()
        except Exception as error:  # noqa: BLE001  its traceback is what is tested
            names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]

    assert "_read_page" in names


# ---- turns of the event loop ---------------------------------------------------------------------


class Ticker:
    """Counts the turns of the event loop, and how many ids were drawn between two of them."""

    def __init__(self, ids):
        self._ids = ids
        self._drawn = self._before = self.most = 0

    def __iter__(self):
        for identity in self._ids:
            self._drawn += 1
            yield identity

    async def run(self):
        """Look at each turn."""
        while True:
            self.most = max(self.most, self._drawn - self._before)
            self._before = self._drawn
            await asyncio.sleep(0)


async def in_async_turns(ids):
    """Give ids from an async source that waits for nothing."""
    for identity in ids:
        yield identity


SOURCES = {
    "given twice": lambda _: ["d0"] * MANY,
    "of empty nodes": lambda _: [Node(id=f"n{at}", deployment_num=0) for at in range(MANY)],
    "of large batches": lambda _: [f"d{at:064}"[-64:] for at in range(MANY)],
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", [iter, in_async_turns])
async def test_ids_leave_the_event_loop_its_turns(source, kind, fake):
    """However many ids make no batch, or one, the loop goes round in between."""
    ids = Ticker(SOURCES[source](fake))
    async with session_with(fake) as ief:
        by = {"node_ids": kind(ids)} if "nodes" in source else {"deployment_ids": kind(ids)}
        ticking = asyncio.create_task(ids.run())
        await ief.iter_pods(**by, batch_size=1_000).collect()
        ticking.cancel()

    assert ids._drawn == MANY
    assert ids.most <= 1_000


async def test_ids_that_a_checkpoint_has_as_done_leave_the_event_loop_its_turns(fake):
    """They make no request, and are hashed one after the other."""
    ids = [f"d{at}" for at in range(MANY)]
    async with session_with(fake) as ief:
        first = ief.iter_pods(iter(ids), batch_size=1_000)
        await first.collect()
        again = Ticker(ids)
        ticking = asyncio.create_task(again.run())
        rest = ief.iter_pods(iter(again), batch_size=1_000, resume_from=first.checkpoint())
        sent = len(fake.requests)
        assert [] == await rest.collect()
        ticking.cancel()

    assert sent == len(fake.requests)
    assert again.most <= 1_000


# ---- what the models do not know -----------------------------------------------------------------


@attrs.frozen
class Flat:
    """Plain fields: a page of them is made at once."""

    id: str
    name: str | None = None


@attrs.frozen
class Misspelt:
    """A field that no row has."""

    id: str
    nmae: str | None = None
    containers: Any = None


@pytest.mark.parametrize("model", [Flat, Misspelt])
async def test_each_watched_row_is_decoded_once(model, fake, monkeypatch):
    """For what the documented model does not know, and for what only the model knows."""
    decoded = []
    decode = schema_watch.msgspec.json.decode
    monkeypatch.setattr(
        schema_watch.msgspec.json, "decode", lambda row: decoded.append(bytes(row)) or decode(row)
    )
    async with session_with(fake) as ief:
        scan = ief.iter_pods(fake.deployment_ids, model=model)
        assert 60 == len(await scan.collect())

    assert 60 == len(decoded) == len({*decoded})
    assert scan.report.unknown_model_fields == (("nmae",) if model is Misspelt else ())


async def test_errors_of_the_model_itself_are_counted(fake):
    """A model that raises where msgspec builds it, and not where cattrs does, costs time alone."""
    left = {"count": 1}

    @attrs.frozen
    class Flaky:
        id: str
        containers: Any = None

        def __attrs_post_init__(self):
            if self.id == fake.pods[3]["id"] and left["count"] <= 3:
                left["count"] += 1
                raise LookupError

    assert structure_of(Flaky).fast
    async with session_with(fake) as ief:
        scan = ief.iter_pods(fake.deployment_ids, model=Flaky)
        assert 60 == len(await scan.collect())
    assert {"LookupError": 1} == scan.report.model_errors
    assert 0 == scan.report.bad_items

    left["count"] = 1
    place = {"project_id": fake.project_id, "endpoint": fake.endpoint}
    fleet = scan_fleet([Target(credentials=Token(fake.token), **place)], model=Flaky)
    assert 60 == len(await fleet.collect())
    assert {"LookupError": 1} == fleet.report.model_errors


async def test_a_scan_left_in_the_middle_of_a_page_has_not_finished_it():
    """Cancelled between two chunks of a page, a consumer that asks again loses no row of it."""
    pods = [{"id": f"p{at}", "deployment_id": "d"} for at in range(60)]
    pods[30]["containers"] = 5
    async with FakeIef(pods) as fake, session_with(fake) as ief:
        scan = ief.iter_pods(["d"], on_bad_item=lambda *_: task.cancel() and None)
        pages = scan.pages()
        task = asyncio.create_task(anext(pages))
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(StopAsyncIteration):
            await anext(pages)
        rest = ief.iter_pods(["d"], resume_from=scan.checkpoint(), on_bad_item="skip")

        assert 59 == len(await rest.collect())
