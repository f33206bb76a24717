"""One request from end to end, over real sockets: what each fault becomes, and what it leaves.

The rows A1 to A44 are those of the list of faults that this library was designed against.
"""

import asyncio
import json
import re
import socket
import ssl
import sys
import traceback
import tracemalloc
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate
from pathlib import Path

import aiohttp
import attrs
import pytest
from aiohttp.http_exceptions import HttpProcessingError
from conftest import session_with, until

from ief_async import (
    AccessKey,
    ApiError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    IefError,
    IefSession,
    Limits,
    NotFoundError,
    PayloadError,
    PermissionDeniedError,
    RetryPolicy,
    ServerError,
    ThrottledError,
    Timeouts,
    Token,
    TransportError,
)
from ief_async._http import exchange as http_exchange
from ief_async.testing import FakeIef, Fault

PROJECT = "bcd83056c918480f8f190844bd425b23"
TWICE = RetryPolicy(attempts=2)
QUICK = RetryPolicy(attempts=2, base=0, throttled_base=0)
SAMPLES = Path(__file__).parent / "samples"
MEBIBYTE = 1 << 20


@pytest.fixture
async def fake():
    """Run a fake fleet of 60 pods in 6 deployments."""
    async with FakeIef(60, deployments=6) as running:
        yield running


@pytest.fixture
async def ief(fake, fake_clock):
    """Give a session with it that sends twice at most, on the fake clock."""
    async with session_with(fake, retry=TWICE, clock=fake_clock.clock) as session:
        yield session


def session_at(endpoint, **options):
    """Return a session with any server."""
    options = {"retry": QUICK, **options}
    return IefSession(PROJECT, credentials=Token("token"), endpoint=endpoint, **options)


async def failure_of(ief):
    """Return the error that one call of list_pods ends with."""
    with pytest.raises(IefError) as caught:
        await ief.list_pods(node_id="n")
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    return error


async def assert_well(ief, fake):
    """Show that nothing is left of a failure: the next call works, no connection is taken."""
    before = fake.statistics().requests
    page = await ief.list_pods(deployment_ids=fake.deployment_ids)
    assert (10, 60, 1) == (len(page.items), page.count, page.attempts)
    assert before + 1 == fake.statistics().requests
    assert_idle(ief)


def assert_idle(ief):
    """Show that no connection is taken, no request counted as running, no task left."""
    http = ief._transport.connections.session()
    assert not http.connector._acquired
    assert 0 == ief.statistics().in_flight
    names = [repr(task.get_coro()) for task in asyncio.all_tasks()]
    assert not [name for name in names if "Scan." in name or "Transport." in name]


@asynccontextmanager
async def raw_server(handle, *, context=None, **options):
    """Run a server of bare bytes; `handle(reader, writer)` is called once for each connection."""
    handlers = set()

    async def accepted(reader, writer):
        handlers.add(asyncio.current_task())
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


# ---- no connection -------------------------------------------------------------------------------


async def test_refused_connection_is_retried_and_named():
    """A1: a refused connection is a TransportError with host and port after all attempts."""
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    async with session_at(f"http://127.0.0.1:{port}", retry=RetryPolicy(attempts=3, base=0)) as ief:
        error = await failure_of(ief)

    assert TransportError is type(error)
    assert (3, True, None) == (error.attempts, error.transient, error.request_id)
    assert f"no connection (127.0.0.1:{port}: " in str(error)
    assert "node_id" not in str(error)


async def test_unknown_host_is_retried_and_named():
    """A2: a name that is not found is a TransportError that names the host and the setting."""
    async with session_at("https://nosuchhost.invalid") as ief:
        error = await failure_of(ief)

    assert TransportError is type(error)
    assert (2, True) == (error.attempts, error.transient)
    assert "the host name was not found; check region, endpoint and iam_endpoint" in str(error)
    assert "nosuchhost.invalid:443" in str(error)


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog drops SYNs on Linux only")
async def test_swallowed_connection_ends_by_the_connect_timeout():
    """A3: where no SYN is answered, Timeouts(connect=) ends the attempt, without the query."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        callers = [socket.socket() for _ in range(4)]
        for caller in callers:
            caller.setblocking(False)  # noqa: FBT003  that is its signature
            caller.connect_ex(("127.0.0.1", port))
        async with session_at(f"http://127.0.0.1:{port}", timeout=Timeouts(connect=0.1)) as ief:
            error = await failure_of(ief)
            assert_idle(ief)
        for caller in callers:
            caller.close()

    assert TransportError is type(error)
    assert (2, True) == (error.attempts, error.transient)
    assert f"no connection in time, see Timeouts(connect=) (127.0.0.1:{port})" in str(error)
    assert "node_id" not in str(error)


async def test_silent_handshake_ends_by_the_connect_timeout():
    """A3: TLS belongs to the connection: a server that never shakes hands is cut off in time."""
    async with (
        raw_server(lambda *_: asyncio.sleep(9)) as port,
        session_at(f"https://127.0.0.1:{port}", timeout=Timeouts(connect=0.1)) as ief,
    ):
        error = await failure_of(ief)
        assert_idle(ief)

    assert TransportError is type(error)
    assert "no connection in time, see Timeouts(connect=)" in str(error)


def tls_server(name, sent):
    """Run a server with this certificate that notes every byte of HTTP it is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SAMPLES / f"{name}.pem")

    async def handle(reader, _):
        while data := await reader.read(4096):
            sent.append(data)

    return raw_server(handle, context=context)


