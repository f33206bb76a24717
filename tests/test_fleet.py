"""Many targets as one stream: each on its own, none in the way of another."""

import asyncio
import gc
import traceback
import warnings
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import attrs
import pytest
from conftest import CREDENTIALS, fleet_at, until

from ief_async import (
    AccessKey,
    AuthenticationError,
    CheckpointError,
    ConfigurationError,
    EcsMetadata,
    IefSession,
    PartialScanError,
    PasswordCredentials,
    RetryPolicy,
    ScanCheckpoint,
    ScanEnded,
    ScanStarted,
    ServerError,
    Target,
    TargetFailure,
    Token,
    scan_fleet,
)
from ief_async._scan import fleet as fleet_module
from ief_async.testing import Account, FakeIef, Fault

AT_ONCE = RetryPolicy(attempts=2, base=0, throttled_base=0)


@pytest.fixture
async def fakes():
    """Run three fakes, of 120, 240 and 360 pods in as many projects."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                FakeIef(
                    120 * at, deployments=10 * at, seed=at, account=Account(project_id=f"{at}" * 32)
                )
            )
            for at in (1, 2, 3)
        ]


def target_of(fake, **options):
    """Return the target that is a fake."""
    given = {"project_id": fake.project_id, "credentials": Token(fake.token)}
    return Target(**{**given, "endpoint": fake.endpoint, **options})


def targets_of(fakes):
    """Return a target for each fake."""
    return [target_of(fake) for fake in fakes]


def every(fakes):
    """Return each pod with its project, as often as it is there."""
    return Counter((fake.project_id, identity) for fake in fakes for identity in fake.pod_ids())


def found(items):
    """Return each pod that came with the project of its target."""
    return Counter((target.project_id, pod.id) for target, pod in items)


# ---- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["deployments", "nodes", "groups"])
async def test_every_pod_of_every_target_comes_once(fakes, by):
    """One stream brings each target's pods, found by its deployments, nodes or groups."""
    items = await scan_fleet(targets_of(fakes), by=by).collect()

    wanted = every(fakes)
    if by != "deployments":  # a pod that is pending is on no node
        placed = {
            pod["id"] for fake in fakes for pod in fake.pods if pod["node_id"] or by[0] == "g"
        }
        wanted = Counter({key: 1 for key in wanted if key[1] in placed})
    assert wanted == found(items)


async def test_targets_take_turns(fakes):
    """To a consumer that is slower than they are, targets give their items in turn."""
    targets, order = targets_of(fakes), []
    async with scan_fleet(targets, page_size=10) as fleet:
        async for target, _ in fleet:
            order.append(target)
            await until(lambda: all(member.scan.ready for member in fleet._engine._members))
            if len(order) == 150:
                break

    assert min(Counter(order).values()) >= 30
    assert {*targets} == {*order[:60]}


async def test_pages_of_a_fleet(fakes):
    """Pages are of one target each, with what else a page tells."""
    items = []
    async with scan_fleet(targets_of(fakes)) as fleet:
        async for page in fleet.pages():
            assert 1 == len({target for target, _ in page.items})
            assert page.request_id
            assert page.raw
            items += page.items

    assert every(fakes) == found(items)


async def test_model_and_report_of_a_fleet(fakes):
    """A model is decoded for every target; report and progress are of all, and of each."""

    @attrs.frozen
    class Row:
        id: str
        state: str | None = None

    targets = targets_of(fakes)
    async with scan_fleet(targets, model=Row) as fleet:
        rows = [row async for _, row in fleet]
        report, progress = fleet.report, fleet.progress

    assert {Row} == {type(row) for row in rows}
    assert (720, True, 1.0) == (report.items, report.complete, progress.fraction)
    assert [120, 240, 360] == [report.targets[target].items for target in targets]
    assert {"exact"} == {batch.drift for batch in report.batches}
    assert report.unknown_fields
    assert () == report.failures


