"""Which host of a region is asked: one is kept once it has answered, and left when it fails."""

import asyncio
import logging
import socket
import ssl

import aiohttp
import pytest
from conftest import session_with
from weather import CERTIFICATE, port_of, serving, tls_in_front_of, trusting

from ief_async import (
    AccessKey,
    IefError,
    IefSession,
    RetryPolicy,
    Timeouts,
    Token,
    TransportError,
)
from ief_async.testing import FakeIef, FakeResolver, Fault

UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
LATER = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
NOWHERE = "https://nosuchhost.invalid"
BROKEN = socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure in name resolution")


def of_ares(code):
    """Return what aiohttp's resolver makes of an error of aiodns."""
    error = OSError(None, "DNS lookup failed")
    error.__cause__ = RuntimeError(code, "as aiodns has it")
    return error


@pytest.fixture
async def fake():
    """Run a fake fleet, of which a deployment has ten pods."""
    async with FakeIef(60, deployments=6) as running:
        yield running


@pytest.fixture
def region(monkeypatch):
    """Return a function that says where the region answers: at endpoints, or ports of localhost."""

    def said(*places, scheme="http"):
        hosts = ",".join(
            place if isinstance(place, str) else f"{scheme}://localhost:{place}" for place in places
        )
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
    async with FakeIef(60, deployments=6) as other:
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
        FakeIef(60, deployments=6) as other,
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


# ---- fail-over -----------------------------------------------------------------------------------


def own_session(fake, **options):
    """Return a session with the region over connections of its own."""
    options = {"credentials": Token(fake.token), **options}
    return IefSession(fake.project_id, region="cn-north-4", **options)


async def ask(ief, fake, times=1):
    """Send so many requests at once; return what came of each."""
    calls = [ief.list_pods(deployment_id=fake.deployment_ids[0]) for _ in range(times)]
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_host_without_an_address_is_left_for_the_next(fake, region, caplog):
    """Eight requests that start together go on with the second host; one warning is logged."""
    region(NOWHERE, fake.endpoint)
    async with own_session(fake) as ief:
        assert NOWHERE == ief._transport.endpoint
        pages = await ask(ief, fake, 8)
        assert fake.endpoint == ief._transport.endpoint
        before = ief.statistics()
        again = await ask(ief, fake)
        after = ief.statistics()

    assert [10] * 9 == [page.count for page in pages + again]
    assert 9 == len(fake.requests)
    assert 1 == after.requests - before.requests  # the first host is not asked again
    assert 0 == after.retries
    warnings = [line for line in caplog.records if line.levelno >= logging.WARNING]
    assert [f"{NOWHERE} can't be reached; going on with {fake.endpoint}"] == [
        line.getMessage() for line in warnings
    ]


async def test_host_whose_certificate_fails_is_left(fake, region):
    """A host whose certificate nobody trusts is left for the next one, too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    async with serving(lambda *_: asyncio.sleep(9), ssl=context) as port:
        region(f"https://127.0.0.1:{port}", fake.endpoint)
        async with own_session(fake) as ief:
            (page,) = await ask(ief, fake)
            assert fake.endpoint == ief._transport.endpoint

    assert (10, 1) == (page.count, page.attempts)


async def test_derived_session_stays_with_the_second_host(fake, region, caplog):
    """Sessions that share connections share what they learned of the hosts."""
    region(NOWHERE, fake.endpoint)
    async with own_session(fake) as ief:
        await ask(ief, fake)
        other = ief.with_options(instance_id="i")

        assert fake.endpoint == other._transport.endpoint
    assert 1 == caplog.text.count("can't be reached")


async def test_signature_is_made_for_the_host_that_is_asked(fake, region):
    """A signed request that goes on with another host is signed anew: its host is signed."""
    region(NOWHERE, f"{NOWHERE}:8443", fake.endpoint)
    key = AccessKey(fake.access_key, fake.secret_key)
    async with own_session(fake, credentials=key) as ief:
        (page,) = await ask(ief, fake)

    assert 10 == page.count
    assert not fake.wrong_signatures


@pytest.mark.parametrize("hosts", [[NOWHERE], [NOWHERE, f"{NOWHERE}:8443"]], ids=["one", "two"])
async def test_without_any_address_the_last_hosts_error_is_raised(fake, region, hosts, caplog):
    """Where no host has an address it is a TransportError that names the last one."""
    region(*hosts)
    async with own_session(fake, retry=RetryPolicy(attempts=1)) as ief:
        (error,) = await ask(ief, fake)

    assert TransportError is type(error)
    assert f"nosuchhost.invalid:{8443 if len(hosts) > 1 else 443}" in str(error)
    assert "going on with" not in caplog.text


async def test_host_that_answers_is_not_left(fake, region):
    """A server that fails is no reason to ask another host: only names and certificates are."""
    async with FakeIef(4) as second:
        region(fake.endpoint, second.endpoint)
        fake.script(Fault.status(500), Fault.status(503))
        async with own_session(fake, retry=RetryPolicy(base=0)) as ief:
            (page,) = await ask(ief, fake)

    assert (10, 3, 0) == (page.count, len(fake.requests), len(second.requests))


async def test_host_that_refuses_connections_is_not_left(fake, region):
    """A host that has an address is down, not gone: no other is asked."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # the port is taken, but nobody listens
        region(bound.getsockname()[1], fake.endpoint)
        async with own_session(fake, retry=RetryPolicy(attempts=1)) as ief:
            (error,) = await ask(ief, fake)

    assert TransportError is type(error)
    assert not fake.requests
