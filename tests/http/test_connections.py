"""The connections of a session, its own and borrowed ones."""

import asyncio
import traceback

import aiohttp
import pytest
from calls import (
    PROJECT,
    QUICK,
    TWICE,
    assert_idle,
    assert_well,
    failure_of,
    patient_session,
    session_at,
)
from conftest import session_with, until
from weather import serving

from ief_async import (
    AccessKey,
    ApiError,
    ConfigurationError,
    IefSession,
    Limits,
    PermissionDeniedError,
    Token,
    TransportError,
)
from ief_async.testing import FakeIef, Fault


@pytest.fixture
async def fake():
    """Run a fake fleet of 60 pods in 6 deployments."""
    async with FakeIef(60, deployments=6) as running:
        yield running


@pytest.fixture
async def ief(fake, fake_clock):
    """Give a session with it that sends twice at most, on the fake clock."""
    async with patient_session(fake, fake_clock.clock) as session:
        yield session


class SilentResolver(aiohttp.abc.AbstractResolver):
    """Looks host names up for ever."""

    def __init__(self):
        self.asked = asyncio.Event()

    async def resolve(self, *_, **__):
        """Note that it was asked, and never answer."""
        self.asked.set()
        await asyncio.Event().wait()

    async def close(self):
        """Do nothing: there is nothing to close."""


@pytest.mark.parametrize("way", ["call", "scan"])
async def test_closing_while_a_host_is_looked_up_is_told(way):
    """A session that is closed while its host's name is looked up ends what waits for it."""
    resolver = SilentResolver()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver)) as http:
        ief = session_at("https://ief.example.com", http=http)
        work = ief.list_pods(node_id="n") if way == "call" else ief.iter_pods(["d"]).collect()
        task = asyncio.create_task(work)
        await resolver.asked.wait()
        await http.close()
        with pytest.raises(ConfigurationError, match="the session is closed"):
            await task


async def test_connection_that_is_closed_between_pages_costs_one_repeat_at_most(fake, ief):
    """A server that drops its idle connections costs no page, and a repeat at most each."""
    fake.intercept(lambda _: Fault.close_after())
    stream = ief.iter_pods(fake.deployment_ids, page_size=10, concurrency=1)
    pods = await stream.collect()

    assert [pod["id"] for pod in fake.pods] == [pod.id for pod in pods]
    pages = {(seen.query["offset"], seen.query["limit"]) for seen in fake.requests}
    assert len(pages) <= fake.statistics().requests + stream.report.retries <= 2 * len(pages)
    assert_idle(ief)


async def test_connection_is_used_again(fake, ief):
    """Calls one after the other share one connection, failures with a whole answer too."""
    fake.script(Fault.status(403), Fault.status(404), Fault.status(400))
    for _ in range(3):
        await failure_of(ief)
    await assert_well(ief, fake)

    assert 1 == fake.statistics().connections


async def test_cookies_are_not_sent_back(fake):
    """A cookie of the server never comes back to it."""
    endpoint = fake.endpoint.replace("127.0.0.1", "localhost")  # aiohttp's own jar skips bare IPs
    async with IefSession(PROJECT, credentials=Token(fake.token), endpoint=endpoint) as session:
        for _ in range(3):
            fake.script(Fault.cookie())
            await session.list_pods(node_id="n")

    assert 3 == len(fake.requests)
    assert not [seen for seen in fake.requests if "cookie" in seen.headers]


async def test_environment_gives_no_proxy_and_no_password(fake, monkeypatch, tmp_path):
    """HTTP_PROXY, ALL_PROXY and netrc of the environment change nothing."""
    called = []

    async def proxy(*_):
        called.append(1)

    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password unknown\n")
    netrc.chmod(0o600)
    async with serving(proxy) as port:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
            monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setenv("NETRC", str(netrc))
        async with session_with(fake) as ief:
            await assert_well(ief, fake)

    assert [] == called
    assert "authorization" not in fake.requests[0].headers


# ---- a borrowed aiohttp session ------------------------------------------------------------------
async def test_borrowed_session_does_not_bend_the_rules(fake, fake_clock):
    """Raise_for_status, base_url, headers and cookies of a borrowed session break nothing."""
    async with aiohttp.ClientSession(
        "http://127.0.0.1:9/elsewhere/",
        raise_for_status=True,
        cookies={"mine": "1"},
        headers={"X-Mine": "2", "X-Auth-Token": "another", "Accept-Encoding": "br"},
        timeout=aiohttp.ClientTimeout(total=0.000_001),
    ) as http:
        async with session_with(fake, http=http, retry=TWICE, clock=fake_clock.clock) as ief:
            await assert_well(ief, fake)
            fake.script(Fault.status(403), Fault.redirect("/"), Fault.drop(), Fault.drop())
            for kind, attempts in ((PermissionDeniedError, 1), (ApiError, 1), (TransportError, 2)):
                error = await failure_of(ief)
                assert (kind, attempts) == (type(error), error.attempts)
            assert 5 == fake.statistics().requests
            await assert_well(ief, fake)

        assert not http.closed
        (seen, *_) = fake.requests
        assert (fake.token, "2", "gzip") == tuple(
            seen.headers[name] for name in ("x-auth-token", "x-mine", "accept-encoding")
        )
        times = aiohttp.ClientTimeout(total=5)
        async with http.get(fake.endpoint, raise_for_status=False, timeout=times) as still_works:
            assert 404 == still_works.status


