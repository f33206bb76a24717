"""`FakeResolver`: names that are found, and names that are not."""

import socket

import aiohttp
import pytest
from fake_client import target

from ief_async.testing import FakeIef, FakeResolver

pytestmark = pytest.mark.once  # of the fake server, which no interpreter changes

LATER = socket.gaierror(socket.EAI_AGAIN, "try again")
NEVER = socket.gaierror(socket.EAI_NONAME, "no such name")


async def test_failures_come_first_and_in_order():
    """The first lookups raise what was given, one each; the others lead to loopback."""
    resolver = FakeResolver(LATER)
    resolver.fail(NEVER)
    for failure in (LATER, NEVER):
        with pytest.raises(socket.gaierror) as caught:
            await resolver.resolve("ief.example.com", 80)
        assert caught.value is failure
    (found,) = await resolver.resolve("ief.example.com", 80)
    assert (found["hostname"], found["host"], found["port"]) == ("ief.example.com", "127.0.0.1", 80)
    assert resolver.asked == [80] * 3


async def test_failures_of_one_port():
    """A failure for one port is raised by lookups for that port alone, before the others."""
    resolver = FakeResolver(LATER)
    resolver.fail(NEVER, port=443)
    for port, failure in ((443, NEVER), (443, LATER)):
        with pytest.raises(socket.gaierror) as caught:
            await resolver.resolve("ief.example.com", port)
        assert caught.value is failure
    resolver.fail(NEVER, port=443)
    assert await resolver.resolve("ief.example.com", 80)


async def test_any_name_leads_to_the_fake():
    """A connector with this resolver reaches a fake under any host name."""
    async with FakeIef() as fake:
        url = fake.endpoint.replace("127.0.0.1", "ief.example.com") + target(fake)
        connector = aiohttp.TCPConnector(resolver=FakeResolver())
        headers = {"X-Auth-Token": fake.token}
        async with (
            aiohttp.ClientSession(connector=connector, headers=headers) as http,
            http.get(url) as answer,
        ):
            assert answer.status == 200
