"""One request from end to end, over real sockets: what each fault becomes, and what it leaves."""

import asyncio
import json
import re
import socket
import ssl
import sys
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path

import aiohttp
import attrs
import pytest
from calls import (
    PROJECT,
    QUICK,
    assert_idle,
    assert_well,
    failure_of,
    patient_session,
    session_at,
)
from conftest import session_with, turns, until
from weather import serving

from ief_async import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    IefSession,
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
from ief_async._http.responses import RULES, is_retried
from ief_async.testing import FakeIef, Fault

SAMPLES = Path(__file__).parents[1] / "samples"


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


# ---- no connection -------------------------------------------------------------------------------


async def test_refused_connection_is_retried_and_named():
    """A refused connection is a TransportError with host and port after all attempts."""
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    async with session_at(f"http://127.0.0.1:{port}", retry=RetryPolicy(attempts=3, base=0)) as ief:
        error = await failure_of(ief)

    assert TransportError is type(error)
    assert (3, True, None) == (error.attempts, error.transient, error.request_id)
    assert f"no connection (127.0.0.1:{port}: " in str(error)
    assert "node_id" not in str(error)


async def test_unknown_host_is_retried_and_named():
    """A name that is not found is a TransportError that names the host and the setting."""
    async with session_at("https://nosuchhost.invalid") as ief:
        error = await failure_of(ief)

    assert TransportError is type(error)
    assert (2, True) == (error.attempts, error.transient)
    assert "the host name was not found; check region, endpoint and iam_endpoint" in str(error)
    assert "nosuchhost.invalid:443" in str(error)


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog drops SYNs on Linux only")
async def test_swallowed_connection_ends_by_the_connect_timeout():
    """Where no SYN is answered, Timeouts(connect=) ends the attempt, without the query."""
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
    """TLS belongs to the connection: a server that never shakes hands is cut off in time."""
    async with (
        serving(lambda *_: asyncio.sleep(9)) as port,
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

    return serving(handle, ssl=context)


@pytest.mark.parametrize(
    ("name", "trusted", "detail"),
    [
        pytest.param("other_invalid", False, "self-signed certificate", id="self-signed"),
        pytest.param("other_invalid", True, "Hostname mismatch|IP address mismatch", id="host"),
        pytest.param("expired_localhost", True, "certificate has expired", id="expired"),
    ],
)
async def test_certificate_that_is_not_trusted_is_refused_at_once(name, trusted, detail):
    """A certificate that is self-signed, of another host or expired ends the first attempt."""
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
    """A server that speaks no TLS is told apart from one that is not trusted."""

    async def handle(reader, writer):
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with serving(handle) as port, session_at(f"https://127.0.0.1:{port}") as ief:
        error = await failure_of(ief)

    assert TransportError is type(error)
    assert "the TLS handshake failed" in str(error)


# ---- no whole answer -----------------------------------------------------------------------------

GARBAGE = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 4
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BODY = b'{"count": 0, "pods": []}'

NOT_WHOLE = {
    "dropped": (Fault.drop(), "the connection ended before an answer came"),
    "reset": (Fault.reset(), "the connection ended before an answer came"),
    "cut-by-reset": (Fault.cut(reset=True), "the body is cut or damaged"),
    "cut": (Fault.cut(), "the body is cut or damaged"),
    "cut-at-once": (Fault.cut(0), "the body is cut or damaged"),
    "cut-chunk": (Fault.cut_chunk(), "the body is cut or damaged"),
    "word": (Fault.bad_chunk(), "the answer is not HTTP"),
    "negative": (
        Fault.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + BODY),
        "the answer is not HTTP",
    ),
    "bytes-behind": (Fault.around(after=b"and more"), "the answer is not HTTP"),
    "two-lengths": (
        Fault.raw(HEAD + b"Content-Length: 24\r\nContent-Length: 25\r\n\r\n" + BODY),
        "the answer is not HTTP",
    ),
    "length-and-chunks": (
        Fault.raw(
            HEAD + b"Content-Length: 24\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + BODY
        ),
        "the answer is not HTTP",
    ),
    "negative-length": (
        Fault.raw(HEAD + b"Content-Length: -1\r\n\r\n" + BODY),
        "the answer is not HTTP",
    ),
    "garbage": (Fault.raw(b"no such protocol\r\n\r\n"), "the answer is not HTTP"),
    "http-0.9": (Fault.raw(b"<html>HTTP/0.9</html>\r\n"), "the answer is not HTTP"),
    "tls": (Fault.raw(GARBAGE), "the answer is not HTTP"),
    "long": (Fault.headers(("X-Long", "x" * 9_000)), "the answer is not HTTP"),
    "many": (
        Fault.headers(*((f"X-{number}", "x") for number in range(200))),
        "the answer is not HTTP",
    ),
    "99999": (
        Fault.raw(b"HTTP/1.1 99999 Odd\r\nContent-Length: 0\r\n\r\n"),
        "the answer is not HTTP",
    ),
    "gzip-cut": (Fault.gzip_cut(), "the body is cut or damaged"),
    "gzip-plain": (Fault.gzip_plain(), "the body is cut or damaged"),
    "gzip-crc": (Fault.gzip_crc(), "the body is cut or damaged"),
}


