"""Which request gets a `Fault`, and what each fault puts on the wire."""

import asyncio
import gzip
import json
import socket
import zlib
from collections import Counter

import aiohttp
import attrs
import pytest
from fake_client import ask, connect, one_answer, request_bytes, settled, target, wire

from ief_async.testing import DEFAULT_MIX, FakeIef, Fault

pytestmark = pytest.mark.once  # of the fake server, which no interpreter changes

# --- who gets a fault ---


async def test_script_is_used_up_in_order(fake_ief):
    """Scripted faults hit the next requests, one each; later requests get the normal answer."""
    fake_ief.script(Fault.status(500), Fault.status(403))
    fake_ief.script(Fault.throttle())
    assert [(await ask(fake_ief))[0] for _ in range(4)] == [500, 403, 429, 200]
    assert fake_ief.statistics().faults == 3


async def test_hook_decides_by_request(fake_ief):
    """The hook sees the request; None is the normal answer; the script comes before it."""
    fake_ief.intercept(lambda seen: Fault.status(502) if "offset=3" in seen.raw_query else None)
    fake_ief.script(Fault.status(500))
    offsets = (3, 3, 0, 3)
    statuses = [(await ask(fake_ief, deployment_id="d", offset=o))[0] for o in offsets]
    assert statuses == [500, 502, 200, 502]
    fake_ief.intercept(None)
    assert (await ask(fake_ief, deployment_id="d", offset=3))[0] == 200


async def test_broken_hook_is_no_secret(fake_ief, caplog):
    """A hook that raises is a 500, and its traceback is logged."""
    fake_ief.intercept(lambda seen: seen.nothing)
    assert (await ask(fake_ief))[0] == 500
    assert "AttributeError" in caplog.text
    assert fake_ief.statistics().in_flight == 0


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
async def test_fault_rate_is_never_exceeded(rate):
    """At no moment is the share of faults above the rate; in the end it is close to it."""
    faults = [Fault.status(503), Fault.empty()]
    async with (
        FakeIef(fault_rate=rate, faults=faults, seed=3) as fake,
        aiohttp.ClientSession() as http,
    ):
        for sent in range(1, 201):
            async with http.get(fake.endpoint + target(fake)):
                assert fake.statistics().faults <= rate * sent + 1e-6
        assert fake.statistics().faults >= 200 * rate - 6


async def test_fault_rate_is_seeded():
    """The same seed draws the same faults for the same requests, another seed others."""
    runs = []
    for seed in (1, 1, 2):
        faults = [Fault.status(status) for status in range(500, 510)]
        async with FakeIef(fault_rate=0.3, faults=faults, seed=seed) as fake:
            runs.append([(await ask(fake))[0] for _ in range(40)])
    assert runs[0] == runs[1] != runs[2]


def test_default_mix():
    """The default mix has one fault of each kind that a client should retry."""
    kinds = Counter(fault.name for fault in DEFAULT_MIX)
    expected = {"status": 4, "throttle": 1, "drop": 1, "reset": 1, "cut": 1, "html": 1, "empty": 1}
    assert kinds == expected


# --- faults: answers ---


@pytest.mark.parametrize(
    ("shape_name", "status", "expected"),
    [
        ("ief", 500, {"error_code": "E", "error_msg": "M"}),
        ("iam", 401, {"error": {"code": 401, "message": "M", "title": "Unauthorized"}}),
        ("iam_v30", 403, {"error_msg": "M", "error_code": "E"}),
        ("code_message", 400, {"code": "E", "message": "M"}),
        ("message_only", 409, {"error_msg": "M"}),
    ],
)
async def test_error_shapes(fake_ief, shape_name, status, expected):
    """Each shape of an error body is the documented one."""
    fake_ief.script(Fault.status(status, shape=shape_name, error_code="E", error_msg="M"))
    answered, headers, body = await ask(fake_ief)
    assert (answered, body) == (status, expected)
    assert headers["X-Request-Id"]


async def test_gateway_shape_names_its_request(fake_ief):
    """The gateway's shape carries the id of the header in its body."""
    fake_ief.script(Fault.status(403, shape="apigw"))
    _, headers, body = await ask(fake_ief)
    assert body["request_id"] == headers["X-Request-Id"]
    assert body["error_code"] == "APIGW.0302"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.status(500), "IEF.100158"),
        (Fault.status(503), "IEF.310003"),
        (Fault.status(502, shape="apigw"), "APIGW.0201"),
        (Fault.status(401, shape="apigw"), "APIGW.0301"),
        (Fault.status(401, shape="iam_v30"), "IAM.0011"),
    ],
)
async def test_usual_codes(fake_ief, fault, code):
    """An error without a given code has the usual one of its status."""
    fake_ief.script(fault)
    assert (await ask(fake_ief))[2]["error_code"] == code


