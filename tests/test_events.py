"""What a session tells of its work: events to its hook, lines to its logger, secrets to nobody."""

import asyncio
import inspect
import logging
import sys
from collections import Counter
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar

import attrs
import pytest
from conftest import CREDENTIALS, session_with, until

import ief_async
from ief_async import (
    BatchDone,
    ConfigurationError,
    DriftError,
    DriftSeen,
    Event,
    IefError,
    IefSession,
    LimitClamped,
    PageReady,
    PartialScanError,
    PasswordCredentials,
    PayloadError,
    RequestFinished,
    RequestRetried,
    RequestStarted,
    RetryPolicy,
    ScanEnded,
    ScanStarted,
    ServerError,
    Target,
    Throttled,
    Token,
    TokenRefreshed,
    TransportError,
    scan_fleet,
)
from ief_async.testing import DEFAULT_MIX, Account, FakeIef, Fault, Motion, Service

PODS = "/v3/{project_id}/edgemgr/pods"
LOGIN = "/v3/auth/tokens"
NO_WAIT = RetryPolicy(base=0, throttled_base=0)
FLAG = ContextVar("FLAG", default="nobody's")


@asynccontextmanager
async def watched(pods=250, *, session=None, **options):
    """Run a fake fleet of one deployment, and a session with it; give both and a list of events."""
    events = []
    given = {"retry": NO_WAIT, "on_event": events.append, **(session or {})}
    async with (
        FakeIef(pods, **{"deployments": 1, **options}) as fake,
        session_with(fake, **given) as ief,
    ):
        yield fake, ief, events


def of(kind, events):
    """Return the events of one kind."""
    return [event for event in events if type(event) is kind]


def lines(caplog, level=logging.DEBUG):
    """Return our own records of at least this level."""
    return [one for one in caplog.records if one.name == "ief_async" and one.levelno >= level]


# ---- the kinds -----------------------------------------------------------------------------------


def test_every_kind_is_frozen_public_and_a_child_of_the_root():
    """What a hook gets can't be changed, is exported, and has the fields that its docstring has."""
    kinds = Event.__subclasses__()

    assert 11 == len(kinds)
    for kind in kinds:
        assert kind is getattr(ief_async, kind.__name__)
        fields = [field.name for field in attrs.fields(kind) if field.name != "scan"]
        assert all(f"\n    {name}: " in inspect.getdoc(kind) for name in fields)
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            kind(**dict.fromkeys(fields)).scan = 7


async def test_calm_scan_is_told_from_start_to_end():
    """A scan begins, sends, brings pages, ends its batch, and ends: all under its number."""
    async with watched(250) as (fake, ief, events):
        stream = ief.iter_pods(fake.deployment_ids)
        assert [] == events  # nothing is sent before something is asked for
        await stream.collect()

    assert {events[0].scan} == {event.scan for event in events}
    assert ScanStarted(scan=events[0].scan, operation="iter_pods") == events[0]
    wanted = {RequestStarted: 3, RequestFinished: 3, PageReady: 3, BatchDone: 1}
    assert {**wanted, ScanStarted: 1, ScanEnded: 1} == Counter(map(type, events))
    assert RequestStarted(scan=events[0].scan, method="GET", path=PODS, attempt=1) == events[1]
    end, report = events[-1], stream.report
    assert (250, 3, 1, 0, 0) == (end.items, end.pages, end.batches, end.failed, end.retries)
    assert (True, "exact", None) == (end.complete, end.drift, end.error)
    assert report.elapsed == end.elapsed > 0


