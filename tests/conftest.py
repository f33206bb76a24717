"""What several test files share: a clock that a test moves, and a session with a fake server."""

import asyncio
import os
import socket
import time

import pytest

from ief_async import IefSession, Token
from ief_async._pacing import Clock


class FakeClock:
    """Time as a test wants it: a sleep moves it at once, is noted, and yields to the loop.

    While `held`, sleepers stay asleep until `release` is called.
    """

    def __init__(self):
        self.time = 1_000.0
        self.epoch = 1_800_000_000.0
        self.sleeps = []
        self._awake = asyncio.Event()
        self._awake.set()
        self.clock = Clock(
            now=lambda: self.time,
            wall=lambda: self.epoch + self.time,
            sleep=self._sleep,
            jitter=lambda ceiling: ceiling,
        )

    async def _sleep(self, seconds):
        self.sleeps.append(round(seconds, 6))
        until = self.time + seconds
        await self._awake.wait()
        self.time = max(self.time, until)
        await asyncio.sleep(0)

    def hold(self):
        """Let time stand still."""
        self._awake.clear()

    def release(self):
        """Let it run again."""
        self._awake.set()


def session_with(fake, **options):
    """Return a session with this fake server, with other options than its own if they are given."""
    options = {"credentials": Token(fake.token), "endpoint": fake.endpoint, **options}
    return IefSession(fake.project_id, **options)


@pytest.fixture(scope="session", autouse=True)
def _nobodys_home(tmp_path_factory):
    """Hide this machine's own settings of the official SDK and its proxies: tests go elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("HUAWEICLOUD_") or name.lower().endswith("_proxy"):
                patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("USERPROFILE", os.environ["HOME"])
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_address_is_known_for_invalid_names():
    """Answer lookups of .invalid names at once, as the standard has it: without a network, too."""
    looked_up = socket.getaddrinfo

    def look_up(host, *args, **kwargs):
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return looked_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        yield


@pytest.fixture
def zone(request):
    """Put this process into a time zone, where that can be done."""
    if not hasattr(time, "tzset"):
        pytest.skip("the zone of a process can't be set here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def fake_clock():
    """Give a clock on which no test waits."""
    return FakeClock()