@pytest.mark.parametrize(
    ("name", "trusted", "detail"),
    [
        pytest.param("other_invalid", False, "self-signed certificate", id="A4-self-signed"),
        pytest.param("other_invalid", True, "Hostname mismatch|IP address mismatch", id="A4-host"),
        pytest.param("expired_localhost", True, "certificate has expired", id="A4-expired"),
    ],
)
async def test_certificate_that_is_not_trusted_is_refused_at_once(name, trusted, detail):
    """A4: a certificate that is self-signed, of another host or expired ends the first attempt."""
    sent = []
    context = ssl.create_default_context(cafile=SAMPLES / f"{name}.pem" if trusted else None)
    async with (
        tls_server(name, sent) as port,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http,
        session_at(f"https://127.0.0.1:{port}", http=http if trusted else None) as ief,
    ):
        with pytest.raises(TransportError, match=detail) as caught:
            await ief.list_pods(node_id="n")
        assert_idle(ief)

    assert TransportError is type(caught.value)
    assert (1, False) == (caught.value.attempts, caught.value.transient)
    assert "the server's certificate is not trusted; for a private CA give http=" in str(
        caught.value
    )
    assert [] == sent


async def test_plain_server_under_https_is_a_tls_failure():
    """A4: a server that speaks no TLS is told apart from one that is not trusted."""

    async def handle(reader, writer):
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with raw_server(handle) as port, session_at(f"https://127.0.0.1:{port}") as ief:
        error = await failure_of(ief)

    assert TransportError is type(error)
    assert "the TLS handshake failed" in str(error)


# ---- no whole answer -----------------------------------------------------------------------------

GARBAGE = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 4
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BODY = b'{"count": 0, "pods": []}'

NOT_WHOLE = {
    "A5": (Fault.drop(), "the connection ended before an answer came"),
    "A6": (Fault.reset(), "the connection ended before an answer came"),
    "A7": (Fault.cut(reset=True), "the body is cut or damaged"),
    "A8": (Fault.cut(), "the body is cut or damaged"),
    "A8-nothing": (Fault.cut(0), "the body is cut or damaged"),
    "A9": (Fault.cut_chunk(), "the body is cut or damaged"),
    "A10-word": (Fault.bad_chunk(), "the answer is not HTTP"),
    "A10-negative": (
        Fault.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + BODY),
        "the answer is not HTTP",
    ),
    "A12": (Fault.around(after=b"and more"), "the answer is not HTTP"),
    "A13-two-lengths": (
        Fault.raw(HEAD + b"Content-Length: 24\r\nContent-Length: 25\r\n\r\n" + BODY),
        "the answer is not HTTP",
    ),
    "A13-length-and-chunks": (
        Fault.raw(
            HEAD + b"Content-Length: 24\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + BODY
        ),
        "the answer is not HTTP",
    ),
    "A13-negative-length": (
        Fault.raw(HEAD + b"Content-Length: -1\r\n\r\n" + BODY),
        "the answer is not HTTP",
    ),
    "A14-garbage": (Fault.raw(b"no such protocol\r\n\r\n"), "the answer is not HTTP"),
    "A14-http-0.9": (Fault.raw(b"<html>HTTP/0.9</html>\r\n"), "the answer is not HTTP"),
    "A14-tls": (Fault.raw(GARBAGE), "the answer is not HTTP"),
    "A15-long": (Fault.headers(("X-Long", "x" * 9_000)), "the answer is not HTTP"),
    "A15-many": (
        Fault.headers(*((f"X-{number}", "x") for number in range(200))),
        "the answer is not HTTP",
    ),
    "A16-99999": (
        Fault.raw(b"HTTP/1.1 99999 Odd\r\nContent-Length: 0\r\n\r\n"),
        "the answer is not HTTP",
    ),
    "A40-cut": (Fault.gzip_cut(), "the body is cut or damaged"),
    "A40-plain": (Fault.gzip_plain(), "the body is cut or damaged"),
    "A40-crc": (Fault.gzip_crc(), "the body is cut or damaged"),
}


@pytest.mark.parametrize(("fault", "words"), NOT_WHOLE.values(), ids=NOT_WHOLE)
async def test_answer_that_is_not_whole_is_asked_for_again(fault, words, fake, ief, fake_clock):
    """A5 to A16, A40: one wire request per attempt, one wait between, then a TransportError."""
    fake.script(fault, fault)
    error = await failure_of(ief)

    assert TransportError is type(error)
    assert 2 == error.attempts == fake.statistics().requests
    assert (True, None) == (error.transient, error.request_id)
    assert not hasattr(error, "status")
    assert f"GET /v3/{PROJECT}/edgemgr/pods: {words} (127.0.0.1:" in str(error)
    assert not re.search(r"\b400\b", str(error))  # which no server sent; a port may have it
    assert ["Not sent again: it was sent 2 times."] == error.__notes__
    assert [0.1] == fake_clock.sleeps
    await assert_well(ief, fake)


@pytest.mark.parametrize("fault", [fault for fault, _ in NOT_WHOLE.values()], ids=NOT_WHOLE)
async def test_page_that_came_in_part_is_thrown_away_whole(fault, fake, ief):
    """A5 to A16, A40: after one such answer the repeat gives the whole page, in 2 attempts."""
    fake.script(fault)
    page = await ief.list_pods(deployment_ids=fake.deployment_ids)

    assert 2 == page.attempts == fake.statistics().requests
    assert [pod["id"] for pod in fake.pods[:10]] == [pod.id for pod in page.items]
    assert (2, 1, 0, 0, 0) == attrs.astuple(ief.statistics())
    assert_idle(ief)


NO_JSON = {
    "A11": Fault.cut(framed=False),
    "A17": Fault.empty(),
    "A17-blank": Fault.body(b" \r\n"),
    "A17-html": Fault.html(),
}


