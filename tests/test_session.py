"""The face of the library: what it takes, what it refuses unsent, what it shares."""

import asyncio
import inspect
import math
import subprocess
import sys
import traceback
import warnings

import aiohttp
import attrs
import pytest
from conftest import session_with

import ief_async
from ief_async import (
    ConfigurationError,
    IefSession,
    Limits,
    PayloadError,
    Pod,
    RetryPolicy,
    ServerError,
    Timeouts,
    Token,
)
from ief_async.testing import FakeIef, Fault

PROJECT = "bcd83056c918480f8f190844bd425b23"
AT_ONCE = RetryPolicy(attempts=2, base=0, throttled_base=0)


@pytest.fixture
async def fake():
    """Run a fake fleet of 250 pods in 5 deployments."""
    async with FakeIef(250, deployments=5) as running:
        yield running


@pytest.fixture
async def ief(fake):
    """Give a session with the fake fleet."""
    async with session_with(fake) as session:
        yield session


def offline(**options):
    """Return a session with a server that is never asked."""
    options = {"credentials": Token("t"), "endpoint": "http://127.0.0.1:9", **options}
    return IefSession(options.pop("project_id", PROJECT), **options)


# ---- list_pods -----------------------------------------------------------------------------------


@pytest.mark.parametrize("selector", ["deployment_ids", "deployment_id", "node_id", "group_id"])
async def test_list_pods_is_one_documented_call(selector, fake, ief):
    """Each of the four selectors sends one GET with just what was given."""
    of = {"deployment_ids": fake.deployment_ids, "deployment_id": fake.deployment_ids[0]}
    of |= {"node_id": fake.node_ids[0], "group_id": fake.group_ids[0]}

    page = await ief.list_pods(**{selector: of[selector]}, limit=7, offset=3)

    assert 7 == len(page.items) == page.limit
    assert all(type(pod) is Pod for pod in page.items)
    (seen,) = fake.requests
    assert ("GET", f"/v3/{fake.project_id}/edgemgr/pods") == (seen.method, seen.path)
    assert {selector, "limit", "offset"} == set(seen.query)
    assert fake.token == seen.headers["x-auth-token"]
    assert "gzip" == seen.headers["accept-encoding"]
    assert "ief-instance-id" not in seen.headers


async def test_list_pods_leaves_the_limit_to_the_server(fake, ief):
    """Without `limit` none is sent, and the server's own default holds."""
    page = await ief.list_pods(deployment_ids=iter(fake.deployment_ids))

    assert (10, 250, None, 0) == (len(page.items), page.count, page.limit, page.offset)
    assert "limit" not in fake.requests[0].query


async def test_plugin_instance_name_is_quoted(fake, ief):
    """A name with blanks, plus and other signs arrives as it was given."""
    await ief.list_pods(node_id=fake.node_ids[0], plugin_instance_name="边缘 a+b&c=d/e")

    assert "边缘 a+b&c=d/e" == fake.requests[0].query["plugin_instance_name"]
    assert "+" not in fake.requests[0].raw_query
    assert "%2B" in fake.requests[0].raw_query


async def test_list_pods_takes_a_model(fake, ief):
    """A page is typed by the class that is given."""

    @attrs.frozen
    class State:
        state: str

    page = await ief.list_pods(deployment_id=fake.deployment_ids[0], model=State)

    assert {State} == {type(item) for item in page.items}


async def test_row_that_cannot_be_structured_fails_the_page():
    """list_pods gives a whole page or an error that names the field, never a part."""
    async with (
        FakeIef([{"id": "a"}, {"id": "b", "containers": 7}]) as fake,
        session_with(fake) as ief,
    ):
        with pytest.raises(PayloadError) as caught:
            await ief.list_pods(deployment_id="d")

    assert "pods[1].containers" == caught.value.path


@pytest.mark.parametrize(
    "ids",
    [
        {},
        {"node_id": "n", "group_id": "g"},
        {"deployment_ids": ["d"], "node_id": "n"},
        {"deployment_id": "d", "deployment_ids": ["d"]},
    ],
)
async def test_exactly_one_selector(ids):
    """None or several of the four ids are refused before anything is sent."""
    with pytest.raises(ConfigurationError, match="give one of deployment_ids"):
        await offline().list_pods(**ids)