async def test_answer_is_told_with_its_figures():
    """A request that is answered has status, request id, bytes and time; a page has its rows."""
    async with watched(150) as (fake, ief, events):
        pages = [page async for page in ief.iter_pods(fake.deployment_ids).pages()]

    for page, ready, finished in zip(
        pages, of(PageReady, events), of(RequestFinished, events), strict=True
    ):
        assert (200, None, 1) == (finished.status, finished.error, finished.attempt)
        assert (page.request_id, len(page.raw)) == (finished.request_id, finished.bytes)
        assert 0 < finished.elapsed <= page.elapsed
        assert (len(page.items), len(page.raw)) == (ready.rows, ready.bytes)
        assert (0, page.offset, page.limit) == (ready.batch, ready.offset, ready.limit)
        assert (page.elapsed, page.attempts) == (ready.elapsed, ready.attempts)


async def test_failed_attempts_and_repeats_are_told():
    """Each attempt says how it failed, each repeat why; both count as statistics() does."""
    async with watched(50) as (fake, ief, events):
        fake.script(Fault.status(503), Fault.html(), Fault.reset())
        await ief.iter_pods(fake.deployment_ids).collect()
        figures = ief.statistics()

    assert [
        (1, 503, "ServerError"),
        (2, 200, "PayloadError"),
        (3, None, "TransportError"),
        (4, 200, None),
    ] == [(one.attempt, one.status, one.error) for one in of(RequestFinished, events)]
    assert [
        (PODS, 1, 503, "ServerError"),
        (PODS, 2, None, "PayloadError"),
        (PODS, 3, None, "TransportError"),
    ] == [(one.path, one.attempt, one.status, one.error) for one in of(RequestRetried, events)]
    assert figures.requests == len(of(RequestStarted, events))
    assert figures.retries == len(of(RequestRetried, events)) == events[-1].retries


async def test_429_is_told_with_its_pause(fake_clock):
    """Throttled says how long the session waits, what was asked, and what it allows itself."""
    async with watched(50, session={"clock": fake_clock.clock}) as (fake, ief, events):
        fake.script(Fault.throttle("7"))
        await ief.iter_pods(fake.deployment_ids).collect()

    (throttled,) = of(Throttled, events)
    assert (7.0, 7.0, 8, PODS) == (
        throttled.wait,
        throttled.retry_after,
        throttled.concurrency,
        throttled.path,
    )
    (again,) = of(RequestRetried, events)
    assert (429, "ThrottledError", 7.0) == (again.status, again.error, again.wait)


async def test_pause_is_one_line_however_many_are_throttled(fake_clock, caplog):
    """Of four 429s in one pause each is an event; a human is told once, and of the next again."""
    events, all_told = [], asyncio.Event()

    def hook(event):
        events.append(event)
        if len(of(RequestRetried, events)) == 4:
            all_told.set()

    session = {"clock": fake_clock.clock, "retry": RetryPolicy(attempts=3), "on_event": hook}
    async with watched(50, session=session, latency=0.02) as (fake, ief, _):
        fake.script(*[Fault.throttle("7")] * 4)
        fake_clock.hold()
        calls = [
            asyncio.create_task(ief.list_pods(deployment_id=fake.deployment_ids[0]))
            for _ in range(4)
        ]
        async with asyncio.timeout(10):
            await all_told.wait()
        first = lines(caplog, logging.WARNING)
        fake.script(Fault.throttle("7"))
        fake_clock.release()
        await asyncio.gather(*calls)

    assert ["throttled: nothing is sent for 7 s, then at most 8 requests at once"] == [
        record.getMessage() for record in first
    ]
    assert 5 == len(of(Throttled, events))
    assert 2 == len(lines(caplog, logging.WARNING))


async def test_clamped_pages_are_told_for_each_batch_and_logged_once(caplog):
    """A server that gives 40 rows where 100 were asked for is told; one warning a scan."""
    async with watched(400, deployments=2, page_cap=40) as (fake, ief, events):
        await ief.iter_pods(fake.deployment_ids, batch_size=1).collect()

    assert [(0, 100, 40), (1, 100, 40)] == sorted(
        (one.batch, one.asked, one.given) for one in of(LimitClamped, events)
    )
    (record,) = lines(caplog, logging.WARNING)
    assert "gives 40 rows where 100 were asked for" in record.getMessage()