async def test_bodies_that_are_no_json(fake_ief):
    """An error can have HTML, nothing or any bytes as its body, and any headers."""
    fake_ief.script(
        Fault.status(502, shape="html"),
        Fault.status(503, shape="empty"),
        Fault.status(500, body=b"oh", headers=[("X-One", "1"), ("Content-Type", "text/plain")]),
    )
    html, empty, given = [await ask(fake_ief) for _ in range(3)]
    assert html[0] == 502
    assert html[1]["Content-Type"].startswith("text/html")
    assert html[2].startswith(b"<html>")
    assert (empty[0], empty[2]) == (503, b"")
    assert "Content-Type" not in empty[1]
    assert (given[0], given[2], given[1]["X-One"]) == (500, b"oh", "1")
    assert given[1].getall("Content-Type") == ["text/plain"]


@pytest.mark.parametrize("status", [0, 101, 204, 206, 304, 494, 501, 505, 99999])
async def test_odd_statuses(fake_ief, status):
    """Any number can be the status; those that have no body get none."""
    fake_ief.script(attrs.evolve(Fault.status(status), end="close"))
    head, _, body = (await wire(fake_ief)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %03d " % status)
    assert (body == b"") == (status in {101, 204, 304})
    assert (b"Content-Length" in head) == bool(body)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, []), ("2", ["2"]), ("", [""]), (("1", "Wed, 21 Oct 2099 07:28:00 GMT"), None)],
)
async def test_throttle(fake_ief, given, expected):
    """A 429 has the ``Retry-After`` headers that were asked for, word for word."""
    fake_ief.script(Fault.throttle(given))
    status, headers, body = await ask(fake_ief)
    assert (status, body["error_code"]) == (429, "APIGW.0308")
    assert headers.getall("Retry-After", []) == (list(given) if expected is None else expected)


@pytest.mark.parametrize("location", ["http://127.0.0.1:9/x", "file:///x", None])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect(fake_ief, location, status):
    """A redirect has the given location, or none."""
    fake_ief.script(Fault.redirect(location, status))
    answered, headers, body = await ask(fake_ief)
    assert (answered, headers.get("Location"), body) == (status, location, b"")