async def test_scan_takes_exactly_one_selector():
    """None or several kinds of ids are refused by iter_pods and count_pods."""
    for ids in ({}, {"deployment_ids": [], "node_ids": []}, {"node_ids": [], "group_ids": []}):
        with pytest.raises(ConfigurationError, match="give one of deployment_ids, node_"):
            offline().iter_pods(**ids)
        with pytest.raises(ConfigurationError, match="give one of deployment_ids, node_"):
            await offline().count_pods(**ids)


# ---- count_pods ----------------------------------------------------------------------------------


async def test_count_pods_reads_heads_only(fake, ief):
    """One request of one row for each batch gives the total, each count, and a scan's requests."""
    counted = await ief.count_pods(fake.deployment_ids, batch_size=2, page_size=30)
    heads = fake.statistics().requests
    await ief.iter_pods(fake.deployment_ids, batch_size=2, page_size=30).collect()

    assert (250, (100, 100, 50), 3) == (counted.total, counted.counts, heads)
    assert fake.statistics().requests - heads == counted.requests == 4 + 4 + 2
    assert {"1"} == {seen.query["limit"] for seen in fake.requests[:heads]}


async def test_count_pods_of_nothing_asks_nothing(fake, ief):
    """No ids, no request, no pods."""
    assert 0 == (await ief.count_pods([])).total
    assert 0 == fake.statistics().requests


async def test_count_pods_needs_a_count(fake, ief):
    """A server that gives no count is told apart from an empty fleet."""
    fake.script(Fault.body(b'{"pods": []}'))

    with pytest.raises(PayloadError, match="the server sends no count"):
        await ief.count_pods(fake.deployment_ids)


async def test_count_pods_raises_what_fails(fake):
    """An error of a head comes out as itself."""
    async with session_with(fake, retry=AT_ONCE) as ief:
        fake.script(Fault.status(500), Fault.status(500))
        with pytest.raises(ServerError):
            await ief.count_pods(fake.deployment_ids)


# ---- what is refused -----------------------------------------------------------------------------

NO_NUMBERS = [0, -1, True, 1.5, "10", 10**9, math.nan]


@pytest.mark.parametrize("value", NO_NUMBERS)
async def test_limit_is_a_whole_number_within_bounds(value):
    """A limit out of bounds is refused by name, with the bounds and the value."""
    with pytest.raises(ConfigurationError, match=r"^limit must be an integer from 1 to 10000"):
        await offline().list_pods(node_id="n", limit=value)


@pytest.mark.parametrize("name", ["page_size", "batch_size", "concurrency"])
@pytest.mark.parametrize("value", [*NO_NUMBERS, None])
def test_sizes_are_whole_numbers_within_bounds(name, value):
    """Sizes and concurrency out of bounds are refused by name before anything is sent."""
    with pytest.raises(ConfigurationError, match=rf"^{name} must be an integer from 1 to"):
        offline().iter_pods(["d"], **{name: value})


@pytest.mark.parametrize("value", [-1, True, 0.0, "0", None, 10**10])
async def test_offset_is_a_whole_number_from_0(value):
    """An offset that is negative or not an integer is refused."""
    with pytest.raises(ConfigurationError, match=r"^offset must be an integer from 0 to"):
        await offline().list_pods(node_id="n", offset=value)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "1"])
def test_deadline_is_finite_and_above_zero(value):
    """A deadline must be a finite number above zero."""
    with pytest.raises(ConfigurationError, match=r"^deadline must be a finite number > 0"):
        offline().iter_pods(["d"], deadline=value)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ("abc", r"must be an iterable of ids, got str: write \['abc'\]"),
        (b"abc", "must be an iterable of ids, got bytes: write"),
        (7, "must be an iterable of ids, got int"),
        ([""], "must be ids of 1 to 64"),
        (["a b"], "must be ids of 1 to 64"),
        (["a,b"], "must be ids of 1 to 64"),
        ({"a", 7}, "must be ids of 1 to 64"),
        (("a", None), "must be ids of 1 to 64"),
    ],
)
async def test_wrong_ids_are_refused(ids, words):
    """A single string is not read letter by letter; empty, blank or joined ids are refused."""
    for name in ("deployment_ids", "node_ids", "group_ids"):
        with pytest.raises(ConfigurationError, match=f"{name} {words}"):
            offline().iter_pods(**{name: ids})
    with pytest.raises(ConfigurationError, match=words):
        await offline().list_pods(deployment_ids=ids)


