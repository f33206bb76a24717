"""What several test files share: times that a test moves, waiting, and a session with a fake."""

import asyncio
import os
import socket
import time

import attrs
import pytest
from hypothesis import HealthCheck, settings

import ief_async
from ief_async import AccessKey, EcsMetadata, IefSession, PasswordCredentials, Pod, Token
from ief_async._auth import circuit
from ief_async._auth.kinds import CredentialKind
from ief_async._endpoints import PODS
from ief_async._fleet import fleet_of
from ief_async._http import Connections
from ief_async._observer import Observer
from ief_async._policies import Clock
from ief_async._scan import ScanSpec
from ief_async._session import session_of
from ief_async.testing import _server

# EXAMPLES=tenth tries a tenth of them; EXAMPLES=random tries new ones each time
EXAMPLES = os.environ.get("EXAMPLES", "")
if "PYTEST_XDIST_WORKER" in os.environ:
    # coverage measures the workers of xdist; to measure each process that a test starts would take
    # as long as the process itself
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


def examples(number):
    """Return how many examples to try: a tenth where another interpreter tries all of them."""
    return max(10, number // 10) if EXAMPLES == "tenth" else number


# how long an example takes says what the machine does besides
settings.register_profile(
    "any_machine",
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=EXAMPLES != "random",
)
settings.load_profile("any_machine")


class FakeClock:
    """Time as a test wants it: a sleep moves it at once, is noted, and yields to the loop.

    While `held`, sleepers stay asleep until `release` is called.
    """

    def __init__(self):
        self.time = 1_000.0
        self.epoch = 1_800_000_000.0
        self.sleeps = []
        self._awake = asyncio.Event()
        self._awake.set()
        self.clock = Clock(
            now=lambda: self.time,
            wall=lambda: self.epoch + self.time,
            sleep=self._sleep,
            jitter=lambda ceiling: ceiling,
        )

    async def _sleep(self, seconds):
        self.sleeps.append(round(seconds, 6))
        until = self.time + seconds
        await self._awake.wait()
        self.time = max(self.time, until)
        await asyncio.sleep(0)

    def hold(self):
        """Let time stand still."""
        self._awake.clear()

    def release(self):
        """Let it run again."""
        self._awake.set()


class LoopTime:
    """The time of an event loop, of which a test may let as much pass at once as it likes.

    Timers that fall due are called, in their order, and nothing else is hurried: what takes its
    time on a slow machine still has it. As a `Clock`, it is the session's time, too.
    """

    def __init__(self, loop):
        self._passed = 0.0
        real = loop.time
        loop.time = lambda: real() + self._passed
        self.clock = Clock(now=loop.time)

    def let_pass(self, seconds):
        """Let it be later."""
        self._passed += seconds


async def until(condition, *, within=60.0):
    """Wait until something is so, however long that takes; a minute is for what never comes."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  who is waited for tells nobody
            await asyncio.sleep(0.001)


async def turns(count=50):
    """Let the other tasks run as far as they can without waiting."""
    for _ in range(count):
        await asyncio.sleep(0)


async def quiet(fake, ief):
    """Wait until the server has answered or dropped all, and knows each connection that ended."""
    connector = ief._transport.connections.session().connector

    def is_quiet():
        kept = sum(map(len, connector._conns.values()))
        figures = fake.statistics()
        return (figures.in_flight, figures.connections_open) == (0, kept)

    await until(is_quiet)


# a fake's own credentials, of each public kind
CREDENTIALS = {
    "Token": lambda fake: Token(fake.token),
    "AccessKey": lambda fake: AccessKey(fake.access_key, fake.secret_key),
    "PasswordCredentials": lambda fake: PasswordCredentials(
        domain=fake.domain, user=fake.user, password=fake.password
    ),
    "EcsMetadata": lambda fake: EcsMetadata(endpoint=fake.metadata_endpoint),
}


def public_kinds():
    """Return the classes of credentials that users make."""
    public = [getattr(ief_async, name) for name in ief_async.__all__]
    return [one for one in public if isinstance(one, type) and issubclass(one, CredentialKind)]


def secret_fields():
    """Return the names of what is secret in credentials of any public kind."""
    fields = [field for kind in public_kinds() for field in attrs.fields(kind)]
    return {field.name for field in fields if "Secret" in str(field.type)}


def session_with(fake, **options):
    """Return a session with this fake server, with other options than its own if they are given."""
    options = {"credentials": Token(fake.token), "endpoint": fake.endpoint, **options}
    return session_at(fake.project_id, **options)


def session_at(project_id=None, *, clock=None, http=None, proxy=None, on_event=None, **options):
    """Return a session, whose time is that of a clock if one is given."""
    if clock is None:
        return IefSession(project_id, http=http, proxy=proxy, on_event=on_event, **options)
    parts = {"connections": Connections(http, proxy), "observer": Observer(on_event)}
    return session_of(project_id, clock=clock, **parts, **options)


def fleet_at(targets, *, clock, http=None, on_event=None, resume_from=None, **options):
    """Return the stream of `scan_fleet` over targets, whose time is that of a clock."""
    policies = {name: options.pop(name) for name in ("retry", "limits") if name in options}
    most = options.pop("concurrency_total", None)
    options = {"selector": "deployment_ids", "model": Pod, "on_error": "defer", **options}
    return fleet_of(
        targets,
        ScanSpec(listing=PODS, ids=(), **options),
        resume_from=resume_from,
        connections=Connections(http, most=most),
        observer=Observer(on_event),
        clock=clock,
        **policies,
    )


@pytest.fixture(scope="session", autouse=True)
def _nobodys_home(tmp_path_factory):
    """Hide this machine's own settings of the official SDK and its proxies: tests go elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("HUAWEICLOUD_") or name.lower().endswith("_proxy"):
                patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("USERPROFILE", os.environ["HOME"])
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_address_is_known_for_invalid_names():
    """Answer lookups of .invalid names at once, as the standard has it: without a network, too."""
    looked_up = socket.getaddrinfo

    def look_up(host, *args, **kwargs):
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return looked_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        yield


@pytest.fixture
def zone(request):
    """Put this process into a time zone, where that can be done."""
    if not hasattr(time, "tzset"):
        pytest.skip("the zone of a process can't be set here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.fixture(autouse=True)
def _nothing_refused_before():
    """Forget what was refused in other tests: a fake may get a port that another one had."""
    circuit._KNOWN.clear()


@pytest.fixture
def fake_clock():
    """Give a clock on which no test waits."""
    return FakeClock()


@pytest.fixture
async def loop_time():
    """Give the time of the test's event loop."""
    return LoopTime(asyncio.get_running_loop())


@pytest.fixture
def held_back(monkeypatch):
    """Give an event: until it is set, fakes hold back what `Fault.hang` and `Fault.slow` delay."""
    event = asyncio.Event()
    monkeypatch.setattr(_server, "pause", lambda _: event.wait())
    return event