@pytest.mark.parametrize("fault", NO_JSON.values(), ids=NO_JSON)
async def test_200_that_is_no_json_is_retried_and_never_an_empty_list(fault, fake, ief, fake_clock):
    """A11, A17: a 200 that is cut, empty or no JSON is retried, then a PayloadError."""
    fake.script(fault, fault)
    error = await failure_of(ief)

    assert PayloadError is type(error)
    assert 2 == error.attempts == fake.statistics().requests
    assert True is error.transient
    assert error.request_id
    assert error.request_id in str(error)
    assert [0.1] == fake_clock.sleeps

    fake.script(fault)
    page = await ief.list_pods(deployment_ids=fake.deployment_ids)
    assert (2, 10) == (page.attempts, len(page.items))
    await assert_well(ief, fake)


SLOW = {
    "F1": (Fault.drip(0.02), "total", "no complete answer in time, see Timeouts(total=)"),
    "F2": (
        Fault.drip(0.02, head=True),
        "total",
        "no complete answer in time, see Timeouts(total=)",
    ),
    "F3": (Fault.hang(), "read", "the server went silent, see Timeouts(read=)"),
}


@pytest.mark.parametrize(("fault", "setting", "words"), SLOW.values(), ids=SLOW)
async def test_slow_answer_ends_by_a_timeout_that_names_its_setting(
    fault, setting, words, fake, loop_time
):
    """F1 to F3: a drip ends by Timeouts(total=), silence by Timeouts(read=); both are retried."""

    def answer(_):  # and a minute later, after some bytes, let it be given up
        asyncio.get_running_loop().call_later(0.1, loop_time.let_pass, 62)
        return fault

    times = Timeouts(**{"read": 1_000, "total": 1_000, setting: 60})
    async with session_with(fake, retry=QUICK, timeout=times) as ief:
        fake.intercept(answer)
        error = await failure_of(ief)
        fake.intercept(None)

        assert TransportError is type(error)
        assert 2 == error.attempts == fake.statistics().requests
        assert f"{words} (127.0.0.1:" in str(error)
        assert True is error.transient
        await assert_well(ief, fake)


async def test_deadline_in_mid_request_says_how_often_it_was_sent(fake, loop_time):
    """F5: a request that its deadline ends is one TransportError that counts what was sent."""

    def answer(_):
        if fake.statistics().requests == 1:
            return Fault.status(500)
        loop_time.let_pass(21)
        return Fault.hang()

    fake.intercept(answer)
    async with session_with(fake, retry=QUICK, clock=loop_time.clock) as ief:
        late = ief._transport.clock.now() + 20
        with pytest.raises(TransportError, match="the deadline passed after") as caught:
            await ief._transport.get(f"/v3/{PROJECT}/edgemgr/pods?node_id=n", len, deadline=late)
        fake.intercept(None)
        await assert_well(ief, fake)

    assert 2 == caught.value.attempts
    assert 21 <= caught.value.elapsed < 60


# ---- cancelled, and not cancelled ----------------------------------------------------------------


@pytest.mark.parametrize("way", ["connect", "read", "deadline"])
async def test_task_that_was_cancelled_before_gets_time_outs_as_errors(way, fake):
    """In a task that was cancelled and went on, what takes too long is a TransportError as ever."""
    fake.intercept(lambda _: Fault.hang())
    once, begun = RetryPolicy(attempts=1), asyncio.Event()

    async def went_on():
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if way == "deadline":
            async with session_with(fake) as ief:
                await ief.iter_pods(fake.deployment_ids, deadline=0.05).collect()
        elif way == "read":
            async with session_with(fake, timeout=Timeouts(read=0.05), retry=once) as ief:
                await ief.list_pods(node_id="n")
        else:
            times = Timeouts(connect=0.05)
            async with (
                raw_server(lambda *_: asyncio.Event().wait()) as port,
                session_at(f"https://127.0.0.1:{port}", timeout=times, retry=once) as ief,
            ):
                await ief.list_pods(node_id="n")

    task = asyncio.create_task(went_on())
    await begun.wait()
    task.cancel()
    with pytest.raises(TransportError, match=f"deadline|{way}="):
        await task


