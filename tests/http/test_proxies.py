"""Proxies, as companies have them: TLS goes through, and nobody's password goes astray."""

import asyncio
import logging
import os
import pickle
import ssl
import subprocess
import sys
import traceback
from contextlib import asynccontextmanager

import aiohttp
import pytest
from conftest import session_with
from weather import CERTIFICATE, HOST, ConnectProxy, serving, tls_in_front_of

from ief_async import (
    AccessKey,
    ConfigurationError,
    IefSession,
    PasswordCredentials,
    RetryPolicy,
    Target,
    Timeouts,
    Token,
    TransportError,
    scan_fleet,
)
from ief_async.testing import FakeIef

USER, PASSWORD = "canary-user", "canary p@ssword/ü"
LOGIN = "canary-user:canary%20p%40ssword%2F%C3%BC"
QUICK = RetryPolicy(attempts=3, base=0)
ENDPOINT = f"https://{HOST}"


@pytest.fixture
async def fake():
    """Run a fake fleet."""
    async with FakeIef(60) as running:
        yield running


@pytest.fixture
def trusted(monkeypatch):
    """Let connections of our own trust the certificate of `HOST`, as a CA of the machine would."""
    monkeypatch.setattr(
        aiohttp.connector, "_SSL_CONTEXT_VERIFIED", ssl.create_default_context(cafile=CERTIFICATE)
    )


@asynccontextmanager
async def proxied(fake, **options):
    """Give a proxy with TLS behind it, for a fake server, and the proxy's port."""
    async with tls_in_front_of(fake) as behind:
        proxy = ConnectProxy(behind, **options)
        async with serving(proxy) as port:
            yield proxy, port


def session(fake, **options):
    """Return a session with `HOST`."""
    options = {"credentials": Token(fake.token), "endpoint": ENDPOINT, "retry": QUICK, **options}
    return IefSession(fake.project_id, **options)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("login", ["", f"{LOGIN}@"], ids=["open", "password"])
async def test_scan_goes_through_a_proxy_that_sees_no_credentials(fake, login):
    """Requests are tunnelled by CONNECT: the proxy sees host and port, and TLS from then on."""
    password = f"{USER}:{PASSWORD}" if login else None
    async with (
        proxied(fake, password=password) as (proxy, port),
        session(fake, proxy=f"http://{login}127.0.0.1:{port}") as ief,
    ):
        pods = await ief.iter_pods(fake.deployment_ids, page_size=10).collect()
        derived = await ief.with_options(retry=QUICK).list_pods(node_id="n")

    assert (60, 0) == (len(pods), derived.count)
    assert {f"CONNECT {HOST}:443 HTTP/1.1"} == {line for line, _ in proxy.asked}
    assert len(fake.token) > 8
    assert fake.token.encode() not in proxy.seen
    assert not [seen for seen in fake.requests if "proxy-authorization" in seen.headers]
    assert len(proxy.asked) < len(fake.requests)  # tunnels are used again


async def test_proxy_may_speak_tls_itself(fake, monkeypatch):
    """A tunnel leads through an https proxy as well: TLS within TLS."""
    context = ssl.create_default_context(cafile=CERTIFICATE)
    context.check_hostname = False  # the proxy is at an address, and is no other.invalid
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", context)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(CERTIFICATE)
    async with tls_in_front_of(fake) as behind:
        proxy = ConnectProxy(behind, password=f"{USER}:{PASSWORD}")

        async def handle(reader, writer):
            await writer.start_tls(own)
            await proxy(reader, writer)

        async with (
            serving(handle) as port,
            session(fake, proxy=f"https://{LOGIN}@127.0.0.1:{port}") as ief,
        ):
            page = await ief.list_pods(node_id="n")

    assert (0, 1) == (page.count, page.attempts)
    assert proxy.asked