async def test_repaired_drift_is_told_and_worries_nobody(caplog):
    """A list that moved and was read right all the same is an event, and no warning."""
    async with watched(1000) as (fake, ief, events):
        todo = [lambda: fake.delete(10, 2)]
        fake.intercept(lambda seen: todo.pop()() if seen.query["offset"] != "0" and todo else None)
        await ief.iter_pods(fake.deployment_ids).collect()

    (seen,) = of(DriftSeen, events)
    assert ("repaired", 0) == (seen.drift, seen.batch)
    assert "repaired" == of(BatchDone, events)[0].drift == events[-1].drift
    assert not lines(caplog, logging.WARNING)


@pytest.mark.parametrize(
    ("on_drift", "told", "warned"),
    [("repair", 1, 1), ("raise", 1, 0), ("report", 1, 0), ("ignore", 0, 0)],
)
async def test_doubt_is_told_by_every_policy_but_ignorance(on_drift, told, warned, caplog):
    """A batch in doubt is an event unless nobody looks; only "repair" has to warn as well."""
    async with watched(400, service=Service(counts=437)) as (fake, ief, events):
        stream = ief.iter_pods(fake.deployment_ids, on_drift=on_drift)
        if on_drift == "raise":
            with pytest.raises(DriftError):
                await stream.collect()
        else:
            await stream.collect()

    seen = of(DriftSeen, events)
    assert ["unknown"] * told == [one.drift for one in seen]
    assert all("short_of_count" in one.flags for one in seen)
    assert warned == len(lines(caplog, logging.WARNING))
    assert ("DriftError" if on_drift == "raise" else None) == of(BatchDone, events)[0].error


async def test_counting_is_a_scan_without_doubts(caplog):
    """count_pods starts, counts its batches and ends; that it reads no row worries nobody."""
    async with watched(400, deployments=2) as (fake, ief, events):
        await ief.count_pods(fake.deployment_ids, batch_size=1)

    assert "count_pods" == events[0].operation == events[-1].operation
    assert [(200, None), (200, None)] == [(one.count, one.drift) for one in of(BatchDone, events)]
    assert not of(DriftSeen, events)
    assert events[-1].complete
    assert not lines(caplog, logging.WARNING)


async def test_refused_token_is_told_as_it_is_renewed(caplog):
    """A token that is refused: a 401, a repeat that waits for nothing, a login, a new token."""
    caplog.set_level(logging.INFO, "ief_async")
    async with FakeIef(50, deployments=1) as fake:
        events = []
        secret = PasswordCredentials(domain=fake.domain, user=fake.user, password=fake.password)
        options = {"iam_endpoint": fake.iam_endpoint, "retry": NO_WAIT, "on_event": events.append}
        async with session_with(fake, credentials=secret, **options) as ief:
            await ief.list_pods(deployment_id=fake.deployment_ids[0])
            fake.forget_tokens()
            turns = iter([None, None, Fault.status(503)])  # it is refused, it logs in, it fails
            fake.intercept(lambda _: next(turns, None))
            await ief.iter_pods(fake.deployment_ids).collect()

    assert [("Token", 86_400)] * 2 == [
        (one.kind, round(one.lifetime, -1)) for one in of(TokenRefreshed, events)
    ]
    assert 2 == caplog.text.count("obtained a new Token for 86")
    told = of(RequestFinished, events)
    assert [
        ("POST", LOGIN, 1, 201),
        ("GET", PODS, 1, 200),
        ("GET", PODS, 1, 401),
        ("POST", LOGIN, 1, 201),
        ("GET", PODS, 2, 503),
        ("GET", PODS, 3, 200),
    ] == [(one.method, one.path, one.attempt, one.status) for one in told]
    number = events[-1].scan
    assert [None, None, number, None, number, number] == [one.scan for one in told]
    assert [(1, 401, "AuthenticationError", 0.0), (2, 503, "ServerError", 0.0)] == [
        (one.attempt, one.status, one.error, one.wait) for one in of(RequestRetried, events)
    ]


