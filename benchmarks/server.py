"""The server of the benchmarks: a process of its own that sends answers from memory.

`serving` starts it. It asks a `FakeIef` for each answer once, and sends the same bytes from then
on, so that a page costs the server next to nothing whatever is in it. (It keeps `KEPT` bytes, and
asks again for what is beyond.) It checks neither tokens nor signatures, answers for any project,
and closes no connection.

The pods are small (the documented example) or large (every field that is known); each has an id and
a name of its own. Or they are varied: those that a `FakeIef` makes, which are made when they are
asked for, so that there may be any number.
"""

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import aiohttp
import attrs
from yarl import URL

from ief_async.testing import FakeIef

SAMPLES = Path(__file__).parents[1] / "tests" / "samples"
DEPLOYMENTS = 20  # a twentieth of the fleet is one deployment; all of them are one batch
KEPT = 1 << 29
Pods = Literal["small", "large", "varied"]


@attrs.frozen(kw_only=True)
class Fleet:
    """Where the server is, what it serves, and what opens it."""

    endpoint: str
    project_id: str
    token: str
    access_key: str
    secret_key: str
    deployment_ids: list[str]
    pods: int

    @property
    def pods_url(self) -> str:
        """Where the list of pods is."""
        return f"{self.endpoint}/v3/{self.project_id}/edgemgr/pods"

    def query(self, size: int, offset: int) -> dict[str, str | int]:
        """Return what asks for one page of the whole fleet."""
        ids = ",".join(self.deployment_ids)
        return {"deployment_ids": ids, "limit": size, "offset": offset}


def example(kind: Literal["small", "large"]) -> dict[str, Any]:
    """Return the pod that all pods of a fleet are copies of."""
    if kind == "small":
        pod: dict[str, Any] = json.loads((SAMPLES / "list_pods.200.json").read_bytes())["pods"][0]
        return pod
    return dict(json.loads((SAMPLES / "pod.full.json").read_bytes()))


def copies(pods: int, deployments: int, kind: Literal["small", "large"]) -> list[dict[str, Any]]:
    """Return so many pods, each with an id and a name of its own."""
    one = example(kind)
    rows = [one | {"id": f"{at:08d}{one['id'][8:]}", "name": f"app-{at}"} for at in range(pods)]
    for at, row in enumerate(rows):
        row["deployment_id"] = f"{at % deployments:08d}-0000-4000-8000-000000000000"
    return rows


class _Answers:
    """The answers of a fake server, each made once."""

    def __init__(self, fake: FakeIef, http: aiohttp.ClientSession) -> None:
        self._fake = fake
        self._http = http
        self._project = fake.project_id.encode()
        self._kept = 0
        self.made: dict[bytes, bytes] = {}

    def of_project(self, target: bytes) -> bytes:
        """Return the same request, for the project that the fake server knows."""
        _, version, _, rest = target.split(b"/", 3)
        return b"/".join((b"", version, self._project, rest))

    async def make(self, target: bytes) -> bytes:
        url = URL(self._fake.endpoint + target.decode(), encoded=True)
        async with self._http.get(url, headers={"X-Auth-Token": self._fake.token or ""}) as answer:
            body = await answer.read()
        head = (
            f"HTTP/1.1 {answer.status} {answer.reason}\r\nContent-Type: application/json\r\n"
            f"X-Request-Id: {answer.headers['X-Request-Id']}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        made = head.encode() + body
        self._kept += len(made)
        if self._kept < KEPT:
            self.made[target] = made
        return made


class _Connection(asyncio.Protocol):
    """One connection; a client sends its next request when it has the answer to the last."""

    def __init__(self, answers: _Answers, latency: float) -> None:
        self._answers = answers
        self._latency = latency
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._head += data
        if not self._head.endswith(b"\r\n\r\n"):
            return
        target, self._head = self._answers.of_project(self._head.split(b" ", 2)[1]), b""
        made = self._answers.made.get(target)
        loop = asyncio.get_running_loop()
        if made is None:
            self._making = loop.create_task(self._make(target))
        elif self._latency:
            loop.call_later(self._latency, self._transport.write, made)
        else:
            self._transport.write(made)

    async def _make(self, target: bytes) -> None:
        made, _ = await asyncio.gather(self._answers.make(target), asyncio.sleep(self._latency))
        self._transport.write(made)


@contextlib.contextmanager
def serving(
    pods: int, *, latency: float = 0.0, deployments: int = DEPLOYMENTS, kind: Pods = "small"
) -> Iterator[Fleet]:
    """Run a server with so many pods; it ends with the block."""
    command = [sys.executable, __file__, str(pods), str(deployments), str(latency), kind]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield Fleet(**json.loads(server.stdout.readline()))
        finally:
            server.stdin.close()


async def serve(pods: int, deployments: int, latency: float, kind: Pods) -> None:
    """Serve until standard input is closed."""
    loop = asyncio.get_running_loop()
    fake = FakeIef(
        pods if kind == "varied" else copies(pods, deployments, kind), deployments=deployments
    )
    async with fake, aiohttp.ClientSession() as http:
        answers = _Answers(fake, http)
        server = await loop.create_server(lambda: _Connection(answers, latency), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        fleet = Fleet(
            endpoint=f"http://127.0.0.1:{port}",
            project_id=fake.project_id,
            token=fake.token or "",
            access_key=fake.access_key,
            secret_key=fake.secret_key,
            deployment_ids=list(fake.deployment_ids),
            pods=pods,
        )
        print(json.dumps(attrs.asdict(fleet)), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("pods", type=int)
    parser.add_argument("deployments", type=int)
    parser.add_argument("latency", type=float)
    parser.add_argument("kind", choices=get_args(Pods))
    given = parser.parse_args()
    asyncio.run(serve(given.pods, given.deployments, given.latency, given.kind))