@pytest.mark.usefixtures("trusted")
async def test_fleet_and_logins_go_through_the_proxy(fake):
    """What a fleet asks goes through it, and what IAM is asked for a token and a project."""
    password = {"domain": fake.domain, "user": fake.user, "password": fake.password}
    target = Target(
        credentials=PasswordCredentials(**password),
        region=fake.region,
        endpoint=ENDPOINT,
        iam_endpoint=f"https://{HOST}:8443",
    )
    async with proxied(fake) as (proxy, port):
        fleet = scan_fleet([target], proxy=f"http://127.0.0.1:{port}/", retry=QUICK)
        assert 60 == len(await fleet.collect())

    hosts = {line.split()[1] for line, _ in proxy.asked}
    assert {f"{HOST}:443", f"{HOST}:8443"} == hosts
    assert fake.password.encode() not in proxy.seen


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("login", [f"{USER}:wrong-canary-9", LOGIN.replace("canary-user", "x")])
async def test_refused_login_is_tried_once_and_shown_nowhere(fake, login, caplog):
    """407 is not repeated, which could lock the account; user and password are in no place."""
    caplog.set_level(logging.DEBUG)
    async with (
        proxied(fake, password=f"{USER}:{PASSWORD}") as (proxy, port),
        session(fake, proxy=f"http://{login}@127.0.0.1:{port}") as ief,
    ):
        with pytest.raises(TransportError) as caught:
            await ief.list_pods(node_id="n")
        shown = [repr(ief), repr(vars(ief)), repr(vars(ief._transport.connections))]

    error = caught.value
    assert (1, 1, False) == (len(proxy.asked), error.attempts, error.transient)
    assert "the proxy refused the connection" in str(error)
    assert "407 not by" in str(error)
    whole = traceback.TracebackException.from_exception(error, capture_locals=True)
    lines = [line for line in whole.format() if "tests/" not in line]
    shown += [repr(error), *lines, str(pickle.dumps(error)), caplog.text, repr(vars(error))]
    (sent,) = [line for line in proxy.asked[0][1] if line.startswith("Proxy-Authorization")]
    for secret in (sent.split()[-1], "wrong-canary-9", PASSWORD, LOGIN.partition(":")[2]):
        assert secret not in "".join(shown)


@pytest.mark.parametrize(
    ("refusal", "words", "attempts"),
    [
        ("403 not this host", "refused the connection", 1),
        ("502 bad gateway", "could not connect", 3),
        ("503 later", "could not connect", 3),
        ("429 slowly", "could not connect", 3),
        ("408 slowly", "could not connect", 3),
    ],
)
async def test_refusal_of_a_proxy_is_told_with_its_status(fake, refusal, words, attempts):
    """What a proxy refuses for good is told at once; what may pass is asked again."""
    async with (
        proxied(fake, refusal=refusal) as (_, port),
        session(fake, proxy=f"http://127.0.0.1:{port}") as ief,
    ):
        with pytest.raises(TransportError, match=f"the proxy {words} .*{refusal}") as caught:
            await ief.list_pods(node_id="n")

    assert attempts == caught.value.attempts


async def test_proxy_that_cannot_be_reached_is_named(fake):
    """A proxy that is down, silent or unknown is told apart from the service."""
    async with serving(lambda *_: asyncio.sleep(9)) as silent:
        pass
    for proxy, words in (
        (f"http://127.0.0.1:{silent}", "no connection to the proxy"),
        ("http://nosuchproxy.invalid:3128", "the proxy's host name was not found"),
    ):
        async with session(fake, proxy=proxy) as ief:
            with pytest.raises(TransportError, match=words) as caught:
                await ief.list_pods(node_id="n")
        assert 3 == caught.value.attempts
    async with serving(lambda *_: asyncio.sleep(9)) as silent:
        hasty = {"timeout": Timeouts(connect=0.1), "proxy": f"http://127.0.0.1:{silent}"}
        async with session(fake, **hasty) as ief:
            with pytest.raises(TransportError, match=r"see Timeouts\(connect=\)"):
                await ief.list_pods(node_id="n")


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        "127.0.0.1:3128",
        "socks5://canary:secret-canary@127.0.0.1",
        "http://",
        "http://canary:secret-canary@:80",
        "http://canary:secret-canary@host:99999999",
        "http://canary:secret-canary@host/path",
        "http://host?canary=secret-canary",
        "http://host#canary",
        "http://ho st",
        "http://[::1",
        7,
        b"http://canary:secret-canary@host",
    ],
)
def test_proxy_that_is_none_is_refused_and_not_shown(proxy):
    """A proxy is http://[user:password@]host[:port]; what is refused is not shown."""
    options = {"credentials": Token("token"), "endpoint": ENDPOINT}
    for make in (
        lambda: IefSession("p" * 32, proxy=proxy, **options),
        lambda: scan_fleet([Target(project_id="p" * 32, **options)], proxy=proxy),
    ):
        with pytest.raises(
            ConfigurationError, match="proxy must be the URL of an HTTP proxy"
        ) as bad:
            make()
        assert "canary" not in str(bad.value)


