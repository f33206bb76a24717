"""One exchange over HTTP: encodings, sizes, and what each error of aiohttp means."""

import asyncio
import ssl
import tracemalloc

import aiohttp
import attrs
import pytest
from aiohttp.http_exceptions import HttpProcessingError
from calls import (
    MEBIBYTE,
    QUICK,
    TWICE,
    assert_idle,
    assert_well,
    failure_of,
    patient_session,
    session_at,
)
from conftest import session_with
from weather import serving

from ief_async import (
    Limits,
    PayloadError,
    PermissionDeniedError,
    RetryPolicy,
    ServerError,
    TransportError,
)
from ief_async._http import exchange as http_exchange
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


# ---- error bodies --------------------------------------------------------------------------------
async def test_long_error_body_is_read_in_part():
    """Of the 64 MiB page of a 503 only the beginning is read, and the 503 is retried."""
    sent = []

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: %d\r\n\r\n<html>" % (64 * MEBIBYTE))
        sent.append(0)
        for _ in range(1024):
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent[-1] += 65_536

    async with serving(handle) as port, session_at(f"http://127.0.0.1:{port}") as ief:
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


# ---- connections, cookies, proxies ---------------------------------------------------------------
@pytest.mark.parametrize(
    "before",
    [
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n", id="103"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="100"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\n\r\n", id="both"),
    ],
)
async def test_hints_ahead_of_an_answer_are_passed_over(before, fake, ief):
    """100 and 103 are not the answer; the one behind them is, in one attempt."""
    fake.script(Fault.around(before=before))
    page = await ief.list_pods(deployment_ids=fake.deployment_ids)

    assert (10, 1) == (len(page.items), page.attempts)
    await assert_well(ief, fake)


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
    """Gzip is asked for, and nothing else; a page that comes so is the same page."""
    plain = await ief.list_pods(deployment_ids=fake.deployment_ids)
    fake.script(Fault.gzip())
    packed = await ief.list_pods(deployment_ids=fake.deployment_ids)

    assert plain.raw == packed.raw
    assert plain.items == packed.items
    assert {"gzip"} == {seen.headers["accept-encoding"] for seen in fake.requests}


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "foo", "gzip, gzip", "br, gzip"])
async def test_encoding_that_was_not_asked_for_is_refused_at_once(encoding, fake, ief):
    """A body in an encoding other than gzip is a PayloadError that names it, in one try."""
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
    """255 KiB that unpack to 256 MiB take less than twice the cap, and one request."""
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
    """The body of a 403 may be a bomb as well: of that less is unpacked."""
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
    """The cap itself is allowed, one byte more is not."""
    size = len((await _page(fake)).raw)
    assert size == len((await _page(fake, max_body_bytes=size)).raw)
    with pytest.raises(PayloadError, match=f"longer than {size - 1} bytes"):
        await _page(fake, max_body_bytes=size - 1)


async def _page(fake, **limits):
    async with session_with(fake, limits=Limits(**limits)) as ief:
        return await ief.list_pods(deployment_ids=fake.deployment_ids)


async def test_empty_gzip_members_cost_no_time(fake):
    """Of 200,000 empty gzip members those beyond the 64th are not even looked at."""
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
    """A length above the cap is refused before the body is read, in one request."""
    fake.script(Fault.headers(("Content-Length", str(10 << 30))))
    error = await failure_of(ief)

    assert PayloadError is type(error)
    assert (1, False) == (error.attempts, error.transient)
    assert "longer than 67108864 bytes" in str(error)
    assert 1 == fake.statistics().requests
    await assert_well(ief, fake)


async def test_unpacking_gives_the_loop_its_turn(fake):
    """While a bomb is unpacked up to the cap, other tasks run."""
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
