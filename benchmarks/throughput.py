"""How fast `iter_pods` is, side by side with loops that are written by hand.

Measured, against a `FakeIef` in a process of its own, on loopback:

* time per pod of four ways to read the same fleet, from the opening of the session to its end, in
  interleaved rounds, and the ratios of the medians;
* the wall time of a scan with 100 ms latency, against the least that latency allows;
* how long the event loop is kept from other tasks while pages are decoded;
* how much more memory a scan takes that is twenty times as long.

Every way checks its own result: each pod once. A wrong result ends the run; a slow one never does.

Not measured: a real network, TLS, compression, retries, the time of imports, and how much of the
machine the server takes: it has to be given a core of its own.
"""

import argparse
import asyncio
import contextlib
import gc
import importlib.metadata
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import aiohttp
import attrs
import cattrs
import orjson

from ief_async import IefSession, Limits, Pod, Token
from ief_async.testing import FakeIef

PAGE_SIZES = (1_000, 100)
IN_FLIGHT = 8
DEPLOYMENTS = 20
LATENCY = 0.1
LATENCY_IN_FLIGHT = 16
PING = 0.001
MEBIBYTE = 1 << 20
LEAST_ROUNDS = 5


@attrs.frozen(kw_only=True)
class FiveFields:
    """What a consumer asks for who needs little of a pod."""

    id: str
    name: str | None = None
    state: str | None = None
    node_id: str | None = None
    deployment_id: str | None = None


@attrs.frozen(kw_only=True)
class Fleet:
    """Where a fake server is, and what it serves."""

    endpoint: str
    project_id: str
    token: str
    deployment_ids: list[str]
    pods: int


@attrs.frozen(kw_only=True)
class Scale:
    """How much is measured."""

    pods: int
    rounds: int
    latency_pages: int = 200
    long_scan: int = 120_000


@attrs.frozen(kw_only=True)
class Figure:
    """A measured number and the numbers that it should reach; None where none is set."""

    name: str
    value: float
    better: Literal[">=", "<="]
    asked: float | None = None
    aim: float | None = None

    def verdict(self, goal: float | None) -> str:
        if goal is None:
            return f"{'-':>9} {'':7}"
        met = self.value >= goal if self.better == ">=" else self.value <= goal
        return f"{self.better} {goal:6.2f} {'met' if met else 'not met':7}"


# --- the server, in its own process ---------------------------------------------------------------


@contextlib.contextmanager
def serving(pods: int, latency: float = 0.0) -> Iterator[Fleet]:
    command = [sys.executable, __file__, "serve", str(pods), str(latency)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield Fleet(**json.loads(server.stdout.readline()))
        finally:
            server.stdin.close()


async def serve(pods: int, latency: float) -> None:
    async with FakeIef(pods=pods, deployments=DEPLOYMENTS, latency=latency) as fake:
        fleet = Fleet(
            endpoint=fake.endpoint,
            project_id=fake.project_id,
            token=str(fake.token),
            deployment_ids=list(fake.deployment_ids),
            pods=pods,
        )
        print(json.dumps(attrs.asdict(fleet)), flush=True)
        await asyncio.to_thread(sys.stdin.read)


# --- the ways to read a fleet ---------------------------------------------------------------------


async def pages(fleet: Fleet, size: int) -> AsyncIterator[list[dict[str, Any]]]:
    """Read pages in their order with aiohttp and orjson, as one writes it by hand."""
    url = f"{fleet.endpoint}/v3/{fleet.project_id}/edgemgr/pods"
    ids = ",".join(fleet.deployment_ids)
    headers = {"X-Auth-Token": fleet.token}
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as http:

        async def fetch(offset: int) -> bytes:
            query = {"deployment_ids": ids, "limit": size, "offset": offset}
            async with http.get(url, params=query) as answer:
                return await answer.read()

        first = orjson.loads(await fetch(0))
        tasks = (asyncio.create_task(fetch(at)) for at in range(size, first["count"], size))
        pending = deque(itertools.islice(tasks, IN_FLIGHT))
        yield first["pods"]
        while pending:
            body = await pending.popleft()
            pending.extend(itertools.islice(tasks, 1))
            yield orjson.loads(body)["pods"]


if __name__ == "__main__" and sys.argv[1:2] == ["serve"]:
    asyncio.run(serve(int(sys.argv[2]), float(sys.argv[3])))