async def test_proxy_goes_with_connections_of_its_own():
    """A borrowed aiohttp session has its owner's proxies; another one is refused."""
    async with aiohttp.ClientSession() as http:
        with pytest.raises(ConfigurationError, match="proxy= can't be combined with http="):
            IefSession(
                "p" * 32, credentials=Token("t"), endpoint=ENDPOINT, http=http, proxy="http://p"
            )
    with pytest.raises(ConfigurationError, match="with_options"):
        IefSession("p" * 32, credentials=Token("t"), endpoint=ENDPOINT).with_options(proxy=None)


async def test_plain_http_never_goes_through_a_proxy(fake, monkeypatch):
    """What a proxy would see is sent without it: loopback, and the metadata service."""
    called = []

    async def handle(*_):
        called.append(1)

    async with serving(handle) as port:
        proxy = f"http://127.0.0.1:{port}"
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        async with session_with(fake, proxy=proxy) as ief:
            await ief.list_pods(node_id="n")
        async with IefSession.from_env() as ief:
            await ief.list_pods(node_id="n")

    assert [] == called


@pytest.mark.filterwarnings("ignore:.*trust_env")
@pytest.mark.parametrize("of", ["session", "environment"])
async def test_proxy_of_a_borrowed_session_that_would_see_credentials_is_refused(
    fake, of, monkeypatch
):
    """A proxy that a borrowed session has is refused for plain http, and nothing is sent."""
    called = []

    async def handle(*_):
        called.append(1)

    async with serving(handle) as port:
        proxy = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("HTTP_PROXY", proxy)
        options = {"proxy": proxy} if of == "session" else {"trust_env": True}
        async with (
            aiohttp.ClientSession(**options) as http,
            session_with(fake, http=http) as ief,
        ):
            with pytest.raises(ConfigurationError, match="would see the credentials") as caught:
                await ief.list_pods(node_id="n")
    assert caught.value.__context__ is None

    assert [] == called
    assert [] == fake.requests


# ---- the environment -----------------------------------------------------------------------------

SCAN = """
import asyncio, os
from ief_async import IefSession, RetryPolicy

async def main():
    async with IefSession.from_env(region="cn-north-4", retry=RetryPolicy(attempts=1)) as ief:
        print(len(await ief.iter_pods(ief.iter_deployments()).collect()))

asyncio.run(main())
"""
PLAN = """
from ief_async.engines import plan_pods, read_partition

rows = [batch.num_rows for part in plan_pods(region="cn-north-4") for batch in read_partition(part)]
print(sum(rows))
"""
COMMAND = ["-m", "ief_async", "pods", "--region", "cn-north-4", "-o", "name"]
ENTRY_POINTS = {"session": ["-c", SCAN], "engine": ["-c", PLAN], "command": COMMAND}


async def run(fake, port, words, **variables):
    """Run a script that finds all it needs in its environment; return its code and output."""
    environment = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        **fake.environment(),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "SSL_CERT_FILE": str(CERTIFICATE),
        "HUAWEICLOUD_SDK_REGION_IEF_CN_NORTH_4": ENDPOINT,
        "HUAWEICLOUD_SDK_IAM_ENDPOINT": ENDPOINT,
        **{name: value.format(port=port) for name, value in variables.items()},
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
async def test_variables_are_heeded_as_by_every_tool(fake, entry_point):
    """from_env, the engines and the command go through the proxy that the environment names."""
    async with proxied(fake, password=f"{USER}:{PASSWORD}") as (proxy, port):
        url = f"http://{LOGIN}@127.0.0.1:" + "{port}"
        code, out, err = await run(
            fake, port, ENTRY_POINTS[entry_point], HTTPS_PROXY=url, NO_PROXY="localhost"
        )

    assert (0, "60") == (
        code,
        str(len(out.split())) if entry_point == "command" else out.strip(),
    ), err
    assert proxy.asked
    assert fake.access_key.encode() not in proxy.seen


