"""Streams over real sockets: order, window, errors, and what is left behind when one is left."""

import asyncio
import gc
import logging
import os
import resource
import sys
import warnings
from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import pytest
import uvloop
from conftest import quiet, session_with, turns, until

from ief_async import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    Limits,
    PartialScanError,
    PayloadError,
    RequestStarted,
    RetryPolicy,
    ServerError,
    Timeouts,
    TransportError,
)
from ief_async._paging.shape import requests_for
from ief_async._policies import Clock
from ief_async.testing import FakeIef, Fault

AT_ONCE = RetryPolicy(attempts=2, base=0, throttled_base=0)


@attrs.frozen(kw_only=True)
class Named:
    """The two fields that most of these tests need."""

    id: str
    name: str


@attrs.frozen(kw_only=True)
class Identified:
    """One field, so that most keys are unknown to the model and known to the document."""

    id: str


@asynccontextmanager
async def fleet(pods=1000, *, session=None, **options):
    """Run a fake fleet and a session with it."""
    async with FakeIef(pods, **options) as fake, session_with(fake, **(session or {})) as ief:
        yield fake, ief


def expected_ids(fake, *deployments):
    """Return the ids of the fleet in the server's order."""
    pods = (pod for pod in fake.pods if not deployments or pod["deployment_id"] in deployments)
    return [pod["id"] for pod in pods]


def ours():
    """Return the running tasks that belong to a scan."""
    kinds = ("Scan.", "Feeder.")
    return {one for one in asyncio.all_tasks() if one.get_coro().__qualname__.startswith(kinds)}


# ---- what comes ----------------------------------------------------------------------------------


async def test_every_pod_comes_once_in_the_servers_order():
    """All pods of all batches come, typed, once each, batch by batch in the order of the ids."""
    async with fleet(1000, deployments=25) as (fake, ief):
        stream = ief.iter_pods(fake.deployment_ids, batch_size=10, page_size=30)

        pods = await stream.collect()

    batches = [fake.deployment_ids[at : at + 10] for at in range(0, 25, 10)]
    assert [one for batch in batches for one in expected_ids(fake, *batch)] == [
        pod.id for pod in pods
    ]
    assert stream.report.complete
    assert [400, 400, 200] == [batch.items for batch in stream.report.batches]


async def test_pages_say_how_they_came():
    """A page has its items and what the answer said: count, offset, request id, the whole body."""
    async with fleet(250, deployments=1) as (fake, ief):
        pages = [page async for page in ief.iter_pods(fake.deployment_ids).pages()]

    assert [(0, 100), (95, 95), (190, 55)] == [(p.offset, len(p.items)) for p in pages]
    assert {250} == {page.count for page in pages}
    assert 3 == len({page.request_id for page in pages})
    assert all(page.items[0].id.encode() in page.raw for page in pages)
    assert all(page.attempts == 1 and page.elapsed > 0 and page.limit == 100 for page in pages)


async def test_unordered_batches_come_as_they_are_ready(held_back):
    """With ordered=False a slow batch keeps no other waiting; inside a batch the order holds."""
    async with fleet(400, deployments=4) as (fake, ief):
        slow = fake.deployment_ids[0]
        fake.intercept(lambda seen: Fault.slow(1) if slow in seen.raw_query else None)
        stream = ief.iter_pods(fake.deployment_ids, batch_size=1, ordered=False, page_size=20)

        pods = []
        async for pod in stream:
            pods.append((pod.deployment_id, pod.id))
            if len(pods) == 300:  # all others
                held_back.set()

    assert 300 == [at for at, _ in pods].index(slow)
    for deployment in fake.deployment_ids:
        assert expected_ids(fake, deployment) == [one for at, one in pods if at == deployment]


@pytest.mark.parametrize("selector", ["node_ids", "group_ids"])
async def test_nodes_and_groups_are_one_query_each(selector):
    """A scan by nodes or groups asks one of them at a time, as the API has it."""
    async with fleet(300) as (fake, ief):
        ids = getattr(fake, selector)

        pods = await ief.iter_pods(**{selector: ids}, page_size=200).collect()

    placed = {pod["id"] for pod in fake.pods if pod["node_id"] or selector == "group_ids"}
    assert placed == {pod.id for pod in pods}
    assert len(placed) == len(pods)
    assert set(ids) == {seen.query[selector.removesuffix("s")] for seen in fake.requests}


async def test_ids_may_come_from_anywhere():
    """Lists, sets, generators and async generators are read; ids given twice are asked for once."""
    async with fleet(100, deployments=5) as (fake, ief):
        ids = [*fake.deployment_ids, *fake.deployment_ids[:2]]

        async def discovered():
            for one in ids:
                await asyncio.sleep(0)
                yield one

        for source in (ids, set(ids), (one for one in ids), discovered()):
            pods = await ief.iter_pods(source, batch_size=2).collect()
            assert 100 == len(pods) == len({pod.id for pod in pods})

    assert 5 * 4 == sum(len(seen.query["deployment_ids"].split(",")) for seen in fake.requests)


