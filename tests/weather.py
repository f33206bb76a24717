"""What stands between a client and a service: resolvers, TLS, proxies. Real sockets on loopback."""

import asyncio
import base64
import contextlib
import ssl
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

CERTIFICATE = Path(__file__).parent / "samples/other_invalid.pem"  # of itself, for HOST
HOST = "other.invalid"


@asynccontextmanager
async def serving(handle, **options):
    """Run a server on loopback; `handle(reader, writer)` is called once for each connection."""
    tasks = set()

    async def accepted(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def relay(reader, writer, port):
    """Pass all bytes on to a server on loopback, and back."""
    there, back = await asyncio.open_connection("127.0.0.1", port)

    async def pump(source, sink):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        sink.close()

    try:
        await asyncio.gather(pump(reader, back), pump(there, writer))
    finally:
        back.close()


def port_of(fake):
    """Return the port of a fake server."""
    return urlsplit(fake.endpoint).port


@asynccontextmanager
async def tls_in_front_of(fake, *, failures=()):
    """Speak TLS for a fake server, as `HOST`; the first connections fail as told.

    ``"nonsense"`` is no TLS at all, ``"name"`` the handshake of a server that knows no such host.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    failures = list(failures)

    async def handle(reader, writer):
        if failures:
            failures.pop()
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            return
        await writer.start_tls(context)
        await relay(reader, writer, port_of(fake))

    async with serving(handle) as port:
        yield port


def trusting(**options):
    """Return a connector that trusts the certificate under any name."""
    context = ssl.create_default_context(cafile=CERTIFICATE)
    context.check_hostname = False
    return aiohttp.TCPConnector(ssl=context, **options)


class ConnectProxy:
    """A proxy that tunnels, and notes what it sees; every name leads to one port on loopback."""

    def __init__(self, port, *, password=None, refusal=None):
        self.asked = []  # the first line of each request, and its headers
        self.seen = bytearray()  # all that was sent through it
        self._port = port
        self._password = password
        self._refusal = refusal

    async def __call__(self, reader, writer):
        """Serve one connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.asked.append((head[0], head[1:]))
        basic = self._password and base64.b64encode(self._password.encode()).decode()
        if basic and f"Proxy-Authorization: Basic {basic}" not in head:
            sent = next((line for line in head if line.startswith("Proxy-Auth")), "nothing")
            writer.write(f"HTTP/1.1 407 not by {sent}\r\n\r\n".encode())
        elif self._refusal is not None:
            writer.write(f"HTTP/1.1 {self._refusal}\r\n\r\n".encode())
        elif not head[0].startswith("CONNECT "):
            writer.write(b"HTTP/1.1 501 only CONNECT\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 go ahead\r\n\r\n")
            await relay(_Noting(reader, self.seen), writer, self._port)
        await writer.drain()


class _Noting:
    """Reads, and notes what was read."""

    def __init__(self, reader, seen):
        self._reader = reader
        self._seen = seen

    async def read(self, number):
        """Return some bytes."""
        data = await self._reader.read(number)
        self._seen += data
        return data