async def test_no_target_is_no_pod():
    """A fleet of nothing ends at once, whole."""
    fleet = scan_fleet([])

    assert [] == await fleet.collect()
    assert fleet.report.complete
    assert 0 == fleet.progress.expected_items


# ---- one that fails ------------------------------------------------------------------------------


async def test_failing_target_holds_no_other_up(fakes):
    """With "defer", a target whose token is refused stands in the error; all others came whole."""
    bad = target_of(fakes[1], credentials=Token("wrong-token"))
    targets = [target_of(fakes[0]), bad, target_of(fakes[2])]
    items = []
    fleet = scan_fleet(targets)
    with pytest.raises(PartialScanError, match="1 of 3 targets failed") as caught:
        async for item in fleet:
            items.append(item)

    (failure,) = caught.value.failures
    assert TargetFailure is type(failure)
    assert bad.name == failure.target
    assert AuthenticationError is type(failure.error)
    assert f"In target {bad.name}." in failure.error.__notes__
    assert every([fakes[0], fakes[2]]) == found(items)
    assert not fleet.report.complete
    assert (failure,) == fleet.report.failures


async def test_failures_are_collected(fakes):
    """With "collect" nothing is raised: they stand in the report."""
    targets = [target_of(fakes[0]), target_of(fakes[1], credentials=Token("wrong-token"))]
    fleet = scan_fleet(targets, on_error="collect")

    assert every(fakes[:1]) == found(await fleet.collect())
    assert [targets[1].name] == [failure.target for failure in fleet.report.failures]


async def test_first_failure_ends_it_if_wanted(fakes):
    """With "raise" the error of a target is raised as itself, with the fleet's checkpoint."""
    targets = [target_of(fakes[0]), target_of(fakes[1], credentials=Token("wrong-token"))]
    with pytest.raises(AuthenticationError) as caught:
        await scan_fleet(targets, on_error="raise").collect()

    assert 2 == len(caught.value.checkpoint.targets)


async def test_failed_batch_is_a_failure_of_its_target(fakes):
    """A batch that fails is in its target's PartialScanError; the target's others came."""
    bad = fakes[1].deployment_ids[3]
    fakes[1].intercept(lambda seen: Fault.status(500) if bad in seen.raw_query else None)
    items = []
    with pytest.raises(PartialScanError) as caught:
        async for item in scan_fleet(targets_of(fakes), batch_size=1, retry=AT_ONCE):
            items.append(item)

    (failure,) = caught.value.failures
    assert PartialScanError is type(failure.error)
    assert [(bad,)] == [batch.ids for batch in failure.error.failures]
    assert ServerError is type(failure.error.failures[0].error)
    assert len(every(fakes)) - 12 == len(items)


async def test_throttled_target_slows_itself_alone(fakes, fake_clock):
    """Each target has its own limits and pauses: one that is throttled does not stop the others."""
    fakes[0].script(Fault.throttle("2"))
    fake_clock.hold()  # so that the pause ends when the others have come
    wanted, items = every(fakes[1:]), []
    async for item in fleet_at(targets_of(fakes), clock=fake_clock.clock):
        items.append(item)
        if len(items) == wanted.total():
            assert wanted == found(items)
            fake_clock.release()

    assert every(fakes) == found(items)
    assert 2.0 in fake_clock.sleeps


async def test_hanging_target_holds_no_other_up(fakes):
    """All pods of the others come while one target gives no answer at all."""
    fakes[0].intercept(lambda _: Fault.hang())
    wanted, items = every(fakes[1:]), []
    async with scan_fleet(targets_of(fakes)) as fleet:
        async for item in fleet:
            items.append(item)
            if len(items) == len(wanted):
                break

    assert wanted == found(items)