async def test_async_ids_are_drawn_as_the_window_has_room():
    """A scan reads its source only as far as the window lets it, and closes it when it is left."""
    async with fleet(60, deployments=60) as (fake, ief):
        drawn = []
        closed = asyncio.Event()

        async def discovered():
            try:
                for one in fake.deployment_ids:
                    drawn.append(one)
                    yield one
            finally:
                closed.set()

        async with ief.iter_pods(discovered(), batch_size=1, concurrency=2) as stream:
            async for _ in stream:
                await until(lambda: not stream._engine.plan.in_flight)
                break

        assert len(drawn) <= 2 * 2 + 2
        assert closed.is_set()


async def test_ids_that_fail_fail_the_scan_as_themselves():
    """What an iterable of ids raises comes out of the loop, and a wrong id in it is named."""
    async with fleet(10) as (fake, ief):

        async def broken():
            yield fake.deployment_ids[0]
            message = "discovery failed"
            raise LookupError(message)

        with pytest.raises(LookupError, match="discovery failed"):
            await ief.iter_pods(broken()).collect()
        with pytest.raises(ConfigurationError, match="deployment_ids must be ids of"):
            await ief.iter_pods(one for one in ["a,b"]).collect()
        assert not ours()


async def test_ids_that_cannot_be_begun_fail_the_scan():
    """A source that fails before its first id, such as a stream used twice, ends the scan."""
    async with fleet(10) as (_, ief):
        found = ief.iter_deployments()
        await found.collect()

        with pytest.raises(ConfigurationError, match="this stream was iterated before"):
            await asyncio.wait_for(ief.iter_pods(found).collect(), 5)
        assert not ours()


async def test_no_ids_no_request():
    """A scan of nothing ends at once, sends nothing and is complete."""
    async with fleet(10) as (fake, ief):
        stream = ief.iter_pods([])

        assert [] == await stream.collect()
        assert stream.report.complete
        assert 0 == fake.statistics().requests


async def test_model_without_id_is_read_as_well():
    """Pods are told apart by ids that are read beside a model that has none."""

    @attrs.frozen
    class State:
        state: str

    async with fleet(250) as (fake, ief):
        states = await ief.iter_pods(fake.deployment_ids, model=State).collect()

    assert [State(pod["state"]) for pod in fake.pods] == states


async def test_capped_pages_cost_requests_and_no_rows():
    """A server that gives 7 where 100 were asked for is read whole, and the report says so."""
    async with fleet(200, page_cap=7, deployments=1) as (fake, ief):
        stream = ief.iter_pods(fake.deployment_ids)

        assert expected_ids(fake) == [pod.id async for pod in stream]

    batch = stream.report.batches[0]
    assert (("clamped",), 7) == (batch.flags, batch.page_size_seen)
    assert 34 == fake.statistics().requests  # a row of overlap leaves six new ones a page


async def test_row_that_cannot_be_structured_ends_the_stream_behind_those_before_it():
    """The rows before a bad one are delivered; the error names batch, offset, request and field."""
    pods = [{"id": f"p{at}", "deployment_id": "d", "name": f"n{at}"} for at in range(30)]
    pods[17]["containers"] = [{"ports": [{}, {"host_port": "marker"}]}]
    async with fleet(pods) as (_, ief):
        seen = []
        with pytest.raises(PayloadError) as caught:
            async for pod in ief.iter_pods(["d"], page_size=10):
                seen.append(pod.id)
        await asyncio.sleep(0)
        assert not ours()

    assert [f"p{at}" for at in range(17)] == seen
    assert "pods[9].containers[0].ports[1].host_port" == caught.value.path
    assert (0, 8) == (caught.value.batch, caught.value.offset)
    assert caught.value.request_id in caught.value.__notes__[0]
    assert "marker" not in "".join([str(caught.value), *caught.value.__notes__])


async def test_items_are_counted_one_by_one():
    """Progress and report say how many items were taken, not how many were made ready."""
    async with fleet(300) as (fake, ief):
        stream = ief.iter_pods(fake.deployment_ids)
        counts = []
        async for _ in stream:
            counts.append((stream.progress.items, stream.report.items))
            if len(counts) == 150:
                break

    assert [(taken, taken) for taken in range(1, 151)] == counts
    assert (150, 150) == (stream.progress.items, stream.report.items)