async def test_failed_batch_is_told_where_the_scan_goes_on():
    """With on_error="collect" a batch that fails says with what; the scan counts it."""
    async with watched(300, deployments=3, session={"retry": RetryPolicy(attempts=1)}) as (
        fake,
        ief,
        events,
    ):
        bad = fake.deployment_ids[1]
        fake.intercept(lambda seen: Fault.status(500) if bad in seen.raw_query else None)
        await ief.iter_pods(fake.deployment_ids, batch_size=1, on_error="collect").collect()

    done = sorted(of(BatchDone, events), key=lambda one: one.batch)
    assert [None, "ServerError", None] == [one.error for one in done]
    assert [True, False, True] == [one.complete for one in done]
    end = events[-1]
    assert (1, 200, False, None) == (end.failed, end.items, end.complete, end.error)


async def test_row_that_cannot_be_structured_fails_its_batch_late():
    """A row that shows its fault when it is delivered gives a second end of its batch."""
    async with watched([{"id": "a"}, {"id": "b", "containers": 7}]) as (_, ief, events):
        with pytest.raises(PayloadError):
            await ief.iter_pods(["d"]).collect()

    assert [None, "PayloadError"] == [one.error for one in of(BatchDone, events)]
    assert "PayloadError" == events[-1].error


# ---- the end of a scan ---------------------------------------------------------------------------


async def whole(stream):
    """Read all of it."""
    await stream.collect()


async def leave(stream):
    """Leave it by a bare break."""
    async for _ in stream:
        break


async def close(stream):
    """Close it while it has more."""
    async with stream:
        async for _ in stream:
            break


async def stumble(stream):
    """Raise in the body of the loop."""
    async with stream:
        async for _ in stream:
            raise KeyError


async def be_cancelled(stream):
    """Be cancelled while a page is awaited, after the first one."""
    task = asyncio.create_task(stream.collect())
    await until(lambda: stream.progress.items)
    task.cancel()
    await task


ENDS = {
    "whole": (whole, {}, None, True, None),
    "max_items": (whole, {"max_items": 20}, None, False, None),
    "break": (leave, {}, None, False, None),
    "aclose": (close, {}, None, False, None),
    "body": (stumble, {}, KeyError, False, None),
    "cancelled": (be_cancelled, {}, asyncio.CancelledError, False, "CancelledError"),
    "raise": (whole, {}, ServerError, False, "ServerError"),
    "defer": (whole, {"on_error": "defer"}, PartialScanError, False, "PartialScanError"),
    "collect": (whole, {"on_error": "collect"}, None, False, None),
    "deadline": (whole, {"deadline": 0.05}, TransportError, False, "TransportError"),
}


@pytest.mark.parametrize("name", ENDS)
async def test_every_end_is_told_once(name, caplog):
    """However a scan ends, it says so once, last of all, with what ended it, and in one line."""
    caplog.set_level(logging.INFO, "ief_async")
    read, options, raised, complete, error = ENDS[name]
    session = {"retry": RetryPolicy(attempts=1)}
    async with watched(500, session=session) as (fake, ief, events):
        fault = {"cancelled": Fault.hang(), "deadline": Fault.hang()}.get(name, Fault.status(500))
        if name in {"cancelled", "deadline", "raise", "defer", "collect"}:
            fake.intercept(lambda seen: fault if seen.query["offset"] != "0" else None)
        if raised is None:
            await read(ief.iter_pods(fake.deployment_ids, **options))
        else:
            with pytest.raises(raised):
                await read(ief.iter_pods(fake.deployment_ids, **options))
        for _ in range(3):
            await asyncio.sleep(0)

    assert 1 == len(of(ScanEnded, events))
    end = of(ScanEnded, events)[0]
    assert (complete, error) == (end.complete, end.error)
    assert len(of(RequestStarted, events)) == len(of(RequestFinished, events))
    (line,) = [one for one in lines(caplog) if one.levelno == logging.INFO]
    assert line.getMessage().startswith(f"scan {end.scan}, iter_pods: {end.items} items in ")
    assert (error or "omplete") in line.getMessage()


