"""The promise itself, over all options together: a scan ends, and loses nothing in silence.

The public API reads lists that move, from a service that shares nothing with it (`moving`). After
each run: it ended; every row that was there throughout came once, or its batch says that it may
not have; nothing is left running; and what was resumed is whole.

`IEF_PROMISES=20000 pytest tests/test_promise.py` tries so many random cases in the place of the few
hundred fixed ones.
"""

import asyncio
import gc
import os
import random
from collections import Counter
from contextlib import suppress
from itertools import pairwise, takewhile

import aiohttp
import attrs
import pytest
from conftest import examples, fleet_at, session_at
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from moving import KEYS, MovingConnector, MovingIef, Stalled, VirtualLoop, Weather

from ief_async import (
    CheckpointError,
    IefError,
    PartialScanError,
    PayloadError,
    Pod,
    RetryPolicy,
    Target,
    Token,
)
from ief_async._endpoints import LISTINGS
from ief_async._policies import Clock

PROMISES = int(os.environ.get("IEF_PROMISES", "0"))
PODS = ("deployment_ids", "node_ids", "group_ids")
LISTS = tuple(name for name in LISTINGS if name != "pods")
TARGETS = 2
ENDS = 3  # how often a scan is resumed that no consumer left: what was cut or failed goes on
ADDRESS = "http://127.0.0.1:9"


@attrs.frozen(kw_only=True)
class Named:
    """A model with an id."""

    id: str
    name: str


@attrs.frozen(kw_only=True)
class Nameless:
    """A model without one: ids are read beside it."""

    name: str


ANY = {Named: {"id": "any", "name": ""}, Nameless: {"name": ""}, Pod: {"id": "any"}}


def raising(_):
    """Raise, as a hook of an application may."""
    message = "a hook of the application"
    raise LookupError(message)


@attrs.frozen(kw_only=True)
class Stop:
    """When a consumer leaves, and how; at a row that never comes it reads to the end."""

    row: int
    how: str


@attrs.frozen(kw_only=True)
class Case:
    """A run: what is read, how, in which weather, and when its consumer leaves."""

    what: str
    rows: tuple[int, ...]  # of each id, or of each target's ids
    weather: Weather
    page_size: int
    batch_size: int
    concurrency: int
    ordered: bool
    on_drift: str
    on_error: str
    on_bad_item: str  # "raise", "skip", or what a function does: "drop", "replace"
    max_items: int | None
    model: type
    pages: bool
    hook: object  # of the session, for its events
    source: str
    stops: tuple[Stop, ...]
    seed: int

    @property
    def of_pods(self):
        """Whether its list is of pods, in batches; else it is one batch without ids."""
        return self.what in PODS or self.what == "fleet"

    @property
    def calm(self):
        """Whether nothing moves, fails or lies."""
        weather = self.weather
        return not weather.changes and not weather.faults and weather.count == "true"

    @property
    def skips(self):
        """Whether rows that can't be read are left out."""
        return self.on_bad_item in {"skip", "drop"}

    @property
    def most(self):
        """How many items may come, if that is limited; a fleet has no such limit."""
        return None if self.what == "fleet" else self.max_items


def weathers(**fixed):
    """Draw how a service behaves; calm ones are as likely as bad ones."""
    kinds = ["504", "500", "429", "window", "cut", "reset", "silent", "empty"]
    faults = st.sampled_from(kinds)
    lies = ["high", "low", "jitter", "page", "zero", "none"]
    drawn = {
        "cap": st.none() | st.integers(1, 12),
        "count": st.sampled_from(["true"] * 6 + lies),
        "changes": st.sampled_from([0, 0, 0, 0.1, 0.5, 2]),
        "deletes": st.sampled_from([0, 0.5, 1]),
        "lag": st.sampled_from([1, 1, 3]),
        "faults": st.sampled_from([0, 0, 0, 0.05, 0.3]),
        "kinds": st.lists(faults, min_size=1, max_size=3, unique=True).map(tuple),
        "failing": st.sampled_from([None, None, None, 0, 1, 2]),
        "most_ids": st.sampled_from([None, None, None, 1, 2]),
        "most_rows": st.sampled_from([None, None, None, 1, 3, 8]),
        "odd": st.sampled_from([0, 0, 0.05, 0.3, 1]),
        "odd_field": st.sampled_from(["name", "name", "id"]),
    }
    return st.builds(Weather, **{**drawn, **fixed})