async def test_progress_counts_up_to_the_whole():
    """Progress knows the whole once every batch was counted, and ends at 1 with nothing left."""
    async with fleet(1000, deployments=10) as (fake, ief):
        stream = ief.iter_pods(fake.deployment_ids, batch_size=5)
        before = stream.progress
        fractions = []
        async for _ in stream.pages():
            fractions.append(stream.progress.fraction)
        after = stream.progress

    assert (0, 0, None, None, 0) == (
        before.items,
        before.batches,
        before.expected_items,
        before.fraction,
        before.elapsed,
    )
    assert sorted(fractions, key=lambda part: part or 0) == fractions
    assert (1000, 1000, 12, 2) == (after.items, after.expected_items, after.pages, after.batches)
    assert (1.0, 0) == (after.fraction, after.eta)
    assert "1000 of 1000 items, 12 pages" in repr(stream)


# ---- the window ----------------------------------------------------------------------------------


async def test_slow_consumer_never_makes_the_window_grow():
    """100,000 pods under a consumer that takes a page at a time: the window holds."""
    async with fleet(100_000, deployments=10) as (fake, ief):
        stream = ief.iter_pods(
            fake.deployment_ids, page_size=1000, concurrency=4, batch_size=5, model=Named
        )
        taken = items = 0
        async for page in stream.pages():
            taken += 1
            items += len(page.items)
            for _ in range(3):
                await asyncio.sleep(0)
            if taken % 10 == 1:
                await until(lambda: not stream._engine.plan.in_flight)  # all that may come is there
            assert fake.statistics().requests - taken <= 2 * 4

    assert (102, 100_000) == (taken, items)
    assert fake.statistics().in_flight_peak <= 4


async def test_pages_queue_without_a_time_out(loop_time):
    """Pages wait for a permit longer than the time-out, which that does not use up."""
    session = {"timeout": Timeouts(total=60), "limits": Limits(concurrency=2)}
    async with fleet(1_000, deployments=1, session=session) as (fake, ief):
        fake.intercept(lambda _: loop_time.let_pass(2))  # for each request: more than 200 in all
        stream = ief.iter_pods(fake.deployment_ids, page_size=10, concurrency=64, model=Named)

        assert 1_000 == len(await stream.collect())

    assert (requests_for(1_000, 10), 0) == (fake.statistics().requests, stream.report.retries)
    assert fake.statistics().in_flight_peak <= 2
    assert fake.statistics().connections <= 2


async def test_two_scans_get_equal_shares():
    """A scan with 32 workers takes no more of the session than one with 8 beside it."""
    session = {"limits": Limits(concurrency=4)}
    async with fleet(1_200, deployments=2, latency=0.002, session=session) as (fake, ief):
        wide, narrow = fake.deployment_ids
        await asyncio.gather(
            ief.iter_pods([wide], page_size=10, concurrency=32).collect(),
            ief.iter_pods([narrow], page_size=10, concurrency=8).collect(),
        )

    early = Counter(request.query["deployment_ids"] for request in fake.requests[:100])
    assert abs(early[wide] - early[narrow]) <= 20


async def test_two_scans_share_the_session():
    """Two scans at once give their own results, under one limit and one set of figures."""
    session = {"limits": Limits(concurrency=4)}
    async with fleet(600, deployments=2, latency=0.002, session=session) as (fake, ief):
        first, second = fake.deployment_ids

        left, right = await asyncio.gather(
            ief.iter_pods([first], page_size=10).collect(),
            ief.iter_pods([second], page_size=10).collect(),
        )

        assert expected_ids(fake, first) == [pod.id for pod in left]
        assert expected_ids(fake, second) == [pod.id for pod in right]
        assert fake.statistics().in_flight_peak <= 4
        assert 2 * requests_for(300, 10) == ief.statistics().requests


async def test_sick_page_keeps_no_healthy_one_waiting(fake_clock):
    """While one page sleeps before its repeat, the others come, through a single slot."""
    session = {"limits": Limits(concurrency=1), "clock": fake_clock.clock}
    fake_clock.hold()
    async with fleet(300, deployments=3, session=session) as (fake, ief):
        sick = fake.deployment_ids[0]
        fake.intercept(
            lambda seen: Fault.status(503) if sick in seen.raw_query and first(seen) else None
        )
        seen_before = []

        def first(seen):
            seen_before.append(seen)
            return len(seen_before) == 1

        order = []
        async for pod in ief.iter_pods(fake.deployment_ids, batch_size=1, ordered=False):
            order.append(pod.deployment_id)
            if len(order) == 200:  # all others
                fake_clock.release()

    assert 200 == order.index(sick)
    assert 300 == len(order)


# ---- the end of a stream -------------------------------------------------------------------------


