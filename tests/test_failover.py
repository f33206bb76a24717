"""Which host of a region is asked: one is kept once it has answered, and left when it fails."""

import asyncio
import logging
import socket

import aiohttp
import pytest
from conftest import session_with
from weather import port_of, serving, tls_in_front_of, trusting

from ief_async import IefError, IefSession, RetryPolicy, Timeouts, Token, TransportError
from ief_async.testing import FakeIef, FakeResolver

UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
LATER = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
BROKEN = socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure in name resolution")


def of_ares(code):
    """Return what aiohttp's resolver makes of an error of aiodns."""
    error = OSError(None, "DNS lookup failed")
    error.__cause__ = RuntimeError(code, "as aiodns has it")
    return error


@pytest.fixture
async def fake():
    """Run a fake fleet."""
    async with FakeIef(60) as running:
        yield running


@pytest.fixture
def region(monkeypatch):
    """Return a function that says where the region answers, each port under a name of its own."""

    def said(*ports, scheme="http"):
        hosts = ",".join(f"{scheme}://localhost:{port}" for port in ports)
        monkeypatch.setenv("HUAWEICLOUD_SDK_REGION_IEF_CN_NORTH_4", hosts)

    return said


def session_on(fake, http, **options):
    """Return a session with the region over a borrowed aiohttp session."""
    options = {"retry": RetryPolicy(base=0), "timeout": Timeouts(read=1.5), **options}
    return IefSession(
        fake.project_id, credentials=Token(fake.token), region="cn-north-4", http=http, **options
    )


def over(resolver):
    """Return an aiohttp session with this resolver."""
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
    return aiohttp.ClientSession(connector=connector)


def refusing(port, *failures):
    """Return a resolver whose first lookups of a port fail."""
    resolver = FakeResolver()
    resolver.fail(*failures, port=port)
    return resolver


async def count(ief, fake):
    """Read the fleet."""
    return len(await ief.iter_pods(fake.deployment_ids, page_size=10).collect())


@pytest.mark.parametrize(
    "error", [LATER, BROKEN, of_ares(12), of_ares(11), of_ares(3), OSError("odd")], ids=str
)
async def test_lookup_that_fails_for_the_moment_is_repeated_where_it_happened(fake, region, error):
    """A resolver without an answer says nothing of the name: the next host is never asked."""
    async with serving(lambda *_: asyncio.sleep(9)) as silent:
        region(port_of(fake), silent)
        resolver = refusing(port_of(fake), error)
        async with over(resolver) as http, session_on(fake, http) as ief:
            assert 60 == await count(ief, fake)
            assert ief._transport.endpoint.endswith(str(port_of(fake)))

    assert silent not in resolver.asked


@pytest.mark.parametrize("error", [UNKNOWN, of_ares(1), of_ares(4)], ids=str)
async def test_host_that_never_answered_is_not_adopted(fake, region, error, caplog):
    """One name that was not found once does not move a session to a host that gives no answer."""
    async with serving(lambda *_: asyncio.sleep(9)) as silent:
        region(port_of(fake), silent)
        resolver = refusing(port_of(fake), error)
        async with over(resolver) as http, session_on(fake, http) as ief:
            page = await ief.list_pods(deployment_ids=fake.deployment_ids)
            assert 60 == await count(ief, fake)
            assert ief._transport.endpoint.endswith(str(port_of(fake)))

    assert 2 == page.attempts
    assert 1 == resolver.asked.count(silent)
    assert "going on with" not in caplog.text


async def test_host_that_answered_is_kept_until_it_fails_itself(fake, region, caplog):
    """When the adopted host fails by name, the others are tried again, the first one included."""
    async with FakeIef(60) as other:
        region(port_of(fake), port_of(other))
        first, second = port_of(fake), port_of(other)
        resolver = refusing(first, UNKNOWN)
        async with over(resolver) as http, session_on(fake, http) as ief:
            for endpoint in (other, other, fake, fake):
                await ief.list_pods(deployment_ids=fake.deployment_ids)
                assert endpoint.endpoint.endswith(ief._transport.endpoint.rpartition(":")[2])
                if resolver.asked[-2:] == [port_of(other)] * 2:
                    resolver.fail(UNKNOWN, port=second)

    lines = [line for line in caplog.records if line.levelno >= logging.WARNING]
    assert 2 == len(lines)
    assert (2, 2) == (len(fake.requests), len(other.requests))


@pytest.mark.parametrize("answers", [True, False], ids=["second answers", "second is silent"])
async def test_tls_that_fails_once_moves_only_to_a_host_that_answers(fake, region, answers):
    """A failed handshake leads elsewhere for good only if there is an answer to be had there."""
    async with (
        FakeIef(60) as other,
        tls_in_front_of(fake, failures=["nonsense"]) as first,
        tls_in_front_of(other) as well,
        serving(lambda *_: asyncio.sleep(9)) as silent,
        aiohttp.ClientSession(connector=trusting()) as http,
    ):
        second = well if answers else silent
        region(first, second, scheme="https")
        async with session_on(fake, http, timeout=Timeouts(connect=1.5)) as ief:
            assert 60 == await count(ief, fake)
            assert ief._transport.endpoint.endswith(str(second if answers else first))


async def test_certificate_that_fails_once_is_asked_again(fake, region):
    """A certificate that is refused is final for one host, not where another may answer later."""
    async with (
        tls_in_front_of(fake) as first,
        serving(lambda *_: asyncio.sleep(9)) as silent,
        aiohttp.ClientSession(connector=trusting()) as http,
    ):
        region(first, silent, scheme="https")
        context = http.connector._ssl
        trust, context.check_hostname = context.check_hostname, True  # as behind a login page
        timeouts = Timeouts(connect=1.5)

        def mend(event):
            if type(event).__name__ == "RequestRetried":
                context.check_hostname = trust

        async with session_on(fake, http, timeout=timeouts, on_event=mend) as ief:
            page = await ief.list_pods(deployment_ids=fake.deployment_ids)
            assert ief._transport.endpoint.endswith(str(first))

    assert 2 == page.attempts


async def test_lookup_that_fails_for_the_moment_is_repeated_for_one_host(fake):
    """Without another host it is a failure like others: repeated, and at last a TransportError."""
    resolver = refusing(port_of(fake), *[LATER] * 6)
    endpoint = f"http://localhost:{port_of(fake)}"
    quick = {"retry": RetryPolicy(base=0), "endpoint": endpoint}
    async with over(resolver) as http, session_with(fake, http=http, **quick) as ief:
        with pytest.raises(IefError) as caught:
            await ief.list_pods(deployment_ids=fake.deployment_ids)
        await ief.list_pods(deployment_ids=fake.deployment_ids)

    assert (TransportError, 6) == (type(caught.value), caught.value.attempts)
    assert "the host name could not be looked up" in str(caught.value)