def runs(**fixed):
    """Draw a run."""
    stop = st.builds(
        Stop,
        row=st.integers(0, 12) | st.integers(0, 60),
        how=st.sampled_from(["break", "leave", "cancel", "close"]),
    )
    rows = st.sampled_from([0, 0, 1, 2, 3, 5, 8, 11, 12, 13, 30])
    drawn = {
        "what": st.sampled_from([*PODS, *PODS, *LISTS, "fleet"]),
        "rows": st.lists(rows, min_size=0, max_size=7).map(tuple),
        "weather": weathers(),
        "page_size": st.sampled_from([1, 2, 3, 5, 8, 10, 12, 20, 100]),
        "batch_size": st.integers(1, 4),
        "concurrency": st.integers(1, 6),
        "ordered": st.booleans(),
        "on_drift": st.sampled_from(["repair", "repair", "repair", "raise", "report", "ignore"]),
        "on_error": st.sampled_from(["raise", "defer", "collect"]),
        "on_bad_item": st.sampled_from(["raise", "skip", "drop", "drop", "replace"]),
        "max_items": st.none() | st.none() | st.integers(1, 60),
        "model": st.sampled_from([Named, Nameless, Pod]),
        "pages": st.booleans(),
        "hook": st.sampled_from([None, None, raising]),
        "source": st.sampled_from(["list", "generator", "async", "twice"]),
        "stops": st.lists(stop, max_size=2).map(tuple),
        "seed": st.integers(0, 2**32 - 1),
    }
    return st.builds(Case, **{**drawn, **fixed})


def cases():
    """Draw a run: of any kind, or of one where faults have lived."""
    capped = weathers(
        cap=st.integers(2, 6), count=st.just("jitter"), failing=st.none(), most_rows=st.none()
    )
    near = st.lists(st.integers(0, 8), min_size=3, max_size=7).map(tuple)
    goes = weathers(changes=st.sampled_from([0.5, 1]), deletes=st.just(1), failing=st.none())
    return st.one_of(
        runs(),
        runs(),
        runs(weather=capped, rows=near, page_size=st.sampled_from([8, 20]), batch_size=st.just(1)),
        runs(weather=goes, page_size=st.sampled_from([1, 2, 5]), what=st.sampled_from(PODS)),
        runs(max_items=st.integers(1, 12)),
    )


# ---- a run ---------------------------------------------------------------------------------------


@attrs.define
class Run:
    """What came of one scan of a case."""

    names: list = attrs.field(factory=list)
    odd: list = attrs.field(factory=list)  # what on_bad_item was asked about
    in_hand: list = attrs.field(factory=list)  # what its consumer had when it left
    error: BaseException | None = None
    left: str = ""  # how its consumer left
    report: object = None
    checkpoint: str = ""
    shown: frozenset = frozenset()  # the projects whose session has seen a page that was cut


def projects_of(case):
    """Return the rows of each project's lists; all projects have the same numbers of rows."""
    made = {}
    for project in (f"p{one}" for one in range(TARGETS if case.what == "fleet" else 1)):
        chance = random.Random(case.seed)
        rows = [
            (f"{project}-{owner}-{row}", f"d{owner}")
            for owner, number in enumerate(case.rows)
            for row in range(number)
        ]
        chance.shuffle(rows)  # the pods of a batch stand among each other
        owners = [(f"d{owner}", f"d{owner}") for owner in range(len(case.rows))]
        lists = dict.fromkeys(KEYS, owners)
        lists["pods"] = rows
        if not case.of_pods:
            lists[moving_of(case)] = rows
        made[project] = lists
    return made


def test_moving_service_has_every_list():
    """The promise is tried on each list: the service shares no table with the library."""
    assert {one.path.rpartition("/")[2]: one.key for one in LISTINGS.values()} == KEYS


def moving_of(case):
    """Return the list that moves, as its path calls it."""
    if case.of_pods:
        return "pods"
    return LISTINGS[case.what].path.rpartition("/")[2]


def ids_from(case):
    """Return the ids of a case, as its consumer gives them."""
    ids = [f"d{owner}" for owner in range(len(case.rows))]

    async def drawn():
        for one in ids:
            await asyncio.sleep(0.01)
            yield one

    return {
        "list": lambda: ids,
        "generator": lambda: iter(ids),
        "async": drawn,
        "twice": lambda: [*ids, *ids[:2]],
    }[case.source]()


def bad_items_of(case, run):
    """Return what a case does with a row that can't be read."""

    def instead(row, error):
        assert isinstance(error, PayloadError)
        (name,) = row["name"]
        run.odd.append(name)
        return attrs.evolve(case.model(**ANY[case.model]), name=name) if replaces else None

    replaces = case.on_bad_item == "replace"
    return instead if case.on_bad_item in {"drop", "replace"} else case.on_bad_item