async def test_an_iterator_that_dies_in_a_task_of_its_scan_leaves_nothing_behind():
    """Freed while a task of the scan runs, as in a hook, an iterator cancels that task, too."""
    held, left = [], []

    def hook(event):
        if isinstance(event, RequestStarted) and left:
            fake.latency = 60  # it stays in flight
            held.clear()

    async with (
        FakeIef(3_000, latency=0.001, seed=1) as fake,
        session_with(fake, on_event=hook) as ief,
    ):
        held.append(aiter(ief.iter_pods(fake.deployment_ids, concurrency=2)))
        await anext(held[0])
        left.append(True)
        await until(lambda: not held)
        await turns()
        assert 0 == ief.statistics().in_flight


@pytest.mark.parametrize("held", [True, False])
async def test_bare_break_leaves_nothing_behind(held, caplog, recwarn):
    """After a bare break no task runs, nothing is in flight, no socket stays, none is asked."""
    caplog.set_level(logging.DEBUG)
    async with fleet(5000, deployments=1, latency=0.01) as (fake, ief):
        stream = ief.iter_pods(fake.deployment_ids, page_size=10)
        if held:
            async for _ in stream:
                break
        else:
            async for _ in ief.iter_pods(fake.deployment_ids, page_size=10):
                break
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not ours()

        await quiet(fake, ief)
        sent = fake.statistics().requests
        for _ in range(100):
            await asyncio.sleep(0)
        assert sent == fake.statistics().requests
        assert not ief._transport.connections.session().connector._acquired
    assert 0 == fake.statistics().connections_open
    gc.collect()
    assert [] == list(recwarn)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_closed_stream_has_no_task_left():
    """After `async with` and after `aclose` no task runs, in whatever state the stream was."""
    async with fleet(2000, deployments=1, latency=0.005) as (fake, ief):
        async with ief.iter_pods(fake.deployment_ids, page_size=10) as stream:
            async for _ in stream:
                break
        assert not ours()

        unused = ief.iter_pods(fake.deployment_ids)
        await unused.aclose()
        assert [] == await unused.collect()

        pages = ief.iter_pods(fake.deployment_ids, page_size=10).pages()
        await anext(pages)
        await pages.aclose()
        assert not ours()
        with pytest.raises(StopAsyncIteration):
            await anext(pages)


async def test_stream_left_to_the_garbage_collector_ends():
    """An iterator in a cycle ends its scan when it is collected, from whatever thread that is."""
    async with fleet(2000, deployments=1, latency=0.005) as (fake, ief):
        for collect in (gc.collect, lambda: asyncio.to_thread(gc.collect)):
            iterator = aiter(ief.iter_pods(fake.deployment_ids, page_size=10))
            await anext(iterator)
            cycle = [iterator]
            cycle.append(cycle)
            del iterator, cycle
            gc.disable()
            done = collect()
            if asyncio.iscoroutine(done):
                await done
            gc.enable()
            await until(lambda: not ours())