async def test_middlewares_of_a_borrowed_session_still_run(fake, fake_clock):
    """The owner's middlewares see each attempt once; the hidden second GET stays off."""
    seen = []

    async def middleware(request, handler):
        seen.append(request.url.path)
        return await handler(request)

    async with (
        aiohttp.ClientSession(middlewares=(middleware,)) as http,
        session_with(fake, http=http, retry=TWICE, clock=fake_clock.clock) as ief,
    ):
        fake.script(Fault.drop(), Fault.reset())
        error = await failure_of(ief)

    assert TransportError is type(error)
    assert 2 == error.attempts == fake.statistics().requests == len(seen)


@pytest.mark.parametrize("kind", [KeyError, ValueError, RuntimeError])
async def test_error_of_a_borrowed_middleware_shows_no_token(fake, kind):
    """What the owner's middleware raises comes as itself, without frames that hold the key."""
    broken = kind("it broke")

    async def middleware(request, _):
        try:
            request.headers["no-such-header"]
        except KeyError as error:
            raise broken from error

    key = AccessKey(fake.access_key, fake.secret_key, "canary-security-token")
    async with (
        aiohttp.ClientSession(middlewares=(middleware,)) as http,
        session_with(fake, http=http, credentials=key) as ief,
    ):
        with pytest.raises(kind, match="it broke") as caught:
            await ief.list_pods(node_id="n")

    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "canary" not in "".join(shown.format())
    assert "in middleware" in "".join(caught.value.__notes__)


async def test_auto_decompress_of_a_borrowed_session_changes_nothing(fake):
    """Compressed pages are read whether or not a borrowed session unpacks bodies itself."""
    for automatic in (True, False):
        fake.script(Fault.gzip())
        async with (
            aiohttp.ClientSession(auto_decompress=automatic) as http,
            session_with(fake, http=http, retry=QUICK) as ief,
        ):
            page = await ief.list_pods(deployment_ids=fake.deployment_ids)

        assert (10, 1) == (len(page.items), page.attempts)


@pytest.mark.parametrize("options", [{"limit": 2}, {"limit_per_host": 2}], ids=repr)
async def test_pool_of_a_borrowed_session_caps_the_concurrency(options, fake):
    """Requests wait for a permit, not in the pool, where their time would run."""
    permits = []
    fake.intercept(lambda _: permits.append(ief.statistics().in_flight))
    connector = aiohttp.TCPConnector(**options)
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        session_with(fake, http=http) as ief,
    ):
        stream = ief.iter_pods(fake.deployment_ids, batch_size=1, page_size=5)
        pods = await stream.collect()
        assert_idle(ief)

    assert 60 == len(pods)
    assert 2 == max(permits)


async def test_more_concurrency_by_with_options_does_not_wait_in_the_pool(fake, held_back):
    """A derived session with more concurrency gets its connections: no request waits for one."""
    fake.intercept(lambda _: Fault.slow(1))
    async with session_with(fake, limits=Limits(concurrency=1)) as ief:
        wide = ief.with_options(limits=Limits(concurrency=6))
        calls = asyncio.gather(*(wide.list_pods(node_id="n") for _ in range(6)))
        await until(lambda: fake.statistics().in_flight == 6)
        held_back.set()
        await calls


async def test_borrowed_session_that_trusts_the_environment_is_warned_about(fake):
    """Trust_env on a borrowed session is used in part only: one UserWarning says which."""
    async with aiohttp.ClientSession(trust_env=True) as http:
        with pytest.warns(UserWarning, match="trust_env") as caught:
            session_with(fake, http=http)

    assert 1 == len(caught)


async def test_borrowed_session_closed_by_its_owner_is_named(fake):
    """When its owner has closed it, a call says so and sends nothing."""
    async with aiohttp.ClientSession() as http:
        ief = session_with(fake, http=http)
        await ief.list_pods(node_id="n")
    error = await failure_of(ief)

    assert "the session is closed" in str(error)
    assert (1, 0) == (fake.statistics().requests, error.attempts)


async def test_call_after_close_was_never_attempted(fake):
    """An error that kept a request from being sent counts no attempt."""
    ief = session_with(fake)
    await ief.aclose()
    error = await failure_of(ief)

    assert (0, 0, 0) == (error.attempts, ief.statistics().requests, fake.statistics().requests)