@pytest.mark.parametrize("way", ["items", "pages"])
async def test_row_that_is_wrong_holds_no_other_target_up(fakes, way):
    """After a row that no model fits, the others go on while its target waits for an answer."""
    turns = iter(range(99))

    def answer(seen):
        if not seen.path.endswith("/pods"):
            return None
        if next(turns):
            return Fault.hang()
        return Fault.edit(lambda body: body.replace(b'"containers":[', b'"containers":7,"x":['))

    fakes[0].intercept(answer)
    wanted, items = every(fakes[1:]), []
    options = {"batch_size": 1, "concurrency": 2, "on_error": "collect"}
    async with asyncio.timeout(10), scan_fleet(targets_of(fakes), **options) as fleet:
        if way == "items":
            async for item in fleet:
                items.append(item)
                if len(items) == wanted.total():
                    break
        else:
            async for page in fleet.pages():
                items += page.items
                if len(items) == wanted.total():
                    break
        (failure,) = fleet.report.targets[target_of(fakes[0])].failures

    assert wanted == found(items)
    assert "containers" in str(failure.error)


async def test_deadline_of_a_fleet(fakes, loop_time):
    """A deadline fails the targets that are not read by then, and no other."""
    fakes[0].intercept(lambda _: Fault.hang())
    wanted, items = every(fakes[1:]), []
    with pytest.raises(PartialScanError) as caught:
        async for item in fleet_at(targets_of(fakes), deadline=20, clock=loop_time.clock):
            items.append(item)
            if len(items) == wanted.total():
                loop_time.let_pass(20)

    assert wanted == found(items)
    assert "deadline" in str(caught.value.failures[0].error)


async def test_wrong_key_of_many_targets_is_sent_once():
    """One wrong secret key for 12 instances is one wrong signature: the key is not locked."""
    async with FakeIef(20) as fake:
        key = AccessKey(fake.access_key, "wrong-secret-key")
        targets = [target_of(fake, credentials=key, instance_id=f"i{at}") for at in range(12)]
        with pytest.raises(PartialScanError, match="12 of 12") as caught:
            await scan_fleet(targets).collect()

    assert 1 == len(fake.requests)
    assert not fake.locked_keys
    assert {AuthenticationError} == {type(one.error) for one in caught.value.failures}


async def test_wrong_key_of_a_server_is_not_locked_by_its_targets():
    """One server's keys are got once for 12 instances, and refused twice: they are not locked."""
    async with FakeIef(20) as fake:
        wrong = Fault.edit(lambda body: body.replace(b'"secret":"', b'"secret":"x'))
        fake.intercept(lambda seen: wrong if seen.path.endswith("/securitykey") else None)
        where = fake.metadata_endpoint
        targets = [
            target_of(fake, credentials=EcsMetadata(endpoint=where), instance_id=f"i{at}")
            for at in range(12)
        ]
        with pytest.raises(PartialScanError, match="12 of 12"):
            await scan_fleet(targets).collect()

    assert not fake.locked_keys
    assert 2 == sum(fake.wrong_signatures.values())


# ---- all of them together ------------------------------------------------------------------------


@asynccontextmanager
async def many(number, **options):
    """Run so many small fakes; give them, and the most requests that they had at once."""
    most = Counter()
    async with AsyncExitStack() as stack:
        fakes = [
            await stack.enter_async_context(
                FakeIef(20, deployments=4, account=Account(project_id=f"{at:032}"), **options)
            )
            for at in range(number)
        ]

        def count(_):
            others = sum(fake.statistics().in_flight for fake in fakes)
            most["requests"] = max(most["requests"], others + 1)

        for fake in fakes:
            fake.intercept(count)
        yield fakes, most