async def test_cancelled_consumer_ends_its_scan():
    """CancelledError comes out at once, and nothing of the scan is left."""
    async with fleet(2000, deployments=1, latency=0.05) as (fake, ief):

        async def consume():
            async for _ in ief.iter_pods(fake.deployment_ids, page_size=10):
                pass

        for wait in (0.0, 0.02, 0.07):
            task = asyncio.create_task(consume())
            await asyncio.sleep(wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not ours()
        assert not ief._transport.connections.session().connector._acquired


async def test_cancellation_during_a_failure_is_not_swallowed():
    """Cancelled while a page fails, the consumer gets CancelledError."""
    async with fleet(1000, deployments=1, session={"retry": AT_ONCE}) as (fake, ief):
        repeated = asyncio.Event()

        def fail(_):
            if fake.statistics().requests == 2:
                repeated.set()
            return Fault.status(500)

        fake.intercept(fail)
        task = asyncio.create_task(ief.iter_pods(fake.deployment_ids).collect())
        await repeated.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert not ours()


async def test_error_of_the_consumer_wins():
    """What the body of the loop raises comes out, and the scan ends."""
    async with fleet(1000, deployments=1, latency=0.005) as (fake, ief):
        with pytest.raises(ZeroDivisionError):
            async for _ in ief.iter_pods(fake.deployment_ids, page_size=10):
                _ = 1 / 0
        gc.collect()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not ours()


async def test_time_out_of_the_consumer_is_its_own():
    """Under `asyncio.timeout` the consumer gets its TimeoutError, not an error of ours."""
    async with fleet(1000, deployments=1, latency=0.2) as (fake, ief):
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await ief.iter_pods(fake.deployment_ids).collect()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert type(caught.value) is TimeoutError
        assert not ours()


async def test_failed_page_ends_the_scan_as_itself():
    """One typed error comes out, no group; the others in flight are cancelled."""
    async with fleet(1000, deployments=1, session={"retry": AT_ONCE}) as (fake, ief):
        fake.intercept(
            lambda seen: Fault.status(502) if seen.query["offset"] == "285" else Fault.slow(0.01)
        )
        seen = []
        with pytest.raises(ServerError) as caught:
            async for pod in ief.iter_pods(fake.deployment_ids):
                seen.append(pod.id)
        assert not ours()

    assert (502, 2, 0, 285) == (
        caught.value.status,
        caught.value.attempts,
        caught.value.batch,
        caught.value.offset,
    )
    assert expected_ids(fake)[: len(seen)] == seen
    assert "offset 285, attempt 2, request id" in caught.value.__notes__[-1]
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def test_wrong_token_costs_one_request_a_worker():
    """A 401 is not repeated, and ends the scan."""
    async with fleet(1000, deployments=8) as (fake, ief):
        fake.token = "another"
        with pytest.raises(AuthenticationError, match="Get a new token"):
            await ief.iter_pods(fake.deployment_ids, batch_size=1).collect()

    assert fake.statistics().requests <= 8


async def test_deadline_ends_the_scan():
    """When its deadline passes the scan ends with a `TransportError`, and no task is left."""
    async with fleet(1000, deployments=1) as (fake, ief):
        fake.intercept(lambda _: Fault.hang())
        with pytest.raises(TransportError, match="deadline"):
            await ief.iter_pods(fake.deployment_ids, deadline=0.05).collect()
        await asyncio.sleep(0)
        assert not ours()


async def test_deadline_holds_while_ids_are_awaited():
    """A source of ids that never gives any is waited for until the deadline."""
    async with fleet(10) as (_, ief):

        async def silent():
            await asyncio.Event().wait()
            yield "never"

        with pytest.raises(TransportError, match=r"the scan's deadline of 0\.02 s passed"):
            await ief.iter_pods(silent(), deadline=0.02).collect()
        await asyncio.sleep(0)
        assert not ours()


async def test_closed_session_ends_its_scans():
    """Closing the session during a scan ends it with an error that says so."""
    async with fleet(1000, deployments=1, latency=0.02) as (fake, ief):
        pages = ief.iter_pods(fake.deployment_ids, page_size=10).pages()
        await anext(pages)
        await ief.aclose()

        with pytest.raises(ConfigurationError, match=r"the session (is|was) closed"):
            while True:
                await anext(pages)
        await asyncio.sleep(0)
        assert not ours()


@pytest.mark.parametrize(
    ("fault", "setting"),
    [
        (Fault.drip(0.01), "total"),
        (Fault.drip(0.01, head=True), "total"),
        (Fault.hang(), "read"),
    ],
)
async def test_answer_that_does_not_come_is_given_up(fault, setting, loop_time):
    """A drip of bytes and a silent server end by the time-outs of the attempt."""
    times = Timeouts(**{"read": 1_000, "total": 1_000, setting: 60})
    async with fleet(10, session={"retry": AT_ONCE, "timeout": times}) as (fake, ief):
        turns = iter([fault, None, fault, fault])

        def answer(_):
            given = next(turns)
            if given:  # and a minute later, after a byte or two
                asyncio.get_running_loop().call_later(0.05, loop_time.let_pass, 62)
            return given

        fake.intercept(answer)
        assert 10 == len(await ief.iter_pods(fake.deployment_ids).collect())
        with pytest.raises(TransportError, match=rf"see Timeouts\({setting}=\)"):
            await ief.iter_pods(fake.deployment_ids).collect()

    assert 4 == fake.statistics().requests


async def test_wall_clock_may_jump():
    """A wall clock that jumps an hour has no effect on a scan."""
    jumps = iter([0.0, 3600.0, -3600.0] * 1000)
    clock = Clock(wall=lambda: next(jumps), jitter=lambda _: 0.0)
    async with fleet(500, fault_rate=0.2, seed=3, session={"clock": clock}) as (fake, ief):
        stream = ief.iter_pods(fake.deployment_ids, page_size=10, deadline=600)

        assert 500 == len(await stream.collect())


# ---- misuse --------------------------------------------------------------------------------------


async def test_stream_is_iterated_once():
    """A second iteration, of items or pages, is an error that says what to do."""
    async with fleet(10) as (fake, ief):
        stream = ief.iter_pods(fake.deployment_ids)
        await stream.collect()

        with pytest.raises(ConfigurationError, match="so make a new stream"):
            aiter(stream)
        with pytest.raises(ConfigurationError, match="so make a new stream"):
            stream.pages()


async def test_two_tasks_cannot_share_an_iterator():
    """Two tasks that ask one iterator at once get an error, not each other's items."""
    async with fleet(1000, latency=0.01) as (fake, ief):
        iterator = aiter(ief.iter_pods(fake.deployment_ids))
        first = asyncio.create_task(anext(iterator))
        await asyncio.sleep(0)

        with pytest.raises(ConfigurationError, match="two tasks iterate this stream at once"):
            await anext(iterator)
        assert expected_ids(fake)[0] == (await first).id


def test_stream_belongs_to_its_loop():
    """A stream, and a session, used on a second event loop say so."""
    with asyncio.Runner() as one, asyncio.Runner() as other:
        fake = FakeIef(500)
        one.run(fake.start())
        ief = session_with(fake)
        pages = ief.iter_pods(fake.deployment_ids).pages()
        one.run(anext(pages))

        for use in (lambda: anext(pages), lambda: ief.list_pods(node_id="n")):
            with pytest.raises(ConfigurationError, match="another event loop"):
                other.run(use())

        one.run(pages.aclose())
        one.run(ief.aclose())
        one.run(fake.stop())


@pytest.mark.parametrize("factory", ["eager", "debug"])
async def test_other_ways_to_run_tasks_give_the_same(factory):
    """Eager tasks (3.12) and asyncio's debug mode change nothing."""
    loop = asyncio.get_running_loop()
    if factory == "eager" and sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    loop.set_debug(factory == "debug")
    loop.slow_callback_duration = 60
    async with fleet(1000, deployments=3) as (fake, ief):
        pods = await ief.iter_pods(fake.deployment_ids, page_size=10).collect()

    assert expected_ids(fake) == [pod.id for pod in pods]


def test_uvloop_gives_the_same():
    """On uvloop the same pods come, and a bare break leaves no task."""

    async def scan():
        async with fleet(1000, deployments=3) as (fake, ief):
            pods = await ief.iter_pods(fake.deployment_ids, page_size=10).collect()
            async for _ in ief.iter_pods(fake.deployment_ids, page_size=10):
                break
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not ours()
            return expected_ids(fake), [pod.id for pod in pods]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        expected, seen = runner.run(scan())

    assert expected == seen


# ---- resources -----------------------------------------------------------------------------------


async def test_scans_in_a_row_leave_nothing():
    """A thousand scans, half of them left early, leave no task, descriptor or object behind."""
    async with fleet(20, deployments=2) as (fake, ief):

        async def scan(times):
            for number in range(times):
                async for _ in ief.iter_pods(fake.deployment_ids, page_size=5, model=Named):
                    if number % 2:
                        break

        def is_settled():
            return not fake.statistics().in_flight and len(asyncio.all_tasks()) == 1

        def left():
            gc.collect()
            ours = Counter(
                type(one).__name__
                for one in gc.get_objects()
                if str(type(one).__module__).startswith("ief_async._")
            )
            return len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks()), ours

        await scan(100)
        await until(is_settled)
        fake.requests.clear()
        before = left()
        await scan(1000)
        await until(is_settled)
        fake.requests.clear()
        after = left()

    assert 1 == before[1] == after[1]
    assert after[0] <= before[0] + 8
    assert before[2] == after[2]