async def test_stream_that_nobody_iterates_tells_nothing():
    """What never began has no start, and no end either."""
    async with watched() as (fake, ief, events):
        await ief.iter_pods(fake.deployment_ids).aclose()

    assert [] == events


async def test_hook_is_not_called_from_the_garbage_collector():
    """A loop left by a bare break, with nothing under way: its end is told by the event loop."""
    async with watched(50) as (fake, ief, events):
        await leave(ief.iter_pods(fake.deployment_ids))
        assert not of(ScanEnded, events)
        await asyncio.sleep(0)

    assert ScanEnded is type(events[-1])


async def test_cancelled_requests_are_finished():
    """What was in flight when a scan was left says so: nothing stays in flight in the figures."""
    async with watched(1000, latency=0.05) as (fake, ief, events):
        await close(ief.iter_pods(fake.deployment_ids))

    cancelled = [one for one in of(RequestFinished, events) if one.error == "CancelledError"]
    assert cancelled
    assert {(None, 0, None)} == {(one.status, one.bytes, one.request_id) for one in cancelled}
    assert len(of(RequestStarted, events)) == len(of(RequestFinished, events))


# ---- the hook ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ScanStarted, RequestStarted, RequestFinished, PageReady])
async def test_hook_that_raises_is_called_no_more(kind, caplog):
    """Whatever a hook raises is logged once, with its traceback, and never reaches the scan."""
    calls = []

    def hook(event):
        calls.append(event)
        if type(event) is kind:
            message = "the hook's own trouble"
            raise LookupError(message)

    async with watched(250, session={"on_event": hook}) as (fake, ief, _):
        pods = await ief.iter_pods(fake.deployment_ids).collect()

    assert 250 == len(pods)
    assert 1 == len(of(kind, calls))
    assert kind is type(calls[-1])
    (record,) = lines(caplog, logging.WARNING)
    first, *_, last = record.getMessage().splitlines()
    assert "on_event raised an exception and is not called again" == first
    assert "LookupError: the hook's own trouble" == last
    assert record.exc_info is None  # its frames would keep the stream's iterator alive
    assert "in hook" in caplog.text


class TroubleError(Exception):
    """What an application's own logging raises."""


class Raising(logging.Handler):
    """A handler that lets its trouble out."""

    def emit(self, record):
        """Fail."""
        raise TroubleError(record)


def refuse(record):
    """Fail, as a filter."""
    raise TroubleError(record)


@pytest.fixture(params=["filter", "handler", "handler's filter", "record factory"])
def troubled_logging(request):
    """Have the application's logging raise whatever is logged, at each of its places."""
    log, handler, factory = logging.getLogger("ief_async"), Raising(), logging.getLogRecordFactory()
    level = log.level
    log.setLevel(logging.DEBUG)
    if request.param == "filter":
        log.addFilter(refuse)
    elif request.param == "record factory":

        def troubled(name, *args, **kwargs):
            if name == "ief_async":
                raise TroubleError
            return factory(name, *args, **kwargs)

        logging.setLogRecordFactory(troubled)
    else:
        if request.param == "handler's filter":
            handler = logging.NullHandler()
            handler.handle = handler.filter = refuse
        log.addHandler(handler)
    yield
    logging.setLogRecordFactory(factory)
    log.removeHandler(handler)
    log.removeFilter(refuse)
    log.setLevel(level)