async def test_list_pods_takes_at_least_one_id():
    """An empty list of ids would ask for everything, or nothing: it is refused."""
    with pytest.raises(ConfigurationError, match="deployment_ids must be 1 to about 100 ids"):
        await offline().list_pods(deployment_ids=[])
    with pytest.raises(ConfigurationError, match="deployment_ids must be 1 to about 100 ids"):
        await offline().list_pods(deployment_ids=[f"{at:036}" for at in range(201)])


async def test_two_hundred_and_one_ids_are_batched(fake, ief):
    """More ids than one URL holds become several queries."""
    ids = [f"{at:036}" for at in range(201)]

    await ief.iter_pods(ids, batch_size=1000).collect()

    assert 3 * 2 == fake.statistics().requests  # an empty page 0 is asked for once more
    assert all(len(f"{seen.path}?{seen.raw_query}") <= 4000 for seen in fake.requests)


async def test_mutable_arguments_are_copied(fake, ief):
    """A list that changes after the call changes nothing."""
    ids = [fake.deployment_ids[0]]
    stream = ief.iter_pods(ids)
    ids.append(fake.deployment_ids[1])

    assert 50 == len(await stream.collect())


@pytest.mark.parametrize("value", ["..", "a/b", "a?b", "", "a b", "ä", 7, "x" * 65])
def test_project_id_that_would_change_the_path_is_refused(value):
    """A project id of anything but letters, digits, - and _ is refused."""
    with pytest.raises(ConfigurationError, match=r"^project_id must be 1 to 64 letters"):
        offline(project_id=value)


@pytest.mark.parametrize(
    ("endpoint", "kept"),
    [
        ("https://ief.example.com", None),
        ("https://ief.example.com/", "https://ief.example.com"),
        ("https://IEF.Example.com:8443", "https://ief.example.com:8443"),
        ("https://xn--bcher-kva.example", None),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://localhost:8080", None),
        ("http://[::1]:8080", None),
        ("https://[2001:db8::1]:444", None),
    ],
)
def test_endpoint_is_scheme_host_and_port(endpoint, kept):
    """A host, a port, IPv6 and the xn-- form are accepted; slashes at the end are dropped."""
    assert (kept or endpoint) == offline(endpoint=endpoint)._transport.endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "ief.example.com",
        "http://ief.example.com",
        "ftp://ief.example.com",
        "https://ief.example.com/path",
        "https://ief.example.com?q=1",
        "https://ief.example.com#f",
        "https://user:secret@ief.example.com",
        "https://",
        "https://a b",
        "https://bücher.example",
        "https://ief.example.com:99999",
        "https://ief.example.com:x",
        "",
        7,
    ],
)
def test_endpoint_with_anything_else_is_refused(endpoint):
    """No scheme, plain http to another host, path, query, user: refused by name."""
    with pytest.raises(ConfigurationError, match=r"^endpoint must be https://host"):
        offline(endpoint=endpoint)


def test_region_gives_the_endpoint():
    """A known region has its host; for any other the text says what to give instead."""
    known = IefSession(PROJECT, credentials=Token("t"), region="cn-north-4")

    assert "https://ief.cn-north-4.myhuaweicloud.com" == known._transport.endpoint
    for region in ("ap-southeast-1", None, "../x"):
        with pytest.raises(ConfigurationError, match=r"^region must be one of .*give endpoint="):
            IefSession(PROJECT, credentials=Token("t"), region=region)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("credentials", "a token"),
        ("credentials", None),
        ("retry", 3),
        ("limits", {"concurrency": 4}),
        ("timeout", 30),
        ("http", "session"),
        ("instance_id", "a\r\nb"),
        ("instance_id", ""),
        ("instance_id", {}),
    ],
)
def test_argument_of_another_kind_is_refused_by_name(name, value):
    """An argument of the wrong kind is refused by its name, with what it must be."""
    with pytest.raises(ConfigurationError, match=rf"^{name} must be"):
        offline(**{name: value})