async def test_descriptors_may_run_out():
    """Without a file descriptor to be had a request is a `TransportError`, and it recovers."""
    async with fleet(10, session={"retry": AT_ONCE}) as (fake, ief):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        taken = []
        try:
            with suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            with pytest.raises(TransportError, match="Too many open files"):
                await ief.list_pods(node_id=fake.node_ids[0])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in taken:
                os.close(descriptor)

        assert 10 == (await ief.list_pods(deployment_ids=fake.deployment_ids, limit=100)).count


async def test_session_that_nobody_closes_warns_once():
    """One ResourceWarning tells that a session was never closed, and its sockets are closed."""
    async with FakeIef(10) as fake:
        ief = session_with(fake)
        await ief.list_pods(node_id=fake.node_ids[0])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del ief
            gc.collect()
            await until(lambda: not fake.statistics().connections_open)

        assert ["an IefSession was never closed: use `async with`, or await its aclose()"] == [
            str(one.message) for one in caught
        ]


async def test_warning_made_an_error_leaves_no_socket_open(monkeypatch):
    """Under ``-W error`` a session that nobody closes is closed all the same."""
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", lambda one: ignored.append(str(one.exc_value)))
    async with FakeIef(10) as fake:
        ief = session_with(fake)
        await ief.list_pods(node_id=fake.node_ids[0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del ief
            gc.collect()
            await until(lambda: not fake.statistics().connections_open)

        assert [
            "an IefSession was never closed: use `async with`, or await its aclose()"
        ] == ignored


async def test_many_ids_are_batched_as_they_are_read():
    """A million ids are drawn as the window has room, not held as a million requests."""
    async with fleet(10) as (_, ief):
        drawn = 0

        def ids():
            nonlocal drawn
            for number in range(1_000_000):
                drawn += 1
                yield f"{number:08}"

        async with ief.iter_pods(ids(), concurrency=2) as stream:
            pages = stream.pages()
            task = asyncio.create_task(anext(pages))
            await until(lambda: stream.progress.batches > 20)
            task.cancel()

        assert stream.progress.batches < 1000
        assert drawn <= 100 * (stream.progress.batches + 1) + 1


async def test_body_cap_counts_what_pods_bring():
    """A page of huge pods is refused by its size, with what to change."""
    pods = [{"id": f"p{at}", "deployment_id": "d", "name": "x" * 10_000} for at in range(100)]
    session = {"limits": Limits(max_body_bytes=200_000), "retry": AT_ONCE}
    async with fleet(pods, session=session) as (fake, ief):
        with pytest.raises(PayloadError, match="ask for a smaller page_size"):
            await ief.iter_pods(["d"]).collect()
        assert 1 == fake.statistics().requests
        assert 100 == len(await ief.iter_pods(["d"], page_size=10).collect())


async def test_report_counts_what_the_models_do_not_know():
    """A new key and a new state are counted for one page of each batch; the pods come as ever."""
    pods = [
        {"id": f"p{at}", "deployment_id": f"d{at % 2}", "state": "SLEEPING", "phase": at}
        for at in range(60)
    ]
    async with fleet(pods) as (fake, ief):
        stream = ief.iter_pods(fake.deployment_ids, batch_size=1, page_size=10, model=Identified)
        assert 60 == len(await stream.collect())

    assert {"phase": 20} == stream.report.unknown_fields
    assert {"state=SLEEPING": 20} == stream.report.unknown_values


# ---- as many as are wanted -----------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("most", [1, 5, 99, 100, 101, 195, 250, 1_000, 1_001])
async def test_max_items_is_exact(most, ordered):
    """So many items come and no more; with fewer pods there are, all of them."""
    async with fleet(1_000, deployments=4) as (fake, ief):
        stream = ief.iter_pods(fake.deployment_ids, max_items=most, batch_size=1, ordered=ordered)
        assert min(most, 1_000) == len({pod.id for pod in await stream.collect()})


@pytest.mark.parametrize(
    ("most", "limits"), [(10, [10]), (100, [100]), (101, [100, 6]), (250, [100, 100, 60])]
)
async def test_max_items_asks_for_no_page_that_it_cannot_need(most, limits):
    """Of a long list only the pages with the wanted items are asked for, the last cut short."""
    async with fleet(1_000, deployments=2 if most < 200 else 1) as (fake, ief):
        await ief.iter_pods(fake.deployment_ids, max_items=most, batch_size=1).collect()

    assert limits == [int(request.query["limit"]) for request in fake.requests]


async def test_max_items_can_be_gone_on_from():
    """The checkpoint of a scan that stopped at its items leads to all others."""
    async with fleet(1_000, deployments=4) as (fake, ief):
        stream = ief.iter_pods(fake.deployment_ids, max_items=333, batch_size=1)
        seen = [pod.id async for pod in stream]
        rest = ief.iter_pods(fake.deployment_ids, batch_size=1, resume_from=stream.checkpoint())
        assert expected_ids(fake) == sorted(
            seen + [pod.id async for pod in rest], key=expected_ids(fake).index
        )
    assert not stream.report.complete


# ---- too much for the server ---------------------------------------------------------------------


@pytest.mark.parametrize("status", [413, 414, 494])
async def test_batch_that_is_too_large_is_split(status):
    """Queries that are refused for their size are halved until they are taken; all pods come."""
    async with fleet(600, deployments=24) as (fake, ief):
        fake.intercept(
            lambda seen: (
                Fault.status(status) if seen.query["deployment_ids"].count(",") >= 5 else None
            )
        )
        stream = ief.iter_pods(fake.deployment_ids, batch_size=12)
        pods = await stream.collect()

    assert Counter(expected_ids(fake)) == Counter(pod.id for pod in pods)
    assert fake.deployment_ids == tuple(one for batch in stream.report.batches for one in batch.ids)
    assert fake.statistics().faults <= 2 + 4  # both batches, and all their halves
    assert stream.report.complete


async def test_single_id_that_is_too_large_is_the_error():
    """What can't be split fails as it is."""
    async with fleet(60, deployments=1) as (fake, ief):
        fake.intercept(lambda _: Fault.status(414))
        with pytest.raises(BadRequestError):
            await ief.iter_pods(fake.deployment_ids).collect()


@pytest.mark.parametrize("first", [0, 1])
async def test_page_that_is_too_slow_is_split(first):
    """A page that ends in 504 is asked for in halves: page 0, or those behind it."""
    async with fleet(900, deployments=1, session={"retry": AT_ONCE}) as (fake, ief):
        fake.intercept(
            lambda seen: (
                Fault.status(504)
                if int(seen.query["limit"]) > 30 and int(seen.query["offset"]) >= first
                else None
            )
        )
        stream = ief.iter_pods(fake.deployment_ids)
        assert expected_ids(fake) == [pod.id async for pod in stream]

    assert "exact" == stream.report.batches[0].drift


async def test_one_row_that_is_too_slow_is_the_error():
    """A page of one row can't be halved: the 504 is raised."""
    async with fleet(60, deployments=1, session={"retry": AT_ONCE}) as (fake, ief):
        fake.intercept(lambda _: Fault.status(504))
        with pytest.raises(ServerError):
            await ief.iter_pods(fake.deployment_ids).collect()


# ---- batches that fail ---------------------------------------------------------------------------


async def test_collected_failures_stand_in_the_report():
    """With on_error="collect" nothing is raised; the report says which batches are missing."""
    async with fleet(600, deployments=6, session={"retry": AT_ONCE}) as (fake, ief):
        sick = fake.deployment_ids[1:3]
        fake.intercept(
            lambda seen: Fault.status(500) if seen.query["deployment_ids"] in sick else None
        )
        stream = ief.iter_pods(fake.deployment_ids, batch_size=1, on_error="collect")
        pods = await stream.collect()

    assert {*fake.deployment_ids} - {*sick} == {pod.deployment_id for pod in pods}
    failures = sorted(stream.report.failures, key=lambda failure: failure.batch)
    assert [(one,) for one in sick] == [failure.ids for failure in failures]
    assert not stream.report.complete


@pytest.mark.parametrize("on_error", ["raise", "defer", "collect"])
async def test_what_fails_every_batch_is_raised_at_once(on_error):
    """A refused token ends the scan under every policy, after a handful of requests."""
    async with fleet(600, deployments=60) as (fake, ief):
        fake.intercept(lambda _: Fault.status(401, shape="apigw"))
        with pytest.raises(AuthenticationError) as caught:
            await ief.iter_pods(
                fake.deployment_ids, batch_size=1, on_error=on_error, concurrency=4
            ).collect()

    assert caught.value.checkpoint is not None
    assert fake.statistics().requests <= 4


@pytest.mark.parametrize("on_error", ["raise", "defer", "collect"])
async def test_row_that_cannot_be_structured_fails_its_batch(on_error):
    """A bad row is its batch's failure, too: all other batches come, where the policy wants it."""
    pods = [{"id": f"p{at}", "deployment_id": f"d{at // 10}"} for at in range(40)]
    pods[15]["containers"] = "marker"
    async with fleet(pods) as (fake, ief):
        stream = ief.iter_pods(fake.deployment_ids, batch_size=1, on_error=on_error)
        seen, problem = [], None
        try:
            async for pod in stream:
                seen.append(pod.id)
        except (PayloadError, PartialScanError) as error:
            problem = error

    good = [f"p{at}" for at in range(15)]
    others = [f"p{at}" for at in range(20, 40)]
    assert (good if on_error == "raise" else good[:10] + others) == [
        one for one in seen if one not in good[10:] or on_error == "raise"
    ]
    kinds = {"raise": PayloadError, "defer": PartialScanError, "collect": type(None)}
    assert kinds[on_error] is type(problem)


@pytest.mark.parametrize("page_size", [20, 100, 1_000])
@pytest.mark.parametrize(("batch_size", "concurrency"), [(1, 2), (6, 2), (2, 8)])
async def test_what_a_scan_holds_is_bounded(page_size, batch_size, concurrency):
    """The README's formula: bodies of 2 x concurrency + 1 pages, and 60 bytes for each pod read."""
    async with fleet(3_000, deployments=6) as (fake, ief):
        stream = ief.iter_pods(
            fake.deployment_ids,
            page_size=page_size,
            batch_size=batch_size,
            concurrency=concurrency,
        )
        bodies = []
        async for page in stream.pages():
            bodies.append(len(page.raw))
            await asyncio.sleep(0.001)  # a consumer that is slower than the server
        report = stream.report

    pages, largest = 2 * concurrency + 1, max(bodies)
    assert min(concurrency, len(bodies)) <= report.most_pages <= pages
    assert largest <= report.most_bytes <= pages * largest + 170 * 3_000
    assert report.most_bytes <= sum(bodies) * 1.2 + 170 * 3_000


async def test_ids_are_freed_with_their_batch():
    """Of batches that were read to their end nothing is held that tells their rows apart."""
    async with fleet(3_000, deployments=30) as (fake, ief):
        stream = ief.iter_pods(fake.deployment_ids, batch_size=1, concurrency=1)
        most = 0
        async for _ in stream:
            most = max(most, stream._engine.plan.ids_bytes)

        assert 0 == stream._engine.plan.ids_bytes
        assert most < 3 * 100 * 60