def stream_of(case, ief, http, resume, run):
    """Begin a scan of a case, from where the one before it was left."""
    options = {
        "on_bad_item": bad_items_of(case, run),
        "model": case.model,
        "page_size": case.page_size,
        "concurrency": case.concurrency,
        "on_drift": case.on_drift,
        "resume_from": resume,
    }
    if case.what == "fleet":
        targets = [
            Target(project_id=f"p{one}", endpoint=ADDRESS, credentials=Token("t"))
            for one in range(TARGETS)
        ]
        return fleet_at(
            targets,
            http=http,
            batch_size=case.batch_size,
            ordered=case.ordered,
            on_error=case.on_error,
            retry=RetryPolicy(base=0.01, budget=10_000),
            on_event=case.hook,
            clock=clock_of(asyncio.get_running_loop()),
            **options,
        )
    options["max_items"] = case.max_items
    if not case.of_pods:
        return getattr(ief, f"iter_{case.what}")(**options)
    options |= {
        "batch_size": case.batch_size,
        "ordered": case.ordered,
        "on_error": case.on_error,
    }
    return ief.iter_pods(**{case.what: ids_from(case)}, **options)


def clock_of(loop):
    """Return the library's clock on a loop's time."""
    return Clock(now=loop.time, wall=lambda: 1.8e9 + loop.time(), jitter=lambda most: most / 2)


def names_in(case, item):
    """Return what an item or a page brought: the names of its rows."""
    items = item.items if case.pages else [item]
    return [(one[1] if case.what == "fleet" else one).name for one in items]


async def consume(case, stream, run, stop):
    """Read a stream until its end, or until its consumer leaves."""
    try:
        await read(case, stream, run, stop)
        await asyncio.sleep(0)  # a cancellation comes here at the latest
    except asyncio.CancelledError:
        assert run.left, "nobody cancelled the consumer"
        asyncio.current_task().uncancel()


async def read(case, stream, run, stop):
    """Read a stream, and note what it raises."""
    try:
        async for item in stream.pages() if case.pages else stream:
            run.in_hand = names_in(case, item)
            run.names += run.in_hand
            if stop is not None and not run.left and len(run.names) > stop.row:
                run.left = stop.how
                if stop.how == "close":
                    await stream.aclose()
                elif stop.how == "cancel":
                    asyncio.current_task().cancel()
                else:
                    break
        else:
            run.in_hand = []
    except IefError as error:
        run.error = error


async def scan(case, ief, service, resume, stop):
    """Run one scan of a case, from where one was left, and look at what it leaves behind."""
    run = Run()
    showed = len(service.showed)
    stream = stream_of(case, ief, service.http, resume, run)
    if stop is not None and stop.how == "leave":
        await consume(case, stream, run, stop)
        # a bare break: one turn of the loop to cancel; and aiohttp, which may be about to connect,
        # has a few to notice
        for _ in range(6):
            await asyncio.sleep(0)
    else:
        async with stream:
            await consume(case, stream, run, stop)
    running = asyncio.all_tasks() - {asyncio.current_task()}
    assert not running, f"still running: {running}"
    assert not service.pending, "a request is in flight"
    assert 0 == ief.statistics().in_flight == ief._transport.pacer.slots._held.total()
    run.report = stream.report
    run.checkpoint = stream.checkpoint().to_json()
    if not (run.left or run.error):  # else an answer may have come too late
        run.shown = frozenset(service.showed[showed:])
    assert run.report.items == len(run.names) or run.error is not None
    return run


async def play(case):
    """Run a case with all that it resumes."""
    loop = asyncio.get_running_loop()
    refuses_odd = case.on_bad_item == "raise"
    service = MovingIef(
        projects_of(case), moving_of(case), case.weather, case.seed, refuses_odd=refuses_odd
    )
    service.http = http = aiohttp.ClientSession(connector=MovingConnector(service))
    ief = session_at(
        "p0",
        endpoint=ADDRESS,
        credentials=Token("t"),
        http=http,
        retry=RetryPolicy(base=0.01, budget=10_000),
        on_event=case.hook,
        clock=clock_of(loop),
    )
    runs, resume = [], None
    async with http, ief:
        for stop in (*case.stops, *[None] * ENDS):
            runs.append(await scan(case, ief, service, resume, stop))
            if case.what != "fleet" and runs[1:]:  # a fleet has a new session for each target
                runs[-1].shown |= runs[-2].shown
            resume = runs[-1].checkpoint
            if runs[-1].report.complete:
                break
        service.calm_down()
        page = await ief.list_pods(deployment_ids=["d0"], limit=10)  # the session still works
        assert page.count is not None
    await asyncio.sleep(0)
    assert not service.open, "a connection is open"
    return service, runs


