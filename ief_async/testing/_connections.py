"""Connections of the fake server: counted, and able to end in every way that TCP knows."""

import asyncio
import contextlib
import math
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Literal, get_args

from aiohttp import web

from ief_async.testing._faults import Fault

Forgotten = Literal["silent", "reset", "closed"]

# Far above the gateway's limits, so that a long line meets those and not aiohttp's.
_PARSER_LIMIT = 128 << 10
_DELIVERY_SECONDS = 0.02
_TURNS_TO_ACCEPT = 3
_TURNS_TO_CLOSE = 1000  # of the event loop; five are enough


class Connections(web.Server):
    """aiohttp's server, which also counts its connections and forgets them."""

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], opened: int
    ) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,  # a request ends when its client leaves
            access_log=None,
            max_line_size=_PARSER_LIMIT,
            max_field_size=_PARSER_LIMIT,
        )
        self.opened = opened
        self.open: dict[object, tuple[int, asyncio.Transport]] = {}
        self._last_forgotten = 0
        self._how_forgotten: Forgotten = "silent"

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        self.opened += 1
        self.open[handler] = (self.opened, transport)
        super().connection_made(handler, transport)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        self.open.pop(handler, None)
        super().connection_lost(handler, exc)

    def of(self, request: web.BaseRequest) -> tuple[int, asyncio.Transport]:
        """Return the number and the transport of a request's connection."""
        if request.protocol not in self.open:
            raise asyncio.CancelledError  # the client has left, so the answer has no reader
        return self.open[request.protocol]

    def forget_all(self, how: Forgotten) -> None:
        """Let all open connections be dead from now on."""
        self._last_forgotten, self._how_forgotten = self.opened, how

    def is_forgotten(self, number: int) -> bool:
        """Return whether the connection of this number is dead."""
        return number <= self._last_forgotten

    async def end_forgotten(self, transport: asyncio.Transport) -> web.StreamResponse:
        """End a dead connection that has brought a request."""
        if self._how_forgotten == "silent":
            await pause(math.inf)
        elif self._how_forgotten == "reset":
            await _reset(transport, answered=False)
        return AlreadySent(reusable=False)

    async def close(self) -> None:
        """Close all connections, and wait for their tasks, which have been cancelled."""
        for _, transport in self.open.values():
            transport.abort()
        for _ in range(_TURNS_TO_CLOSE):
            if not self.connections:
                break
            await asyncio.sleep(0)


def check_forgotten(how: str) -> None:
    """Raise a ValueError unless this is a way to forget connections."""
    if how not in get_args(Forgotten):
        msg = f"how must be one of {', '.join(map(repr, get_args(Forgotten)))}, got {how!r}"
        raise ValueError(msg)


class AlreadySent(web.StreamResponse):
    """Tells aiohttp that the answer has been sent."""

    def __init__(self, *, reusable: bool) -> None:
        super().__init__()
        self._reusable = reusable

    @property
    def keep_alive(self) -> bool:
        return self._reusable

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send nothing."""


async def pause(seconds: float) -> None:
    """Wait; an infinite pause ends with the connection."""
    if math.isinf(seconds):
        await asyncio.Event().wait()
    await asyncio.sleep(seconds)


async def send(transport: asyncio.Transport, head: bytes, body: bytes, fault: Fault) -> None:
    """Send an answer as fast as the fault says, and reset the connection if it says so."""
    if fault.trickle == "head":
        await _trickle(transport, head + body, fault.interval)
    elif fault.trickle == "body":
        transport.write(head)
        await _trickle(transport, body, fault.interval)
    elif head or body:
        # Joined only where needed; an empty part would never leave the buffer (Python 3.12).
        transport.writelines([part for part in (head, body) if part])
    if fault.end == "reset":
        await _reset(transport, answered=bool(head or body))


async def _trickle(transport: asyncio.Transport, data: bytes, interval: float) -> None:
    for at in range(len(data)):
        transport.write(data[at : at + 1])
        await asyncio.sleep(interval)


async def _reset(transport: asyncio.Transport, *, answered: bool) -> None:
    while transport.get_write_buffer_size():  # noqa: ASYNC110 - no event says when it is empty
        await asyncio.sleep(0.001)
    if answered:  # a reset discards what the kernel hasn't delivered yet
        await asyncio.sleep(_DELIVERY_SECONDS)
    transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    transport.abort()


async def close_listener(listener: asyncio.Server) -> None:
    """Stop listening, once connections that have been accepted exist."""
    loop = asyncio.get_running_loop()
    # A connection that has been accepted but not yet made when its listener closes would leak.
    with contextlib.suppress(NotImplementedError):
        for listening in listener.sockets:
            loop.remove_reader(listening.fileno())
    for _ in range(_TURNS_TO_ACCEPT):
        await asyncio.sleep(0)
    listener.close()