@pytest.mark.parametrize("again", [False, True])
async def test_cancelled_call_is_cancelled(again, fake):
    """A call that is cancelled raises CancelledError, the first time and later; nothing is left."""
    fake.intercept(lambda _: Fault.hang())
    begun = asyncio.Event()

    async def call():
        if again:
            begun.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        await ief.list_pods(node_id="n")

    async with session_with(fake) as ief:
        task = asyncio.create_task(call())
        if again:
            await begun.wait()
            task.cancel()
        await until(lambda: fake.statistics().in_flight == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_idle(ief)


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


# ---- the server says no --------------------------------------------------------------------------

AT_ONCE = {
    "A16-000": (Fault.status(0, shape="empty"), ApiError),
    "A16-101": (
        Fault.raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        ApiError,
    ),
    "A16-204": (Fault.status(204), ApiError),
    "A16-206": (Fault.body(BODY, status=206), ApiError),
    "A20": (Fault.status(304), ApiError),
    "A21": (Fault.status(400), BadRequestError),
    "A22": (Fault.status(401, shape="apigw"), AuthenticationError),
    "A22-400": (
        Fault.status(400, error_code="IEF.011005", error_msg="Authentication failed"),
        AuthenticationError,
    ),
    "A23": (Fault.status(403, shape="apigw"), PermissionDeniedError),
    "A24": (Fault.status(404, shape="apigw"), NotFoundError),
    "A24-405": (Fault.status(405), ApiError),
    "A26-501": (Fault.status(501), ServerError),
    "A26-505": (Fault.status(505), ServerError),
    "A27-413": (Fault.status(413, shape="apigw"), BadRequestError),
    "A27-414": (Fault.status(414, shape="apigw"), BadRequestError),
    "A27-494": (Fault.status(494, shape="apigw"), BadRequestError),
}
STATUS = {"A16-101": 101}


@pytest.mark.parametrize(("fault", "kind"), AT_ONCE.values(), ids=AT_ONCE)
async def test_answer_that_says_no_is_raised_at_once(
    *, fault, kind, fake, ief, fake_clock, request
):
    """A16, A20 to A24, A26, A27: one request, no wait, the class of the status, what was said."""
    fake.script(fault)
    error = await failure_of(ief)

    assert kind is type(error)
    assert STATUS.get(request.node.callspec.id, fault.answer and fault.answer.status) == (
        error.status
    )
    assert 1 == error.attempts == fake.statistics().requests
    assert (False, None) == (error.transient, error.retry_after)
    assert f"GET /v3/{PROJECT}/edgemgr/pods was answered {error.status}" in str(error)
    assert not hasattr(error, "__notes__")
    assert [] == fake_clock.sleeps
    if fault.literal is None:
        assert error.request_id
        assert f"(request id {error.request_id})" in str(error)
    if error.error_code:
        assert f"{error.status} {error.error_code}: {error.error_msg}" in str(error)
    await assert_well(ief, fake)


async def test_words_of_the_server_are_kept(fake, ief):
    """A21: the code and the words of an error body are attributes and stand in the text."""
    fake.script(Fault.status(400, error_code="IEF.100004", error_msg="offset\n is\tout of spec"))
    error = await failure_of(ief)

    assert (400, "IEF.100004", "offset is out of spec") == (
        error.status,
        error.error_code,
        error.error_msg,
    )
    assert "was answered 400 IEF.100004: offset is out of spec (request id " in str(error)


async def test_wrong_token_ends_a_scan_after_one_request_a_worker(fake):
    """A22, E1: no worker of a scan sends a refused token twice, and the scan ends."""
    endpoint = fake.endpoint
    async with IefSession(PROJECT, credentials=Token("wrong"), endpoint=endpoint) as ief:
        with pytest.raises(AuthenticationError) as caught:
            await ief.iter_pods(fake.deployment_ids, batch_size=1, concurrency=3).collect()
        requests = fake.statistics().requests
        assert_idle(ief)

    assert (401, "APIGW.0301", 1) == (
        caught.value.status,
        caught.value.error_code,
        caught.value.attempts,
    )
    assert requests <= 3
    assert "Get a new token" in str(caught.value)


@pytest.mark.parametrize("status", [413, 414, 494], ids=lambda status: f"A27-{status}")
async def test_request_that_is_too_large_gets_a_hint(status, fake, ief):
    """A27: what is too large to send names the argument that makes it smaller."""
    fake.script(Fault.status(status, shape="html"))

    assert "for 413, 414 and 494 lower batch_size" in str(await failure_of(ief))


async def test_304_is_not_called_a_redirect(fake, ief):
    """A20: a 304 leads nowhere, so its text does not speak of redirects."""
    fake.script(Fault.status(304))

    assert "edirect" not in str(await failure_of(ief))


AGAIN = {
    "A25-408": (Fault.status(408), ApiError),
    "A25-500": (Fault.status(500), ServerError),
    "A25-502": (Fault.status(502, shape="html"), ServerError),
    "A25-503": (Fault.status(503, shape="empty"), ServerError),
    "A25-504": (Fault.status(504, shape="apigw"), ServerError),
    "A28": (Fault.throttle(), ThrottledError),
}


@pytest.mark.parametrize(("fault", "kind"), AGAIN.values(), ids=AGAIN)
async def test_answer_that_says_not_now_is_asked_for_again(fault, kind, fake, ief, fake_clock):
    """A25, A28: a failure that may pass is retried with its own wait, then raised as its class."""
    fake.script(fault, fault)
    error = await failure_of(ief)

    assert kind is type(error)
    assert (fault.answer.status, True, None) == (error.status, error.transient, error.retry_after)
    assert 2 == error.attempts == fake.statistics().requests
    assert ["Not sent again: it was sent 2 times."] == error.__notes__
    assert [1.0 if kind is ThrottledError else 0.1] == fake_clock.sleeps
    assert (2, 1, 2 * (kind is ThrottledError), 0, 0) == attrs.astuple(ief.statistics())

    fake.script(fault)
    page = await ief.list_pods(deployment_ids=fake.deployment_ids)
    assert (2, 10) == (page.attempts, len(page.items))
    await assert_well(ief, fake)


# ---- redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308], ids=lambda status: f"A18-{status}")
async def test_redirect_to_another_server_is_not_followed(status, fake, ief):
    """A18, E12: the target of a redirect is not even connected to, and the text says why."""
    async with FakeIef(token=None) as target:
        fake.script(Fault.redirect(f"{target.endpoint}/v3/{PROJECT}/edgemgr/pods", status))
        error = await failure_of(ief)
        reached = target.statistics()

    assert ApiError is type(error)
    assert (status, False, 1) == (error.status, error.transient, error.attempts)
    assert "Redirects are not followed, as they would carry credentials away" in str(error)
    assert (0, 0, 1) == (reached.connections, reached.requests, fake.statistics().requests)
    await assert_well(ief, fake)


@pytest.mark.parametrize(
    "location",
    [
        pytest.param("/v3/other/edgemgr/pods", id="A19-same-origin"),
        pytest.param(None, id="A19-nowhere"),
        pytest.param("file:///etc/hostname", id="A19-file"),
        pytest.param("http://", id="A19-broken"),
        pytest.param("ftp://127.0.0.1/pods", id="A19-ftp"),
    ],
)
async def test_redirect_to_anywhere_is_not_followed(location, fake, ief):
    """A19: the same server, nowhere, a file: a redirect is an error at once."""
    fake.script(Fault.redirect(location))
    error = await failure_of(ief)

    assert (ApiError, 302, 1) == (type(error), error.status, error.attempts)
    assert 1 == fake.statistics().requests
    await assert_well(ief, fake)


# ---- throttling ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        pytest.param(Fault.throttle(), 1.0, id="A28"),
        pytest.param(Fault.throttle("2"), 2.0, id="A29"),
    ],
)
async def test_throttle_closes_the_gate_for_every_worker(fault, wait, fake, fake_clock):
    """A28, A29: until the wait of one 429 is over no worker of the session sends anything."""
    arrivals = []

    def note(_):
        arrivals.append(fake_clock.time)
        if len(arrivals) == 1:
            fake_clock.hold()
            return fault
        return Fault.slow(0.01)

    fake.intercept(note)
    async with session_with(fake, clock=fake_clock.clock) as ief:
        stream = ief.iter_pods(fake.deployment_ids, batch_size=1, page_size=2, concurrency=3)
        scan = asyncio.create_task(stream.collect())
        await until(lambda: len(arrivals) == 3)
        await asyncio.sleep(0.05)
        while_closed = list(arrivals)
        fake_clock.release()
        pods = await scan
        assert_idle(ief)

    assert [1_000.0] * 3 == while_closed  # those in flight, and none after
    assert all(1_000.0 + wait <= arrival for arrival in arrivals[3:])
    assert {wait} == set(fake_clock.sleeps)
    assert {pod["id"] for pod in fake.pods} == {pod.id for pod in pods}