def test_empty_instance_is_not_the_professional_edition():
    """An id from a variable that is not set is refused: without one, other pods would be read."""
    with pytest.raises(ConfigurationError, match=r"^instance_id must be"):
        offline().with_options(instance_id="")


@pytest.mark.parametrize("model", [dict, "Pod", Pod(id="a"), None, list[Pod]])
def test_model_that_is_no_attrs_class_is_refused(model):
    """A model is an attrs class; anything else is refused when the stream is made."""
    with pytest.raises(ConfigurationError, match=r"^model must be an attrs class"):
        offline().iter_pods(["d"], model=model)


def test_ordered_is_a_truth():
    """A text is not taken for True."""
    with pytest.raises(ConfigurationError, match=r"^ordered must be True or False"):
        offline().iter_pods(["d"], ordered="no")


# ---- what a session is ---------------------------------------------------------------------------


async def test_session_works_without_async_with(fake):
    """It works when it is closed by hand, may be closed twice, and is closed then."""
    ief = session_with(fake)
    assert 250 == (await ief.list_pods(deployment_ids=fake.deployment_ids)).count
    await ief.aclose()
    await ief.aclose()

    with pytest.raises(ConfigurationError, match="the session is closed: make a new IefSession"):
        await ief.list_pods(node_id="n")


def test_session_needs_a_loop_only_to_send():
    """Making sessions and streams needs no loop, and iterating without one says so."""
    stream = offline().iter_pods(["d"])

    with pytest.raises(RuntimeError, match="no running event loop"):
        stream.__aiter__().__anext__().send(None)


FORKING = """
import asyncio, os, sys
from ief_async import ConfigurationError, IefSession, Token, TransportError

ief = IefSession("p", credentials=Token("t"), endpoint="http://127.0.0.1:9")
ief = ief.with_options(retry=__import__("ief_async").RetryPolicy(attempts=1))
with asyncio.Runner() as runner:
    try:
        runner.run(ief.list_pods(node_id="n"))
    except TransportError:
        print("sent", flush=True)
    runner.run(ief._transport.connections._owned.close())
if os.fork() == 0:
    try:
        asyncio.run(ief.list_pods(node_id="n"))
    except ConfigurationError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""


def test_session_does_not_cross_a_fork():
    """Used in a forked process a session raises, and does not hang."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=30, check=True
    )

    assert ["sent", "the session was first used before this process was forked: make one here"] == (
        done.stdout.splitlines()
    )


async def test_instance_is_named_in_a_header(fake):
    """An instance id goes out with every request; an empty one is the professional edition."""
    async with session_with(fake, instance_id="i-1") as ief:
        await ief.list_pods(node_id=fake.node_ids[0])
        await ief.with_options(instance_id=None).list_pods(node_id=fake.node_ids[0])

    assert ["i-1", None] == [seen.headers.get("ief-instance-id") for seen in fake.requests]


async def test_options_are_overridden_and_the_rest_is_shared(fake, ief):
    """with_options shares connections, budget and figures, and closes nothing."""
    impatient = ief.with_options(retry=RetryPolicy(attempts=1), timeout=Timeouts(total=5))
    narrow = ief.with_options(limits=Limits(concurrency=1))
    fake.script(Fault.status(500))
    async with impatient:
        with pytest.raises(ServerError) as caught:
            await impatient.list_pods(node_id=fake.node_ids[0])
    await narrow.iter_pods(fake.deployment_ids).collect()
    figures = ief.statistics()

    assert 1 == caught.value.attempts
    assert 1 == fake.statistics().in_flight_peak
    assert (4, 0, 0, 0, 0) == attrs.astuple(figures)
    assert figures == impatient.statistics() == narrow.statistics()
    assert impatient._transport.pacer is ief._transport.pacer
    assert narrow._transport.pacer.budget is ief._transport.pacer.budget
    with pytest.raises(
        ConfigurationError, match=r"argument of with_options must be one of project_id.*got region"
    ):
        ief.with_options(region="cn-north-1")


class OwnSession(IefSession):
    """A session with a constructor, an attribute and a method of a user's own."""

    def __init__(self, team, fake):
        super().__init__(fake.project_id, credentials=Token(fake.token), endpoint=fake.endpoint)
        self.team = team

    async def count_pods(self, *args, **kwargs):
        """Say whose pods they are."""
        return self.team, await super().count_pods(*args, **kwargs)