@pytest.mark.parametrize(("fault", "words"), NOT_WHOLE.values(), ids=NOT_WHOLE)
async def test_answer_that_is_not_whole_is_asked_for_again(fault, words, fake, ief, fake_clock):
    """One wire request per attempt, one wait between, then a TransportError."""
    fake.script(fault, fault)
    error = await failure_of(ief)

    assert TransportError is type(error)
    assert 2 == error.attempts == fake.statistics().requests
    assert (True, None) == (error.transient, error.request_id)
    assert not hasattr(error, "status")
    assert f"GET /v3/{PROJECT}/edgemgr/pods: {words} (127.0.0.1:" in str(error)
    assert not re.search(r"\b400\b", str(error))  # which no server sent; a port may have it
    assert ["Gave up after 2 attempts."] == error.__notes__
    assert [0.1] == fake_clock.sleeps
    await assert_well(ief, fake)


@pytest.mark.parametrize("fault", [fault for fault, _ in NOT_WHOLE.values()], ids=NOT_WHOLE)
async def test_page_that_came_in_part_is_thrown_away_whole(fault, fake, ief):
    """After one such answer the repeat gives the whole page, in 2 attempts."""
    fake.script(fault)
    page = await ief.list_pods(deployment_ids=fake.deployment_ids)

    assert 2 == page.attempts == fake.statistics().requests
    assert [pod["id"] for pod in fake.pods[:10]] == [pod.id for pod in page.items]
    assert (2, 1, 0, 0, 0) == attrs.astuple(ief.statistics())
    assert_idle(ief)


NO_JSON = {
    "unframed": Fault.cut(framed=False),
    "empty": Fault.empty(),
    "blank": Fault.body(b" \r\n"),
    "html": Fault.html(),
}


@pytest.mark.parametrize("fault", NO_JSON.values(), ids=NO_JSON)
async def test_200_that_is_no_json_is_retried_and_never_an_empty_list(fault, fake, ief, fake_clock):
    """A 200 that is cut, empty or no JSON is retried, then a PayloadError."""
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
    "drip": (Fault.drip(0.02), "total", "no complete answer in time, see Timeouts(total=)"),
    "drip-of-the-head": (
        Fault.drip(0.02, head=True),
        "total",
        "no complete answer in time, see Timeouts(total=)",
    ),
    "silence": (Fault.hang(), "read", "the server went silent, see Timeouts(read=)"),
}


@pytest.mark.parametrize(("fault", "setting", "words"), SLOW.values(), ids=SLOW)
async def test_slow_answer_ends_by_a_timeout_that_names_its_setting(
    fault, setting, words, fake, loop_time
):
    """A drip ends by Timeouts(total=), silence by Timeouts(read=); both are retried."""

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
    """A request that its deadline ends is one TransportError that counts what was sent."""

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
                serving(lambda *_: asyncio.Event().wait()) as port,
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


# ---- the server says no --------------------------------------------------------------------------