NOW = 1_800_001_000
RETRY_AFTER = {
    "A30-seconds": (["7"], 7.0, 7.0),
    "A30-zero": (["0"], 0.0, 1.0),
    "A30-blanks": (["  7  "], 7.0, 7.0),
    "A30-date": ([formatdate(NOW + 30, usegmt=True)], 30.0, 30.0),
    "A30-zone": (["Fri, 15 Jan 2027 10:16:50 +0200"], 10.0, 10.0),
    "A30-past": (["Sun, 06 Nov 1994 08:49:37 GMT"], 0.0, 1.0),
    "A30-asctime": (["Fri Jan 15 08:16:50 2027"], 10.0, 10.0),
    "A30-negative": (["-1"], None, 1.0),
    "A30-nan": (["nan"], None, 1.0),
    "A30-inf": (["inf"], None, 1.0),
    "A30-unit": (["5s"], None, 1.0),
    "A30-list": (["5, 6"], None, 1.0),
    "A30-fraction": (["1.5"], None, 1.0),
    "A30-empty": ([""], None, 1.0),
    "A30-two": (["2", "3"], 3.0, 3.0),
    "A30-two-one-bad": (["soon", "3"], 3.0, 3.0),
    "A30-year-0": (["Fri, 00 Jan 0000 00:00:00 GMT"], None, 1.0),
}


@pytest.mark.parametrize(("values", "asked", "slept"), RETRY_AFTER.values(), ids=RETRY_AFTER)
async def test_retry_after_is_read_or_left(*, values, asked, slept, fake, ief, fake_clock):
    """A30: a number or a date is a floor of the wait; what is neither changes nothing."""
    fake.script(Fault.throttle(values), Fault.throttle(values))
    error = await failure_of(ief)

    assert ThrottledError is type(error)
    assert asked == error.retry_after or error.retry_after == pytest.approx(asked, abs=slept)
    assert 2 == error.attempts == fake.statistics().requests
    assert [slept] == fake_clock.sleeps


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        pytest.param("86400", 86_400.0, id="A31"),
        pytest.param("1000000000", 1e9, id="A30-1e9"),
        pytest.param("9" * 400, 999_999_999_999_999_999.0, id="A30-endless"),
        pytest.param(formatdate(NOW + 3_600, usegmt=True), 3_600.0, id="A31-date"),
    ],
)
async def test_wait_above_the_cap_is_not_waited_for(value, asked, fake, ief, fake_clock):
    """A30, A31: a Retry-After above its cap is raised at once, with the value and the reason."""
    fake.script(Fault.throttle(value))
    error = await failure_of(ief)

    assert ThrottledError is type(error)
    assert (429, "APIGW.0308", asked) == (error.status, error.error_code, error.retry_after)
    assert 1 == error.attempts == fake.statistics().requests
    assert [
        "Not sent again: the server asks for a longer wait than RetryPolicy.retry_after_cap."
    ] == error.__notes__
    assert [] == fake_clock.sleeps


async def test_retry_after_counts_for_a_503(fake, ief, fake_clock):
    """A30: a Retry-After is a floor whatever the status it comes with."""
    fake.script(Fault.status(503, headers=[("Retry-After", "4")]))

    assert 2 == (await ief.list_pods(deployment_ids=fake.deployment_ids)).attempts
    assert [4.0] == fake_clock.sleeps


# ---- error bodies --------------------------------------------------------------------------------


async def test_long_error_body_is_read_in_part():
    """A32: of the 64 MiB page of a 503 only the beginning is read, and the 503 is retried."""
    sent = []

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: %d\r\n\r\n<html>" % (64 * MEBIBYTE))
        sent.append(0)
        for _ in range(1024):
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent[-1] += 65_536

    async with raw_server(handle) as port, session_at(f"http://127.0.0.1:{port}") as ief:
        error = await failure_of(ief)
        assert_idle(ief)

    assert (ServerError, 503, 2, True) == (
        type(error),
        error.status,
        error.attempts,
        error.transient,
    )
    assert error.error_msg.startswith("<html>x")
    assert len(error.error_msg) <= 512
    assert 2 == len(sent)
    assert max(sent) < 16 * MEBIBYTE  # what the buffers of two sockets hold