@pytest.mark.parametrize("total", [1, 8, 64])
async def test_all_targets_share_a_number_of_requests_and_connections(total):
    """Of 40 targets no more requests are in flight, and no more connections open, than allowed."""
    async with many(40, latency=0.01) as (fakes, most):
        options = {"batch_size": 1} if total == 64 else {"concurrency_total": total}
        stream, items = scan_fleet(targets_of(fakes), **options), []
        pool = stream._engine._connections.session().connector
        async for item in stream:
            items.append(item)
            # servers see later than the client that a connection was closed
            open_ones = len(pool._acquired) + sum(map(len, pool._conns.values()))
            most["connections"] = max(most["connections"], open_ones)

    assert every(fakes) == found(items)
    assert max(1, total // 2) <= most["requests"] <= total
    assert 1 <= most["connections"] <= total


async def test_one_connection_serves_all_targets_at_an_endpoint():
    """An idle connection is used again before another one is opened."""
    async with FakeIef(20, deployments=4) as fake:
        targets = [target_of(fake, instance_id=f"i{at}") for at in range(5)]
        await scan_fleet(targets, concurrency_total=1).collect()

        assert 1 == fake.statistics().connections


@pytest.mark.parametrize("total", [2, 3, 8])
async def test_slow_target_leaves_the_others_their_part(total):
    """A target that gives no answers holds half of what is allowed, and all others come whole."""
    async with many(5) as (fakes, _):
        held = []
        fakes[0].intercept(
            lambda seen: (
                (held.append(seen) or Fault.hang()) if seen.path.endswith("/pods") else None
            )
        )
        targets, items = targets_of(fakes), []
        options = {"concurrency_total": total, "batch_size": 1}
        async with scan_fleet(targets, **options) as fleet:
            async for item in fleet:
                items.append(item)
                if len(items) == every(fakes[1:]).total():
                    break

    assert every(fakes[1:]) == found(items)
    assert 1 <= len(held) <= max(1, total // 2)


@pytest.mark.parametrize("fault", [Fault.throttle("30"), Fault.status(503)], ids=["429", "503"])
async def test_target_that_sleeps_before_a_repeat_leaves_the_others_its_part(fault, fake_clock):
    """With one request allowed in all, the others come while a target waits to repeat its own."""
    async with many(4) as (fakes, most):
        fakes[0].script(fault)
        fake_clock.hold()
        targets, items = targets_of(fakes), []
        retry = RetryPolicy(base=30)
        async for item in fleet_at(
            targets, clock=fake_clock.clock, concurrency_total=1, retry=retry
        ):
            items.append(item)
            if len(items) == every(fakes[1:]).total():
                assert every(fakes[1:]) == found(items)
                fake_clock.release()

    assert every(fakes) == found(items)
    assert 1 == most["requests"]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "8", None, True, 1_001])