AT_ONCE = {
    "000": (Fault.status(0, shape="empty"), ApiError),
    "101": (
        Fault.raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        ApiError,
    ),
    "204": (Fault.status(204), ApiError),
    "206": (Fault.body(BODY, status=206), ApiError),
    "304": (Fault.status(304), ApiError),
    "400": (Fault.status(400), BadRequestError),
    "401": (Fault.status(401, shape="apigw"), AuthenticationError),
    "400-of-a-token": (
        Fault.status(400, error_code="IEF.011005", error_msg="Authentication failed"),
        AuthenticationError,
    ),
    "403": (Fault.status(403, shape="apigw"), PermissionDeniedError),
    "404": (Fault.status(404, shape="apigw"), NotFoundError),
    "405": (Fault.status(405), ApiError),
    "501": (Fault.status(501), ServerError),
    "505": (Fault.status(505), ServerError),
    "413": (Fault.status(413, shape="apigw"), BadRequestError),
    "414": (Fault.status(414, shape="apigw"), BadRequestError),
    "494": (Fault.status(494, shape="apigw"), BadRequestError),
}
STATUS = {"101": 101}


@pytest.mark.parametrize(("fault", "kind"), AT_ONCE.values(), ids=AT_ONCE)
async def test_answer_that_says_no_is_raised_at_once(
    *, fault, kind, fake, ief, fake_clock, request
):
    """One request, no wait, the class of the status, what was said."""
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
    """The code and the words of an error body are attributes and stand in the text."""
    fake.script(Fault.status(400, error_code="IEF.100004", error_msg="offset\n is\tout of spec"))
    error = await failure_of(ief)

    assert (400, "IEF.100004", "offset is out of spec") == (
        error.status,
        error.error_code,
        error.error_msg,
    )
    assert "was answered 400 IEF.100004: offset is out of spec (request id " in str(error)


async def test_wrong_token_ends_a_scan_after_one_request_a_worker(fake):
    """No worker of a scan sends a refused token twice, and the scan ends."""
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


@pytest.mark.parametrize("status", [413, 414, 494], ids=lambda status: f"{status}")
async def test_request_that_is_too_large_gets_a_hint(status, fake, ief):
    """What is too large to send names the argument that makes it smaller."""
    fake.script(Fault.status(status, shape="html"))

    assert "for 413, 414 and 494 lower batch_size" in str(await failure_of(ief))


async def test_304_is_not_called_a_redirect(fake, ief):
    """A 304 leads nowhere, so its text does not speak of redirects."""
    fake.script(Fault.status(304))

    assert "edirect" not in str(await failure_of(ief))


AGAIN = {
    "408": (Fault.status(408), ApiError),
    "500": (Fault.status(500), ServerError),
    "502": (Fault.status(502, shape="html"), ServerError),
    "503": (Fault.status(503, shape="empty"), ServerError),
    "504": (Fault.status(504, shape="apigw"), ServerError),
    "429": (Fault.throttle(), ThrottledError),
}


def test_every_retried_status_is_asked_for_again():
    """No status is retried that a server does not send below."""
    assert {one for one in RULES if isinstance(one, int) and is_retried(one)} == {*map(int, AGAIN)}


@pytest.mark.parametrize(("fault", "kind"), AGAIN.values(), ids=AGAIN)
async def test_answer_that_says_not_now_is_asked_for_again(fault, kind, fake, ief, fake_clock):
    """A failure that may pass is retried with its own wait, then raised as its class."""
    fake.script(fault, fault)
    error = await failure_of(ief)

    assert kind is type(error)
    assert (fault.answer.status, True, None) == (error.status, error.transient, error.retry_after)
    assert 2 == error.attempts == fake.statistics().requests
    assert ["Gave up after 2 attempts."] == error.__notes__
    assert [1.0 if kind is ThrottledError else 0.1] == fake_clock.sleeps
    assert (2, 1, 2 * (kind is ThrottledError), 0, 0) == attrs.astuple(ief.statistics())

    fake.script(fault)
    page = await ief.list_pods(deployment_ids=fake.deployment_ids)
    assert (2, 10) == (page.attempts, len(page.items))
    await assert_well(ief, fake)


# ---- redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308], ids=lambda status: f"{status}")
async def test_redirect_to_another_server_is_not_followed(status, fake, ief):
    """The target of a redirect is not even connected to, and the text says why."""
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
        pytest.param("/v3/other/edgemgr/pods", id="same-origin"),
        pytest.param(None, id="nowhere"),
        pytest.param("file:///etc/hostname", id="file"),
        pytest.param("http://", id="broken"),
        pytest.param("ftp://127.0.0.1/pods", id="ftp"),
    ],
)
async def test_redirect_to_anywhere_is_not_followed(location, fake, ief):
    """The same server, nowhere, a file: a redirect is an error at once."""
    fake.script(Fault.redirect(location))
    error = await failure_of(ief)

    assert (ApiError, 302, 1) == (type(error), error.status, error.attempts)
    assert 1 == fake.statistics().requests
    await assert_well(ief, fake)


