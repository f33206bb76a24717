"""A client of the fake that shares nothing with ours: aiohttp, and raw sockets."""

import asyncio
import contextlib
import json
from urllib.parse import quote

import aiohttp


def target(fake, **query):
    """The path and query of a list call, by default of the fake's first deployment."""
    query = query or {"deployment_id": fake.deployment_ids[0]}
    text = "&".join(f"{name}={quote(str(value))}" for name, value in query.items())
    return f"/v3/{fake.project_id}/edgemgr/pods?{text}"


async def ask(fake, path=None, *, method="GET", headers=None, **query):
    """One request through aiohttp's client: status, headers, JSON (or bytes that aren't JSON)."""
    headers = {"X-Auth-Token": fake.token or ""} if headers is None else headers
    url = fake.endpoint + (path or target(fake, **query))
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, url, headers=headers, allow_redirects=False) as answer,
    ):
        body = await answer.read()
        with contextlib.suppress(ValueError):
            body = json.loads(body)
        return answer.status, answer.headers, body


async def connect(fake):
    """A raw connection."""
    return await asyncio.open_connection(*fake.endpoint.removeprefix("http://").split(":"))


def request_bytes(fake, **query):
    """A request in bytes, as it is sent."""
    lines = f"GET {target(fake, **query)} HTTP/1.1", "Host: x", f"X-Auth-Token: {fake.token}"
    return "\r\n".join([*lines, "", ""]).encode()


async def wire(fake, **query):
    """All bytes that one request on a connection of its own brings, up to the connection's end."""
    reader, writer = await connect(fake)
    writer.write(request_bytes(fake, **query))
    try:
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()


async def one_answer(reader):
    """Head and body of one answer with a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


async def settled(condition):
    """Wait until something is so; fail when it is not after half a minute."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the server offers no event, on purpose
            await asyncio.sleep(0.002)


async def rows(fake, offset=0, limit=1000, **query):
    """One page of the whole fleet, or of a query: its ids, and its count ("none" if left out)."""
    query = query or {"deployment_ids": ",".join(fake.deployment_ids)}
    status, _, body = await ask(fake, **query, offset=offset, limit=limit)
    assert status == 200, body
    return tuple(pod["id"] for pod in body["pods"]), body.get("count", "none")