ODD_BODIES = {
    "A33-html": (b"<html><h1>Oh  no</h1>", "", "<html><h1>Oh no</h1>"),
    "A33-text": (b"upstream connect error", "", "upstream connect error"),
    "A33-empty": (b"", "", ""),
    "A33-list": (b'["oh", "no"]', "", '["oh", "no"]'),
    "A33-null": (b"null", "", "null"),
    "A33-number": (b"7", "", "7"),
    "A33-deep": (b"[" * 100_000, "", "[" * 200),
    "A33-binary": (b"\xff\xfe\x00", "", "\ufffd\ufffd\\x00"),
    "A33-nested": (
        b'{"error": {"error": {"code": "X"}}}',
        "",
        '{"error": {"error": {"code": "X"}}}',
    ),
    "A33-empty-object": (b"{}", "", "{}"),
    "A33-odd-types": (b'{"error_code": ["X"], "error_msg": {"a": 1}}', "", None),
    "A34-ief": (b'{"error_code": "IEF.1", "error_msg": "oh"}', "IEF.1", "oh"),
    "A34-iam": (b'{"error": {"code": 403, "message": "oh", "title": "F"}}', "403", "oh"),
    "A34-nested": (b'{"error": {"error_code": "A.1", "error_msg": "oh"}}', "A.1", "oh"),
    "A34-code-message": (b'{"code": "C.1", "message": "oh"}', "C.1", "oh"),
    "A34-camel": (b'{"errorCode": "C.2", "errorMsg": "oh"}', "C.2", "oh"),
    "A34-message-only": (b'{"error_msg": "oh"}', "", "oh"),
    "A34-code-only": (b'{"error_code": "IEF.2"}', "IEF.2", ""),
}


@pytest.mark.parametrize(("body", "code", "words"), ODD_BODIES.values(), ids=ODD_BODIES)
@pytest.mark.parametrize(("status", "kind"), [(403, PermissionDeniedError), (500, ServerError)])
async def test_error_body_of_any_shape_is_understood_or_shown(
    *, status, kind, body, code, words, fake, ief
):
    """A33, A34: the status decides; known shapes give code and words, others their beginning."""
    fake.script(*[Fault.status(status, body=body)] * 2)
    error = await failure_of(ief)

    assert (kind, status) == (type(error), error.status)
    assert (1 if status == 403 else 2) == error.attempts
    assert code == error.error_code
    assert words in {error.error_msg, None}


async def test_long_words_of_the_server_are_shortened(fake, ief):
    """A33: of the server's words 512 characters are kept, of its code and request id a line."""
    long = "é" * 5_000
    fake.script(Fault.status(403, error_code=long, error_msg=long, headers=[("X-Request-Id", "r")]))
    error = await failure_of(ief)

    assert 512 == len(error.error_msg)
    assert len(error.error_code) <= 512
    assert len(str(error)) <= 2_000


async def test_request_id_is_read_from_header_or_body(fake, ief):
    """A34: the header wins; without one the body's request id is taken."""
    body = b'{"error_code": "APIGW.0201", "error_msg": "no", "request_id": "in-body"}'
    head = b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n" % len(body)
    fake.script(Fault.raw(head + b"\r\n" + body))
    fake.script(Fault.raw(head + b"X-Request-Id: in-head\r\n\r\n" + body))

    for expected in ("in-body", "in-head"):
        error = await failure_of(ief)
        assert expected == error.request_id
        assert f"(request id {expected})" in str(error)


IN_A_200 = {
    "A35-401": ("APIGW.0301", AuthenticationError),
    "A35-apig": ("APIG.0307", AuthenticationError),
    "A35-expired": ("IEF.310002", AuthenticationError),
    "A35-403": ("APIGW.0302", PermissionDeniedError),
    "A35-404": ("APIGW.0101", NotFoundError),
    "A35-429": ("APIGW.0308", ThrottledError),
    "A35-ief": ("IEF.100001", ApiError),
}


@pytest.mark.parametrize(("code", "kind"), IN_A_200.values(), ids=IN_A_200)
async def test_200_that_carries_an_error_is_that_error(code, kind, fake, ief):
    """A35: the code of an error body decides where the status lies; it is not read as a list."""
    fake.script(Fault.status(200, error_code=code, error_msg="no such luck"))
    error = await failure_of(ief)

    assert (kind, 200, code) == (type(error), error.status, error.error_code)
    assert 1 == error.attempts == fake.statistics().requests
    assert f"was answered 200 {code}: no such luck (request id {error.request_id})" in str(error)
    await assert_well(ief, fake)


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b"null", b'"pods"', b'{"pods": null}', b'{"count": 0}'], ids=repr
)
async def test_json_of_another_shape_is_a_payload_error_at_once(body, fake, ief):
    """A17: JSON that is no list of pods is refused after one request, never an empty list."""
    fake.script(Fault.body(body))
    error = await failure_of(ief)

    assert PayloadError is type(error)
    assert (1, False) == (error.attempts, error.transient)
    assert error.request_id
    assert error.request_id in str(error)
    await assert_well(ief, fake)


async def test_row_that_cannot_be_structured_names_its_request(fake, ief):
    """A field that no model can hold is a PayloadError with the request id and the attempts."""
    fake.script(Fault.status(500))
    fake.script(Fault.body(b'{"count": 1, "pods": [{"id": "a", "containers": 7}]}'))
    error = await failure_of(ief)

    assert (PayloadError, "pods[0].containers") == (type(error), error.path)
    assert 2 == error.attempts
    assert error.request_id


# ---- connections, cookies, proxies ---------------------------------------------------------------


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n", id="A36-103"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="A36-100"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\n\r\n", id="A36-both"),
    ],
)
async def test_hints_ahead_of_an_answer_are_passed_over(before, fake, ief):
    """A36: 100 and 103 are not the answer; the one behind them is, in one attempt."""
    fake.script(Fault.around(before=before))
    page = await ief.list_pods(deployment_ids=fake.deployment_ids)

    assert (10, 1) == (len(page.items), page.attempts)
    await assert_well(ief, fake)