def run_case(case):
    """Run a case on a loop of its own, and judge it."""
    loop = VirtualLoop()
    try:
        service, runs = loop.run_until_complete(play(case))
    except Stalled:
        pytest.fail("it waits for ever")
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        with suppress(Stalled, RuntimeError):
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    judge(case, service, runs)


# ---- the judge -----------------------------------------------------------------------------------


def judge(case, service, runs):
    """Hold what came against what was there; see the file's docstring."""
    assert not service.wrong, f"asked for {service.wrong[0]}"
    for run in runs:
        good = [name for name in run.names if name not in set(run.odd)]
        most = max(Counter(good).values(), default=0)
        assert most <= 1 or (case.on_drift == "ignore" and not case.calm), "a row came twice"
        assert len(run.names) <= (case.most or len(run.names)), "more than max_items"
        drifts = [one.drift for one in run.report.batches if one.complete]
        assert case.on_drift != "raise" or "unknown" not in drifts, "in doubt, and not raised"
        judge_error(case, run)
        judge_odd_rows(case, run)
    if case.calm:
        judge_calm(case, runs)
    last = runs[-1]
    cut = case.most is not None and len(last.names) == case.most
    ended = last.report.complete or cut or last.error is not None or last.report.failures
    assert ended, "it ended early without a word"
    came = {name for run in runs for name in (*run.names, *run.odd)}
    uncounted = case.on_bad_item == "skip"  # one by one: how many there are is known
    for project, rows in service.survivors.items():
        lost = [row for row in rows if row[0] not in came]
        lost = [row for row in lost if not (uncounted and case.weather.is_odd(row[0]))]
        doubted = {one for run in runs for one in doubts(case, run, project)}
        doubted |= set(unfinished(case, last, project))
        proven = {one for run in runs for one in proofs(case, run, project)}
        silent = [row for row in lost if owner_of(case, row) not in doubted]
        assert not (silent and last.report.complete), f"{silent[0]} is not there"
        silent = [row for row in silent if owner_of(case, row) in proven]
        assert not silent, f"{silent[0]} was lost in silence"


def judge_odd_rows(case, run):
    """Exactly the rows that can't be read are left out or replaced, each once, and counted."""
    odd = {name for name in run.names if case.weather.is_odd(name)}
    assert not odd or case.on_bad_item == "replace", "an odd row came"
    assert all(map(case.weather.is_odd, run.odd)), "a good row was taken for an odd one"
    if case.on_bad_item in {"drop", "replace"}:
        assert len(run.odd) == run.report.bad_items
        # without an id, what changes its place looks like another
        again = not case.calm and (case.on_drift == "ignore" or case.weather.odd_field == "id")
        assert again or len(run.odd) == len(set(run.odd)), "an odd row came twice"
    elif case.on_bad_item == "raise":
        assert 0 == run.report.bad_items


def owner_of(case, row):
    """Return what the batch of a row asked for."""
    return row[1] if case.of_pods else ""


def report_of(case, run, project):
    """Return the report of one project's scan."""
    if case.what != "fleet":
        return run.report
    return next(said for at, said in run.report.targets.items() if at.project_id == project)


def doubts(case, run, project):
    """Yield the ids whose batch was read to its end and does not vouch for all rows."""
    hidden = hides_its_cap(case, run, project)
    for batch in report_of(case, run, project).batches:
        if batch.complete and (batch.drift == "unknown" or hidden):
            yield from batch.ids


def unfinished(case, run, project):
    """Yield the ids of batches that failed, or that an error left unread: resuming reads them."""
    report = report_of(case, run, project)
    for failure in report.failures:
        yield from failure.ids
    if run.error is not None:
        for batch in report.batches:
            yield from () if batch.complete else batch.ids


def hides_its_cap(case, run, project):
    """Tell whether nobody could know: a cut page was counted as all, and none showed the cap."""
    return case.weather.count != "true" and case.weather.cap and project not in run.shown