async def test_derived_session_of_a_subclass_is_one_of_it(fake):
    """with_options keeps the class, the attributes and the methods of a subclass."""
    async with OwnSession("edge", fake) as own:
        derived = own.with_options(retry=AT_ONCE)
        team, counted = await derived.count_pods(fake.deployment_ids)
        await derived.aclose()
        await own.count_pods(fake.deployment_ids)  # the connections are still open

    assert OwnSession is type(derived)
    assert ("edge", 250) == (team, counted.total)


@pytest.mark.parametrize("public", [IefSession.__init__, ief_async.scan_fleet])
def test_no_argument_of_a_public_signature_is_private(public):
    """What `help()` shows of an entry point is for users."""
    assert not [name for name in inspect.signature(public).parameters if name.startswith("_")]


async def test_figures_count_what_was_sent(fake):
    """Requests, repeats and throttles are counted as the server saw them."""
    retry = RetryPolicy(attempts=3, base=0, throttled_base=0)
    async with session_with(fake, retry=retry) as ief:
        fake.script(Fault.status(503), Fault.throttle())
        await ief.list_pods(node_id=fake.node_ids[0])
        fake.script(Fault.throttle())
        await ief.list_pods(node_id=fake.node_ids[0])

    figures = ief.statistics()
    assert fake.statistics().requests == figures.requests
    assert (0, 0) == (figures.in_flight, fake.statistics().in_flight)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        figures.requests = 0


async def test_borrowed_session_stays_its_owners(fake):
    """A borrowed aiohttp session is used and left open, and its headers go along."""
    async with aiohttp.ClientSession(headers={"X-Mine": "1"}) as http:
        async with session_with(fake, http=http) as ief:
            await ief.list_pods(node_id=fake.node_ids[0])
        assert not http.closed
        assert "1" == fake.requests[0].headers["x-mine"]
        with pytest.raises(ConfigurationError, match="the session is closed"):
            await ief.list_pods(node_id=fake.node_ids[0])

    with pytest.raises(ConfigurationError, match="the session is closed"):
        await session_with(fake, http=http).list_pods(node_id=fake.node_ids[0])


async def test_borrowed_session_that_trusts_the_environment_is_warned_of():
    """A session that takes proxies from the environment may hand the token to one."""
    async with aiohttp.ClientSession(trust_env=True) as http:
        with pytest.warns(UserWarning, match="trust_env"):
            offline(http=http)
    async with aiohttp.ClientSession() as http:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            offline(http=http)


def test_repr_says_where_and_not_with_what():
    """The repr of a session names project and endpoint, and no token."""
    assert f"<IefSession: project {PROJECT} at http://127.0.0.1:9>" == repr(
        offline(credentials=Token("marker"))
    )


def test_half_made_session_can_be_shown():
    """A traceback that shows its locals gets over a session, or a token, that was refused."""
    for refused in (lambda: offline(project_id="x" * 500), lambda: Token("a b")):
        with pytest.raises(ConfigurationError) as caught:
            refused()
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert "ConfigurationError" in "".join(shown.format())
    with pytest.raises(ConfigurationError, match="got 500 characters"):
        offline(project_id="x" * 500)


def test_arguments_behind_the_first_are_keywords():
    """Every public call takes at most one positional argument."""
    calls = [IefSession, *(getattr(IefSession, name) for name in ("iter_pods", "count_pods"))]
    calls += [IefSession.list_pods, ief_async.Limits, ief_async.RetryPolicy, ief_async.Page]

    for call in calls:
        parameters = inspect.signature(call).parameters
        free = [
            name
            for name, parameter in parameters.items()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "self"
        ]
        assert len(free) <= 1, call


async def test_sessions_at_once_do_not_mix(fake):
    """Many sessions in one loop each give their own project, token and figures."""
    sessions = [session_with(fake) for _ in range(5)]
    pages = await asyncio.gather(
        *(one.list_pods(deployment_id=fake.deployment_ids[at]) for at, one in enumerate(sessions))
    )
    for one in sessions:
        await one.aclose()

    assert [50] * 5 == [page.count for page in pages]
    assert [1] * 5 == [one.statistics().requests for one in sessions]