async def test_connection_that_is_closed_between_pages_costs_one_repeat_at_most(fake, ief):
    """A37: a server that drops its idle connections costs no page, and a repeat at most each."""
    fake.intercept(lambda _: Fault.close_after())
    stream = ief.iter_pods(fake.deployment_ids, page_size=10, concurrency=1)
    pods = await stream.collect()

    assert [pod["id"] for pod in fake.pods] == [pod.id for pod in pods]
    pages = {(seen.query["offset"], seen.query["limit"]) for seen in fake.requests}
    assert len(pages) <= fake.statistics().requests + stream.report.retries <= 2 * len(pages)
    assert_idle(ief)


async def test_connection_is_used_again(fake, ief):
    """A37: calls one after the other share one connection, failures with a whole answer too."""
    fake.script(Fault.status(403), Fault.status(404), Fault.status(400))
    for _ in range(3):
        await failure_of(ief)
    await assert_well(ief, fake)

    assert 1 == fake.statistics().connections


async def test_cookies_are_not_sent_back(fake):
    """A38: a cookie of the server never comes back to it."""
    endpoint = fake.endpoint.replace("127.0.0.1", "localhost")  # aiohttp's own jar skips bare IPs
    async with IefSession(PROJECT, credentials=Token(fake.token), endpoint=endpoint) as session:
        for _ in range(3):
            fake.script(Fault.cookie())
            await session.list_pods(node_id="n")

    assert 3 == len(fake.requests)
    assert not [seen for seen in fake.requests if "cookie" in seen.headers]


async def test_environment_gives_no_proxy_and_no_password(fake, monkeypatch, tmp_path):
    """A39: HTTP_PROXY, ALL_PROXY and netrc of the environment change nothing."""
    called = []

    async def proxy(*_):
        called.append(1)

    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password unknown\n")
    netrc.chmod(0o600)
    async with raw_server(proxy) as port:
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


# ---- encodings and sizes -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gzip", "x-gzip", "GZIP", "X-GZip", " gzip "])
async def test_gzip_has_two_names(name, fake, ief):
    """Both names of gzip are understood, in any case."""
    whole = Fault.gzip()
    fake.script(attrs.evolve(whole, change=lambda real: renamed(whole.change(real), name)))
    page = await ief.list_pods(deployment_ids=fake.deployment_ids)

    assert (10, 1) == (len(page.items), page.attempts)


def renamed(answer, name):
    """Return an answer with its encoding under another name."""
    return answer.with_headers(("Content-Encoding", name))


async def test_compressed_page_is_read(fake, ief):
    """A40: gzip is asked for, and nothing else; a page that comes so is the same page."""
    plain = await ief.list_pods(deployment_ids=fake.deployment_ids)
    fake.script(Fault.gzip())
    packed = await ief.list_pods(deployment_ids=fake.deployment_ids)

    assert plain.raw == packed.raw
    assert plain.items == packed.items
    assert {"gzip"} == {seen.headers["accept-encoding"] for seen in fake.requests}


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "foo", "gzip, gzip", "br, gzip"])
async def test_encoding_that_was_not_asked_for_is_refused_at_once(encoding, fake, ief):
    """A41: a body in an encoding other than gzip is a PayloadError that names it, in one try."""
    fault = Fault.headers(("Content-Encoding", encoding))
    fake.intercept(lambda _: fault)
    error = await failure_of(ief)
    fake.intercept(None)

    assert PayloadError is type(error)
    assert 1 == error.attempts == fake.statistics().requests
    assert False is error.transient
    assert encoding in str(error)
    assert error.request_id
    await assert_well(ief, fake)


async def peak_of(ief):
    """Return the error of a call and the bytes that were allocated meanwhile at most."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        error = await failure_of(ief)
        return error, tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


async def test_gzip_bomb_is_left_at_the_cap(fake):
    """A42: 255 KiB that unpack to 256 MiB take less than twice the cap, and one request."""
    cap = 8 * MEBIBYTE
    bomb = Fault.gzip_bomb()
    async with session_with(fake, retry=TWICE, limits=Limits(max_body_bytes=cap)) as ief:
        await assert_well(ief, fake)
        fake.script(bomb)
        error, peak = await peak_of(ief)

        assert PayloadError is type(error)
        assert (1, False) == (error.attempts, error.transient)
        assert f"longer than {cap} bytes" in str(error)
        assert "Limits(max_body_bytes=)" in str(error)
        assert error.request_id
        assert peak < 2 * cap
        await assert_well(ief, fake)


async def test_gzip_bomb_in_an_error_body_is_left_early(fake):
    """A42: the body of a 403 may be a bomb as well: of that less is unpacked."""
    bomb = Fault.gzip_bomb()
    bomb = attrs.evolve(bomb, answer=attrs.evolve(bomb.answer, status=403))
    async with session_with(fake, retry=TWICE) as ief:
        await assert_well(ief, fake)
        fake.script(bomb)
        error, peak = await peak_of(ief)

        assert (PermissionDeniedError, 1) == (type(error), error.attempts)
        assert peak < 8 * MEBIBYTE
        await assert_well(ief, fake)


async def test_body_of_exactly_the_cap_is_read(fake):
    """A42: the cap itself is allowed, one byte more is not."""
    size = len((await _page(fake)).raw)
    assert size == len((await _page(fake, max_body_bytes=size)).raw)
    with pytest.raises(PayloadError, match=f"longer than {size - 1} bytes"):
        await _page(fake, max_body_bytes=size - 1)


async def _page(fake, **limits):
    async with session_with(fake, limits=Limits(**limits)) as ief:
        return await ief.list_pods(deployment_ids=fake.deployment_ids)


async def test_empty_gzip_members_cost_no_time(fake):
    """A43: of 200,000 empty gzip members those beyond the 64th are not even looked at."""
    members = Fault.gzip_members()
    async with session_with(fake, retry=QUICK) as ief:
        await assert_well(ief, fake)
        fake.script(members)
        error = await failure_of(ief)

        assert TransportError is type(error)
        assert "the body has more than 64 gzip members" in str(error)
        assert (1, False) == (error.attempts, error.transient)
        await assert_well(ief, fake)


async def test_promise_of_ten_gigabytes_is_refused_unread(fake, ief):
    """A44: a length above the cap is refused before the body is read, in one request."""
    fake.script(Fault.headers(("Content-Length", str(10 << 30))))
    error = await failure_of(ief)

    assert PayloadError is type(error)
    assert (1, False) == (error.attempts, error.transient)
    assert "longer than 67108864 bytes" in str(error)
    assert 1 == fake.statistics().requests
    await assert_well(ief, fake)


async def test_unpacking_gives_the_loop_its_turn(fake):
    """A42: while a bomb is unpacked up to the cap, other tasks run."""
    bomb = Fault.gzip_bomb(64 << 20)
    async with session_with(fake, retry=RetryPolicy(attempts=1)) as ief:
        fake.script(bomb)
        narrow = ief.with_options(limits=Limits(max_body_bytes=32 << 20))
        waiting = asyncio.create_task(failure_of(narrow))
        turns = 0
        while not waiting.done():
            turns += 1
            await asyncio.sleep(0)

    assert PayloadError is type(await waiting)
    assert turns > (32 << 20) // (256 << 10)


# ---- a borrowed aiohttp session ------------------------------------------------------------------


async def test_borrowed_session_does_not_bend_the_rules(fake, fake_clock):
    """H13: raise_for_status, base_url, headers and cookies of a borrowed session break nothing."""
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
    """H13: the owner's middlewares see each attempt once; the hidden second GET stays off."""
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
    """H13: what the owner's middleware raises comes as itself, without frames that hold the key."""
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
    """H13: compressed pages are read whether or not a borrowed session unpacks bodies itself."""
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
    """H13: requests wait for a permit, not in the pool, where their time would run."""
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
    """H14: trust_env on a borrowed session is used in part only: one UserWarning says which."""
    async with aiohttp.ClientSession(trust_env=True) as http:
        with pytest.warns(UserWarning, match="trust_env") as caught:
            session_with(fake, http=http)

    assert 1 == len(caught)