@pytest.mark.parametrize(
    ("variables", "used"),
    [
        ({"https_proxy": "http://127.0.0.1:{port}"}, True),
        ({"HTTPS_PROXY": "127.0.0.1:{port}"}, True),
        ({"ALL_PROXY": "http://127.0.0.1:{port}"}, True),
        ({"all_proxy": "http://127.0.0.1:{port}", "HTTPS_PROXY": ""}, True),
        ({"HTTPS_PROXY": "http://127.0.0.1:{port}", "NO_PROXY": "example.com, .invalid"}, False),
        ({"HTTPS_PROXY": "http://127.0.0.1:{port}", "no_proxy": HOST}, False),
        ({"HTTPS_PROXY": "http://127.0.0.1:{port}", "no_proxy": f"{HOST}:443"}, False),
        ({"HTTPS_PROXY": "http://127.0.0.1:{port}", "no_proxy": "*"}, False),
        ({"HTTPS_PROXY": "http://127.0.0.1:{port}", "no_proxy": "her.invalid"}, True),
        ({"HTTP_PROXY": "http://127.0.0.1:{port}"}, False),
    ],
    ids=str,
)
async def test_names_of_proxies_are_those_of_every_tool(variables, used, fake, monkeypatch):
    """HTTPS_PROXY, then ALL_PROXY, in capitals or not, and NO_PROXY with names and suffixes."""
    called = []

    async def handle(_, writer):
        called.append(1)
        writer.write(b"HTTP/1.1 403 seen\r\n\r\n")
        await writer.drain()

    async with serving(handle) as port:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(port=port))
        options = {"credentials": Token(fake.token), "endpoint": ENDPOINT, "retry": QUICK}
        async with IefSession.from_env(project_id=fake.project_id, **options) as ief:
            with pytest.raises(TransportError):
                await ief.list_pods(node_id="n")
        assert used == bool(called)
        called.clear()
        async with IefSession.from_env(project_id=fake.project_id, **options, proxy=None) as ief:
            with pytest.raises(TransportError):
                await ief.list_pods(node_id="n")
        async with session(fake) as ief:
            with pytest.raises(TransportError):
                await ief.list_pods(node_id="n")

    assert [] == called


def test_proxy_of_another_kind_is_refused_by_the_variables_name(monkeypatch):
    """A SOCKS proxy is not passed over, as the network may need it: it is refused, unshown."""
    monkeypatch.setenv("ALL_PROXY", "socks5h://canary:canary@127.0.0.1:1080")
    options = {"credentials": Token("t"), "project_id": "p" * 32}

    with pytest.raises(ConfigurationError, match="ALL_PROXY must be the URL") as caught:
        IefSession.from_env(endpoint=ENDPOINT, **options)
    assert "canary" not in str(caught.value)
    monkeypatch.setenv("NO_PROXY", f"{HOST},myhuaweicloud.com")
    IefSession.from_env(endpoint=ENDPOINT, **options)


# ---- netrc ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*trust_env", "ignore:.*deprecated:DeprecationWarning")
@pytest.mark.parametrize("kind", ["netrc", "auth"])
@pytest.mark.parametrize("signed", [False, True], ids=["token", "signed"])
async def test_somebody_elses_password_is_never_sent(fake, kind, signed, tmp_path, monkeypatch):
    """What netrc, or the auth of a borrowed session, says of the host is no business of IEF."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password unknown\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    options = {"trust_env": True}
    if kind == "auth":
        options = {"auth": aiohttp.BasicAuth("somebody", "unknown")}
    key = AccessKey(fake.access_key, fake.secret_key) if signed else Token(fake.token)
    async with (
        aiohttp.ClientSession(**options) as http,
        session_with(fake, http=http, credentials=key) as ief,
    ):
        await ief.list_pods(node_id="n")
    (seen,) = fake.requests

    assert "Basic" not in seen.headers.get("authorization", "")
    assert signed == ("authorization" in seen.headers)
    assert not fake.wrong_signatures


async def test_authorization_header_of_a_borrowed_session_is_its_owners(fake):
    """What its owner put among the headers on purpose is sent, as any header is."""
    headers = {"Authorization": "Bearer of-a-gateway"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        session_with(fake, http=http) as ief,
    ):
        await ief.list_pods(node_id="n")

    assert "Bearer of-a-gateway" == fake.requests[0].headers["authorization"]