def proofs(case, run, project):
    """Yield the ids whose batches were read to their end, promise all, and were handed over."""
    batches = report_of(case, run, project).batches
    if run.left or (run.error is not None and not isinstance(run.error, PartialScanError)):
        return
    if case.most is not None and len(run.names) == case.most:  # all but the batch that was cut
        inserted = "-" not in run.names[-1]
        owner = "" if inserted else f"d{run.names[-1].split('-')[1]}"
        ordered = case.ordered and case.of_pods and not inserted
        batches = [*takewhile(lambda batch: ordered and owner not in batch.ids, batches)]
    for batch in batches:
        if batch.complete and batch.drift != "unknown":
            yield from batch.ids


def judge_error(case, run):
    """A scan may fail where something fails, moves or lies, and only in known ways."""
    if run.error is None:
        return
    assert run.error.checkpoint is not None
    assert type(run.error) is not IefError, "it had nothing to wait for"
    assert not isinstance(run.error, CheckpointError)
    refused = case.weather.failing is not None or case.on_drift == "raise"
    refused |= case.weather.odd > 0 and case.on_bad_item == "raise"
    assert refused or not case.calm, "a calm list failed"
    assert case.on_error == "defer" or not isinstance(run.error, PartialScanError)


def judge_calm(case, runs):
    """What does not move comes exact, and again only what was in the consumer's hand."""
    single = 1 in {case.page_size, case.weather.cap, case.weather.most_rows}
    for run, after in pairwise(runs):
        failed = (
            run.error is not None or run.report.failures or (single and case.on_drift == "raise")
        )
        again = set(run.names) & set(after.names)
        assert failed or again <= set(run.in_hand), "a finished row came again"
        again = set(run.odd) & set(after.odd)  # those of a page in hand do
        assert failed or case.pages or again <= set(run.in_hand), "a skipped row came again"
        if run.left in {"break", "leave"} and after.report.complete and not failed:
            assert set(run.in_hand) <= set(after.names), "a row in hand counted as finished"
    # a page that was cut to a row or two, and turns out to need more, overlaps nothing
    single |= case.most is not None and case.skips and case.weather.odd > 0
    for batch in (batch for run in runs for batch in run.report.batches if batch.complete):
        if case.on_drift != "ignore" and not single:
            assert batch.drift == "exact", batch
    ended = all(run.report.complete and not run.left for run in runs)
    if ended and case.on_drift != "ignore" and case.on_bad_item == "skip":
        projects = projects_of(case).values()
        rows = [row for lists in projects for row in lists[moving_of(case)]]
        odd = sum(case.weather.is_odd(name) for name, _ in rows)
        assert odd == sum(run.report.bad_items for run in runs), "a skipped row is not counted"


TRIED = settings(
    max_examples=examples(PROMISES or 300),
    derandomize=not PROMISES,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


CALM_LIST = Case(
    what="deployment_ids",
    rows=(),
    weather=Weather(),
    page_size=20,
    batch_size=1,
    concurrency=1,
    ordered=True,
    on_drift="repair",
    on_error="collect",
    on_bad_item="drop",
    max_items=None,
    model=Named,
    pages=False,
    hook=None,
    source="list",
    stops=(),
    seed=0,
)
# page 0 was too small to show the cap, a page that was cut was counted as the last one, and the cap
# showed when the head was read again
CAP_SHOWS_AT_THE_HEAD = attrs.evolve(
    CALM_LIST,
    what="instances",
    rows=(2, 4, 1),
    weather=Weather(cap=5, count="jitter", changes=0.1, deletes=0, kinds=("reset",), odd=1),
    ordered=False,
    max_items=2,
    seed=292_477,
)
# the page that would have shown the cap was refused, as a row of it has no id
CAP_SHOWS_IN_A_REFUSED_PAGE = attrs.evolve(
    CALM_LIST,
    what="node_ids",
    rows=(0, 5, 7),
    weather=Weather(
        cap=4, count="jitter", deletes=1, lag=3, kinds=("reset",), odd=0.3, odd_field="id"
    ),
    concurrency=6,
    on_drift="raise",
    on_bad_item="raise",
    model=Pod,
    pages=True,
    source="async",
    seed=32,
)


@pytest.mark.timeout(0 if PROMISES else 120)
@TRIED
@given(cases())
@example(CAP_SHOWS_AT_THE_HEAD)
@example(CAP_SHOWS_IN_A_REFUSED_PAGE)
def test_a_scan_ends_loses_nothing_in_silence_and_says_what_it_doubts(case):
    """Whatever the options, the weather and the consumer are, a scan keeps its promise."""
    event(case.what)
    run_case(case)
    gc.collect(0)