@pytest.mark.usefixtures("troubled_logging")
@pytest.mark.parametrize("hooked", [True, False], ids=["hook raises too", "no hook"])
async def test_logging_that_raises_reaches_no_scan(hooked, monkeypatch, capsys):
    """Whatever line is written, by whichever part, what logging raises goes to stderr alone."""

    def hook(_):
        raise TroubleError

    options = {
        "fault_rate": 0.2,
        "page_cap": 50,
        "motion": Motion.uniform(inserts=0.5, deletes=0.5),
    }
    async with FakeIef(400, deployments=2, **options) as fake:
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        nowhere = f"https://nosuchhost.invalid,{fake.endpoint}"
        monkeypatch.setenv("HUAWEICLOUD_SDK_REGION_IEF_CN_NORTH_4", nowhere)
        password = {"domain": fake.domain, "user": fake.user, "password": fake.password}
        given = {
            "on_event": hook if hooked else None,
            "credentials": PasswordCredentials(**password),
            "region": "cn-north-4",
            "iam_endpoint": fake.endpoint,
            "retry": NO_WAIT,
        }
        async with IefSession(**given) as ief:
            pods = await ief.iter_pods(fake.deployment_ids).collect()
        async with IefSession.from_env(on_event=given["on_event"], retry=NO_WAIT) as ief:
            await ief.iter_pods(ief.iter_deployments(), on_error="collect").collect()
        target = Target(credentials=given["credentials"], region="cn-north-4")
        fleet = scan_fleet([target], on_event=given["on_event"], retry=NO_WAIT)
        await fleet.aclose()

    assert len(pods) > 300
    assert "TroubleError" in capsys.readouterr().err


@pytest.mark.usefixtures("troubled_logging")
async def test_logging_that_raises_is_silent_where_logging_is(monkeypatch, capsys):
    """With logging.raiseExceptions off nothing is shown of it, as of other trouble of handlers."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    async with watched(120) as (fake, ief, _):
        assert 120 == len(await ief.iter_pods(fake.deployment_ids).collect())

    assert "" == capsys.readouterr().err


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_hook_that_ends_the_program_is_let_through(kind):
    """What is no Exception is not a fault of the hook: it goes to whoever waits."""

    def hook(event):
        if type(event) is ScanStarted:
            raise kind

    async with watched(20, session={"on_event": hook}) as (fake, ief, _):
        with pytest.raises(kind):
            await ief.iter_pods(fake.deployment_ids).collect()


async def coroutine(event):
    """Be of no use as a hook."""


@pytest.mark.parametrize("hook", ["print", 7, coroutine])
def test_hook_that_cannot_work_is_refused(hook):
    """What can't be called at once, with an event, is refused by session and fleet."""
    options = {"credentials": Token("t"), "endpoint": "http://127.0.0.1:9", "project_id": "p" * 32}

    with pytest.raises(ConfigurationError, match="on_event must be a plain function"):
        ief_async.IefSession(**options, on_event=hook)
    with pytest.raises(ConfigurationError, match="on_event must be a plain function"):
        scan_fleet([Target(**options)], on_event=hook)


async def test_derived_sessions_share_the_hook():
    """with_options() inherits it; scans of all sessions are counted together."""
    async with watched(50) as (fake, ief, events):
        other = ief.with_options(limits=ief_async.Limits(concurrency=2))
        await ief.iter_pods(fake.deployment_ids).collect()
        fake.script(Fault.status(503))
        await other.iter_pods(fake.deployment_ids).collect()
        await other.list_pods(deployment_id=fake.deployment_ids[0])

    first, second = [one.scan for one in of(ScanStarted, events)]
    assert first < second
    assert [first, second, second, None] == [one.scan for one in of(RequestFinished, events)]
    assert [second] == [one.scan for one in of(RequestRetried, events)]


