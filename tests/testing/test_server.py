"""The life of a `FakeIef`, and what it counts."""

import ast
import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
import threading
from importlib.metadata import entry_points
from pathlib import Path

import attrs
import pytest
from fake_client import ask, connect, one_answer, request_bytes, settled

from ief_async import IefSession, Token
from ief_async.testing import FakeIef, Fault

pytestmark = pytest.mark.once  # of the fake server, which no interpreter changes

# --- the fixture and the life of a server ---


async def test_fixture_gives_a_running_server(fake_ief):
    """The server of the fixture is running, with the default arguments."""
    status, _, body = await ask(fake_ief)
    assert (status, body["count"], len(body["pods"])) == (200, 10, 10)


@pytest.mark.fake_ief(3, deployments=1, token=None)
async def test_marker_gives_the_arguments(fake_ief):
    """Positional and keyword arguments of the marker reach the server."""
    assert (len(fake_ief.pods), len(fake_ief.deployment_ids), fake_ief.token) == (3, 1, None)


def test_fixture_runs_in_strict_mode(tmp_path):
    """The fixture works in the strict mode of pytest-asyncio, and the marker is registered."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.asyncio\n"
        "@pytest.mark.fake_ief(pods=2)\n"
        "async def test_it(fake_ief):\n"
        "    assert len(fake_ief.pods) == 2 and fake_ief.endpoint\n"
    )
    installed = any(entry.name == "ief_async" for entry in entry_points(group="pytest11"))
    options = ["--strict-markers", "-W", "error", "-q", "--rootdir=."]
    options += ["-o", "asyncio_default_fixture_loop_scope=function"]
    options += [] if installed else ["-p", "ief_async.testing"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_it.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_needs_no_pytest():
    """Outside pytest the module imports neither pytest nor any other module of ours."""
    code = (
        "import sys, types\n"
        "package = types.ModuleType('ief_async'); package.__path__ = ['ief_async']\n"
        "sys.modules['ief_async'] = package\n"
        "import ief_async.testing\n"
        "print(sorted(n for n in sys.modules if n.split('.')[0] in ('ief_async', 'pytest')))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=root, capture_output=True, check=True
    )
    loaded = ast.literal_eval(done.stdout.decode())
    assert "ief_async.testing" in loaded
    assert [n for n in loaded if not n.startswith("ief_async.testing")] == ["ief_async"]


async def test_starting_twice_is_refused(fake_ief):
    """A second start raises, and the server goes on running."""
    with pytest.raises(RuntimeError, match="running already"):
        await fake_ief.start()
    assert (await ask(fake_ief))[0] == 200


async def test_endpoint_needs_a_start():
    """Before the start and after the stop there is no endpoint, and the error says what to do."""
    fake = FakeIef()
    with pytest.raises(RuntimeError, match="async with"):
        _ = fake.endpoint
    await fake.stop()
    async with fake:
        assert fake.endpoint.startswith("http://127.0.0.1:")
    with pytest.raises(RuntimeError):
        _ = fake.endpoint


async def test_a_stopped_server_starts_again():
    """A stopped server can be started again, and its counters go on."""
    fake = FakeIef()
    for turn in (1, 2):
        async with fake:
            await ask(fake)
        assert (fake.statistics().requests, fake.statistics().connections) == (turn, turn)


async def test_stop_is_prompt_and_leaves_nothing(caplog):
    """Hanging requests, open connections and unread answers do not delay the stop."""
    before = asyncio.all_tasks()
    fake = FakeIef()
    await fake.start()
    fake.script(Fault.hang(), Fault.drip(), Fault.body(b" " * 30_000_000), Fault.slow(60))
    pairs = [await connect(fake) for _ in range(6)]
    for _, writer in pairs[:4]:
        writer.write(request_bytes(fake))
    await settled(lambda: fake.statistics().requests == 4)
    stop, turns = asyncio.create_task(fake.stop()), 0
    while not stop.done():  # meanwhile the loop never rests: who waits lets it go round very often
        turns += 1
        await asyncio.sleep(0)
    assert turns < 100
    assert asyncio.all_tasks() == before
    assert fake.statistics().connections_open == fake.statistics().in_flight == 0
    for _, writer in pairs:
        writer.close()
    assert not [r for r in caplog.records if r.name != "asyncio" or r.levelno > logging.DEBUG]


@pytest.mark.parametrize("turns", range(5))
async def test_stop_during_an_arrival(turns):
    """A connection that is just being accepted is closed by the stop."""
    before = asyncio.all_tasks()
    fake = FakeIef()
    await fake.start()
    with socket.create_connection(fake.endpoint[7:].split(":")) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        await fake.stop()
        for _ in range(5):
            await asyncio.sleep(0)
        assert fake.statistics().connections_open == 0
        assert asyncio.all_tasks() == before
        client.settimeout(1)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""


async def test_leaving_client_ends_its_request(fake_ief, caplog):
    """The request of a client that leaves is no longer in flight, and nothing is logged."""
    fake_ief.script(Fault.hang(), Fault.drip(0.001, head=True), Fault.slow(9))
    pairs = [await connect(fake_ief) for _ in range(3)]
    for _, writer in pairs:
        writer.write(request_bytes(fake_ief))
    await settled(lambda: fake_ief.statistics().in_flight == 3)
    for _, writer in pairs:
        writer.transport.abort()
    await settled(lambda: fake_ief.statistics().in_flight == 0)
    assert fake_ief.statistics().connections_open == 0
    assert not [r for r in caplog.records if r.levelno > logging.DEBUG]


# --- on the wire ---


async def test_answer_on_the_wire(fake_ief):
    """An answer is compact and states its length, and the connection stays open."""
    reader, writer = await connect(fake_ief)
    ids = set()
    for _ in range(3):
        writer.write(request_bytes(fake_ief))
        head, body = await one_answer(reader)
        lines = head.decode().lower().split("\r\n")
        assert lines[0] == "http/1.1 200 ok"
        assert "content-type: application/json" in lines
        ids.update(line for line in lines if line.startswith("x-request-id: "))
        assert b'{"count":10,"pods":[{"id":"' == body[:27]
    writer.close()
    assert len(ids) == 3
    assert fake_ief.statistics().connections == 1


async def test_connection_close_is_obeyed(fake_ief):
    """``Connection: close`` of a client is obeyed, and repeated in the answer."""
    reader, writer = await connect(fake_ief)
    writer.write(request_bytes(fake_ief)[:-2] + b"Connection: close\r\n\r\n")
    head, _ = await one_answer(reader)
    assert b"connection: close" in head.lower()
    assert await reader.read() == b""
    writer.close()


# --- what the server saw ---


async def test_requests_are_kept_as_sent(fake_ief):
    """A request is kept with its escapes, its decoded query and its lower-case headers."""
    before = asyncio.get_running_loop().time()
    reader, writer = await connect(fake_ief)
    writer.write(
        b"GET /v3/%7Bx/../edgemgr/pods?deployment_ids=a%2Cb&limit= HTTP/1.1\r\n"
        b"Host: h\r\nX-Two: 1\r\nX-TWO: 2\r\n\r\n"
    )
    await one_answer(reader)
    writer.close()
    seen = fake_ief.requests[-1]
    assert (seen.method, seen.path) == ("GET", "/v3/%7Bx/../edgemgr/pods")
    assert seen.raw_query == "deployment_ids=a%2Cb&limit="
    assert seen.query == {"deployment_ids": "a,b", "limit": ""}
    assert seen.headers == {"host": "h", "x-two": "1, 2"}
    assert before <= seen.at <= asyncio.get_running_loop().time()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        seen.path = "/"


async def test_a_printed_request_shows_no_headers(fake_ief):
    """The ``repr`` of a request does not show the token."""
    await ask(fake_ief)
    assert fake_ief.token not in repr(fake_ief.requests)


async def test_requests_are_bounded(fake_ief, monkeypatch):
    """Old requests are dropped, half of the bound at a time; the counters stay."""
    monkeypatch.setattr("ief_async.testing._server._REMEMBERED_REQUESTS", 4)
    for limit in range(1, 8):
        await ask(fake_ief, deployment_id="d", limit=limit)
    assert [seen.query["limit"] for seen in fake_ief.requests] == ["5", "6", "7"]
    assert fake_ief.statistics().requests == 7


async def test_peaks_and_connections(held_back):
    """The peak in flight and the connections are counted, and connections are numbered."""
    async with FakeIef() as fake:
        fake.script(*[Fault.slow(1)] * 5)
        asked = asyncio.gather(*(ask(fake) for _ in range(5)))
        await settled(lambda: fake.statistics().in_flight == 5)
        held_back.set()
        await asked
        await settled(lambda: fake.statistics().connections_open == 0)
        await ask(fake)
        seen = fake.statistics()
    assert (seen.requests, seen.in_flight, seen.in_flight_peak) == (6, 0, 5)
    assert (seen.connections, seen.faults) == (6, 5)
    assert {request.connection for request in fake.requests} == {1, 2, 3, 4, 5, 6}


async def test_idle_connections_count(fake_ief):
    """A connection counts as soon as it is open, even without a request."""
    _, writer = await connect(fake_ief)
    await settled(lambda: fake_ief.statistics().connections_open == 1)
    writer.close()
    await settled(lambda: fake_ief.statistics().connections_open == 0)
    assert fake_ief.statistics().connections == 1


async def test_latency(loop_time):
    """Each answer takes the latency, and concurrent requests wait at the same time."""
    async with FakeIef(latency=100) as fake:
        asked = asyncio.gather(*(ask(fake) for _ in range(4)))
        await settled(lambda: fake.statistics().in_flight == 4)
        loop_time.let_pass(90)
        for _ in range(100):  # turns of the loop, in which nothing comes
            await asyncio.sleep(0)
        assert fake.statistics().in_flight == 4
        loop_time.let_pass(10)
        await asked


# ---- in a thread of its own --------------------------------------------------------------------


def test_a_fake_in_a_thread_of_its_own():
    """With plain `with` the server has a thread, which ends with the block."""
    threads = threading.active_count()

    async def read(fake):
        async with IefSession(
            fake.project_id, credentials=Token(fake.token), endpoint=fake.endpoint
        ) as ief:
            return len(await ief.iter_pods(fake.deployment_ids).collect())

    with FakeIef(pods=50) as fake:
        assert 50 == asyncio.run(read(fake))
        assert 3 == len(fake.insert(3))
        assert 53 == asyncio.run(read(fake))
        assert 50 == len(fake.survivors())
        assert 53 == len(fake.pod_ids())

    assert threads == threading.active_count()
    with pytest.raises(RuntimeError, match="isn't running"):
        _ = fake.endpoint


def test_changes_wait_for_the_server_to_be_idle():
    """A method that reads or changes the fleet runs in the server's thread, if it has one."""
    with FakeIef(pods=5) as fake:
        inside = set()
        fake._fleet.mark = lambda: inside.add(threading.current_thread().name)
        fake.mark()

    assert {"FakeIef"} == inside


async def test_environment_leads_to_the_fake(fake_ief, monkeypatch):
    """The variables of `FakeIef.environment` are all that a session needs."""
    for name, value in fake_ief.environment().items():
        monkeypatch.setenv(name, value)

    async with IefSession.from_env() as ief:
        assert len(fake_ief.pods) == len(await ief.iter_pods(fake_ief.deployment_ids).collect())