def test_wrong_number_of_all_requests_is_refused(wrong):
    """`concurrency_total` is checked as other counts are."""
    target = Target(project_id="p", credentials=Token("t"), endpoint="http://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match="concurrency_total"):
        scan_fleet([target], concurrency_total=wrong)


# ---- stop and go on ------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [0, 1, 7, 99, 100, 101, 333, 719])
async def test_fleet_goes_on_from_its_checkpoint(fakes, stop):
    """Left after any item, it goes on with the rest: of targets that stand still nothing twice."""
    first = []
    async with scan_fleet(targets_of(fakes), page_size=20, batch_size=5) as fleet:
        if stop:
            async for item in fleet:
                first.append(item)
                if len(first) == stop:
                    break
        saved = fleet.checkpoint().to_json()
    options = {"page_size": 20, "batch_size": 5, "resume_from": saved}
    rest = await scan_fleet(targets_of(fakes), **options).collect()

    assert found(first[:-1]) + found(rest) == every(fakes)


async def test_fleet_goes_on_from_the_checkpoint_of_a_page(fakes):
    """The checkpoint of each page holds all that came up to its end, of every target."""
    saved, before = [], Counter()
    async for page in scan_fleet(targets_of(fakes), page_size=50).pages():
        before += found(page.items)
        saved.append((page.checkpoint.to_json(), Counter(before)))
    for checkpoint, came in saved[:: max(1, len(saved) // 4)]:
        rest = scan_fleet(targets_of(fakes), page_size=50, resume_from=checkpoint)
        assert every(fakes) == came + found(await rest.collect())


async def test_failed_target_is_read_on_resuming(fakes):
    """After a failure the checkpoint of the error leads to what is missing, and to that alone."""
    fakes[1].intercept(lambda _: Fault.status(500))
    items = []
    with pytest.raises(PartialScanError) as caught:
        async for item in scan_fleet(targets_of(fakes), retry=AT_ONCE):
            items.append(item)
    fakes[1].intercept(None)
    rest = await scan_fleet(targets_of(fakes), resume_from=caught.value.checkpoint).collect()

    assert every(fakes[1:2]) == found(rest)
    assert every(fakes) == found(items) + found(rest)


async def test_checkpoint_of_something_else_is_refused(fakes):
    """Checkpoints of one scan, of other targets and of other sizes are refused unsent."""
    targets = targets_of(fakes)
    fleet = scan_fleet(targets)
    async with fleet:
        async for _ in fleet:
            break
    saved = fleet.checkpoint()
    sent = sum(len(fake.requests) for fake in fakes)
    with pytest.raises(CheckpointError, match="not given"):
        scan_fleet(targets[:2], resume_from=saved)
    with pytest.raises(CheckpointError, match="not given"):
        scan_fleet(targets, page_size=50, resume_from=saved)
    with pytest.raises(CheckpointError, match="not of scan_fleet"):
        scan_fleet(targets, resume_from=saved.targets[0])
    with pytest.raises(CheckpointError, match="can't be merged"):
        ScanCheckpoint.merge(saved, saved)
    async with IefSession("p", credentials=Token("t"), endpoint="http://127.0.0.1:9") as ief:
        with pytest.raises(CheckpointError, match="another scan"):
            ief.iter_pods(["d"], resume_from=saved)

    assert sent == sum(len(fake.requests) for fake in fakes)
    assert saved == ScanCheckpoint.from_json(saved.to_json())


# ---- targets that are like each other ------------------------------------------------------------

SAME = "5" * 32


@pytest.fixture
async def twins():
    """Run two fakes with the same project and account, and other pods."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                FakeIef(60 * at, deployments=6, seed=at, account=Account(project_id=SAME))
            )
            for at in (1, 2)
        ]


def by_place(items):
    """Return each pod that came, with the endpoint of its target."""
    return Counter((target.endpoint, pod.id) for target, pod in items)


def at_each_place(fakes):
    """Return each pod with the endpoint where it is."""
    return Counter((fake.endpoint, identity) for fake in fakes for identity in fake.pod_ids())


@pytest.mark.parametrize("kind", CREDENTIALS)
@pytest.mark.parametrize("named", [True, False], ids=["project-id", "looked-up"])
@pytest.mark.parametrize("order", [1, -1], ids=["same-order", "reversed"])
async def test_same_project_at_two_endpoints_is_two_targets(twins, kind, named, order):
    """One project_id, or one region, at two endpoints is read at both, and resumed at both."""
    targets = [
        Target(
            project_id=SAME if named else None,
            region=None if named else "cn-north-4",
            endpoint=fake.endpoint,
            iam_endpoint=fake.iam_endpoint,
            credentials=CREDENTIALS[kind](fake),
        )
        for fake in twins
    ]
    sizes, first = {"page_size": 10, "batch_size": 2}, []
    fleet = scan_fleet(targets, **sizes)
    async for item in fleet:
        first.append(item)
        if len(first) == 70:
            break
    saved = fleet.checkpoint().to_json()
    rest = await scan_fleet(targets[::order], resume_from=saved, **sizes).collect()
    whole = await scan_fleet(targets).collect()

    assert at_each_place(twins) == by_place(whole)
    assert at_each_place(twins) == by_place(first[:-1] + rest)


def test_one_project_in_two_regions_is_two_targets():
    """Targets that only their regions tell apart are two."""
    given = {"project_id": SAME, "credentials": Token("t")}
    targets = [Target(region=region, **given) for region in ("cn-north-1", "cn-north-4")]
    fleet = scan_fleet(targets)

    assert 2 == len({part.scan for part in fleet.checkpoint().targets})
    with pytest.raises(ConfigurationError, match="the same fleet"):
        scan_fleet([*targets, attrs.evolve(targets[0], credentials=Token("u"))])


@pytest.mark.parametrize("order", [1, -1], ids=["same-order", "reversed"])
async def test_two_accounts_in_one_region_are_two_targets(fakes, order):
    """Without project_id accounts are told apart by their credentials, when resuming as well."""
    fake = fakes[1]
    where = {"region": "cn-north-4", "endpoint": fake.endpoint, "iam_endpoint": fake.iam_endpoint}
    kinds = (AccessKey, PasswordCredentials)
    targets = [Target(credentials=CREDENTIALS[kind.__name__](fake), **where) for kind in kinds]
    sizes, first = {"page_size": 10, "batch_size": 2}, []
    fleet = scan_fleet(targets, **sizes)
    async for item in fleet:
        first.append(item)
        if len(first) == 100:
            break
    saved = fleet.checkpoint().to_json()
    rest = await scan_fleet(targets[::order], resume_from=saved, **sizes).collect()
    came = Counter((type(one.credentials), pod.id) for one, pod in first[:-1] + rest)

    assert Counter((kind, one) for kind in kinds for one in fake.pod_ids()) == came
    for secret in (fake.access_key, fake.secret_key, fake.password, fake.user):
        assert secret not in saved


async def test_accounts_without_a_name_are_told_apart_by_their_order(fakes):
    """Two tokens for one region are two targets; the same one twice is refused."""
    fake = fakes[0]
    where = {"region": "cn-north-4", "endpoint": fake.endpoint, "iam_endpoint": fake.iam_endpoint}

    async def source():
        return Token(fake.token)

    async def another():
        return Token(fake.token)

    targets = [
        Target(credentials=one, **where) for one in (Token(fake.token), Token("x"), source, another)
    ]
    fleet = scan_fleet(targets, on_error="collect")
    items = await fleet.collect()
    saved = fleet.checkpoint().to_json()
    again = scan_fleet(targets, on_error="collect", resume_from=saved)

    assert 3 * len(fake.pods) == len(items)
    assert [] == await again.collect()
    assert 4 == len({part.scan for part in fleet.checkpoint().targets})
    (failure,) = fleet.report.failures
    assert "cn-north-4" in failure.target
    assert failure.target.endswith("#2")
    with pytest.raises(ConfigurationError, match="the same fleet"):
        scan_fleet([*targets, targets[2]])


async def test_names_of_targets_differ(twins):
    """What a failure is called tells which of two targets it was."""
    targets = [
        Target(
            project_id=SAME,
            region="cn-north-4",
            endpoint=fake.endpoint,
            credentials=Token("wrong-token"),
        )
        for fake in twins
    ]
    fleet = scan_fleet(targets, on_error="collect")
    await fleet.collect()

    wanted = {f"cn-north-4/{SAME} at {fake.endpoint}" for fake in twins}
    assert wanted == {failure.target for failure in fleet.report.failures}


async def test_checkpoint_of_an_earlier_release_is_resumed(fakes):
    """A checkpoint that knows targets by their projects alone fits where one has each project."""
    targets, first = targets_of(fakes), []
    sizes = {"page_size": 10, "batch_size": 2}
    async with scan_fleet(targets, **sizes) as fleet:
        async for item in fleet:
            first.append(item)
            if len(first) == 200:
                break
    saved = fleet.checkpoint()
    alone = [
        scan_fleet([one], **sizes).checkpoint().targets[0].scan for one in targets
    ]  # as earlier releases wrote them

    assert alone == [part.scan for part in saved.targets]
    rest = await scan_fleet(targets, resume_from=saved, **sizes).collect()
    assert every(fakes) == found(first[:-1] + rest)


# ---- ends ----------------------------------------------------------------------------------------


def scans():
    """Return the tasks that scans run."""
    kinds = ("Scan.", "Feeder.")
    return [one for one in asyncio.all_tasks() if one.get_coro().__qualname__.startswith(kinds)]


def connections(fakes):
    """Return how many connections the fakes have."""
    return sum(fake.statistics().connections_open for fake in fakes)


async def test_bare_break_leaves_nothing(fakes):
    """After a bare break no task runs, nothing is sent, and nothing is warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async for _ in scan_fleet(targets_of(fakes), page_size=5):
            break
        gc.collect()
        await until(lambda: not connections(fakes))
        sent = sum(len(fake.requests) for fake in fakes)
        for _ in range(100):
            await asyncio.sleep(0)

    assert [] == scans()
    assert sent == sum(len(fake.requests) for fake in fakes)
    assert 0 == connections(fakes)


async def test_end_closes_every_connection(fakes):
    """A fleet that was read to its end needs no aclose: its connections are closed."""
    await scan_fleet(targets_of(fakes)).collect()

    assert [] == scans()
    await until(lambda: not connections(fakes))


async def test_cancelled_consumer_ends_it(fakes):
    """A consumer that is cancelled leaves no task and no connection, iterator held or not."""
    fakes[0].intercept(lambda _: Fault.hang())
    iterator = aiter(scan_fleet(targets_of(fakes)))
    for _ in every(fakes[1:]):
        await anext(iterator)
    task = asyncio.create_task(anext(iterator))
    await until(lambda: iterator._engine._waiter)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not scans() and not connections(fakes))

    with pytest.raises(StopAsyncIteration):
        await anext(iterator)


async def test_borrowed_session_is_shared_and_stays_open(fakes):
    """http= is used by every target, and never closed."""
    async with aiohttp.ClientSession() as http:
        items = await scan_fleet(targets_of(fakes), http=http).collect()

        assert every(fakes) == found(items)
        assert not http.closed


async def test_two_consumers_are_refused(fakes):
    """Two tasks that iterate one fleet are told so."""
    fakes[0].intercept(lambda _: Fault.hang())
    iterator = aiter(scan_fleet(targets_of(fakes[:1])))
    first = asyncio.create_task(anext(iterator))
    await until(lambda: iterator._engine._waiter)
    with pytest.raises(ConfigurationError, match="two tasks"):
        await anext(iterator)
    await iterator.aclose()
    with pytest.raises(StopAsyncIteration):
        await first


async def test_function_that_is_no_value_is_a_source(fakes):
    """An object that gives keys when it is called needs no hash, not even when its target fails."""

    @attrs.define
    class Vault:
        token: str

        async def __call__(self):
            return Token(self.token)

    targets = [target_of(fake, credentials=Vault(fake.token)) for fake in fakes[:2]]
    targets += [target_of(fakes[2], credentials=Vault("wrong-token"))]
    fleet = scan_fleet(targets, on_error="collect")

    assert every(fakes[:2]) == found(await fleet.collect())
    assert [targets[2].name] == [failure.target for failure in fleet.report.failures]
    assert {*targets} == {*fleet.report.targets}


# ---- wrong use -----------------------------------------------------------------------------------


def test_wrong_arguments_are_refused():
    """What can't work is refused before anything is sent, by name."""
    target = Target(project_id="p", credentials=Token("t"), endpoint="http://127.0.0.1:9")
    with pytest.raises(
        ConfigurationError, match="by must be one of 'deployments', 'nodes', 'groups'"
    ):
        scan_fleet([target], by="pods")
    with pytest.raises(ConfigurationError, match=r"the same fleet.*give project_id= of each"):
        scan_fleet([target, target])
    for wrong, kind in ((target, "Target"), ("p", "str"), ([None], "NoneType"), (None, "NoneType")):
        with pytest.raises(ConfigurationError, match=f"must be an iterable of Target, got {kind}$"):
            scan_fleet(wrong)
    with pytest.raises(ConfigurationError, match=r"resume_from must be a ScanCheckpoint.*got int"):
        scan_fleet([target], resume_from=3)
    with pytest.raises(ConfigurationError, match="page_size"):
        scan_fleet([target], page_size=0)
    with pytest.raises(ConfigurationError, match="on_error"):
        scan_fleet([target], on_error="ignore")
    with pytest.raises(ConfigurationError, match="region must be one of"):
        scan_fleet([Target(project_id="p", credentials=Token("t"), region="x")])


@pytest.mark.parametrize("kind", [str, lambda text: [text]], ids=["text", "list"])
def test_bare_token_of_a_target_is_refused_unshown(kind):
    """What is no credentials is refused, and stands in no frame of the library: it may be a key."""
    target = Target(project_id="p", endpoint="http://127.0.0.1:9", credentials=kind("canary-token"))
    with pytest.raises(
        ConfigurationError, match="credentials must be a Token, AccessKey"
    ) as caught:
        scan_fleet([target])

    frames = [*traceback.walk_tb(caught.value.__traceback__)][1:]
    assert frames
    assert not [frame for frame, _ in frames if "canary" in repr(frame.f_locals.get("providers"))]
    assert "canary" not in repr(
        [vars(caught.value), *(f.f_locals.get("target") for f, _ in frames)]
    )


def test_target_has_a_name_and_no_secret():
    """A target is known by its region, project and instance; its credentials are in no repr."""
    target = Target(
        project_id="p", region="cn-north-4", instance_id="i", credentials=Token("secret-token")
    )

    assert "cn-north-4/p/i" == target.name
    assert "secret" not in repr(target)
    assert target == attrs.evolve(target)
    assert 1 == len({target, attrs.evolve(target)})


# ---- more targets than are read at once ----------------------------------------------------------


async def test_next_target_begins_when_one_is_over(monkeypatch):
    """Of 40 targets 8 are read at once, and all bring what they have to a slow consumer, too."""
    monkeypatch.setattr(fleet_module, "PLACES", 8)
    at_once = [0]

    def count(event):
        if getattr(event, "operation", "") == "iter_pods":
            at_once.append(at_once[-1] + {ScanStarted: 1, ScanEnded: -1}[type(event)])

    came = Counter()
    async with FakeIef(20, deployments=4) as fake:
        targets = [target_of(fake, instance_id=f"i{at}") for at in range(40)]
        async for target, _ in scan_fleet(targets, on_event=count, page_size=5):
            came[target] += 1
            await asyncio.sleep(0)

    assert Counter(dict.fromkeys(targets, 20)) == came
    assert 8 == max(at_once)


async def test_targets_that_have_not_begun_are_resumed_whole(fakes, monkeypatch):
    """A fleet that was left in its first target goes on with the rest of it, and all others."""
    monkeypatch.setattr(fleet_module, "PLACES", 1)
    first = []
    sizes = {"page_size": 20, "batch_size": 5}
    async with scan_fleet(targets_of(fakes), **sizes) as fleet:
        async for item in fleet:
            first.append(item)
            if len(first) == 50:
                break
    assert not fakes[2].requests
    rest = scan_fleet(targets_of(fakes), resume_from=fleet.checkpoint().to_json(), **sizes)

    assert found(first[:-1]) + found(await rest.collect()) == every(fakes)


async def test_a_target_that_brings_nothing_keeps_no_place(fakes, monkeypatch):
    """The others are read although the first one, which has the only place, never answers."""
    monkeypatch.setattr(fleet_module, "PLACES", 1)
    monkeypatch.setattr(fleet_module, "PATIENCE", 0.0)
    fakes[0].intercept(lambda _: Fault.hang())
    items = []
    async with scan_fleet(targets_of(fakes)) as fleet:
        async for item in fleet:
            items.append(item)
            if len(items) == every(fakes[1:]).total():
                break

    assert every(fakes[1:]) == found(items)