# ---- throttling ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        pytest.param(Fault.throttle(), 1.0, id="own-wait"),
        pytest.param(Fault.throttle("2"), 2.0, id="servers-wait"),
    ],
)
async def test_throttle_closes_the_gate_for_every_worker(fault, wait, fake, fake_clock):
    """Until the wait of one 429 is over no worker of the session sends anything."""
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
        await until(lambda: not fake.statistics().in_flight)
        await turns()
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
    "seconds": (["7"], 7.0, 7.0),
    "zero": (["0"], 0.0, 1.0),
    "blanks": (["  7  "], 7.0, 7.0),
    "date": ([formatdate(NOW + 30, usegmt=True)], 30.0, 30.0),
    "zone": (["Fri, 15 Jan 2027 10:16:50 +0200"], 10.0, 10.0),
    "past": (["Sun, 06 Nov 1994 08:49:37 GMT"], 0.0, 1.0),
    "asctime": (["Fri Jan 15 08:16:50 2027"], 10.0, 10.0),
    "negative": (["-1"], None, 1.0),
    "nan": (["nan"], None, 1.0),
    "inf": (["inf"], None, 1.0),
    "unit": (["5s"], None, 1.0),
    "list": (["5, 6"], None, 1.0),
    "fraction": (["1.5"], None, 1.0),
    "empty": ([""], None, 1.0),
    "two": (["2", "3"], 3.0, 3.0),
    "two-one-bad": (["soon", "3"], 3.0, 3.0),
    "year-0": (["Fri, 00 Jan 0000 00:00:00 GMT"], None, 1.0),
}


@pytest.mark.parametrize(("values", "asked", "slept"), RETRY_AFTER.values(), ids=RETRY_AFTER)
async def test_retry_after_is_read_or_left(*, values, asked, slept, fake, ief, fake_clock):
    """A number or a date is a floor of the wait; what is neither changes nothing."""
    fake.script(Fault.throttle(values), Fault.throttle(values))
    error = await failure_of(ief)

    assert ThrottledError is type(error)
    assert asked == error.retry_after or error.retry_after == pytest.approx(asked, abs=slept)
    assert 2 == error.attempts == fake.statistics().requests
    assert [slept] == fake_clock.sleeps


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        pytest.param("86400", 86_400.0, id="a-day"),
        pytest.param("1000000000", 1e9, id="1e9"),
        pytest.param("9" * 400, 999_999_999_999_999_999.0, id="endless"),
        pytest.param(formatdate(NOW + 3_600, usegmt=True), 3_600.0, id="a-date"),
    ],
)
async def test_wait_above_the_cap_is_not_waited_for(value, asked, fake, ief, fake_clock):
    """A Retry-After above its cap is raised at once, with the value and the reason."""
    fake.script(Fault.throttle(value))
    error = await failure_of(ief)

    assert ThrottledError is type(error)
    assert (429, "APIGW.0308", asked) == (error.status, error.error_code, error.retry_after)
    assert 1 == error.attempts == fake.statistics().requests
    (note,) = error.__notes__
    assert note.startswith("Gave up after 1 attempt: the server asks for a longer wait than ")
    assert note.endswith(" RetryPolicy.retry_after_cap.")
    assert [] == fake_clock.sleeps


async def test_retry_after_counts_for_a_503(fake, ief, fake_clock):
    """A Retry-After is a floor whatever the status it comes with."""
    fake.script(Fault.status(503, headers=[("Retry-After", "4")]))

    assert 2 == (await ief.list_pods(deployment_ids=fake.deployment_ids)).attempts
    assert [4.0] == fake_clock.sleeps