async def test_login_page_and_nothing(fake_ief):
    """A 200 can be HTML, and it can be empty while it says that it is JSON."""
    fake_ief.script(Fault.html(), Fault.empty())
    html, empty = await ask(fake_ief), await ask(fake_ief)
    assert (html[0], html[1]["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"Please log in" in html[2]
    assert (empty[0], empty[1]["Content-Type"], empty[2]) == (200, "application/json", b"")


async def test_other_body(fake_ief):
    """A given body is sent byte for byte, with the given type, status and headers."""
    data = b'\xef\xbb\xbf{"request":"{request_id}"}\xff'
    fake_ief.script(
        Fault.body(data),
        Fault.body(b"null", status=203, content_type=None, headers=[("X-A", "b")]),
        Fault.body(b"{}", content_type="application/json; charset=utf-16"),
    )
    first, second, third = [await ask(fake_ief) for _ in range(3)]
    assert first[2] == data
    assert (second[0], second[1]["X-A"], second[2]) == (203, "b", None)
    assert "Content-Type" not in second[1]
    assert third[1]["Content-Type"].endswith("utf-16")


async def test_unframed_body(fake_ief):
    """An unframed body has no length and ends with its connection."""
    fake_ief.script(Fault.body(b'{"count":', framed=False))
    head, _, body = (await wire(fake_ief)).partition(b"\r\n\r\n")
    assert b"Content-Length" not in head
    assert b"Connection: close" in head
    assert body == b'{"count":'


async def test_edited_answer(fake_ief):
    """A changed body is sent with a length that fits it."""
    fake_ief.script(Fault.edit(lambda body: body.replace(b'"count":10', b'"count":4711')))
    _, _, body = await ask(fake_ief)
    assert (body["count"], len(body["pods"])) == (4711, 10)


async def test_headers_and_cookie(fake_ief):
    """A fault adds headers to the real answer, or replaces its own."""
    fake_ief.script(
        Fault.cookie(), Fault.headers(("content-type", "text/plain"), ("A", "x" * 9000))
    )
    status, headers, body = await ask(fake_ief)
    assert (status, headers["Set-Cookie"], body["count"]) == (200, "lb=7; Path=/", 10)
    reader, writer = await connect(fake_ief)
    writer.write(request_bytes(fake_ief))
    head, _ = await one_answer(reader)
    writer.close()
    assert head.lower().count(b"content-type:") == 1
    assert b"content-type: text/plain\r\nA: " + b"x" * 9000 + b"\r\n" in head


async def test_length_can_lie(fake_ief):
    """A given ``Content-Length`` is sent as it is, even ten gigabytes for an empty body."""
    fake_ief.script(Fault.body(b"", headers=[("Content-Length", "10000000000")]))
    reader, writer = await connect(fake_ief)
    writer.write(request_bytes(fake_ief))
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert head.count(b"Content-Length") == 1
    assert b"Content-Length: 10000000000\r\n" in head


# --- faults: the wire ---


async def test_raw_bytes(fake_ief):
    """Nothing but the raw bytes is sent, and with ``close=False`` the connection stays open."""
    garbage = b"\x16\x03\x01 no HTTP at all"
    fake_ief.script(Fault.raw(garbage), Fault.raw(b"HTTP/1.1 103 Early Hints\r\n\r\n", close=False))
    assert await wire(fake_ief) == garbage
    reader, writer = await connect(fake_ief)
    writer.write(request_bytes(fake_ief))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 103 Early Hints\r\n\r\n"
    writer.write(request_bytes(fake_ief))
    assert (await one_answer(reader))[0].startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


async def test_bytes_around_the_answer(fake_ief):
    """Bytes can precede the real answer and follow its stated length."""
    hints = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    fake_ief.script(attrs.evolve(Fault.around(before=hints, after=b"more"), end="close"))
    got = await wire(fake_ief)
    assert got.startswith(hints + b"HTTP/1.1 200 OK\r\n")
    head, _, rest = got.removeprefix(hints).partition(b"\r\n\r\n")
    length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
    assert json.loads(rest[:length])["count"] == 10
    assert rest[length:] == b"more"


async def test_drop_and_reset(fake_ief):
    """A drop is a FIN before any byte, a reset is an RST."""
    fake_ief.script(Fault.drop(), Fault.reset())
    assert await wire(fake_ief) == b""
    with pytest.raises(ConnectionResetError):
        await wire(fake_ief)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
async def test_cut(fake_ief, keep):
    """A cut answer promises more than it sends: a share of the real body, then FIN."""
    fake_ief.script(Fault.cut(keep))
    head, _, body = (await wire(fake_ief)).partition(b"\r\n\r\n")
    length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
    assert len(body) == int(length * keep) < length
    assert b'{"count":10,"pods":['.startswith(body[:20])


async def test_cut_by_reset(fake_ief):
    """A cut can be a reset in mid-body: some of it arrives, then the connection is gone."""
    fake_ief.script(Fault.cut(reset=True))
    reader, writer = await connect(fake_ief)
    writer.write(request_bytes(fake_ief))
    assert await reader.readuntil(b"\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_large_cut_by_reset(fake_ief):
    """Of a body that fills every buffer, most of what is kept arrives before the reset."""
    fake_ief.script(attrs.evolve(Fault.body(b"x" * 20_000_000), keep=0.5, end="reset"))
    received = []
    with (
        socket.create_connection(fake_ief.endpoint[7:].split(":")) as client,
        pytest.raises(ConnectionResetError),
    ):
        await _receive(client, request_bytes(fake_ief), received)
    assert 4_000_000 < sum(received) < 10_001_000


async def _receive(client, request, received):
    client.settimeout(0)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, request)
    while size := len(await loop.sock_recv(client, 1 << 16)):
        received.append(size)


async def test_cut_without_a_length(fake_ief):
    """A cut answer without a length looks whole: only its JSON is not."""
    fake_ief.script(Fault.cut(framed=False))
    status, headers, body = await ask(fake_ief)
    assert (status, "Content-Length" in headers) == (200, False)
    assert body.startswith(b'{"count":10')


async def test_chunked_faults(fake_ief):
    """Chunks can lack the last one, and a size can be something else than a number."""
    fake_ief.script(Fault.cut_chunk(), Fault.bad_chunk())
    for _ in range(2):
        head, _, body = (await wire(fake_ief)).partition(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        assert b"Content-Length" not in head
        size, _, data = body.partition(b"\r\n")
        if len(data) > int(size, 16):
            assert data[int(size, 16) :] == b"\r\nzz\r\n"
            break
        assert 0 < len(data) < int(size, 16)
    else:
        pytest.fail("no bad chunk came")


async def test_close_after(fake_ief):
    """The answer is whole and does not announce that the connection closes then."""
    fake_ief.script(Fault.close_after())
    reader, writer = await connect(fake_ief)
    writer.write(request_bytes(fake_ief))
    head, body = await one_answer(reader)
    assert b"connection" not in head.lower()
    assert json.loads(body)["count"] == 10
    assert await reader.read() == b""
    writer.close()


# --- faults: compression ---


async def body_of(fake, fault):
    """Head and body of a fault, as on the wire."""
    fake.script(fault)
    reader, writer = await connect(fake)
    writer.write(request_bytes(fake))
    answer = await one_answer(reader)
    writer.close()
    return answer


async def test_gzip_right_and_wrong(fake_ief):
    """Compressed bodies are right, cut under a fitting length, plain, or fail their checksum."""
    head, body = await body_of(fake_ief, Fault.gzip())
    assert b"Content-Encoding: gzip\r\n" in head
    real = gzip.decompress(body)
    assert json.loads(real)["count"] == 10
    _, half = await body_of(fake_ief, Fault.gzip_cut())
    assert half == body[: len(body) // 2]
    head, plain = await body_of(fake_ief, Fault.gzip_plain())
    assert b"Content-Encoding: gzip\r\n" in head
    assert plain == real
    _, wrong = await body_of(fake_ief, Fault.gzip_crc())
    with pytest.raises(gzip.BadGzipFile, match="CRC"):
        gzip.decompress(wrong)
    assert zlib.decompress(wrong[10:-8], wbits=-15) == real


@pytest.mark.parametrize("size", [0, 5, 1 << 20, 3_000_001])
async def test_bomb_is_valid(fake_ief, size):
    """The bomb unpacks to exactly its size, checksum and all."""
    _, bomb = await body_of(fake_ief, Fault.gzip_bomb(size))
    assert gzip.decompress(bomb) == b" " * size


async def test_bomb_is_small(fake_ief):
    """256 MiB of blanks are less than 400 KiB on the wire."""
    _, bomb = await body_of(fake_ief, Fault.gzip_bomb())
    assert len(bomb) < 400 << 10
    assert int.from_bytes(bomb[-4:], "little") == 256 << 20


async def test_gzip_members(fake_ief):
    """Very many empty gzip members are one body."""
    _, body = await body_of(fake_ief, Fault.gzip_members(1000))
    assert body.count(b"\x1f\x8b\x08") == 1000
    assert gzip.decompress(body) == b""


# --- faults: time ---


async def test_hang(loop_time):
    """A hanging request gets no byte within a day, while other requests are answered."""
    async with FakeIef() as fake:
        fake.script(Fault.hang())
        reader, writer = await connect(fake)
        writer.write(request_bytes(fake))
        await settled(lambda: fake.statistics().in_flight == 1)
        read = asyncio.create_task(reader.read(1))
        loop_time.let_pass(86_400)
        assert (await ask(fake))[0] == 200
        assert not read.done()
        read.cancel()
        writer.close()
        await settled(lambda: fake.statistics().in_flight == 0)


async def test_slow(loop_time):
    """A slow answer is the real one, when its delay is over and not before."""
    async with FakeIef() as fake:
        fake.script(Fault.slow(100))
        slow = asyncio.create_task(ask(fake))
        await settled(lambda: fake.statistics().in_flight == 1)
        loop_time.let_pass(90)
        assert (await ask(fake))[0] == 200
        assert not slow.done()
        loop_time.let_pass(10)
        assert (await slow)[2]["count"] == 10


@pytest.mark.parametrize("head", [False, True])
async def test_drip(head, loop_time):
    """A dripping answer comes byte by byte: the body after a whole head, or all of it."""
    async with FakeIef() as fake:
        fake.script(Fault.drip(60, head=head))
        reader, writer = await connect(fake)
        writer.write(request_bytes(fake))
        if not head:
            assert await reader.readuntil(b"\r\n\r\n")
        for _ in range(5):
            assert len(await reader.read(1000)) == 1
            loop_time.let_pass(60)
        writer.close()


async def test_drip_is_whole_in_the_end():
    """Byte by byte, the real answer arrives."""
    async with FakeIef([{"id": "a"}]) as fake:
        fake.script(Fault.drip(0, head=True))
        assert (await ask(fake))[2] == {"count": 1, "pods": [{"id": "a"}]}


def test_faults_are_values():
    """Equal faults are equal, frozen, and print their name but not their bytes."""
    assert Fault.cut() == Fault.cut() != Fault.cut(0.1)
    assert "drop" in repr(Fault.drop())
    assert len(repr(Fault.gzip_members())) < 200
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Fault.drop().name = "x"
