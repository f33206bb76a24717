"""The connections of a session: its own pool, or a borrowed one."""

import asyncio
import os
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import aiohttp
from yarl import URL

from ief_async._errors import ConfigurationError
from ief_async._http.limiter import SharedSlots
from ief_async._http.proxies import Proxy, check_proxy, proxy_of_environment

HttpSession = aiohttp.ClientSession

USER_AGENT = "ief-async"


class _Connector(aiohttp.TCPConnector):
    """Has at most so many connections open: for a new one it closes one that is idle.

    aiohttp's own limit does not count those that are idle. Nothing waits here either.
    """

    def __init__(self, most: int) -> None:
        super().__init__(limit=0)
        self._most = most

    async def _create_connection(self, *args: Any) -> Any:
        over = len(self._acquired) + sum(map(len, self._conns.values())) - self._most
        for _number in range(over):
            if self._conns:
                idle_longest = min(self._conns, key=lambda key: self._conns[key][0][1])
                protocol, _ = self._conns[idle_longest].popleft()
                if not self._conns[idle_longest]:
                    del self._conns[idle_longest]
                protocol.abort()  # to close TLS in good order would take the server's answer
                await asyncio.sleep(0)  # its socket is closed then
        return await super()._create_connection(*args)


class Connections:
    """aiohttp's session, owned or borrowed, bound to the loop and process of its first use.

    Args:
        http: the session to borrow.
        proxy: the proxy on the way.
        most: requests in flight, and connections, of all sessions that share this; None is no
            limit besides their own.
    """

    def __init__(
        self, http: HttpSession | None, proxy: str | None = None, *, most: int | None = None
    ) -> None:
        self._owned: HttpSession | None = None
        if http is not None and not isinstance(http, HttpSession):
            message = f"http must be an aiohttp.ClientSession, got {type(http).__name__}"
            raise ConfigurationError(message)
        if http is not None and proxy is not None:
            message = "proxy= can't be combined with http=: set the proxy on the aiohttp session"
            raise ConfigurationError(message)
        if http is not None and http.trust_env:
            warnings.warn(
                "the aiohttp session of http= has trust_env on: its proxies are used for https "
                "only, and a netrc file is ignored",
                UserWarning,
                stacklevel=3,
            )
        self._proxy = None if proxy is None else check_proxy("proxy", proxy)
        self._proxies: dict[tuple[str, int], Proxy | None] | None = None  # of the environment
        self._borrowed = http
        self._most = most
        self.shared = None if most is None else SharedSlots(self.places(most))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self.closed: bool = False
        self._large_answers = asyncio.Lock()

    def session(self) -> HttpSession:
        """Return the aiohttp session; it is bound to this event loop and process from now on.

        Raises:
            ConfigurationError: it is closed, or was used in another event loop or process.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop, self._process = loop, os.getpid()
        self._check_place(loop)
        if self._borrowed is not None:
            return self._borrowed
        if self._owned is None:
            self._owned = aiohttp.ClientSession(
                # no limit of its own: a request that waits in the pool uses up its time-out
                connector=aiohttp.TCPConnector(limit=0)
                if self._most is None
                else _Connector(self._most),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._owned

    def trust_environment(self, urls: Iterable[str]) -> None:
        """Use the proxies of the environment from now on.

        Raises:
            ConfigurationError: the proxy for one of these URLs can't be used.
        """
        self._proxies = {}
        for url in urls:
            self.proxy_for(URL(url))

    def proxy_for(self, url: URL) -> Proxy | None:
        """Return the proxy for a URL, or None: plain http never goes through one."""
        if url.scheme != "https" or self._proxies is None:
            return self._proxy if url.scheme == "https" else None
        place = (url.raw_host or "", url.port or 0)
        if place not in self._proxies:
            self._proxies[place] = proxy_of_environment(*place)
        return self._proxies[place]

    def _check_place(self, loop: asyncio.AbstractEventLoop) -> None:
        problem = None
        if self.closed or (self._borrowed is not None and self._borrowed.closed):
            problem = "the session is closed: make a new IefSession"
        elif self._process != os.getpid():
            problem = "the session was first used before this process was forked: make one here"
        elif self._loop is not loop:
            problem = "the session belongs to another event loop: make one IefSession per loop"
        if problem is not None:
            raise ConfigurationError(problem)

    def places(self, wanted: int) -> int:
        """Return how many requests may run at once: `wanted`, or fewer in a smaller borrowed pool.

        A request that waits in a pool would use up its time-out there.
        """
        connector = self._borrowed.connector if self._borrowed is not None else None
        pools = (connector.limit, connector.limit_per_host) if connector is not None else ()
        return min([wanted, *(places for places in pools if places)])

    async def let_others_run(self) -> None:
        """Give other tasks a turn of the event loop between two large answers.

        To parse one takes a millisecond: sixteen in a row would keep the loop for sixteen.
        """
        async with self._large_answers:
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Close an aiohttp session of one's own; a borrowed one stays open."""
        self.closed = True
        if self._owned is not None:
            await self._owned.close()

    def __del__(self) -> None:
        if self._owned is not None and not self._owned.closed:
            self.discard()  # first, as a warning may be made an error
            warnings.warn(
                "an IefSession was never closed: use `async with`, or await its aclose()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    def abandon(self) -> None:
        """Close an aiohttp session of one's own from wherever the garbage collector runs."""
        if self.closed or self._loop is None or self._loop.is_closed():
            self.discard()
        else:
            self._loop.call_soon_threadsafe(self.discard)

    def discard(self) -> None:
        """Close an aiohttp session of one's own without waiting for anything."""
        self.closed = True
        connector = self._owned.connector if self._owned is not None else None
        if self._owned is not None and not self._owned.closed:
            self._owned.detach()  # else aiohttp would warn, too, and write a log line at exit
        if connector is not None and not sys.is_finalizing():  # warnings may be gone by then
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # it can't be awaited here
                aiohttp.BaseConnector.close(connector)