async def test_fleet_has_one_hook():
    """scan_fleet gives its hook to every target; if it raises, none of them calls it again."""
    events, calls = [], []

    def broken(event):
        calls.append(event)
        raise LookupError

    async with (
        FakeIef(40, seed=1) as one,
        FakeIef(60, seed=2, account=Account(project_id="2" * 32)) as two,
    ):
        targets = [
            Target(credentials=Token(it.token), project_id=it.project_id, endpoint=it.endpoint)
            for it in (one, two)
        ]
        await scan_fleet(targets, on_event=events.append).collect()
        items = await scan_fleet(targets, on_event=broken).collect()

    ended = Counter(event.operation for event in of(ScanEnded, events))
    assert {"iter_pods": 2, "iter_deployments": 2} == ended
    assert 100 == sum(end.items for end in of(ScanEnded, events) if end.operation == "iter_pods")
    assert (100, 1) == (len(items), len(calls))


async def test_requests_run_in_the_context_of_their_scan():
    """What the hook sets when a scan starts, its requests see; the consumer and others do not."""
    seen = []

    def hook(event):
        if type(event) is ScanStarted:
            FLAG.set(f"scan {event.scan}")
        elif isinstance(event, RequestStarted):
            seen.append((event.scan, FLAG.get()))

    async def ids(fake):
        seen.append(("ids", FLAG.get()))
        yield fake.deployment_ids[0]

    async with watched(500, session={"on_event": hook}) as (fake, ief, _):
        FLAG.set("the consumer's")
        async for _ in ief.iter_pods(ids(fake)):
            assert "the consumer's" == FLAG.get()
        await ief.list_pods(deployment_id=fake.deployment_ids[0])

    source, *requests, alone = seen
    number = requests[0][0]
    assert ("ids", f"scan {number}") == source
    assert {(number, f"scan {number}")} == set(requests)
    assert (None, "the consumer's") == alone


FACTORIES = {"plain": lambda loop, work: asyncio.Task(work, loop=loop)}
if sys.version_info >= (3, 12):
    FACTORIES["eager"] = asyncio.eager_task_factory


@pytest.mark.parametrize("name", FACTORIES)
async def test_any_task_factory_will_do(name):
    """An application's task factory that knows no context, or starts tasks at once, is fine."""
    seen = []

    def hook(event):
        if type(event) is ScanStarted:
            FLAG.set("the scan's")
        elif type(event) is RequestFinished:
            seen.append(FLAG.get())

    async with watched(500, session={"on_event": hook}) as (fake, ief, _):
        loop = asyncio.get_running_loop()
        loop.set_task_factory(FACTORIES[name])
        try:
            pods = await ief.iter_pods(fake.deployment_ids).collect()
        finally:
            loop.set_task_factory(None)

    assert (500, {"the scan's"}) == (len(pods), set(seen))


async def test_nothing_is_made_that_nobody_wants():
    """Without a hook, and with the logger above INFO, a scan makes not one event."""
    made = Counter()

    def profile(frame, what, _):
        if what == "call" and "ief_async._events" in frame.f_code.co_filename:
            made[frame.f_code.co_filename] += 1

    async with watched(250, session={"on_event": None}) as (fake, ief, _):
        for level in (logging.WARNING, logging.DEBUG):
            logging.getLogger("ief_async").setLevel(level)
            sys.setprofile(profile)
            try:
                await ief.iter_pods(fake.deployment_ids).collect()
            finally:
                sys.setprofile(None)
                logging.getLogger("ief_async").setLevel(logging.NOTSET)
            assert (level == logging.DEBUG) == bool(made)


# ---- the logger ----------------------------------------------------------------------------------


def test_logger_is_left_to_the_application():
    """The library sets no level, and no handler but the one that does nothing."""
    logger = logging.getLogger("ief_async")

    assert [logging.NullHandler] == [type(handler) for handler in logger.handlers]
    assert (logging.NOTSET, True) == (logger.level, logger.propagate)