async def test_borrowed_session_closed_by_its_owner_is_named(fake):
    """H13: when its owner has closed it, a call says so and sends nothing."""
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


async def test_long_codes_are_bounded(fake, ief):
    """C15, C16: what is kept of an error's code, request id and words is short."""
    body = {"error_code": "c" * 10_000, "request_id": "r" * 10_000, "error_msg": "m" * 10_000}
    fake.script(Fault.body(json.dumps(body).encode(), status=403, headers=[("X-Request-Id", "")]))
    error = await failure_of(ief)

    assert (64, 64, 512) == (
        len(error.error_code),
        len(error.request_id),
        len(error.error_msg),
    )


# ---- the whole tree of aiohttp's errors ----------------------------------------------------------


def subclasses_of(kind):
    """Return a class of aiohttp or the system and all that are derived from it."""
    found = {kind}
    for child in kind.__subclasses__():
        found |= subclasses_of(child)
    return {one for one in found if one.__module__.partition(".")[0] in KNOWN_MODULES}


KNOWN_MODULES = {"aiohttp", "builtins", "ssl", "socket"}
EVERY_FOREIGN_ERROR = sorted(
    {
        *subclasses_of(aiohttp.ClientError),
        *subclasses_of(HttpProcessingError),
        *subclasses_of(OSError),
        *subclasses_of(UnicodeError),
    },
    key=lambda kind: (kind.__module__, kind.__qualname__),
)


def rows_of(kind):
    """Return the numbers of the rows of FAILURES that take an error of this class."""
    return [at for at, (kinds, _) in enumerate(http_exchange.FAILURES) if issubclass(kind, kinds)]


@pytest.mark.parametrize("kind", EVERY_FOREIGN_ERROR, ids=lambda kind: kind.__qualname__)
def test_every_foreign_error_has_its_words(kind):
    """Each class of aiohttp and of the system is caught, and some row of FAILURES speaks for it."""
    assert issubclass(kind, http_exchange.FOREIGN_ERRORS)
    assert rows_of(kind)


def test_every_row_of_words_can_be_reached():
    """No class that a row names is taken by a row above it: the most specific stand first."""
    for at, (kinds, failure) in enumerate(http_exchange.FAILURES):
        for kind in kinds if isinstance(kinds, tuple) else (kinds,):
            assert at == rows_of(kind)[0], failure


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (aiohttp.ServerFingerprintMismatch, "certificate"),
        (aiohttp.ClientHttpProxyError, "proxy"),
        (aiohttp.ClientProxyConnectionError, "no connection"),
        (aiohttp.ClientConnectorCertificateError, "certificate"),
        (aiohttp.ClientConnectorSSLError, "TLS"),
        (aiohttp.ClientConnectorDNSError, "host name"),
        (aiohttp.ServerDisconnectedError, "ended"),
        (ssl.SSLCertVerificationError, "certificate"),
        (ConnectionResetError, "connection"),
    ],
)
def test_words_say_what_the_class_means(kind, words):
    """What a user can act on is told apart: certificates, proxies, names, TLS."""
    assert words in http_exchange.FAILURES[rows_of(kind)[0]][1].value


def test_errors_that_no_repeat_can_mend_are_not_transient():
    """A URL that can't be sent, and a pinned certificate that differs, fail the first attempt."""
    connections = http_exchange.Connections(None)
    url = http_exchange.URL("http://127.0.0.1:9/v3")
    for error in (
        aiohttp.InvalidURL("http://x"),
        aiohttp.ServerFingerprintMismatch(b"a" * 32, b"b" * 32, "x", 1),
        ssl.SSLCertVerificationError("x"),
    ):
        failure = http_exchange._error_of(error, connections, url, "GET /v3", str)
        assert not failure.transient, type(error)