ODD_BODIES = {
    "html": (b"<html><h1>Oh  no</h1>", "", "<html><h1>Oh no</h1>"),
    "text": (b"upstream connect error", "", "upstream connect error"),
    "empty": (b"", "", ""),
    "list": (b'["oh", "no"]', "", '["oh", "no"]'),
    "null": (b"null", "", "null"),
    "number": (b"7", "", "7"),
    "deep": (b"[" * 100_000, "", "[" * 200),
    "binary": (b"\xff\xfe\x00", "", "\ufffd\ufffd\\x00"),
    "nested": (
        b'{"error": {"error": {"code": "X"}}}',
        "",
        '{"error": {"error": {"code": "X"}}}',
    ),
    "empty-object": (b"{}", "", "{}"),
    "odd-types": (b'{"error_code": ["X"], "error_msg": {"a": 1}}', "", None),
    "ief": (b'{"error_code": "IEF.1", "error_msg": "oh"}', "IEF.1", "oh"),
    "iam": (b'{"error": {"code": 403, "message": "oh", "title": "F"}}', "403", "oh"),
    "nested-code": (b'{"error": {"error_code": "A.1", "error_msg": "oh"}}', "A.1", "oh"),
    "code-message": (b'{"code": "C.1", "message": "oh"}', "C.1", "oh"),
    "camel": (b'{"errorCode": "C.2", "errorMsg": "oh"}', "C.2", "oh"),
    "message-only": (b'{"error_msg": "oh"}', "", "oh"),
    "code-only": (b'{"error_code": "IEF.2"}', "IEF.2", ""),
}


@pytest.mark.parametrize(("body", "code", "words"), ODD_BODIES.values(), ids=ODD_BODIES)
@pytest.mark.parametrize(("status", "kind"), [(403, PermissionDeniedError), (500, ServerError)])
async def test_error_body_of_any_shape_is_understood_or_shown(
    *, status, kind, body, code, words, fake, ief
):
    """The status decides; known shapes give code and words, others their beginning."""
    fake.script(*[Fault.status(status, body=body)] * 2)
    error = await failure_of(ief)

    assert (kind, status) == (type(error), error.status)
    assert (1 if status == 403 else 2) == error.attempts
    assert code == error.error_code
    assert words in {error.error_msg, None}


async def test_long_words_of_the_server_are_shortened(fake, ief):
    """Of the server's words 512 characters are kept, of its code and request id a line."""
    long = "é" * 5_000
    fake.script(Fault.status(403, error_code=long, error_msg=long, headers=[("X-Request-Id", "r")]))
    error = await failure_of(ief)

    assert 512 == len(error.error_msg)
    assert len(error.error_code) <= 512
    assert len(str(error)) <= 2_000


async def test_request_id_is_read_from_header_or_body(fake, ief):
    """The header wins; without one the body's request id is taken."""
    body = b'{"error_code": "APIGW.0201", "error_msg": "no", "request_id": "in-body"}'
    head = b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n" % len(body)
    fake.script(Fault.raw(head + b"\r\n" + body))
    fake.script(Fault.raw(head + b"X-Request-Id: in-head\r\n\r\n" + body))

    for expected in ("in-body", "in-head"):
        error = await failure_of(ief)
        assert expected == error.request_id
        assert f"(request id {expected})" in str(error)


IN_A_200 = {
    "401": ("APIGW.0301", AuthenticationError),
    "apig": ("APIG.0307", AuthenticationError),
    "expired": ("IEF.310002", AuthenticationError),
    "403": ("APIGW.0302", PermissionDeniedError),
    "404": ("APIGW.0101", NotFoundError),
    "429": ("APIGW.0308", ThrottledError),
    "ief": ("IEF.100001", ApiError),
}


@pytest.mark.parametrize(("code", "kind"), IN_A_200.values(), ids=IN_A_200)
async def test_200_that_carries_an_error_is_that_error(code, kind, fake, ief):
    """The code of an error body decides where the status lies; it is not read as a list."""
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
    """JSON that is no list of pods is refused after one request, never an empty list."""
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


async def test_long_codes_are_bounded(fake, ief):
    """What is kept of an error's code, request id and words is short."""
    body = {"error_code": "c" * 10_000, "request_id": "r" * 10_000, "error_msg": "m" * 10_000}
    fake.script(Fault.body(json.dumps(body).encode(), status=403, headers=[("X-Request-Id", "")]))
    error = await failure_of(ief)

    assert (64, 64, 512) == (
        len(error.error_code),
        len(error.request_id),
        len(error.error_msg),
    )