async def test_each_request_is_one_line_at_debug(caplog):
    """An attempt is a line: method, path, status, time, attempt, bytes, request id; no more."""
    caplog.set_level(logging.DEBUG, "ief_async")
    async with watched(50, session={"on_event": None}) as (fake, ief, _):
        fake.script(Fault.status(503))
        page = await ief.list_pods(deployment_id=fake.deployment_ids[0], limit=50)

    failed, repeat, answered = [one.getMessage() for one in lines(caplog)]
    assert failed.startswith(f"GET {PODS}: 503 ServerError in 0.")
    assert f"{PODS}: attempt 1 failed with ServerError; trying again in 0 s" == repeat
    assert answered.startswith(f"GET {PODS}: 200 in 0.")
    rest = f" s, attempt 2, {len(page.raw)} bytes, request id {page.request_id}"
    assert answered.endswith(rest)


async def test_lines_have_their_figures_as_fields(caplog):
    """Formatters find what an event has in the record, under names that collide with nothing."""
    caplog.set_level(logging.DEBUG, "ief_async")
    factory = logging.getLogRecordFactory()

    def with_a_request_id(*args, **kwargs):
        record = factory(*args, **kwargs)
        record.request_id = "the application's own"
        return record

    logging.setLogRecordFactory(with_a_request_id)
    try:
        async with watched(50) as (fake, ief, events):
            await ief.iter_pods(fake.deployment_ids).collect()
    finally:
        logging.setLogRecordFactory(factory)

    first, *_, last = lines(caplog)
    assert "the application's own" == first.request_id
    for record, event in [(first, of(RequestFinished, events)[0]), (last, events[-1])]:
        fields = {name: text for name, text in vars(record).items() if name.startswith("ief_")}
        given = {f"ief_{name}": text for name, text in attrs.asdict(event).items()}
        assert {**given, "ief_event": type(event).__name__} == fields


# ---- what nobody is told -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CREDENTIALS)
async def test_no_event_and_no_line_names_a_secret_or_an_id(kind, caplog):
    """Over scans with every fault of the usual mix, drift and clamps: allow-listed words alone."""
    caplog.set_level(logging.DEBUG)
    options = {
        "token": "a-token-for-nobody-else",
        "service": Service(counts=437),
        "page_cap": 90,
        "nodes": 3,
    }
    async with watched(400, **options, deployments=4) as (fake, _, _):
        events = []
        given = {"credentials": CREDENTIALS[kind](fake), "iam_endpoint": fake.iam_endpoint}
        limits = ief_async.Limits(max_body_bytes=1 << 20)
        times = ief_async.Timeouts(read=0.2, total=0.2)
        async with session_with(
            fake, **given, retry=NO_WAIT, limits=limits, timeout=times, on_event=events.append
        ) as ief:
            if kind == "EcsMetadata":  # its requests are not repeated: no scan would begin
                await ief.iter_deployments().collect()
            for fault in (*DEFAULT_MIX, Fault.throttle("0"), Fault.status(403)):
                fake.script(fault)
                with suppress(IefError):
                    await ief.iter_pods(fake.deployment_ids, batch_size=2).collect()
            with suppress(DriftError):  # as the list of nodes counts 437, too
                await ief.iter_nodes(name="a-name-of-mine").collect()
        signed = {value for one in fake.requests for value in one.headers.values()}

    secrets = {*fake.deployment_ids, *fake.node_ids, *fake.pod_ids(), "a-name-of-mine"}
    secrets |= {fake.token, fake.access_key, fake.secret_key, fake.password, fake.user}
    secrets |= {one for one in signed if len(one) > 64}  # tokens that were issued, signatures
    told = repr(events) + "".join(
        record.getMessage() + repr(vars(record)) for record in lines(caplog)
    )
    assert {RequestFinished, DriftSeen, LimitClamped, RequestRetried} <= set(map(type, events))
    assert [] == [secret for secret in secrets if secret in told]
    assert fake.project_id not in repr(events)
